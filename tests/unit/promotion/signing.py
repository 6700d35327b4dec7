"""Signatures as cosign makes them: a simple signing payload, ECDSA P-256 over its SHA-256, under cosign's tag."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from servepath.modelcar.attach.referrers import write_referrer
from servepath.modelcar.content import BytesContent, digest_of_bytes
from servepath.modelcar.registry.client import RegistryOptions, open_registry
from servepath.modelcar.registry.reference import parse_pinned
from servepath.modelcar.registry.repository import Repository
from servepath.modelcar.store import CONFIG, MANIFEST, Descriptor, Document, canonical_json
from servepath.promotion.signature import (
    SIGNATURE_ANNOTATION,
    SIGNATURE_ARTIFACT,
    SIMPLE_SIGNING,
    SignaturePolicy,
    signature_tag,
)

if TYPE_CHECKING:
    from pathlib import Path


def write_key(path: Path) -> tuple[ec.EllipticCurvePrivateKey, SignaturePolicy]:
    """Make a key pair, and write its public half as cosign does."""
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    path.write_bytes(pem)
    return private, SignaturePolicy(str(path), pem)


def payload_of(digest: str, **changes: Any) -> dict[str, Any]:
    critical = {
        "identity": {"docker-reference": "laptop.test/smol"},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    return {"critical": critical | changes, "optional": {"commit": "abc"}}


async def sign(
    reference: str,
    key: ec.EllipticCurvePrivateKey,
    options: RegistryOptions,
    *,
    payload: Any = None,
    signature: str | None = None,
    as_referrer: bool = False,
) -> None:
    """Sign an image where it lies."""
    pinned = parse_pinned(reference)
    data = json.dumps(payload_of(pinned.digest) if payload is None else payload).encode()
    made = signature or base64.b64encode(key.sign(data, ec.ECDSA(hashes.SHA256()))).decode()
    config = canonical_json({"architecture": "", "os": "", "rootfs": {"type": "layers", "diff_ids": []}})
    blobs = [(Descriptor(CONFIG, digest_of_bytes(config), len(config)), config)]
    blobs += [(Descriptor(SIMPLE_SIGNING, digest_of_bytes(data), len(data)), data)]
    layer = blobs[1][0].to_json() | {"annotations": {SIGNATURE_ANNOTATION: made}}
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": blobs[0][0].to_json(),
        "layers": [layer],
    }
    async with open_registry(pinned.registry, options) as client:
        repository = Repository(client, pinned.repository)
        for descriptor, blob in blobs:
            await repository.write_blob(BytesContent(blob), descriptor.digest, lambda _: None)
        if as_referrer:
            subject = await repository.read_manifest(pinned.digest)
            manifest["artifactType"] = SIGNATURE_ARTIFACT
            manifest["subject"] = Descriptor(subject.media_type, subject.digest, len(subject.data)).to_json()
        encoded = canonical_json(manifest)
        document = Document(MANIFEST, digest_of_bytes(encoded), encoded)
        if as_referrer:
            await write_referrer(repository, document)
        else:
            await repository.write_manifest(document, signature_tag(pinned.digest))
