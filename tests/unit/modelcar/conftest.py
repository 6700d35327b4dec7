from __future__ import annotations

import pwd
import re
from typing import TYPE_CHECKING, NoReturn

import pytest

from servepath.modelcar.registry.client import RegistryOptions
from servepath.modelcar.registry.retry import RetryPolicy
from tests.unit.modelcar.faults import Faults, faulty_proxy
from tests.unit.modelcar.helpers import write_base, write_model
from tests.unit.modelcar.registries import running_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# docker-registry's htpasswd wants bcrypt; this is `servepath` with the password `opensesame`
HTPASSWD = "servepath:$2b$04$.KbGlglOM/2LZHA6wmLA8ub1MuIp/5qZOktM/2iLlcCnZsdH8iIxu\n"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="session")
def registry_with_password(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("registry-auth")
    (directory / "htpasswd").write_text(HTPASSWD)
    auth = f"auth: {{htpasswd: {{realm: test, path: {directory / 'htpasswd'}}}}}\n"
    with running_registry(directory, auth) as host:
        yield host


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> str:
    """Give each test a repository of its own."""
    return "test/" + re.sub("[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:120].strip("-")


@pytest.fixture
def faults(registry: str) -> Iterator[Faults]:
    with faulty_proxy(registry) as proxy:
        yield proxy


@pytest.fixture
def options(tmp_path: Path) -> RegistryOptions:
    """Give options with quick retries that read no one's Docker configuration."""
    return RegistryOptions(docker_config=tmp_path / "docker", retry=RetryPolicy(attempts=3, base_s=0.01, longest_s=0.2))


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a user whom neither the environment nor the system gives a home, as a container may have."""
    for variable in ("HOME", "DOCKER_CONFIG", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)

    def unknown(uid: int) -> NoReturn:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.fixture
async def base(tmp_path: Path) -> str:
    return await write_base(tmp_path / "base")
