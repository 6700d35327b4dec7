"""The licence of a model, from the front matter of its model card, as an SPDX expression."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

MAX_CARD_BYTES = 1 << 20
_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_NOT_IN_A_REFERENCE = re.compile(r"[^A-Za-z0-9.-]+")
_SPDX = {
    identifier.lower(): identifier
    for identifier in (
        "AFL-3.0", "Apache-2.0", "Artistic-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSD-3-Clause-Clear", "BSL-1.0",
        "CC-BY-2.0", "CC-BY-2.5", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-NC-2.0", "CC-BY-NC-3.0", "CC-BY-NC-4.0",
        "CC-BY-NC-ND-3.0", "CC-BY-NC-ND-4.0", "CC-BY-NC-SA-2.0", "CC-BY-NC-SA-3.0", "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0",
        "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC0-1.0", "ECL-2.0", "EPL-1.0", "EPL-2.0", "EUPL-1.1", "EUPL-1.2", "ISC",
        "LPPL-1.3c", "MIT", "MPL-2.0", "MS-PL", "MulanPSL-2.0", "NCSA", "ODbL-1.0", "OFL-1.1", "OSL-3.0", "PDDL-1.0",
        "PostgreSQL", "Unlicense", "WTFPL", "Zlib",
    )
} | {
    "agpl-3.0": "AGPL-3.0-only",
    "gpl-2.0": "GPL-2.0-only",
    "gpl-3.0": "GPL-3.0-only",
    "lgpl-2.1": "LGPL-2.1-only",
    "lgpl-3.0": "LGPL-3.0-only",
}  # fmt: skip
"""Licence identifiers of the Hub (https://huggingface.co/docs/hub/repositories-licenses) that SPDX has too."""


def licence_of(card: Path) -> str:
    """Return the SPDX expression of a model card; empty when it names no licence or cannot be read as a card.

    A licence that SPDX does not have becomes a `LicenseRef-`, such as `LicenseRef-llama3.1`; of several licences all
    count.
    """
    with card.open("rb") as file:
        text = file.read(MAX_CARD_BYTES).decode("utf-8", "replace")
    match = _FRONT_MATTER.match(text)
    if match is None:
        return ""
    import yaml  # noqa: PLC0415 - a tenth of a short push, and a model without a card needs none

    try:
        fields = yaml.safe_load(match.group(1))
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        return ""
    if not isinstance(fields, dict):
        return ""
    named = fields.get("license")
    names = [name for name in (named if isinstance(named, list) else [named]) if isinstance(name, str)]
    return " AND ".join(dict.fromkeys(filter(None, (_spdx(name, fields) for name in names))))


def _spdx(name: str, fields: dict[Any, Any]) -> str:
    known = name.strip().lower()
    if known in _SPDX:
        return _SPDX[known]
    if known in {"other", "unknown"}:
        known = str(fields.get("license_name") or "").lower() if known == "other" else ""
    reference = _NOT_IN_A_REFERENCE.sub("-", known).strip("-.")[:100]
    return f"LicenseRef-{reference}" if reference else ""
