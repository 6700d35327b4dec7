"""`servepath verify` and `servepath copy` against a real registry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import anyio
import pytest

from tests.unit.modelcar.helpers import write_base
from tests.unit.modelcar.registries import running_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.cli.conftest import Servepath


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture
def base(tmp_path: Path) -> str:
    return anyio.run(write_base, tmp_path / "base")


def pushed(servepath: Servepath, model: Path, base: str, registry: str, *more: str) -> str:
    arguments = ["--source", str(model), "--push", f"{registry}/cli/tiny", "--base-image", base, "--json", *more]
    done = servepath("modelcar", *arguments)
    assert done.returncode == 0, done.stderr
    reference: str = json.loads(done.stdout)["reference"]
    return reference


def test_a_modelcar_is_verified_copied_and_verified_there(
    servepath: Servepath, model: Path, base: str, registry: str
) -> None:
    reference = pushed(servepath, model, base, registry)
    done = servepath("verify", reference)
    assert done.returncode == 0, done.stderr
    assert "modelcar-safetensors" in done.stderr
    copied = servepath("copy", reference, f"{registry}/cli/copy", "--tag", "v1", "--json")
    assert copied.returncode == 0, copied.stderr
    result = json.loads(copied.stdout)
    assert result["reference"] == reference.replace("cli/tiny", "cli/copy")
    checked = servepath("verify", result["reference"], "--content", "--json")
    assert checked.returncode == 0, checked.stderr
    assert {check["verdict"] for check in json.loads(checked.stdout)} <= {"pass", "skip"}
    again = servepath("copy", reference, f"{registry}/cli/copy")
    assert "0.0 MB" in again.stdout


def test_a_missing_sbom_fails_if_it_is_required(servepath: Servepath, model: Path, base: str, registry: str) -> None:
    (model / "notes.txt").write_text("another digest")
    reference = pushed(servepath, model, base, registry, "--no-attest")
    assert servepath("verify", reference).returncode == 0
    required = servepath("verify", reference, "--require", "sbom")
    assert required.returncode == 6
    assert "nothing of type application/spdx+json" in required.stderr
    attested = pushed(servepath, model, base, registry)
    assert attested == reference
    assert servepath("verify", reference, "--require", "sbom", "--require", "provenance").returncode == 0


def test_an_image_that_is_not_there_is_an_error_of_the_registry(servepath: Servepath, registry: str) -> None:
    done = servepath("verify", f"{registry}/cli/tiny@sha256:{'0' * 64}")
    assert done.returncode == 4
    assert "404" in done.stderr
