"""What a registry was asked for, by its access log: Apache's format, which distribution's registry writes to stdout."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_LINE = re.compile(r'"(?P<method>[A-Z]+) /v2/(?P<path>\S*) HTTP/[\d.]+" \d{3} (?P<size>\d+)')


@dataclass(frozen=True, slots=True)
class Asked:
    """A request.

    Attributes:
        method: GET, HEAD, …
        path: what follows `/v2/`: repository, kind, digest.
        sent_bytes: the length of the answer's body.
    """

    method: str
    path: str
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class AccessLog:
    """A log that is being written."""

    file: Path

    @property
    def end(self) -> int:
        """Where it ends now."""
        return self.file.stat().st_size

    def since(self, begin: int) -> list[Asked]:
        """The requests that were logged since it ended at `begin`."""
        text = self.file.read_bytes()[begin:].decode(errors="replace")
        return [Asked(found["method"], found["path"], int(found["size"])) for found in _LINE.finditer(text)]
