"""Whether the promotion may push to the registry that the nodes pull from.

An upload is begun and ended again, so this is for a promotion that acts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from servepath.errors import RegistryError
from servepath.modelcar.registry.client import open_registry
from servepath.modelcar.registry.permission import Left, Presence, has_manifest, presence_of, try_push
from servepath.modelcar.registry.reference import name_of, parse_pinned
from servepath.modelcar.registry.repository import Repository
from servepath.modelcar.registry.retry import is_unanswered
from servepath.promotion.preflight.results import missing, there, untold

if TYPE_CHECKING:
    from servepath.evidence import CheckResult
    from servepath.modelcar.registry.client import RegistryOptions
    from servepath.modelcar.registry.reference import Reference

NAME = "registry_for_the_push"
_ECR = re.compile(r"\d+\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com")
_LEFT = {
    Left.NOTHING: "it is cancelled again",
    Left.BLOB: "it cannot be cancelled there, and has become an empty blob that nothing refers to",
    Left.UPLOAD: "it could not be ended, which the registry does by itself after some time",
}
_ARTIFACT_REGISTRY = re.compile(r"([a-z0-9-]+)-docker\.pkg\.dev")


@dataclass(frozen=True, slots=True)
class Pushing:
    """What is known of the registry before the push.

    Attributes:
        result: whether the push would be taken.
        may_make_it: whether the repository may be one that the push makes: until then a read of it may be denied to
            who may read it afterwards. Not where that is decided for what the repository is in, which is there.
    """

    result: CheckResult
    may_make_it: bool


async def check_push(image: str, options: RegistryOptions) -> Pushing:
    """Look whether the image is in its repository already, or could be pushed.

    Args:
        image: `host[:port]/repository@sha256:…`, where it will be.
        options: how registries are talked to.
    """
    pinned = parse_pinned(image)
    expected = f"the right to push to {name_of(pinned.registry)}/{pinned.repository}"
    making = _making(pinned)
    try:
        async with open_registry(pinned.registry, options) as client:
            repository = Repository(client, pinned.repository)
            if await has_manifest(repository, pinned.digest):
                return Pushing(there(NAME, expected, "it is there already: nothing is pushed"), may_make_it=False)
            presence = await presence_of(repository)
            result = await _tried(repository, expected, making if presence is Presence.ABSENT else "")
    except RegistryError as error:
        return Pushing(untold(NAME, expected, error.what, error.next_command), may_make_it=not making)
    return Pushing(result, may_make_it=presence is not Presence.THERE and not making)


async def _tried(repository: Repository, expected: str, making: str) -> CheckResult:
    try:
        left = await try_push(repository)
    except RegistryError as error:
        if making:
            return missing(NAME, expected, f"{error.what}; a push does not make the repository there", making)
        if is_unanswered(error):
            return untold(NAME, expected, error.what, error.next_command)
        return missing(NAME, expected, error.what, error.next_command)
    return there(NAME, expected, f"an upload was begun; {_LEFT[left]}")


def _making(pinned: Reference) -> str:
    """Give the command that makes a repository where a push does not, empty for other registries."""
    if (ecr := _ECR.fullmatch(pinned.registry)) is not None:
        return f"aws ecr create-repository --region {ecr[1]} --repository-name {pinned.repository}"
    if (google := _ARTIFACT_REGISTRY.fullmatch(pinned.registry)) is not None:
        project, _, within = pinned.repository.partition("/")
        return (
            f"gcloud artifacts repositories create {within.partition('/')[0]} --repository-format=docker "
            f"--project {project} --location {google[1]}"
        )
    return ""
