"""The OpenAI API of a path, asked through the gateway as a client would."""

from __future__ import annotations

from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from servepath.bench.sse import StreamChunk, StreamFormatError, StreamParser
from servepath.checks.asking import MODELS, Question, ask, chat, completion, get, json_object, opened, shown
from servepath.checks.context import Finding, Tools, finding
from servepath.evidence import Verdict

if TYPE_CHECKING:
    from servepath.serving.model import Endpoint

QUESTION = "The capital of France is"
NO_SUCH_MODEL = "no-such-model"
WRONG_KEY = "not-the-key"
REFUSED_BODY = (400, 422)


async def health_answers_200(tools: Tools, endpoint: Endpoint) -> Finding:
    """GET /health answers 200.

    Why: load balancers probe it. It shows only that the process lives: vLLM reaches it with a model that cannot answer.
    """
    question = replace(get(endpoint, "/health"), key="")
    response = await ask(tools, question)
    return finding([] if response.status_code == HTTPStatus.OK else [shown(response)], "200", question.curl())


async def models_names_the_model(tools: Tools, endpoint: Endpoint) -> Finding:
    """GET /v1/models answers 200 and lists the served model's name.

    Why: clients choose the model by this name; with another one every completion is a 404.
    """
    question = get(endpoint, MODELS)
    response = await ask(tools, question)
    listed = json_object(response).get("data")
    names = [str(one.get("id")) for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    ok = response.status_code == HTTPStatus.OK and endpoint.model in names
    problems = [] if ok else [f"models {names}" if names else shown(response)]
    return finding(problems, f"models {names}", question.curl(), expected=f"200 with model {endpoint.model}")


async def chat_completion_answers(tools: Tools, endpoint: Endpoint) -> Finding:
    """POST /v1/chat/completions answers 200 with a finished choice, its usage, and system_fingerprint.

    Why: it is the readiness that counts. The fingerprint names the engine's build: `vllm-0.23.0-<8 hex>`, as seen.
    """
    question = chat(endpoint, QUESTION)
    response = await ask(tools, question)
    body = json_object(response)
    problems = judge_completion(body) if response.status_code == HTTPStatus.OK else [shown(response)]
    return finding(problems, f"200, system_fingerprint {body.get('system_fingerprint')}", question.curl())


def judge_completion(body: Any) -> list[str]:
    """Give what a chat completion lacks."""
    choice = _first_choice(body)
    problems = []
    if not choice.get("finish_reason"):
        problems.append("no choice with a finish_reason")
    usage = body.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if not isinstance(tokens, int) or tokens < 1:
        problems.append(f"usage.completion_tokens is {tokens}")
    if not body.get("system_fingerprint"):
        problems.append("no system_fingerprint")
    return problems


async def answer_holds_what_it_knows(tools: Tools, endpoint: Endpoint) -> Finding:
    """The completion of "The capital of France is" holds the expected word.

    Why: broken weights or a wrong tokenizer still give status 200. It is a plain completion, not a chat: a small model
    goes on with the sentence, but may answer half a sentence in a chat with a greeting (SmolLM2-135M-Instruct does).
    Skipped where the context expects no word, as for random weights.
    """
    word = tools.context.expected_answer
    if not word:
        return Finding(Verdict.SKIP, "this model is not expected to know the answer")
    question = completion(endpoint, QUESTION)
    response = await ask(tools, question)
    answered = json_object(response) if response.status_code == HTTPStatus.OK else {}
    text = str(_first_choice(answered).get("text") or "")
    ok = word.lower() in text.lower()
    seen = f"{QUESTION}{text}"
    problems = [] if ok else [repr(seen) if text else shown(response)]
    return finding(problems, repr(seen), question.curl(), expected=f"a completion with {word}")


def _first_choice(body: Any) -> dict[str, Any]:
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


@dataclass(frozen=True, slots=True)
class Streamed:
    """A whole stream as it was read: the answer's status and content type, its chunks, and what broke it off."""

    status: int
    content_type: str
    chunks: tuple[StreamChunk, ...]
    broken: str = ""


async def stream_ends_with_done(tools: Tools, endpoint: Endpoint) -> Finding:
    """A streamed completion is text/event-stream of well-formed chunks with one finish_reason and usage, then [DONE].

    Why: a proxy that buffers, cuts or times out shows first in the stream; without [DONE] clients wait or retry.
    Source: OpenAI API reference, "Streaming"; vLLM 0.23.0 as seen.
    """
    question = chat(endpoint, QUESTION, stream=True, stream_options={"include_usage": True})
    streamed = await read_stream(tools, question)
    return finding(
        judge_stream(streamed),
        f"{len(streamed.chunks)} chunks, the last one [DONE]",
        question.curl().replace("-sS", "-sSN", 1),
    )


async def read_stream(tools: Tools, question: Question) -> Streamed:
    """Read a stream to its end or to its first malformed event."""
    parser = StreamParser()
    chunks: list[StreamChunk] = []
    async with opened(tools, question) as response:
        content_type = response.headers.get("content-type", "")
        if response.status_code != HTTPStatus.OK:
            await response.aread()
            return Streamed(response.status_code, content_type, (), shown(response))
        try:
            async for received in response.aiter_bytes():
                chunks += parser.feed(received)
        except StreamFormatError as error:
            return Streamed(response.status_code, content_type, tuple(chunks), error.what)
    return Streamed(response.status_code, content_type, tuple(chunks))


def judge_stream(streamed: Streamed) -> list[str]:
    """Give what is wrong with a stream."""
    if streamed.broken:
        return [streamed.broken]
    problems = []
    if not streamed.content_type.startswith("text/event-stream"):
        problems.append(f"content-type is {streamed.content_type or 'absent'}")
    ends = [number for number, chunk in enumerate(streamed.chunks) if chunk.done]
    if not ends:
        problems.append(f"ended without [DONE] after {len(streamed.chunks)} chunks")
    elif ends != [len(streamed.chunks) - 1]:
        problems.append("events after [DONE]")
    finished = sum(1 for chunk in streamed.chunks if chunk.finish_reason)
    if finished != 1:
        problems.append(f"{finished} chunks with a finish_reason")
    if not any(chunk.completion_tokens for chunk in streamed.chunks):
        problems.append("no chunk with usage")
    return problems


async def unknown_model_is_404(tools: Tools, endpoint: Endpoint) -> Finding:
    """A completion of a model that is not served answers 404.

    Why: an engine that takes any name hides a client's mistake and would serve the wrong model after a promotion.
    """
    return await _expect_status(tools, chat(endpoint, QUESTION, model=NO_SUCH_MODEL), (404,))


async def malformed_body_is_refused(tools: Tools, endpoint: Endpoint) -> Finding:
    """A body that is not JSON, and one whose messages are no list, answer 400 or 422.

    Why: a client's mistake must come back as the client's, never as 5xx that alerts and retries. 401 and 404 do not
    count: they would say that the body was never read.
    """
    questions = (replace(chat(endpoint, QUESTION), body='{"model": '), chat(endpoint, QUESTION, messages="no list"))
    for question in questions:
        found = await _expect_status(tools, question, REFUSED_BODY)
        if found.verdict is not Verdict.PASS:
            return found
    return found


async def missing_key_is_401(tools: Tools, endpoint: Endpoint) -> Finding:
    """A completion and the model list without a key answer 401.

    Why: VLLM_API_KEY comes from a Secret; with a wrong reference the engine starts open.
    """
    for question in (replace(chat(endpoint, QUESTION), key=""), replace(get(endpoint, MODELS), key="")):
        found = await _expect_status(tools, question, (401,))
        if found.verdict is not Verdict.PASS:
            return found
    return found


async def wrong_key_is_401(tools: Tools, endpoint: Endpoint) -> Finding:
    """A completion with another key answers 401.

    Why: asking for a key is not the same as checking it.
    """
    question = replace(chat(endpoint, QUESTION), key=WRONG_KEY)
    found = await _expect_status(tools, question, (401,))
    return replace(found, next_command=found.next_command.replace("$VLLM_API_KEY", WRONG_KEY))


async def each_key_opens_its_own_path_alone(tools: Tools, raw: Endpoint, kserve: Endpoint) -> Finding:
    """The key of each path answers 401 on the other.

    Why: models share a gateway, and a key is what opens one of them. Skipped where both were deployed with one key.
    """
    if raw.api_key == kserve.api_key:
        return Finding(Verdict.SKIP, "both paths were deployed with the same key")
    for asked, other in ((raw, kserve), (kserve, raw)):
        found = await _expect_status(tools, replace(get(asked, MODELS), key=other.api_key), (401,))
        if found.verdict is not Verdict.PASS:
            return replace(found, seen=f"the key of {other.path} on {asked.path}: {found.seen}")
    return found


async def _expect_status(tools: Tools, question: Question, statuses: tuple[int, ...]) -> Finding:
    response = await ask(tools, question)
    problems = [] if response.status_code in statuses else [f"{question.method} {question.path}: {shown(response)}"]
    return finding(problems, shown(response), question.curl())
