"""The values that the modelcar stages hand on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A validated model directory.

    Attributes:
        directory: the directory that holds `config.json` and the weights.
        name: a human name, such as `SmolLM2-135M-Instruct`.
        files: relative POSIX paths of every member, sorted.
        revision: a Hub commit, or empty for a plain directory.
        origin: where it came from: a Hub repository, or empty.
        licence: SPDX expression, or empty when unknown.
        parameters: number of parameters counted from the safetensors headers.
        dtype: the most common tensor type, such as `BF16`.
        quantization: the method that `config.json` names, such as `awq`, or empty.
    """

    directory: Path
    name: str
    files: tuple[str, ...]
    revision: str = ""
    origin: str = ""
    licence: str = ""
    parameters: int = 0
    dtype: str = ""
    quantization: str = ""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an image: its OCI descriptor and what it holds."""

    digest: str
    size_bytes: int
    media_type: str
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Modelcar:
    """A modelcar: an OCI image whose `/models` holds one model.

    Attributes:
        digest: `sha256:…` of the manifest, or of the index over several platforms; the model's identity on every path.
        reference: `host/repository@sha256:…` where it can be pulled, empty before it is pushed.
        size_bytes: sum of the compressed layers and the config.
        layers: base layer first, then the model's.
        sent_bytes: bytes that had to be sent to the registry (0 when everything was there).
        source: the model that it holds.
        annotations: what the manifest, or the index over several, says of itself.
        referrers: what is attached to it in the registry: artifact type -> digest of the manifest.
    """

    digest: str
    reference: str
    size_bytes: int
    layers: tuple[Layer, ...]
    source: ModelSource
    sent_bytes: int = 0
    annotations: dict[str, str] = field(default_factory=dict)
    referrers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a blob is.

    Attributes:
        name: what it holds: a file's name, or how many files.
        sent_bytes: bytes written so far; equal to `total_bytes` at once when the blob was already there.
        total_bytes: the blob's size.
        step: `sending`, or `hashing` while `sent_bytes` counts what was read to learn the digest.
    """

    name: str
    sent_bytes: int
    total_bytes: int
    step: str = "sending"
