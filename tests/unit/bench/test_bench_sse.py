from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servepath.bench.sse import ContentCounter, StreamChunk, StreamFormatError, StreamParser, parse_chunk

TEXTS = st.lists(st.text(min_size=1, max_size=12), max_size=6)


def stream_of(texts: list[str], line_end: str) -> bytes:
    events = [{"choices": [{"delta": {"role": "assistant", "content": ""}}]}]
    events += [{"choices": [{"delta": {"content": text}}]} for text in texts]
    events.append({"choices": [{"delta": {}, "finish_reason": "length"}], "system_fingerprint": "vllm-0.23.0-abcdef01"})  # type: ignore[dict-item]
    events.append({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": len(texts)}})  # type: ignore[dict-item]
    datas = [json.dumps(event, ensure_ascii=False) for event in events] + ["[DONE]"]
    return "".join(f": a comment{line_end}data: {data}{line_end}{line_end}" for data in datas).encode()


def parse_all(pieces: list[bytes]) -> list[StreamChunk]:
    parser = StreamParser()
    return [chunk for piece in pieces for chunk in parser.feed(piece)]


@settings(deadline=None)
@given(texts=TEXTS, line_end=st.sampled_from(["\n", "\r\n", "\r"]), data=st.data())
def test_any_cutting_of_the_bytes_gives_the_same_chunks(texts: list[str], line_end: str, data: st.DataObject) -> None:
    body = stream_of(texts, line_end)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=20)))
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]

    chunks = parse_all(pieces)

    assert chunks == parse_all([body])
    assert chunks == parse_all([bytes([byte]) for byte in body])
    assert [chunk.text for chunk in chunks if chunk.text] == texts
    assert chunks[0].role == "assistant"
    assert chunks[-3].finish_reason == "length"
    assert chunks[-3].system_fingerprint == "vllm-0.23.0-abcdef01"
    assert (chunks[-2].prompt_tokens, chunks[-2].completion_tokens) == (7, len(texts))
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_give_anything_but_chunks_or_a_format_error(body: bytes) -> None:
    try:
        chunks = parse_all([b"data: ", body, b"\n\n"])
    except StreamFormatError:
        return
    assert all(isinstance(chunk, StreamChunk) for chunk in chunks)


def test_an_event_without_its_empty_line_is_not_given() -> None:
    assert parse_all([b"data: [DONE]\n"]) == []
    assert parse_all([b"data: [DONE]\n\n"]) == [StreamChunk(done=True)]


def test_data_lines_of_one_event_are_joined() -> None:
    assert parse_all([b'data: {"choices":\ndata: [{"delta": {"content": "a"}}]}\n\n']) == [StreamChunk(text="a")]


@pytest.mark.parametrize(
    "data",
    [
        "{",
        "[]",
        "7",
        '{"error": {"message": "engine died"}}',
        '{"choices": 3}',
        '{"choices": ["x"]}',
        '{"choices": [], "usage": {"prompt_tokens": 3}}',
        '{"choices": [], "usage": {"prompt_tokens": "many", "completion_tokens": 1}}',
    ],
)
def test_what_is_no_chunk_is_refused_with_what_was_seen(data: str) -> None:
    with pytest.raises(StreamFormatError) as caught:
        parse_chunk(data)
    assert data in str(caught.value)


def test_a_long_bad_event_is_shown_shortened() -> None:
    with pytest.raises(StreamFormatError) as caught:
        parse_chunk("x" * 10_000)
    assert len(str(caught.value)) < 400


def test_reasoning_counts_as_content() -> None:
    assert parse_chunk('{"choices": [{"delta": {"reasoning_content": "hm"}}]}').text == "hm"


def counted(pieces: list[bytes]) -> tuple[int, int, int, bool]:
    counter = ContentCounter()
    count = sum(counter.feed(piece) for piece in pieces)
    return count, counter.prompt_tokens, counter.completion_tokens, counter.done


def counted_in_full(body: bytes) -> tuple[int, int, int, bool]:
    chunks = parse_all([body])
    usage = [(one.prompt_tokens, one.completion_tokens) for one in chunks if one.completion_tokens is not None]
    prompt_tokens, completion_tokens = usage[-1] if usage else (0, 0)
    return (
        sum(bool(chunk.text) for chunk in chunks),
        prompt_tokens or 0,
        completion_tokens or 0,
        any(chunk.done for chunk in chunks),
    )


@settings(deadline=None)
@given(texts=TEXTS, line_end=st.sampled_from(["\n", "\r\n", "\r"]), data=st.data())
def test_counting_finds_the_chunks_that_parsing_finds(texts: list[str], line_end: str, data: st.DataObject) -> None:
    body = stream_of(texts, line_end)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=20)))
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]

    assert counted(pieces) == counted_in_full(body) == (len(texts), 7, len(texts), True)


BEFORE = b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"'
AFTER = b'"},"logprobs":null,"finish_reason":null}]}\n\n'


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from([b"a", b'"', b"\\", b"n", b"u0041", b"}", b",", b'"content":"b"', b"\n", b"\x01"]), max_size=8
    )
)
def test_bytes_that_only_look_like_a_content_chunk_are_not_counted(letters: list[bytes]) -> None:
    body = BEFORE + b"first" + AFTER + BEFORE + b"".join(letters) + AFTER
    try:
        expected = counted_in_full(body)
    except StreamFormatError:
        with pytest.raises(StreamFormatError):
            counted([body])
    else:
        assert counted([body]) == expected


def test_an_error_amid_the_content_is_noticed_when_counting() -> None:
    with pytest.raises(StreamFormatError, match="engine died"):
        counted([(BEFORE + b"a" + AFTER) * 3, b'data: {"error": {"message": "engine died"}}\n\n'])


def test_a_chunk_that_is_known_by_its_shape_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = ContentCounter()
    assert counter.feed(BEFORE + b"a" + AFTER) == 1
    monkeypatch.setattr(json, "loads", lambda _: pytest.fail("parsed again"))

    assert counter.feed((BEFORE + b" b\\u00e9\\n" + AFTER) * 5) == 5
