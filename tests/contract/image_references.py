"""Finding references to images and charts in any text of the repository, and telling whether a digest pins them."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")

# What reads as a reference wherever it stands: oci:// or docker://, a registry's host with a tag, or name:1.2.3.
ANYWHERE = re.compile(
    r"""(?<![\w./:@{-])(?P<reference>
        (?:(?:oci|docker)://[\w.-]+\.[a-z]{2,}/[\w./-]+(?::[\w][\w.-]*)?
          |[a-z0-9][\w.-]*\.[a-z]{2,}(?::\d+)?/[\w./-]+:[\w][\w.-]*
          |[a-z][\w.-]*(?:/[\w.-]+)*:v?\d+(?:\.\d+)+[\w.-]*)
        (?:@sha256:[0-9a-f]+)?)
        (?![\w.}-])  # a brace: not the format of an f-string""",
    re.VERBOSE,
)
# `image:` and `container:` of YAML and JSON with or without quotes, kustomize's `newTag:`, a values file's `tag:`.
DATA_FIELD = re.compile(
    r"""(?:^\s*(?:-\s*)?|[{,]\s*)["']?(?:image|container|newTag|tag)["']?\s*:\s*
        ["']?(?P<reference>[\w.-][\w./:@-]*)["']?\s*(?:[,}].*)?(?:\#.*)?$""",
    re.VERBOSE,
)
DOCKERFILE_FIELD = re.compile(r"^\s*(?:FROM\s+(?:--\S+\s+)*|COPY\s+--from=)(?P<reference>[\w.-]*[./:@][\w./:@-]*)")
# Of a program only what is a literal: an assignment, a keyword argument, Dagger's `from_`.
CODE_FIELD = re.compile(
    r"""(?:\bimage["']?\s*[:=]|\bfrom_?\()\s*["'](?P<reference>[\w.-][\w./:@-]+)["']""", re.IGNORECASE
)
CODE = (".py", ".go")
URL = re.compile(r"\b(?!oci:|docker:)[a-z][a-z+]*://\S*")

# Tests plant unpinned references on purpose; package locks, sums and styles name no image.
NOT_SCANNED = ("tests", "build", "node_modules", "report", "__pycache__")
NOT_SCANNED_SUFFIXES = (".sum", ".lock", ".css", ".j2", ".pyc")
SCANNED_HIDDEN = (".ci", ".github")


def unpinned(text: str, *, code: bool) -> Iterator[str]:
    """Give the references of a text that carry no digest; a comment or an address of the web is none.

    Args:
        text: the text of a file.
        code: whether it is a program, where only literals count, or data.
    """
    fields = (ANYWHERE, CODE_FIELD) if code else (ANYWHERE, DATA_FIELD, DOCKERFILE_FIELD)
    for line in text.splitlines():
        if line.lstrip().startswith(("#", "//", "- #")):
            continue
        bare = URL.sub("", line)
        found = [match["reference"] for field in fields for match in field.finditer(bare)]
        yield from (name for name in dict.fromkeys(found) if not DIGEST.search(name) and can_be_pulled(name))


def can_be_pulled(reference: str) -> bool:
    """Tell whether a reference's host can exist: those of RFC 2606, 6761 and 6762 cannot."""
    host = reference.rpartition("//")[2].partition("/")[0].partition(":")[0]
    return not host.endswith((".invalid", ".test", ".local", "example.com"))


def scanned_files(root: Path) -> Iterator[Path]:
    """Give every file of a tree that could name an image."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(
            name for name in folders if name in SCANNED_HIDDEN or not (name.startswith(".") or name in NOT_SCANNED)
        )
        for name in sorted(files):
            if not name.endswith(NOT_SCANNED_SUFFIXES):
                yield Path(folder, name)


def unpinned_in(root: Path) -> Iterator[tuple[str, str]]:
    """Give each unpinned reference of a tree as the file that has it, relative to the tree, and the reference."""
    for path in scanned_files(root):
        text = path.read_text(encoding="utf-8", errors="replace")
        for reference in unpinned(text, code=path.suffix in CODE):
            yield str(path.relative_to(root)), reference
