"""The command lines as a user meets them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import pytest

from ci.node.tiny_model import write_tiny_model
from servepath.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


Servepath: TypeAlias = "Callable[..., Ended]"


@pytest.fixture
def servepath(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Servepath:
    """Run the command line as its entry point does."""

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["servepath", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        code = ended.value.code
        return Ended(code if isinstance(code, int) else 0, printed.out, printed.err)

    return run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "tiny"
    write_tiny_model(directory)
    return directory


@pytest.fixture
def kubeconfig(tmp_path: Path, nobody: str) -> Path:
    """A kubeconfig of an API server that does not answer."""
    return write_kubeconfig(tmp_path / "kubeconfig", nobody)


def write_kubeconfig(path: Path, address: str) -> Path:
    """Write a kubeconfig without credentials for `http://address`."""
    cluster = {"name": "c", "cluster": {"server": f"http://{address}"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [cluster],
        "contexts": [context],
        "users": [{"name": "u", "user": {}}],
        "current-context": "x",
    }
    path.write_text(json.dumps(document))
    return path
