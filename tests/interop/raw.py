"""Requests to a registry without any client: for images that no client would make."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import httpx

_ACCEPT = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"


def get_manifest(registry: str, repository: str, digest: str) -> dict[str, Any]:
    """Return a manifest; of an index, the first image's."""
    url = f"http://{registry}/v2/{repository}/manifests/{digest}"
    document: dict[str, Any] = httpx.get(url, headers={"Accept": _ACCEPT}).raise_for_status().json()
    if "manifests" in document:
        return get_manifest(registry, repository, document["manifests"][0]["digest"])
    return document


def put_manifest(registry: str, repository: str, manifest: dict[str, Any]) -> str:
    """Put a manifest under its digest, and return the digest."""
    data = json.dumps(manifest).encode()
    digest = _digest(data)
    url = f"http://{registry}/v2/{repository}/manifests/{digest}"
    httpx.put(url, content=data, headers={"Content-Type": manifest["mediaType"]}).raise_for_status()
    return digest


def put_scrambled(registry: str, repository: str, digest: str) -> str:
    """Put an image beside this one whose last two layers are not in the order that its config says."""
    manifest = get_manifest(registry, repository, digest)
    manifest["layers"][-2:] = reversed(manifest["layers"][-2:])
    return put_manifest(registry, repository, manifest)


def put_with_wrong_config_size(registry: str, repository: str, digest: str) -> str:
    """Put an image beside this one whose config is said to be a byte longer than it is."""
    manifest = get_manifest(registry, repository, digest)
    manifest["config"]["size"] += 1
    return put_manifest(registry, repository, manifest)


def put_two_platforms(registry: str, repository: str, digest: str) -> str:
    """Put an index over an image for amd64 and the same one said to be for arm64; return the index's digest."""
    amd64 = get_manifest(registry, repository, digest)
    blobs = f"http://{registry}/v2/{repository}/blobs"
    config = httpx.get(f"{blobs}/{amd64['config']['digest']}").raise_for_status().json() | {"architecture": "arm64"}
    data = json.dumps(config).encode()
    upload = httpx.post(f"{blobs}/uploads/").raise_for_status()
    location = httpx.URL(upload.headers["Location"]).copy_merge_params({"digest": _digest(data)})
    httpx.put(location, content=data).raise_for_status()
    arm64 = amd64 | {"config": amd64["config"] | {"digest": _digest(data), "size": len(data)}}
    entries = [
        {
            "mediaType": manifest["mediaType"],
            "digest": put_manifest(registry, repository, manifest),
            "size": len(json.dumps(manifest).encode()),
            "platform": {"os": "linux", "architecture": architecture},
        }
        for manifest, architecture in ((amd64, "amd64"), (arm64, "arm64"))
    ]
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries}
    return put_manifest(registry, repository, index)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
