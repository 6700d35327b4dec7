"""The two places of the KServe path between which a canary moves traffic, and how their objects are named.

Blue is what `servepath deploy` makes under the name that it is given, green the same under `<name>-green`. Which of
them is the stable one is written on the HTTPRoute `<name>-stable`; before the first canary there is none, and blue is.
"""

from __future__ import annotations

from enum import StrEnum

SLOT_HEADER = "servepath-slot"
"""In a request: the slot that is asked, whatever the weights. In an answer: the slot that gave it."""

STABLE_ANNOTATION = "servepath.dev/stable-slot"


class Slot(StrEnum):
    """One of the two places that a model is served from."""

    BLUE = "blue"
    GREEN = "green"

    @property
    def other(self) -> Slot:
        """The slot beside it."""
        return Slot.GREEN if self is Slot.BLUE else Slot.BLUE


def slot_name(name: str, slot: Slot) -> str:
    """Give the base name of a slot's objects."""
    return name if slot is Slot.BLUE else f"{name}-{slot}"


def route_name(name: str) -> str:
    """Name the HTTPRoute of the stable hostname."""
    return f"{name}-stable"
