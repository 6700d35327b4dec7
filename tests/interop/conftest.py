"""Our images in the hands of programs that we did not write.

`python -m ci.node prepare` installs and builds the programs; without them the tests are skipped, in a holder they fail.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio
import pytest

from ci.node import images
from tests.interop.forms import FORMS, Shipped, ship, write_varied_model
from tests.interop.raw import put_two_platforms
from tests.interop.tools import found, running_containerd
from tests.unit.modelcar.registries import running_crane_registry, running_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def root() -> None:
    """Skip what needs mounts, chroot or other users where this user may not."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture(scope="session")
def skopeo() -> Path:
    return found("skopeo")


@pytest.fixture(scope="session")
def umoci() -> Path:
    return found("umoci")


@pytest.fixture(scope="session")
def crane() -> Path:
    return found("crane")


@pytest.fixture(scope="session")
def oras() -> Path:
    return found("oras")


@pytest.fixture(scope="session")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run a containerd; gives its socket."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with running_containerd(tmp_path_factory.mktemp("containerd")) as socket:
        yield socket


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    found("docker-registry")
    with running_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="session")
def crane_registry(tmp_path_factory: pytest.TempPathFactory, crane: Path) -> Iterator[str]:
    with running_crane_registry(crane, tmp_path_factory.mktemp("crane-registry")) as host:
        yield host


@pytest.fixture(scope="session", params=["docker-registry", "crane"])
def any_registry(request: pytest.FixtureRequest) -> str:
    """Each of the real registries in turn."""
    return str(request.getfixturevalue("registry" if request.param == "docker-registry" else "crane_registry"))


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_varied_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="session")
def base(registry: str) -> str:
    """Push a base with the shell and the commands that KServe's containers call."""
    return anyio.run(images.push, images.busybox(), registry, "base/busybox")


@pytest.fixture(scope="session")
def base_index(base: str) -> str:
    """Put an index over the base and one that says it is for arm64, which nothing here runs."""
    registry, _, rest = base.partition("/")
    repository, _, digest = rest.partition("@")
    return f"{registry}/{repository}@{put_two_platforms(registry, repository, digest)}"


@pytest.fixture(scope="session", params=FORMS)
def shipped(
    request: pytest.FixtureRequest,
    model: Path,
    base_index: str,
    registry: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Shipped:
    """Push the model in each form in which servepath writes images."""
    return anyio.run(ship, request.param, model, base_index, registry, tmp_path_factory.mktemp("shipped"))
