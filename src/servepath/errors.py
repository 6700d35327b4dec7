"""Every error that servepath raises on purpose, and the exit code of its class.

```text
ServepathError            1
├── UsageError            2  the command line asks for something that cannot be
├── InputError            3  a model directory, file or report is not usable
├── RegistryError         4  a registry refused, failed or answered something else
├── ClusterError          5  the Kubernetes API, a workload or the machine under it
├── CheckFailedError      6  a smoke check found something else than expected
├── SloMissedError        7  a service level objective was missed
├── PromotionRefusedError 8  nothing was changed
└── PromotionRolledBackError 9  what was there before serves again
```
"""

from __future__ import annotations

import errno
from typing import ClassVar


class ServepathError(Exception):
    """An error that a person can act on.

    Args:
        what: what failed, one plain sentence without a full stop.
        where: the place: a path, an object, an address.
        expected: what was expected there, if it is not plain from `what`.
        next_command: the command to type next.
    """

    exit_code: ClassVar[int] = 1
    next_command: str = ""

    def __init__(self, what: str, *, where: str = "", expected: str = "", next_command: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.expected = expected
        self.next_command = next_command or self.next_command

    def __str__(self) -> str:
        parts = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.next_command:
            parts.append(f"next: {self.next_command}")
        return "; ".join(parts)


class UsageError(ServepathError):
    """The command line asks for something that cannot be."""

    exit_code = 2
    next_command = "servepath --help"


class InputError(ServepathError):
    """A model directory, a file or a report is not usable."""

    exit_code = 3


class RegistryError(ServepathError):
    """A registry refused, failed or answered something else than the specification says."""

    exit_code = 4


class ClusterError(ServepathError):
    """The Kubernetes API, a workload on it, or the machine under it."""

    exit_code = 5


class CheckFailedError(ServepathError):
    """A smoke check found something else than expected."""

    exit_code = 6


class SloMissedError(ServepathError):
    """A service level objective was missed."""

    exit_code = 7


class PromotionRefusedError(ServepathError):
    """A promotion was refused; nothing was changed."""

    exit_code = 8


class PromotionRolledBackError(ServepathError):
    """A promotion failed and was rolled back; what was there before serves again."""

    exit_code = 9


_REFUSED_BY_THE_DISK = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EEXIST, errno.ENOTDIR, errno.EISDIR}
)


def first_servepath_error(error: BaseException) -> ServepathError | None:
    """Give the error to tell the user, looked for inside the groups that task groups make.

    A disk that is full or cannot be written is no fault of servepath, wherever it is met: that is an InputError.
    """
    if isinstance(error, ServepathError):
        return error
    if isinstance(error, OSError) and error.errno in _REFUSED_BY_THE_DISK and error.strerror:
        return InputError(
            error.strerror,
            where=str(error.filename or ""),
            expected="a place that can be written, on a disk with room",
            next_command=f"ls -ld {error.filename or '.'}; df -h .",
        )
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            if (found := first_servepath_error(inner)) is not None:
                return found
    return None
