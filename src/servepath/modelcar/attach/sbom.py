"""The software bill of materials: SPDX 2.3 in JSON (https://spdx.github.io/spdx-spec/v2.3).

Weights are packages whose checksum is that of their layer's tar, which is known without reading them again: SPDX wants
a SHA-1 of every *file*, and a second hash would cost as much as the first. Small files are listed one by one.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import servepath
from servepath.modelcar.attach.facts import ModelcarFacts, hex_of
from servepath.modelcar.image.oci import created_text
from servepath.modelcar.store import canonical_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servepath.modelcar.image.layers import LayerPlan, Member
    from servepath.modelcar.push.write_layers import WrittenLayer

_UNKNOWN = "NOASSERTION"


def make_sbom(facts: ModelcarFacts) -> bytes:
    """Return the SBOM of a modelcar; reads the small files.

    Raises:
        InputError: a file changed since it was planned.
    """
    packages, files = [_image(facts), _model(facts)], []
    relations = [("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image"), ("SPDXRef-Image", "CONTAINS", "SPDXRef-Model")]
    if facts.base.digest:
        packages.append(_base(facts))
        relations.append(("SPDXRef-Image", "DESCENDANT_OF", "SPDXRef-Base"))
    for number, (plan, written) in enumerate(facts.planned(), 1):
        key = f"SPDXRef-Layer-{number}"
        members = [member for member in plan.members if member.is_file]
        listed = [] if _is_big(plan, facts) else [_file(member, f"{key}-{n}") for n, member in enumerate(members, 1)]
        packages.append(_layer(key, members, written, listed))
        files += listed
        relations.append(("SPDXRef-Image", "CONTAINS", key))
        relations += [(key, "CONTAINS", file["SPDXID"]) for file in listed]
    return canonical_json(
        {
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": facts.source.name,
            "documentNamespace": f"https://spdx.org/spdxdocs/servepath-{facts.subject.digest.replace(':', '-')}",
            "creationInfo": {
                "created": created_text(facts.build.created_s),
                "creators": [f"Tool: servepath-{servepath.__version__}"],
            },
            "packages": packages,
            "files": files,
            "relationships": [
                {"spdxElementId": a, "relationshipType": kind, "relatedSpdxElement": b} for a, kind, b in relations
            ],
        }
    )


def _image(facts: ModelcarFacts) -> dict[str, Any]:
    digest = facts.subject.digest
    name = quote(facts.source.name.lower(), safe="")
    return _package("SPDXRef-Image", facts.source.name) | {
        "versionInfo": digest,
        "primaryPackagePurpose": "CONTAINER",
        "checksums": [_sha256(digest)],
        "externalRefs": [_purl(f"pkg:oci/{name}@{quote(digest, safe='')}")],
    }


def _model(facts: ModelcarFacts) -> dict[str, Any]:
    source = facts.source
    model = _package("SPDXRef-Model", source.name) | {"primaryPackagePurpose": "OTHER"}
    if source.licence:
        model["licenseDeclared"] = source.licence
    if source.origin:
        model["downloadLocation"] = f"https://huggingface.co/{source.origin}"
        revision = f"@{source.revision.lower()}" if source.revision else ""
        model["externalRefs"] = [_purl(f"pkg:huggingface/{quote(source.origin)}{revision}")]
    if source.revision:
        model["versionInfo"] = source.revision
    return model


def _base(facts: ModelcarFacts) -> dict[str, Any]:
    base = facts.base
    return _package("SPDXRef-Base", base.name or "base image") | {
        "versionInfo": base.digest,
        "primaryPackagePurpose": "CONTAINER",
        "checksums": [_sha256(base.digest)],
    }


def _layer(
    key: str, members: Sequence[Member], written: WrittenLayer, listed: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    names = [member.name for member in members]
    package = _package(key, names[0] if len(names) == 1 else f"{len(names)} files") | {
        "primaryPackagePurpose": "ARCHIVE",
        "checksums": [_sha256(written.diff_id)],
        "comment": f"a tar of {', '.join(names)}; {sum(member.size_bytes for member in members)} bytes in files",
    }
    if listed:
        sums = sorted(file["checksums"][0]["checksumValue"] for file in listed)
        code = hashlib.sha1("".join(sums).encode(), usedforsecurity=False).hexdigest()  # SPDX 2.3, section 7.9
        package |= {"filesAnalyzed": True, "packageVerificationCode": {"packageVerificationCodeValue": code}}
    return package


def _file(member: Member, key: str) -> dict[str, Any]:
    sha1, sha256 = hashlib.sha1(usedforsecurity=False), hashlib.sha256()
    for chunk in member.read():
        sha1.update(chunk)
        sha256.update(chunk)
    return {
        "SPDXID": key,
        "fileName": f"./{member.name}",
        "checksums": [
            {"algorithm": "SHA1", "checksumValue": sha1.hexdigest()},
            {"algorithm": "SHA256", "checksumValue": sha256.hexdigest()},
        ],
        "licenseConcluded": _UNKNOWN,
        "copyrightText": _UNKNOWN,
    }


def _package(key: str, name: str) -> dict[str, Any]:
    return {
        "SPDXID": key,
        "name": name,
        "downloadLocation": _UNKNOWN,
        "filesAnalyzed": False,
        "licenseConcluded": _UNKNOWN,
        "licenseDeclared": _UNKNOWN,
        "copyrightText": _UNKNOWN,
    }


def _sha256(digest: str) -> dict[str, str]:
    return {"algorithm": "SHA256", "checksumValue": hex_of(digest)}


def _purl(locator: str) -> dict[str, str]:
    return {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": locator}


def _is_big(plan: LayerPlan, facts: ModelcarFacts) -> bool:
    return any(member.size_bytes >= facts.build.own_layer_bytes for member in plan.members)
