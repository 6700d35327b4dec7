"""A cosign signature by a public key: the signature policy of a promotion.

cosign signs a small JSON payload that names the image's digest ("simple signing"), and keeps payload and signature as
the layer of a manifest, either under the tag `sha256-<hex>.sig` beside the image or as a referrer of it.
Format: https://github.com/sigstore/cosign/blob/v2.6.1/specs/SIGNATURE_SPEC.md
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from servepath.errors import InputError, PromotionRefusedError, UsageError
from servepath.modelcar.attach.referrers import list_referrers
from servepath.modelcar.image.oci import read_all
from servepath.modelcar.registry.client import RegistryOptions, open_registry
from servepath.modelcar.registry.reference import parse_pinned
from servepath.modelcar.registry.repository import Repository
from servepath.modelcar.store import descriptor_of
from servepath.promotion.copying import has_tag

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from servepath.modelcar.store import Document

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"
_TYPE = "cosign container image signature"
_MAX_PAYLOAD_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SignaturePolicy:
    """Whose signature a digest must have.

    Attributes:
        name: what the key is called in messages: its file.
        public_key_pem: an ECDSA P-256 public key, as `cosign generate-key-pair` writes `cosign.pub`.
    """

    name: str
    public_key_pem: bytes


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature that holds: where it was found, and what else its payload says (`optional`)."""

    place: str
    optional: dict[str, Any]


def read_policy(key: Path) -> SignaturePolicy:
    """Read the public key of a policy.

    Raises:
        InputError: the file cannot be read, or is no ECDSA P-256 public key.
        UsageError: the library that checks signatures is not installed.
    """
    try:
        policy = SignaturePolicy(str(key), key.read_bytes())
    except OSError as error:
        raise InputError(f"the key cannot be read: {error.strerror}", where=str(key)) from error
    _load_key(policy)
    return policy


async def require_signature(reference: str, policy: SignaturePolicy, options: RegistryOptions | None = None) -> Signed:
    """Find a signature of an image that the policy's key made.

    Args:
        reference: `host/repository@sha256:…`.
        policy: whose signature.
        options: how registries are talked to.

    Raises:
        PromotionRefusedError: there is none; it says what was found instead.
        RegistryError: the registry refuses or fails.
        UsageError: the library that checks signatures is not installed.
    """
    pinned = parse_pinned(reference)
    problems: list[str] = []
    async with open_registry(pinned.registry, options or RegistryOptions()) as client:
        repository = Repository(client, pinned.repository)
        async for place, document in _signatures(repository, pinned.digest):
            try:
                return Signed(place, await _verified(repository, document, pinned.digest, policy))
            except InputError as error:
                problems.append(f"{place}: {error.what}")
    raise PromotionRefusedError(
        "; ".join(problems) or "the image is not signed",
        where=reference,
        expected=f"a cosign signature by the key {policy.name}",
        next_command=f"cosign verify --key {policy.name} {reference}",
    )


def signature_tag(digest: str) -> str:
    """Give the tag under which cosign keeps the signatures of an image."""
    return f"{digest.replace(':', '-', 1)}.sig"


async def _signatures(repository: Repository, digest: str) -> AsyncIterator[tuple[str, Document]]:
    """Give each manifest that holds signatures of an image."""
    tag = signature_tag(digest)
    if await has_tag(repository, tag):
        yield f"tag {tag}", await repository.read_manifest(tag)
    for referrer in await list_referrers(repository, digest):
        if referrer.artifact_type == SIGNATURE_ARTIFACT:
            found = referrer.descriptor.digest
            yield f"referrer {found[:19]}", await repository.read_manifest(found)


async def _verified(repository: Repository, document: Document, digest: str, policy: SignaturePolicy) -> dict[str, Any]:
    """Give the `optional` part of the first payload that the key signed for this digest.

    Raises:
        InputError: there is none.
    """
    problems = []
    for layer in document.json.get("layers") or ():
        descriptor = descriptor_of(layer, document.digest)
        if descriptor.media_type != SIMPLE_SIGNING:
            continue
        if descriptor.size_bytes > _MAX_PAYLOAD_BYTES:
            raise InputError(f"a payload of {descriptor.size_bytes} bytes", where=document.digest)
        payload = await read_all(repository, descriptor)
        try:
            _check(payload, str((layer.get("annotations") or {}).get(SIGNATURE_ANNOTATION, "")), policy)
            return _read_payload(payload, digest)
        except InputError as error:
            problems.append(error.what)
    raise InputError("; ".join(problems) or f"it holds no layer {SIMPLE_SIGNING}", where=document.digest)


def _check(payload: bytes, signature: str, policy: SignaturePolicy) -> None:
    """Check that the key signed these bytes.

    Raises:
        InputError: it did not, or there is no signature.
    """
    exceptions = import_module("cryptography.exceptions")
    ec = import_module("cryptography.hazmat.primitives.asymmetric.ec")
    hashes = import_module("cryptography.hazmat.primitives.hashes")
    try:
        raw = base64.b64decode(signature, validate=True)
        _load_key(policy).verify(raw, payload, ec.ECDSA(hashes.SHA256()))
    except binascii.Error as error:
        raise InputError("its signature is not base64") from error
    except exceptions.InvalidSignature as error:
        raise InputError("signed by another key, or changed since") from error


def _read_payload(payload: bytes, digest: str) -> dict[str, Any]:
    """Read what was signed.

    Raises:
        InputError: it speaks of another image, or is no simple signing payload.
    """
    try:
        document = json.loads(payload)
        critical = document["critical"]
        kind, signed = critical["type"], critical["image"]["docker-manifest-digest"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"not a simple signing payload: {type(error).__name__}") from error
    if kind != _TYPE:
        raise InputError(f"a signature of type {kind!r}")
    if signed != digest:
        raise InputError(f"it signs {signed}")
    return dict(document.get("optional") or {})


def _load_key(policy: SignaturePolicy) -> Any:
    """Parse the policy's key.

    Raises:
        InputError: not an ECDSA P-256 public key.
        UsageError: the library is not installed.
    """
    try:
        serialization = import_module("cryptography.hazmat.primitives.serialization")
        ec = import_module("cryptography.hazmat.primitives.asymmetric.ec")
    except ImportError as error:
        raise UsageError(
            "checking a signature needs the package `cryptography`",
            where="--require-signature",
            expected="servepath installed with its extra `signature`",
            next_command="pip install 'servepath[signature]'",
        ) from error
    expected = "a PEM file with an ECDSA P-256 public key, such as cosign.pub"
    try:
        key = serialization.load_pem_public_key(policy.public_key_pem)
    except ValueError as error:
        raise InputError("not a public key", where=policy.name, expected=expected) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise InputError("not an ECDSA P-256 key", where=policy.name, expected=expected)
    return key
