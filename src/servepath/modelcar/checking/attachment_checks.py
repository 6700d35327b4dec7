"""The checks of what refers to an image: its SBOM and its provenance speak of this image and of its layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from servepath.modelcar.attach.referrers import PROVENANCE, SBOM, subject_of
from servepath.modelcar.checking.image_checks import FoundError, SkippedError
from servepath.modelcar.image.oci import read_all
from servepath.modelcar.store import descriptor_of, load_object

if TYPE_CHECKING:
    from servepath.modelcar.attach.referrers import Referrer
    from servepath.modelcar.registry.repository import Repository
    from servepath.modelcar.store import Descriptor, Document

MAX_ATTACHMENT_BYTES = 64 << 20
_STATEMENT = "https://in-toto.io/Statement/v1"


@dataclass(frozen=True, slots=True)
class Attachments:
    """What refers to an image.

    Attributes:
        repository: where it is.
        document: the image's manifest, or the index over several.
        diff_ids: digests of the uncompressed layers of all its images.
        referrers: what the registry lists.
        required: artifact types that must be there.
    """

    repository: Repository
    document: Document
    diff_ids: frozenset[str]
    referrers: tuple[Referrer, ...]
    required: frozenset[str]

    async def read(self, kind: str) -> list[dict[str, Any]]:
        """Return the documents of a kind, after checking that each refers to this image.

        Raises:
            SkippedError: there is none, and none is required.
            FoundError: there is none, or one refers to something else.
        """
        listed = [entry.descriptor for entry in self.referrers if entry.artifact_type == kind]
        if not listed:
            reason = f"nothing of type {kind} refers to the image"
            raise FoundError(reason) if kind in self.required else SkippedError(reason)
        return [await self._read_one(descriptor) for descriptor in listed]

    async def _read_one(self, descriptor: Descriptor) -> dict[str, Any]:
        manifest = await self.repository.read_manifest(descriptor.digest)
        if subject_of(manifest) != self.document.digest:
            raise FoundError(f"{descriptor.digest} refers to {subject_of(manifest)}")
        layers = manifest.json.get("layers")
        if not (isinstance(layers, list) and len(layers) == 1):
            raise FoundError(f"{descriptor.digest} does not hold one document")
        layer = descriptor_of(layers[0], descriptor.digest)
        if layer.size_bytes > MAX_ATTACHMENT_BYTES:
            raise FoundError(f"{descriptor.digest} holds {layer.size_bytes} bytes")
        return load_object(await read_all(self.repository, layer), layer.digest)


async def check_sbom(attachments: Attachments) -> str:
    """An SPDX document refers to the image, is of this digest, and its layers are the image's."""
    sboms = await attachments.read(SBOM)
    for sbom in sboms:
        if not str(sbom.get("spdxVersion", "")).startswith("SPDX-"):
            raise FoundError(f"spdxVersion is {str(sbom.get('spdxVersion'))[:40]!r}")
        packages = _objects(sbom.get("packages"))
        images = {value for p in packages if p.get("SPDXID") == "SPDXRef-Image" for value in _checksums(p)}
        if images and attachments.document.digest not in images:
            raise FoundError(f"the SBOM is of {', '.join(sorted(images))}")
        layers = {value for p in packages if p.get("primaryPackagePurpose") == "ARCHIVE" for value in _checksums(p)}
        if unknown := layers - attachments.diff_ids:
            raise FoundError(f"the SBOM lists layers that the image lacks: {', '.join(sorted(unknown)[:3])}")
    return f"{len(sboms)} of {sum(len(_objects(sbom.get('packages'))) for sbom in sboms)} packages"


async def check_provenance(attachments: Attachments) -> str:
    """An in-toto statement refers to the image, and its subject is this digest."""
    statements = await attachments.read(PROVENANCE)
    for statement in statements:
        if statement.get("_type") != _STATEMENT:
            raise FoundError(f"_type is {str(statement.get('_type'))[:80]!r}")
        digests = [subject.get("digest") for subject in _objects(statement.get("subject"))]
        subjects = {f"sha256:{digest.get('sha256')}" for digest in digests if isinstance(digest, dict)}
        if attachments.document.digest not in subjects:
            raise FoundError(f"the statement is of {', '.join(sorted(subjects)) or 'nothing'}")
    kinds = sorted({str(statement.get("predicateType", "")) for statement in statements})
    return f"{len(statements)}: {', '.join(kinds)}"


ATTACHMENT_CHECKS = (check_sbom, check_provenance)


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _checksums(package: dict[str, Any]) -> set[str]:
    sums = _objects(package.get("checksums"))
    return {f"sha256:{entry.get('checksumValue')}" for entry in sums if entry.get("algorithm") == "SHA256"}
