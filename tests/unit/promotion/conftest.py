from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servepath.cluster.client import kubernetes
from servepath.cluster.model import Cluster
from tests.unit.cli.conftest import write_kubeconfig
from tests.unit.modelcar.conftest import base, faults, model, options, registry, repository  # noqa: F401 - fixtures
from tests.unit.modelcar.registries import running_registry
from tests.unit.promotion.api_server import World, api_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from lightkube import AsyncClient


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The registry that a modelcar comes from."""
    with running_registry(tmp_path_factory.mktemp("laptop")) as host:
        yield host


@pytest.fixture
def world() -> Iterator[World]:
    with api_server() as running:
        yield running


@pytest.fixture
def cluster(world: World, tmp_path: Path) -> Cluster:
    return Cluster(write_kubeconfig(tmp_path / "kubeconfig", world.address), "registry.test", "http://gateway.test")


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[AsyncClient]:
    async with kubernetes(cluster) as opened:
        yield opened
