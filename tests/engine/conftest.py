"""`dagger call` on a real engine.

Variables adapt the tests to a machine that cannot pull the pinned images or has no default engine:

- `_EXPERIMENTAL_DAGGER_RUNNER_HOST` is Dagger's own and names a running engine;
- `SERVEPATH_ENGINE_LOCK` names a lock file to use instead of `manifests/lock.yaml`. The tests then run a copy of the
  module with that lock, and with its `python` as the base image of the runtime;
- `SERVEPATH_ENGINE_MIRROR` is `--registry-mirror` of every call;
- `SERVEPATH_ENGINE_MIRROR_LOG` is that registry's access log, in which tests count what was read;
- `SERVEPATH_ENGINE_GATEWAY_CLASS` is the GatewayClass of a new cluster, `agentgateway` by default;
- `SERVEPATH_ENGINE_STATE` is the engine's state directory, which the tests then look through for secrets.

`python -m tests.engine.standin` makes stand-ins for the images, puts them into a registry and writes such a lock.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ci.node.tiny_model import write_tiny_model
from servepath.platform import lock
from tests.engine.access_log import AccessLog

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
REACHABLE_TIMEOUT_S = 300
CALL_TIMEOUT_S = 3600
_QUIET = os.environ | {"DO_NOT_TRACK": "1", "DAGGER_NO_NAG": "1"}
PLAIN = _QUIET | {"DAGGER_PROGRESS": "plain"}
"""What Dagger is run with: it reports to nobody, and its log is text."""
ON_A_TERMINAL = _QUIET | {"DAGGER_PROGRESS": "tty"}
"""For a function that is typed into: with any other progress, which the caller may have set, Dagger opens no shell."""
_NOT_COPIED = (".git", ".venv", ".uv", "__pycache__", ".*_cache", ".hypothesis")


@dataclass(frozen=True)
class Dagger:
    """The command line of Dagger, on this module.

    Attributes:
        module: the module's directory.
        mirror: the registry that every image comes from; upstream when empty.
    """

    module: Path
    mirror: str

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `dagger` on the module, whatever comes of it."""
        return _run(self.command(*arguments), CALL_TIMEOUT_S)

    def command(self, *arguments: str) -> list[str]:
        """The command line that `run` runs, without a choice of how progress is shown."""
        verb, *rest = arguments
        mirror = [f"--registry-mirror={self.mirror}"] if self.mirror and verb == "call" else []
        return ["dagger", verb, f"--mod={self.module}", *mirror, *rest]

    def call(self, *arguments: str) -> str:
        """Run `dagger call`, and give what it printed; fails when it did."""
        done = self.run("call", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark every test of this directory."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.engine)


@pytest.fixture(scope="session")
def dagger(tmp_path_factory: pytest.TempPathFactory) -> Dagger:
    """The command line, with an engine that answers."""
    if shutil.which("dagger") is None:
        pytest.skip("no `dagger` on PATH: https://docs.dagger.io/install")
    done = _run(["dagger", "core", "version"], REACHABLE_TIMEOUT_S)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        pytest.skip(f"no Dagger engine is reachable; `dagger core version` says: {said[-1]}")
    return Dagger(_module(tmp_path_factory), os.environ.get("SERVEPATH_ENGINE_MIRROR", ""))


@pytest.fixture
def mirror_log() -> AccessLog:
    """The access log of the mirror."""
    named = os.environ.get("SERVEPATH_ENGINE_MIRROR_LOG", "")
    if not named:
        pytest.skip("SERVEPATH_ENGINE_MIRROR_LOG does not name the mirror's access log")
    return AccessLog(Path(named))


@pytest.fixture(scope="session")
def gateway_class() -> str:
    """The GatewayClass of a new cluster."""
    return os.environ.get("SERVEPATH_ENGINE_GATEWAY_CLASS", "agentgateway")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(directory)
    return directory


@pytest.fixture(scope="session")
def next_model(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with another card, and so with another digest."""
    directory = tmp_path_factory.mktemp("models") / "next"
    shutil.copytree(model, directory)
    (directory / "README.md").write_text("Another card.\n")
    return directory


def _module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    replacement = os.environ.get("SERVEPATH_ENGINE_LOCK")
    if not replacement:
        return ROOT
    copy = tmp_path_factory.mktemp("copy") / "module"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*_NOT_COPIED))
    shutil.copyfile(replacement, copy / "manifests/lock.yaml")
    # The root of a repository is as far as a module may look: the example's dependency is above it.
    subprocess.run(["git", "init", "--quiet", str(copy)], check=True)
    base = lock.read(Path(replacement)).image("python").reference
    for project in (copy / "pyproject.toml", copy / "examples/python/pyproject.toml"):
        project.write_text(re.sub(r'(?m)^base-image = ".*"$', f'base-image = "{base}"', project.read_text()))
    return copy


def _run(command: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=PLAIN, check=False, capture_output=True, text=True, timeout=timeout_s)
