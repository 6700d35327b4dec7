"""What the runs say: medians, ratios within rounds, the table and the plot."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from ci.modelcar_bench.experiment import Run, Step

if TYPE_CHECKING:
    from collections.abc import Sequence

OURS = "servepath"
_BAR_PX, _ROW_PX, _LABEL_PX, _WIDTH_PX = 16, 22, 170, 760
_MB = 1e6


@dataclass(frozen=True, slots=True)
class Row:
    """One tool in one step against one registry.

    Attributes:
        tool: its name.
        walls_s: wall time of each round.
        cpu_s: median CPU time.
        memory_bytes: largest resident set of any round.
        written_bytes: most bytes written to disk in any round.
        ratios: its wall time over ours, round by round; 1 for ours.
    """

    tool: str
    walls_s: tuple[float, ...]
    cpu_s: float
    memory_bytes: int
    written_bytes: int
    ratios: tuple[float, ...]


def rows(runs: Sequence[Run], registry: str, step: Step) -> list[Row]:
    """The rows of one step against one registry, ours first, then the fastest."""
    chosen = [run for run in runs if run.registry == registry and run.step is step]
    ours_s = {run.number: run.cost.wall_s for run in chosen if run.tool == OURS}
    found = [_row([run for run in chosen if run.tool == tool], ours_s) for tool in {run.tool for run in chosen}]
    return sorted(found, key=lambda row: (row.tool != OURS, median(row.walls_s)))


def markdown(runs: Sequence[Run], model_bytes: int, machine: str, command: str) -> str:
    """The page: what was measured, a table per registry, and how to do it again."""
    rounds = 1 + max(run.number for run in runs)
    lines = [
        "# Pushing a modelcar, measured beside its peers",
        "",
        f"A model of {model_bytes / _MB:.0f} MB with the tensors of Qwen2.5-0.5B; {machine}; {rounds} rounds,",
        "the order of the tools drawn anew in each; each figure is of a whole process with all it starts.",
        "",
        f"`{command}` measures it again and writes this page.",
        "",
        "![wall time of a first push](modelcar-bench.svg)",
        "",
        "Wall time: median (least to most). Ratio: a tool's wall time over servepath's in the same round, median",
        "(least to most). Memory: the largest resident set of one process. Written: bytes put on a disk.",
    ]
    for registry, step in dict.fromkeys((run.registry, run.step) for run in runs):
        lines += ["", f"## {_title(registry, step)}", "", *_table(rows(runs, registry, step))]
    return "\n".join([*lines, "", *_NOTES, ""])


def svg(runs: Sequence[Run]) -> str:
    """Bars of the median wall time of the first push, with a dot per round."""
    groups = [
        (registry, rows(runs, registry, Step.FIRST))
        for registry in dict.fromkeys(run.registry for run in runs if run.step is Step.FIRST)
    ]
    most_s = max(wall_s for _, group in groups for row in group for wall_s in row.walls_s)
    scale = (_WIDTH_PX - _LABEL_PX - 80) / most_s
    parts: list[str] = []
    y = 10
    for registry, group in groups:
        parts.append(f'<text x="0" y="{y + 14}" font-weight="bold">first push to a {registry}</text>')
        y += _ROW_PX + 4
        for row in group:
            parts += _bar(row, y, scale)
            y += _ROW_PX
        y += 14
    style = (
        "<style>text{font:13px sans-serif;fill:#24292f}.b{fill:#8c959f}.o{fill:#0969da}.d{fill:#24292f}"
        "@media(prefers-color-scheme:dark){text,.d{fill:#e6edf3}.o{fill:#4493f8}}</style>"
    )
    title = "<title>Wall time of a first push, in seconds: bars are medians, dots are rounds</title>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH_PX} {y}">{title}{style}{"".join(parts)}</svg>\n'
    )


def _row(runs: Sequence[Run], ours_s: dict[int, float]) -> Row:
    return Row(
        tool=runs[0].tool,
        walls_s=tuple(run.cost.wall_s for run in runs),
        cpu_s=median(run.cost.cpu_s for run in runs),
        memory_bytes=max(run.cost.memory_bytes for run in runs),
        written_bytes=max(run.cost.written_bytes for run in runs),
        ratios=tuple(run.cost.wall_s / ours_s[run.number] for run in runs if run.number in ours_s),
    )


def _table(found: Sequence[Row]) -> list[str]:
    lines = ["| tool | wall s | ratio | CPU s | memory MB | written MB |", "| --- | --- | --- | --- | --- | --- |"]
    for row in found:
        ratio = "1" if row.tool == OURS else _spread(row.ratios)
        memory, written = f"{row.memory_bytes / _MB:.0f}", f"{row.written_bytes / _MB:.1f}"
        lines.append(f"| {row.tool} | {_spread(row.walls_s)} | {ratio} | {row.cpu_s:.2f} | {memory} | {written} |")
    return lines


def _bar(row: Row, y: int, scale: float) -> list[str]:
    middle_s = median(row.walls_s)
    width, kind = middle_s * scale, "o" if row.tool == OURS else "b"
    furthest = _LABEL_PX + max(row.walls_s) * scale
    return [
        f'<text x="{_LABEL_PX - 8}" y="{y + 13}" text-anchor="end">{row.tool}</text>',
        f'<rect class="{kind}" x="{_LABEL_PX}" y="{y}" width="{width:.1f}" height="{_BAR_PX}"/>',
        *(
            f'<circle class="d" cx="{_LABEL_PX + wall_s * scale:.1f}" cy="{y + _BAR_PX / 2}" r="2.5"/>'
            for wall_s in row.walls_s
        ),
        f'<text x="{furthest + 8:.1f}" y="{y + 13}">{middle_s:.2f} s</text>',
    ]


def _title(registry: str, step: Step) -> str:
    return f"{step[0].upper()}{step[1:]}" + (f", {registry}" if registry else "")


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


_NOTES = (
    "## What is compared",
    "",
    "- oras pushes the raw files: the least that any client can do, and nothing that KServe can run.",
    "- oci-modelcar is its own pipeline with the download replaced by the files on disk; it has no base image.",
    "- olot works on a copy of the base's layout, as its README says; `--preserve-digests` spares it skopeo's gzip.",
    "- The discarding sink believes the digest and forgets the bytes: what is left is the client. The verifying sink",
    "  hashes them, as every registry must. docker-registry also writes them to the disk, which then decides.",
    "- The load average counts the runs themselves, about 2. What is over that was other work on the machine: wall",
    "  times are then longer and less even, and CPU times and the ratios within a round say more.",
    "- In shards: the same tensors in four files. One file is one SHA-256, which no second core can help with.",
    "- In each round a tool has a new registry and an empty home; later pushes use what the first left there.",
)
