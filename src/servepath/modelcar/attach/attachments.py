"""Attach to a modelcar what the options ask for: SBOM, provenance, ModelPack manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import to_thread
from msgspec import Struct

import servepath
from servepath.errors import RegistryError
from servepath.modelcar.attach.modelpack import make_modelpack
from servepath.modelcar.attach.provenance import PREDICATE, make_provenance
from servepath.modelcar.attach.referrers import (
    MODELPACK,
    PREDICATE_TYPE,
    PROVENANCE,
    SBOM,
    Attachment,
    list_referrers,
    make_attachment,
    write_attachment,
)
from servepath.modelcar.attach.sbom import make_sbom

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from servepath.modelcar.attach.facts import ModelcarFacts
    from servepath.modelcar.attach.referrers import Referrer
    from servepath.modelcar.layout import Layout
    from servepath.modelcar.registry.repository import Repository

VERSION = "io.servepath.version"
"""Annotation of an attachment: which servepath made it. The same image and version make the same attachment."""


class Attached(Struct, frozen=True):
    """What is attached now, artifact type -> digest, and the bytes of blobs that had to be sent for it."""

    digests: dict[str, str]
    sent_bytes: int


async def attach_all(place: Repository | Layout, facts: ModelcarFacts) -> Attached:
    """Attach what `facts.build` asks for and what is not there; if all is there, that costs a listing.

    Raises:
        InputError: a small file changed since it was planned.
        RegistryError: the registry refuses or fails; the image is there all the same.
    """
    kinds = ([SBOM, PROVENANCE] if facts.build.attest else []) + ([MODELPACK] if facts.build.modelpack else [])
    if not kinds:
        return Attached({}, 0)
    digests: dict[str, str] = {}
    sent_bytes = 0
    try:
        there = await list_referrers(place, facts.subject.digest)
        for kind in kinds:
            digests[kind] = _find(there, kind)
            if not digests[kind]:
                attachment = await to_thread.run_sync(MAKERS[kind], facts)
                sent_bytes += await write_attachment(place, attachment)
                digests[kind] = attachment.document.digest
    except RegistryError as error:
        raise RegistryError(
            f"the image is pushed, attaching to it failed: {error.what}",
            where=error.where,
            expected=error.expected,
            next_command="push again with --no-attest if the registry takes no artifacts",
        ) from error
    return Attached(digests, sent_bytes)


def _find(there: Sequence[Referrer], kind: str) -> str:
    """Return the digest of an attachment of this kind that this version made; empty if there is none."""
    ours = [e for e in there if e.artifact_type == kind and e.annotations.get(VERSION) == servepath.__version__]
    return ours[0].descriptor.digest if ours else ""


def _sbom(facts: ModelcarFacts) -> Attachment:
    return make_attachment(facts.subject, SBOM, make_sbom(facts), {VERSION: servepath.__version__})


def _provenance(facts: ModelcarFacts) -> Attachment:
    annotations = {PREDICATE_TYPE: PREDICATE, VERSION: servepath.__version__}
    return make_attachment(facts.subject, PROVENANCE, make_provenance(facts), annotations)


def _modelpack(facts: ModelcarFacts) -> Attachment:
    return make_modelpack(facts, {VERSION: servepath.__version__})


MAKERS: Mapping[str, Callable[[ModelcarFacts], Attachment]] = {
    SBOM: _sbom,
    PROVENANCE: _provenance,
    MODELPACK: _modelpack,
}
"""What makes each kind, by artifact type; pure, but for the small files that the SBOM reads."""
