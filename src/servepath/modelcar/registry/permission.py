"""Whether a repository is there, and whether it may be pushed to, before anything is pushed.

A registry does not say by a read whether a push would be taken. To who may not read it, a repository that is not there
looks as a private one does:

| registry | to whoever may not read | to whoever may | what the first push needs |
| --- | --- | --- | --- |
| ghcr.io | "denied" by its token service [1] | 404, "name unknown" [2] | nothing; it makes it, private [3] |
| Docker Hub | a token, and then 401 with it [4] [5] | 404 [6] | a namespace |
| Artifact Registry | 403, "or it may not exist" [7] | 404 | its repository, not the image in it |
| ECR | 401 or 403 | 404 [8] | the repository, or a template for it [9]; cuts off else [10] |
| Harbor | 401, "unauthorized to access repository" [11] | 404 [12] | a project |

A token for pushing proves nothing either: Docker Hub gives it to everybody [4]. So the upload of a blob is begun, as
go-containerregistry's `CheckPushPermission` does [13], which also shows it on ghcr.io [14].

[1]: https://github.com/bytecodealliance/wasm-pkg-tools/issues/40
[2]: https://github.com/podtato-head/podtato-head/issues/66
[3]: https://docs.github.com/packages/learn-github-packages/configuring-a-packages-access-control-and-visibility
[4]: https://github.com/docker/hub-feedback/issues/1771
[5]: https://github.com/jupyterhub/binderhub/pull/1664
[6]: https://github.com/distribution/distribution/issues/1291
[7]: https://github.com/terraform-google-modules/terraform-google-kubernetes-engine/issues/1779
[8]: https://github.com/plexsystems/sinker/issues/55
[9]: https://docs.amazonaws.cn/en_us/AmazonECR/latest/userguide/docker-push-ecr-image.html
[10]: https://github.com/aws/containers-roadmap/issues/1970
[11]: https://github.com/goharbor/harbor/issues/13988
[12]: https://github.com/goharbor/harbor-helm/issues/622
[13]: https://github.com/google/go-containerregistry/blob/main/pkg/v1/remote/check.go
[14]: https://github.com/radius-project/radius/pull/12623
"""

from __future__ import annotations

from contextlib import suppress
from enum import Enum, auto
from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio

from servepath.errors import RegistryError
from servepath.modelcar.content import digest_of_bytes
from servepath.modelcar.registry.connection import Request
from servepath.modelcar.registry.retry import TryAgainError
from servepath.modelcar.store import ACCEPT_MANIFESTS

if TYPE_CHECKING:
    from servepath.modelcar.registry.connection import Response
    from servepath.modelcar.registry.repository import Repository
    from servepath.modelcar.registry.url import Url

NOTHING = "sha256:" + "0" * 64
"""A digest of nothing that can be found."""
_EMPTY = digest_of_bytes(b"")
_OCTETS = {"Content-Type": "application/octet-stream"}
_CANCELLED = frozenset({HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND})
_MADE = frozenset({HTTPStatus.CREATED})


class Presence(Enum):
    """What these credentials see of a repository."""

    THERE = auto()
    ABSENT = auto()
    HIDDEN = auto()
    """It is not there, or may not be read: the registry does not say which."""


class Left(Enum):
    """What is left in a registry of an upload that showed the right to push."""

    NOTHING = auto()
    BLOB = auto()
    """An empty blob that nothing refers to: the registry does not let the upload be cancelled."""
    UPLOAD = auto()
    """The upload, until the registry drops it by itself: it answered neither."""


async def has_manifest(repository: Repository, digest: str) -> bool:
    """Tell whether a repository has a manifest, as far as these credentials see.

    Raises:
        RegistryError: the registry does not answer.
    """
    answer = await repository.ask("HEAD", repository.path("manifests", digest), ACCEPT_MANIFESTS)
    return answer is not None and answer.status == HTTPStatus.OK


async def presence_of(repository: Repository) -> Presence:
    """Tell whether a repository is there; one without a single tag counts as one that is not.

    Raises:
        RegistryError: the registry does not answer.
    """
    answer = await repository.ask("GET", f"/v2/{repository.name}/tags/list")
    if answer is not None and answer.status == HTTPStatus.OK:
        return Presence.THERE if _has_tags(answer) else Presence.ABSENT
    is_absent = answer is not None and answer.status == HTTPStatus.NOT_FOUND
    return Presence.ABSENT if is_absent else Presence.HIDDEN


async def try_push(repository: Repository) -> Left:
    """Begin an upload, which shows the right to push, and end it again; tell what is left of it.

    Raises:
        RegistryError: the registry refuses, or does not answer.
    """
    registry = repository.registry
    uploads = registry.url(repository.path("blobs", "uploads/"))

    async def attempt() -> Left:
        with anyio.CancelScope(shield=True):  # whoever interrupts: what was begun is ended
            response = registry.transient(await registry.send(Request("POST", uploads)))
            begun = registry.expect(response, "beginning an upload", {HTTPStatus.ACCEPTED})
            left = await _end(repository, registry.location(begun))
        return left  # noqa: RET504 - the scope may end without a value, as far as mypy knows

    return await registry.retried(f"uploading to {repository}", attempt)


async def _end(repository: Repository, location: Url) -> Left:
    """Cancel an upload, or else finish it with nothing in it.

    To cancel it, some registries ask for the right to delete, which who may push need not have (`appendAccessRecords`
    in `registry/handlers/app.go` of distribution, on which others are built), and ghcr.io answers 405 [14]. To finish
    it takes no other right than to push. A digest that it does not have would not end it: docker-registry 2.8 answers
    400 and keeps it.
    """
    finish = Request("PUT", location.with_query(digest=_EMPTY), _OCTETS)
    for request, ended, left in ((Request("DELETE", location), _CANCELLED, Left.NOTHING), (finish, _MADE, Left.BLOB)):
        with suppress(TryAgainError, RegistryError):
            if (await repository.registry.send(request)).status in ended:
                return left
    return Left.UPLOAD


def _has_tags(answer: Response) -> bool:
    try:
        return bool(answer.json().get("tags"))
    except (ValueError, AttributeError):
        return False
