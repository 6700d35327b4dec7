"""The command line's entry: every command is found, and none costs what another needs."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import anyio
import pytest
from typer.testing import CliRunner

from servepath.cli.app import COMMANDS, app
from tests.unit.modelcar.helpers import write_base, write_model

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = ("numpy", "lightkube", "jinja2", "servepath.e2e")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_of_its_own(name: str) -> None:
    said = CliRunner().invoke(app, [name, "--help"])
    assert said.exit_code == 0, said.output
    assert f"servepath {name}" in said.output


def test_the_help_lists_every_command_in_order() -> None:
    lines = CliRunner().invoke(app, ["--help"]).output.partition("Commands:")[2].splitlines()
    named = [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "]
    assert named == list(COMMANDS)


def test_a_name_that_is_none_is_a_usage_error() -> None:
    said = CliRunner().invoke(app, ["modlecar"])
    assert said.exit_code == 2
    assert "modlecar" in said.output


def imported_by(arguments: list[str]) -> set[str]:
    code = (
        "import sys; from typer.testing import CliRunner; from servepath.cli.app import app; "
        f"CliRunner().invoke(app, {arguments!r}); print('\\n'.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.splitlines())


def test_a_modelcar_is_built_without_what_takes_long_to_import(tmp_path: Path) -> None:
    base = anyio.run(write_base, tmp_path / "base")
    model = write_model(tmp_path / "model")
    (model / "README.md").unlink()  # its front matter needs a YAML parser
    arguments = ["modelcar", f"--source={model}", f"--layout={tmp_path / 'out'}", f"--base-image={base}"]
    imported = imported_by(arguments)
    assert (tmp_path / "out" / "index.json").is_file()
    assert imported.isdisjoint(("rich", "httpx", "pydantic", "yaml", *HEAVY))


def test_a_push_imports_no_statistics_and_no_kubernetes_client() -> None:
    assert imported_by(["modelcar", "--help"]).isdisjoint(HEAVY)
    assert imported_by(["e2e", "--help"]).issuperset(HEAVY)


def test_a_push_compiles_hardly_any_data_class_and_reads_no_metadata() -> None:
    """Each is compiled from text at every start, in 0.45 ms: those alone that callers make and replace."""
    code = (
        "import sys; import servepath.cli.modelcar; "
        "ours = [module for name, module in sys.modules.items() if name.startswith('servepath.')]; "
        "found = {one for module in ours for one in vars(module).values() if isinstance(one, type)}; "
        "print(*sorted(one.__name__ for one in found if '__dataclass_fields__' in vars(one))); "
        "print('importlib.metadata' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    classes, has_metadata = done.stdout.splitlines()
    assert "BuildOptions" in classes.split()
    assert len(classes.split()) <= 12
    assert has_metadata == "False"
