"""The raw samples of a run as columns: every number of the report can be computed again from them.

`samples.json.zst` is zstd over JSON. A request is a row; each field is a column, and the times of all tokens are one
column with the number of tokens of each row beside it. A column of times holds whole nanoseconds, each as the
difference to the one before, where that loses nothing; else the seconds as they are. Read back, every time is the very
same float.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import zstandard

from servepath.bench.model import ErrorClass, Sample
from servepath.canary.model import ClientRequest
from servepath.serving.slots import Slot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from servepath.report.model import Report

SAMPLES_SCHEMA = "servepath-samples/v2"
MAX_SAMPLES_BYTES = 1 << 30
NS_PER_S = 1_000_000_000
# 12 is where more effort stops to pay: 1% smaller at 19, in ten times the time.
ZSTD_LEVEL = 12

OVERHEADS = ("ttft_s", "itl_s", "e2e_s")

RolloutSamples = tuple[tuple[float, bool], ...]


@dataclass(frozen=True, slots=True)
class AddedTimes:
    """What the client added to each value of a latency at one number of streams, in seconds."""

    ttft_s: tuple[float, ...]
    itl_s: tuple[float, ...]
    e2e_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class KeptSamples:
    """Every raw sample of a run.

    Attributes:
        comparison: the requests of the comparison.
        sweep: the requests of the sweep.
        rollouts: for each rollout, the seconds since it began when a request was sent, and whether it was answered.
        instrument: for each number of streams, what the client added.
        canary: the clients' requests while a canary ran.
        canary_steps: for each of its steps, the requests of the paired measurement.
    """

    comparison: tuple[Sample, ...] = ()
    sweep: tuple[Sample, ...] = ()
    rollouts: tuple[RolloutSamples, ...] = ()
    instrument: tuple[AddedTimes, ...] = ()
    canary: tuple[ClientRequest, ...] = ()
    canary_steps: tuple[tuple[Sample, ...], ...] = ()

    @property
    def request_count(self) -> int:
        """How many requests are kept."""
        paced = sum(len(one.e2e_s) for one in self.instrument)
        of_canary = len(self.canary) + sum(len(one) for one in self.canary_steps)
        return len(self.comparison) + len(self.sweep) + sum(len(one) for one in self.rollouts) + paced + of_canary

    @property
    def token_count(self) -> int:
        """How many token times are kept."""
        samples = (*self.comparison, *self.sweep, *(one for step in self.canary_steps for one in step))
        return sum(len(one.token_times_s) for one in samples)


def kept_samples(report: Report) -> KeptSamples:
    """The samples of a report."""
    return KeptSamples(
        comparison=report.comparison.samples if report.comparison else (),
        sweep=report.sweep.samples if report.sweep else (),
        rollouts=tuple(one.samples for one in report.lifecycle.rollouts) if report.lifecycle else (),
        instrument=tuple(
            AddedTimes(**{name: getattr(point.overheads, name) for name in OVERHEADS})
            for point in (report.instrument.points if report.instrument else ())
        ),
        canary=report.canary.requests if report.canary else (),
        canary_steps=tuple(
            step.comparison.samples if step.comparison else ()
            for step in (report.canary.steps if report.canary else ())
        ),
    )


def pack(kept: KeptSamples) -> bytes:
    """The content of `samples.json.zst`."""
    document = {
        "schema": SAMPLES_SCHEMA,
        "comparison": _columns(kept.comparison),
        "sweep": _columns(kept.sweep),
        "rollouts": [
            {"sent": _times(time_s for time_s, _ in rollout), "answered": [int(answered) for _, answered in rollout]}
            for rollout in kept.rollouts
        ],
        "instrument": [{name: _times(getattr(one, name)) for name in OVERHEADS} for one in kept.instrument],
        "canary": _client_columns(kept.canary),
        "canary_steps": [_columns(step) for step in kept.canary_steps],
    }
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(text.encode())


def unpack(content: bytes) -> KeptSamples:
    """The samples of the content of `samples.json.zst`.

    Raises:
        ValueError: it is not that, or of another schema.
    """
    try:
        document = json.loads(zstandard.ZstdDecompressor().decompress(content, max_output_size=MAX_SAMPLES_BYTES))
        if document["schema"] != SAMPLES_SCHEMA:
            raise ValueError(f"its schema is {document['schema']!r}")
        return KeptSamples(
            comparison=tuple(_rows(document["comparison"])),
            sweep=tuple(_rows(document["sweep"])),
            rollouts=tuple(
                tuple(zip(_seconds(one["sent"]), map(bool, one["answered"]), strict=True))
                for one in document["rollouts"]
            ),
            instrument=tuple(
                AddedTimes(**{name: tuple(_seconds(one[name])) for name in OVERHEADS}) for one in document["instrument"]
            ),
            canary=tuple(_client_rows(document["canary"])) if "canary" in document else (),
            canary_steps=tuple(tuple(_rows(step)) for step in document.get("canary_steps", ())),
        )
    except (LookupError, TypeError, AttributeError, zstandard.ZstdError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _columns(samples: Sequence[Sample]) -> dict[str, Any]:
    paths = list(dict.fromkeys(sample.path for sample in samples))
    return {
        "paths": paths,
        "path": [paths.index(sample.path) for sample in samples],
        "block": [sample.block for sample in samples],
        "index": [sample.index for sample in samples],
        "intended": _times(sample.intended_s for sample in samples),
        "sent": _times(sample.sent_s for sample in samples),
        "end": _times(sample.end_s for sample in samples),
        "token_count": [len(sample.token_times_s) for sample in samples],
        "token": _times(time_s for sample in samples for time_s in sample.token_times_s),
        "prompt_tokens": [sample.prompt_tokens for sample in samples],
        "completion_tokens": [sample.completion_tokens for sample in samples],
        "errors": [
            {"row": row, "class": str(sample.error), "detail": sample.error_detail}
            for row, sample in enumerate(samples)
            if sample.error is not None
        ],
    }


def _rows(columns: dict[str, Any]) -> Iterator[Sample]:
    errors = {one["row"]: one for one in columns["errors"]}
    tokens = _seconds(columns["token"])
    ends = list(accumulate(columns["token_count"], initial=0))
    if ends[-1] != len(tokens):
        raise ValueError(f"{len(tokens)} token times for {ends[-1]} tokens")
    whole = ("path", "block", "index", "prompt_tokens", "completion_tokens", "token_count")
    times = [_seconds(columns[name]) for name in ("intended", "sent", "end")]
    table = zip(*(columns[name] for name in whole), *times, pairwise(ends), strict=True)
    for row, (path, block, index, prompt, completion, _, intended_s, sent_s, end_s, (first, last)) in enumerate(table):
        error = errors.get(row)
        yield Sample(
            path=columns["paths"][path],
            block=block,
            index=index,
            intended_s=intended_s,
            sent_s=sent_s,
            token_times_s=tuple(tokens[first:last]),
            end_s=end_s,
            prompt_tokens=prompt,
            completion_tokens=completion,
            error=ErrorClass(error["class"]) if error else None,
            error_detail=error["detail"] if error else "",
        )


def _client_columns(requests: Sequence[ClientRequest]) -> dict[str, Any]:
    """The requests of a canary's clients; one without a first token has 0 there and says so beside it."""
    return {
        "sent": _times(one.sent_s for one in requests),
        "ended": _times(one.ended_s for one in requests),
        "ttft": _times(one.ttft_s or 0.0 for one in requests),
        "has_ttft": [int(one.ttft_s is not None) for one in requests],
        "slot": [str(one.slot or "") for one in requests],
        "errors": [{"row": row, "error": one.error} for row, one in enumerate(requests) if one.error],
    }


def _client_rows(columns: dict[str, Any]) -> Iterator[ClientRequest]:
    errors = {one["row"]: one["error"] for one in columns["errors"]}
    times = [_seconds(columns[name]) for name in ("sent", "ended", "ttft")]
    table = zip(*times, columns["has_ttft"], columns["slot"], strict=True)
    for row, (sent_s, ended_s, ttft_s, has_ttft, slot) in enumerate(table):
        yield ClientRequest(
            sent_s=sent_s,
            ended_s=ended_s,
            ttft_s=ttft_s if has_ttft else None,
            slot=Slot(slot) if slot else None,
            error=errors.get(row, ""),
        )


def _times(values: Iterable[float]) -> dict[str, Any]:
    """A column of times: nanosecond steps where every value is a whole number of them, else seconds."""
    seconds = list(values)
    whole_ns = [round(value * NS_PER_S) for value in seconds]
    if all(ns / NS_PER_S == value for ns, value in zip(whole_ns, seconds, strict=True)):
        return {"unit": "ns", "steps": [later - earlier for earlier, later in pairwise([0, *whole_ns])]}
    return {"unit": "s", "values": seconds}


def _seconds(column: dict[str, Any]) -> list[float]:
    if column["unit"] == "ns":
        return [ns / NS_PER_S for ns in accumulate(column["steps"])]
    return [float(value) for value in column["values"]]
