"""A module that says too little about itself: what the documentation test must find."""

import enum
from typing import Annotated

from dagger import Doc
from dagger.mod._module import Module

module = Module("Sloppy")


@module.enum_type
class Colour(enum.Enum):
    """Documented, but its member is not."""

    RED = "red"


@module.object_type
class Sloppy:
    field: str = module.field(default="")

    @module.function
    def work(self, amount: int, colour: Annotated[Colour, Doc("Documented")] = Colour.RED) -> str:
        return f"{amount} {colour}"
