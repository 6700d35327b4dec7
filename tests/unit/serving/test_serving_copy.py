"""The raw path's init container: the model is copied once, whole or not at all."""

import os
import subprocess
from pathlib import Path

import anyio
import pytest

from servepath.serving.model import ServingPath
from servepath.serving.render import render
from tests.unit.serving.conftest import make_spec

OLD = "sha256:" + "1" * 64
NEW = "sha256:" + "2" * 64


class Volume:
    """The script of the manifests, with its two folders moved below a temporary one."""

    def __init__(self, folder: Path) -> None:
        self.models = folder / "hf" / "models"
        self.image = folder / "models"
        self.image.mkdir()
        (folder / "hf").mkdir()
        (self.image / "weights").write_text("one")
        (self.image / "link").symlink_to("weights")
        objects = anyio.run(render, make_spec(), ServingPath.RAW)
        deployment = next(obj for obj in objects if obj["kind"] == "Deployment")
        command = deployment["spec"]["template"]["spec"]["initContainers"][0]["command"]
        self._command = [
            part.replace("/hf/models", str(self.models)).replace("/models/.", f"{self.image}/.") for part in command
        ]

    def copy(self, digest: str) -> str:
        environment = {"PATH": os.environ["PATH"], "MODELCAR_DIGEST": digest}
        return subprocess.run(self._command, env=environment, check=True, capture_output=True, text=True).stdout

    def kept(self) -> list[str]:
        return sorted(path.name for path in self.models.iterdir())


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path)


def test_copies_once(volume: Volume) -> None:
    assert volume.copy(NEW) == f"copied {NEW}\n"
    assert (volume.models / NEW / "weights").read_text() == "one"
    assert not (volume.models / NEW / "link").is_symlink()
    (volume.image / "weights").write_text("two")
    assert volume.copy(NEW) == ""
    assert (volume.models / NEW / "weights").read_text() == "one"


def test_what_a_killed_copy_left_is_not_taken_for_a_model(volume: Volume) -> None:
    (volume.models / "incoming").mkdir(parents=True)
    (volume.models / "incoming" / "stale").write_text("half")
    assert volume.copy(NEW) == f"copied {NEW}\n"
    assert volume.kept() == [NEW]
    assert not (volume.models / NEW / "stale").exists()


def test_another_digest_replaces_the_one_before(volume: Volume) -> None:
    volume.copy(OLD)
    (volume.image / "weights").write_text("two")
    volume.copy(NEW)
    assert volume.kept() == [NEW]
    assert (volume.models / NEW / "weights").read_text() == "two"


def test_copy_that_fails_leaves_no_model(volume: Volume) -> None:
    (volume.image / "weights").unlink()
    with pytest.raises(subprocess.CalledProcessError):
        volume.copy(NEW)
    assert NEW not in volume.kept()
