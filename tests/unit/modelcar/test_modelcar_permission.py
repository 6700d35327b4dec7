"""What registries answer of a repository that is not there, and an upload that shows the right to push and is gone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio
import pytest

from servepath.errors import RegistryError
from servepath.modelcar.registry.client import open_registry
from servepath.modelcar.registry.permission import (
    NOTHING,
    Left,
    Presence,
    has_manifest,
    presence_of,
    try_push,
)
from servepath.modelcar.registry.repository import Repository
from servepath.modelcar.registry.retry import is_unanswered
from tests.unit.modelcar.faults import Faults, Rule, faulty_proxy
from tests.unit.modelcar.registries import running_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servepath.modelcar.registry.client import RegistryOptions

pytestmark = pytest.mark.anyio

ALWAYS = 99
NAME_UNKNOWN = b'{"errors":[{"code":"NAME_UNKNOWN","message":"name unknown"}]}'


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    """Where the registry of `proxy` keeps what is being uploaded to `first/image`."""
    return tmp_path / "registry/data/docker/registry/v2/repositories/first/image/_uploads"


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Faults]:
    """A real registry with nothing in it, behind a proxy."""
    (tmp_path / "registry").mkdir()
    with running_registry(tmp_path / "registry") as host, faulty_proxy(host) as running:
        yield running


def under_way(uploads: Path) -> list[Path]:
    """The uploads that have not ended: of others the registry keeps a folder without its beginning."""
    return list(uploads.glob("*/startedat"))


@pytest.mark.parametrize(
    ("status", "left"),
    [(0, Left.NOTHING), (401, Left.BLOB), (405, Left.BLOB), (500, Left.BLOB)],
    ids=["cancelled", "no right to delete", "unsupported", "broken"],
)
async def test_the_upload_that_shows_the_right_to_push_is_ended(
    proxy: Faults, options: RegistryOptions, uploads: Path, status: int, left: Left
) -> None:
    proxy.rules = [Rule("DELETE", "/blobs/uploads/", ALWAYS, status=status)] if status else []
    async with open_registry(proxy.host, options) as client:
        repository = Repository(client, "first/image")
        assert await try_push(repository) is left
        assert await presence_of(repository) is Presence.ABSENT, "there is no image"
    assert proxy.count("POST", "/v2/first/image/blobs/uploads/") == 1
    assert under_way(uploads) == []


async def test_an_upload_that_the_registry_does_not_end_is_told(
    proxy: Faults, options: RegistryOptions, uploads: Path
) -> None:
    proxy.rules = [Rule("DELETE|PUT", "/blobs/uploads/", ALWAYS, status=405)]
    async with open_registry(proxy.host, options) as client:
        assert await try_push(Repository(client, "first/image")) is Left.UPLOAD
    assert len(under_way(uploads)) == 1


async def test_an_upload_that_was_begun_is_ended_also_when_it_is_interrupted(
    proxy: Faults, options: RegistryOptions, uploads: Path
) -> None:
    def slowly(body: bytes) -> bytes:
        time.sleep(0.4)  # in the proxy's thread: the upload has begun, and its address is not known here yet
        return body

    proxy.rules = [Rule("POST", "/blobs/uploads/", change=slowly)]
    async with open_registry(proxy.host, options) as client:
        with anyio.move_on_after(0.1) as scope:
            await try_push(Repository(client, "first/image"))
    assert scope.cancel_called
    assert proxy.count("DELETE", "/blobs/uploads/") == 1
    assert under_way(uploads) == []


@pytest.mark.parametrize(
    ("token", "rules", "seen", "refusal"),
    [
        ("t", [Rule("GET", "/token", ALWAYS, status=403)], Presence.HIDDEN, "token service answered 403"),
        ("", [Rule(".*", "/v2/", ALWAYS, status=401)], Presence.HIDDEN, "registry answered 401"),
        ("", [Rule(".*", "/v2/", ALWAYS, status=403)], Presence.HIDDEN, "registry answered 403"),
        ("t", [], Presence.ABSENT, ""),
        (
            "",
            [
                Rule("POST", "/uploads/", ALWAYS, drop_after_bytes=0),
                Rule(".*", "/v2/", ALWAYS, status=404, body=NAME_UNKNOWN),
            ],
            Presence.ABSENT,
            "failed 3 times",
        ),
        ("", [Rule("GET", "/tags/", status=200, body=b'{"tags":[]}')], Presence.ABSENT, ""),
        ("", [Rule("GET", "/tags/", status=200, body=b'{"tags":["v1"]}')], Presence.THERE, ""),
    ],
    ids=[
        "ghcr.io to strangers",
        "Docker Hub to strangers",
        "Artifact Registry",
        "with the right",
        "ECR",
        "no tag",
        "there",
    ],
)
async def test_a_repository_that_is_not_there(
    proxy: Faults, options: RegistryOptions, token: str, rules: list[Rule], seen: Presence, refusal: str
) -> None:
    proxy.token, proxy.rules = token, rules
    async with open_registry(proxy.host, options) as client:
        repository = Repository(client, "first/image")
        assert not await has_manifest(repository, NOTHING)
        assert await presence_of(repository) is seen
        if not refusal:
            assert await try_push(repository) is Left.NOTHING
            return
        with pytest.raises(RegistryError, match=refusal) as caught:
            await try_push(repository)
        assert is_unanswered(caught.value) is ("times" in refusal)


async def test_a_registry_that_does_not_answer_is_not_one_that_hides(proxy: Faults, options: RegistryOptions) -> None:
    proxy.rules = [Rule(".*", "/v2/", ALWAYS, status=503)]
    async with open_registry(proxy.host, options) as client:
        with pytest.raises(RegistryError) as caught:
            await presence_of(Repository(client, "first/image"))
    assert is_unanswered(caught.value)
