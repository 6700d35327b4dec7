"""Parser of the OpenAI streaming format: server-sent events that carry chat completion chunks.

A stream is a role chunk, content chunks, a chunk with `finish_reason`, with `stream_options.include_usage` a chunk with
usage and empty `choices`, and `[DONE]`. Source: the WHATWG HTML standard, "Server-sent events"; OpenAI API reference,
"Chat completions: streaming"; vLLM 0.23.0 as seen.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass
from typing import Any

from servepath.errors import CheckFailedError

DONE = "[DONE]"
SHOWN_CHARS = 200
LINE_END = re.compile("\r\n|\r|\n")
STRING_CONTENT = re.compile(rb'(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))+')
CONTENT_FIELD = re.compile(rb'"(?:content|reasoning_content|reasoning)": ?"(' + STRING_CONTENT.pattern + rb')"')


class StreamFormatError(CheckFailedError):
    """An event of a stream is not what the OpenAI format says."""


@dataclass(frozen=True, slots=True)
class StreamChunk:
    """One event of a stream; a chunk may carry more than one of these.

    Attributes:
        role: the role, in the first chunk.
        text: content of the first choice (or its reasoning), empty for none.
        finish_reason: why the engine stopped, empty before it did.
        prompt_tokens: from usage, None without usage.
        completion_tokens: from usage, None without usage.
        system_fingerprint: the engine's name for itself, empty for none.
        done: True for `[DONE]`.
    """

    role: str = ""
    text: str = ""
    finish_reason: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    system_fingerprint: str = ""
    done: bool = False


class StreamParser:
    """Turns the bytes of a response body, cut anywhere, into chunks."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._line = ""
        self._data: list[str] = []
        self._after_cr = False

    def feed(self, received: bytes) -> list[StreamChunk]:
        """The chunks that these bytes complete.

        Raises:
            StreamFormatError: an event's data is no OpenAI chunk.
        """
        chunks = []
        for line in self._lines(self._decoder.decode(received)):
            if line:
                self._field(line)
            elif self._data:
                data, self._data = "\n".join(self._data), []
                chunks.append(parse_chunk(data))
        return chunks

    def _lines(self, text: str) -> list[str]:
        """Lines completed by `text`; CR, LF and CR LF all end a line, also when cut between CR and LF."""
        if not text:
            return []
        if self._after_cr:
            text = text.removeprefix("\n")
        self._after_cr = text.endswith("\r")
        *complete, self._line = LINE_END.split(self._line + text)
        return complete

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        if name == "data":
            self._data.append(value.removeprefix(" "))


class ContentCounter:
    """Counts the content chunks of a stream as they come, and keeps its usage; for a client that only times them.

    The first content chunk is parsed in full. A later event that has the same bytes around its text, and a text that is
    a JSON string and not empty, is a content chunk too; every other event (role, finish, usage, error, `[DONE]`,
    another shape) is parsed in full. So nothing is taken for content that `StreamParser` would not take.

    Attributes:
        prompt_tokens: from usage, 0 before it came.
        completion_tokens: from usage, 0 before it came.
        done: whether `[DONE]` came.
    """

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.done = False
        self._parser = StreamParser()
        self._rest = b""
        self._around = (b"", b"")
        self._has_returns = False

    def feed(self, received: bytes) -> int:
        """The number of content chunks that these bytes complete.

        Raises:
            StreamFormatError: an event's data is no OpenAI chunk.
        """
        data = self._rest + received if self._rest else received
        if self._has_returns or b"\r" in received:  # lines end with CR or CR LF: not the bytes that are cut below
            self._has_returns, self._rest = True, b""
            return self._parse(data)
        *events, self._rest = data.split(b"\n\n")
        return sum(1 if self._is_content(event) else self._parse(event + b"\n\n") for event in events)

    def _is_content(self, event: bytes) -> bool:
        before, after = self._around
        return (
            bool(before)
            and event.startswith(before)
            and event.endswith(after)
            and STRING_CONTENT.fullmatch(event, len(before), len(event) - len(after)) is not None
        )

    def _parse(self, data: bytes) -> int:
        content_count = 0
        for chunk in self._parser.feed(data):
            if chunk.prompt_tokens is not None and chunk.completion_tokens is not None:
                self.prompt_tokens, self.completion_tokens = chunk.prompt_tokens, chunk.completion_tokens
            self.done = self.done or chunk.done
            if chunk.text:
                content_count += 1
                self._learn(data, chunk)
        return content_count

    def _learn(self, event: bytes, chunk: StreamChunk) -> None:
        """Keep the bytes around the text of a chunk that is content and nothing else."""
        texts = list(CONTENT_FIELD.finditer(event))
        if len(texts) != 1 or chunk.finish_reason or chunk.completion_tokens is not None:
            return
        start, end = texts[0].span(1)
        if json.loads(event[start - 1 : end + 1]) == chunk.text:
            self._around = (event[:start], event[end:].removesuffix(b"\n\n"))


def parse_chunk(data: str) -> StreamChunk:
    """One event's data as a chunk.

    Raises:
        StreamFormatError: it is neither `[DONE]` nor a JSON object of a chunk, or it is an error object.
    """
    if data == DONE:
        return StreamChunk(done=True)
    try:
        value = json.loads(data)
    except ValueError as error:
        raise _malformed(data, "JSON") from error
    if not isinstance(value, dict) or "error" in value:
        raise _malformed(data, "a chunk object")
    try:
        return _chunk(value)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise _malformed(data, "choices with deltas and numbers in usage") from error


def _chunk(value: dict[str, Any]) -> StreamChunk:
    choices = value.get("choices") or [{}]
    delta = choices[0].get("delta") or {}
    usage = value.get("usage")
    return StreamChunk(
        role=str(delta.get("role") or ""),
        text=str(delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning") or ""),
        finish_reason=str(choices[0].get("finish_reason") or ""),
        prompt_tokens=int(usage["prompt_tokens"]) if usage else None,
        completion_tokens=int(usage["completion_tokens"]) if usage else None,
        system_fingerprint=str(value.get("system_fingerprint") or ""),
    )


def _malformed(data: str, expected: str) -> StreamFormatError:
    shown = data if len(data) <= SHOWN_CHARS else data[:SHOWN_CHARS] + "…"
    return StreamFormatError(f"a stream event reads {shown!r}", where="chat completion stream", expected=expected)
