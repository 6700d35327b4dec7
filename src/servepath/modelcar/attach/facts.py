"""What is known of a modelcar once it is written: what its SBOM, provenance and ModelPack manifest are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from servepath.modelcar.image.compress import CompressedLayer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servepath.modelcar.image.layers import LayerPlan
    from servepath.modelcar.image.oci import BaseImage
    from servepath.modelcar.model import ModelSource
    from servepath.modelcar.plan import BuildOptions, ModelcarPlan
    from servepath.modelcar.push.write_layers import WrittenLayer
    from servepath.modelcar.store import Descriptor


class ModelcarFacts(Struct, frozen=True):
    """A written modelcar.

    Attributes:
        source: the model.
        plan: what was to be written.
        build: the options it was planned with.
        layers: the model's layers as written, in the plan's order.
        subject: the manifest, or the index over several.
    """

    source: ModelSource
    plan: ModelcarPlan
    build: BuildOptions
    layers: tuple[WrittenLayer, ...]
    subject: Descriptor

    @property
    def base(self) -> BaseImage:
        """The base; of several platforms' the first, all pinned by one digest."""
        return self.plan.images[0][0]

    def planned(self) -> Iterator[tuple[LayerPlan, WrittenLayer]]:
        """Yield each layer of the model as planned, not compressed, and as written."""
        for planned, written in zip(self.plan.layers, self.layers, strict=True):
            yield (planned.plan if isinstance(planned, CompressedLayer) else planned), written


def hex_of(digest: str) -> str:
    """Return the hexadecimal digits of a `sha256:…` digest."""
    return digest.removeprefix("sha256:")
