"""What a change rebuilds on a real engine, and what is never answered from its cache."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.conftest import Dagger

WORKBENCH_IS_BUILT = "(from file:///servepath)"
"""What uv prints when it installs the library into the workbench; a cached layer prints nothing."""
KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {}}]
"""


def changed(dagger: Dagger, directory: Path, file: str) -> Dagger:
    """A copy of the module in which one file has one more line."""
    ignored = shutil.ignore_patterns(".git", ".venv", ".uv", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(dagger.module, directory, ignore=ignored)
    with (directory / file).open("a") as text:
        text.write(f"# {directory}\n")
    return replace(dagger, module=directory)


def builds(dagger: Dagger, model: Path) -> bool:
    """Whether a call builds the workbench."""
    done = dagger.run("call", "modelcar", f"--source={model}", "digest")
    assert done.returncode == 0, done.stderr
    return WORKBENCH_IS_BUILT in done.stderr


def test_a_readme_rebuilds_nothing_and_the_library_does(dagger: Dagger, model: Path, tmp_path: Path) -> None:
    builds(dagger, model)
    assert not builds(changed(dagger, tmp_path / "readme", "README.md"), model)
    assert not builds(changed(dagger, tmp_path / "wiring", "src/main/endpoint.py"), model)
    assert builds(changed(dagger, tmp_path / "library", "src/servepath/errors.py"), model)


def test_a_changed_model_changes_its_own_layer_alone(dagger: Dagger, model: Path, next_model: Path) -> None:
    before, after = (
        dagger.call("modelcar", f"--source={directory}", "layers").splitlines() for directory in (model, next_model)
    )
    assert len(before) == len(after)
    assert sum(old != new for old, new in zip(before, after, strict=True)) == 1


def test_a_live_system_is_looked_at_each_time(dagger: Dagger, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(KUBECONFIG)
    cluster = [f"--kubeconfig=file:{kubeconfig}", "--registry=localhost:5000", "--gateway-url=http://127.0.0.1:1"]
    for index in range(2):
        target = tmp_path / f"diagnostics-{index}"
        done = dagger.run("call", "cluster-from", *cluster, "diagnostics", "export", f"--path={target}")
        assert done.returncode == 0, done.stderr
        assert "next: kubectl" in done.stderr, done.stderr  # printed by the command, so it has run
