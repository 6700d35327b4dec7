"""How the module declares its objects and functions: Dagger's decorators, with the types that their stubs leave out.

The engine keeps a function's result for seven days. A function that only builds keeps that default, because its result
depends on nothing but its arguments; what looks at a live system is never kept, and a handle on one stands for as long
as the session that holds the system.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, dataclass_transform

import dagger

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")


@dataclass_transform(kw_only_default=True, field_specifiers=(dagger.field,))
def object_type(cls: type[T]) -> type[T]:
    """Expose a class as a type of the module: a dataclass whose `dagger.field()` fields callers see."""
    declared: type[T] = dagger.object_type(cls)
    return declared


def never_cached(function: Callable[P, R]) -> Callable[P, R]:
    """Expose a function that looks at a live system: it runs at each call."""
    decorate: Callable[[Callable[P, R]], Callable[P, R]] = dagger.function(cache="never")  # type: ignore[call-overload]
    return decorate(function)


def session_cached(function: Callable[P, R]) -> Callable[P, R]:
    """Expose a function that gives a handle on a live system: one handle for each session of the engine."""
    decorate: Callable[[Callable[P, R]], Callable[P, R]] = dagger.function(cache="session")  # type: ignore[call-overload]
    return decorate(function)
