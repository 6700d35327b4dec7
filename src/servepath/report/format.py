"""Numbers as people read them, the same in every page."""

from __future__ import annotations

METRIC_NAMES = {"ttft": "TTFT", "itl": "ITL", "e2e": "E2E"}
METRIC_MEANINGS = {
    "ttft": "time to first token",
    "itl": "time between tokens",
    "e2e": "whole request",
}
SECONDS_FROM_S = 1.0
MINUTES_FROM_S = 120.0
KIB = 1024


def duration(seconds: float) -> str:
    """A span of a run, such as `850 ms`, `12.3 s`, `4 min 05 s`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < MINUTES_FROM_S:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def clock(seconds: float) -> str:
    """A moment of a run in minutes and seconds, such as `3:20`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def latency(seconds: float) -> str:
    """A latency with three digits, such as `3.21 ms`, `54.3 ms`, `758 ms`, `2.41 s`."""
    value, unit = (seconds, "s") if seconds >= SECONDS_FROM_S else (seconds * 1000, "ms")
    digits = 2 if value < 10 else 1 if value < 100 else 0  # noqa: PLR2004  # three digits in all
    return f"{value:.{digits}f} {unit}"


def size(size_bytes: int) -> str:
    """A size in binary units, such as `256.4 MiB`."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if value < KIB:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= KIB
    return f"{value:.1f} GiB"


def objective_name(objective: str) -> str:
    """An objective's key as people say it: `ttft_p95_s` is `TTFT p95`."""
    metric, _, rest = objective.partition("_")
    return (
        f"{METRIC_NAMES[metric]} {rest.removesuffix('_s')}" if metric in METRIC_NAMES else objective.replace("_", " ")
    )


def objective_value(objective: str, value: float | None) -> str:
    """An objective's limit or measurement with its unit."""
    if value is None:
        return "not measured"
    return latency(value) if objective.endswith("_s") else f"{value:.1%}"


def fact_name(key: str) -> str:
    """A fact's key as people say it: `memory_bytes` is `memory`."""
    return key.removesuffix("_bytes").replace("_", " ")


def fact(key: str, value: object) -> str:
    """A fact's value, sizes in binary units."""
    return size(value) if key.endswith("_bytes") and isinstance(value, int) else str(value)


def count(value: float) -> str:
    """A large count, such as `134.5 M`."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.1f} {unit}"
    return f"{value:.0f}"


def percent(ratio: float) -> str:
    """A ratio as a signed difference, such as `+3.1%`."""
    return f"{100 * (ratio - 1):+.1f}%".replace("-", "\N{MINUS SIGN}")


def percent_interval(low: float, high: float) -> str:
    """The ends of a ratio's interval as signed differences, such as `+1.0% to +5.2%`."""
    return f"{percent(low)} to {percent(high)}"


def measured(value: float, unit: str) -> str:
    """A measurement in its unit: `12.3 s`, `256.4 MiB`, `3 requests`, `0.12 cores`."""
    if unit == "s":
        return duration(value)
    if unit == "bytes":
        return size(round(value))
    return f"{value:.3g} {unit}"


def ratio_interval(ratio: float, low: float, high: float) -> str:
    """A ratio with its interval, such as `1.03\N{MULTIPLICATION SIGN} (1.01 - 1.05)`."""
    return f"{ratio:.2f}\N{MULTIPLICATION SIGN} ({low:.2f}\N{EN DASH}{high:.2f})"


def short_digest(text: str) -> str:
    """The digest inside a reference, shortened to 12 digits; the text itself when it has none."""
    name, found, digest = text.rpartition("sha256:")
    return f"{name}sha256:{digest[:12]}" if found else text
