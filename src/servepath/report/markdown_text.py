"""Pieces of GitHub-flavoured Markdown that any text can be put into."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_CELL_CHARS = 300
# What begins a list, a quote or a heading where a text begins a line.
OPENS_A_BLOCK = re.compile(r"^(\d*)([-+*>#]+(?=\s|$)|>|[.)](?=\s|$))")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; cells are escaped and cut."""
    first, *others = ["| " + " | ".join(cell(value) for value in line) + " |" for line in (head, *rows)]
    return "\n".join([first, "| " + " | ".join(["---"] * len(head)) + " |", *others])


def cell(text: str) -> str:
    """Text that stays in its cell: one line, no pipe, no HTML, at most `MAX_CELL_CHARS` characters."""
    one_line = " ".join(str(text).split())
    cut = one_line if len(one_line) <= MAX_CELL_CHARS else one_line[:MAX_CELL_CHARS] + "…"
    escaped = cut.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
    return OPENS_A_BLOCK.sub(r"\1\\\2", escaped)


def code_block(lines: Sequence[str]) -> str:
    """Lines as a block of code, its fence longer than any run of backticks in them."""
    fence = "```"
    while any(fence in line for line in lines):
        fence += "`"
    return "\n".join([fence, *(" ".join(line.split()) for line in lines), fence])


def code(text: str) -> str:
    """Text as inline code, on one line, with a fence longer than any run of backticks in it."""
    one_line = " ".join(str(text).split())
    fence = "`"
    while fence in one_line:
        fence += "`"
    pad = " " if "`" in one_line else ""
    return f"{fence}{pad}{one_line}{pad}{fence}"
