"""What a program said, as one line of an error; the whole of it belongs into a log."""

from __future__ import annotations

import textwrap

_MOST_CHARACTERS = 400


def one_line(text: str) -> str:
    """Give all of a short text on one line, cut where it is long."""
    return textwrap.shorten(text, _MOST_CHARACTERS, placeholder=" …")


def last_line(text: str) -> str:
    """Give the last line with something on it: where most programs say why they ended; `no output` without one."""
    lines = [line for line in text.splitlines() if line.strip()]
    return one_line(lines[-1]) if lines else "no output"
