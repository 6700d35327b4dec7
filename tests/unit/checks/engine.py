"""An OpenAI-compatible engine behind a gateway, as vLLM 0.23.0 was seen to answer, with faults to choose from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any

from tests.unit.checks.loopback import Request, Response, json_response

FINGERPRINT = "vllm-0.23.0-1a2b3c4d"


class Fault(StrEnum):
    UNHEALTHY = auto()
    OTHER_MODEL_LISTED = auto()
    COMPLETION_500 = auto()
    NO_FINGERPRINT = auto()
    NO_USAGE = auto()
    UNFINISHED = auto()
    WRONG_ANSWER = auto()
    NO_DONE = auto()
    CHUNK_NOT_JSON = auto()
    CHUNKS_AFTER_DONE = auto()
    STREAM_AS_JSON = auto()
    NO_FINISH_IN_STREAM = auto()
    NO_USAGE_IN_STREAM = auto()
    STREAM_500 = auto()
    ANY_MODEL = auto()
    MALFORMED_500 = auto()
    MESSAGES_500 = auto()
    NO_KEY_ASKED = auto()
    KEY_NOT_COMPARED = auto()
    OPEN_MODEL_LIST = auto()
    ANY_HOST = auto()
    EVERYTHING_ROUTED = auto()
    ECHOES_KEY = auto()


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine and the gateway's route to it."""

    host: str
    model: str
    api_key: str = ""
    faults: frozenset[Fault] = frozenset()

    def answer(self, request: Request) -> Response:
        """What the gateway answers."""
        if request.headers["host"] != self.host and Fault.ANY_HOST not in self.faults:
            return Response(404)
        routed = request.path.startswith("/v1") or request.path == "/health"
        if not routed and Fault.EVERYTHING_ROUTED not in self.faults:
            return Response(404)
        if request.path in {"/metrics", "/docs", "/version"}:
            return Response(200, b"open", "text/plain")
        if request.path == "/health":
            return Response(503 if Fault.UNHEALTHY in self.faults else 200)
        return self._api(request)

    def _api(self, request: Request) -> Response:
        if not self._has_key(request):
            return json_response(401, {"error": "Unauthorized"})
        if Fault.ECHOES_KEY in self.faults:
            return Response(500, request.headers.get("authorization", "").encode(), "text/plain")
        if request.path == "/v1/models":
            listed = "other" if Fault.OTHER_MODEL_LISTED in self.faults else self.model
            return json_response(200, {"object": "list", "data": [{"id": listed, "object": "model"}]})
        if request.path == "/v1/chat/completions" and request.method == "POST":
            return self._chat(request)
        if request.path == "/v1/completions" and request.method == "POST":
            return self._text_completion()
        return json_response(404, {"detail": "Not Found"})

    def _text_completion(self) -> Response:
        if Fault.COMPLETION_500 in self.faults:
            return json_response(500, {"error": {"message": "EngineDeadError"}})
        text = " full of bananas." if Fault.WRONG_ANSWER in self.faults else " Paris."
        return json_response(200, {"object": "text_completion", "choices": [{"index": 0, "text": text}]})

    def _has_key(self, request: Request) -> bool:
        if not self.api_key or Fault.NO_KEY_ASKED in self.faults:
            return True
        if request.path == "/v1/models" and Fault.OPEN_MODEL_LIST in self.faults:
            return True
        sent = request.headers.get("authorization", "")
        return bool(sent) if Fault.KEY_NOT_COMPARED in self.faults else sent == f"Bearer {self.api_key}"

    def _chat(self, request: Request) -> Response:
        try:
            body = json.loads(request.body)
        except ValueError:
            return json_response(500 if Fault.MALFORMED_500 in self.faults else 400, {"error": {"message": "no JSON"}})
        if not isinstance(body["messages"], list):
            return json_response(500 if Fault.MESSAGES_500 in self.faults else 400, {"error": {"message": "no list"}})
        if body["model"] != self.model and Fault.ANY_MODEL not in self.faults:
            return json_response(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
        if body.get("stream"):
            return self._stream()
        if Fault.COMPLETION_500 in self.faults:
            return json_response(500, {"error": {"message": "EngineDeadError"}})
        return json_response(200, self._completion())

    def _completion(self) -> dict[str, Any]:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello."},
            "finish_reason": None if Fault.UNFINISHED in self.faults else "stop",
        }
        completion: dict[str, Any] = {"object": "chat.completion", "model": self.model, "choices": [choice]}
        if Fault.NO_USAGE not in self.faults:
            completion["usage"] = {"prompt_tokens": 9, "completion_tokens": 8, "total_tokens": 17}
        if Fault.NO_FINGERPRINT not in self.faults:
            completion["system_fingerprint"] = FINGERPRINT
        return completion

    def _stream(self) -> Response:
        if Fault.STREAM_500 in self.faults:
            return json_response(500, {"error": {"message": "EngineDeadError"}})
        events = [_event({"role": "assistant", "content": ""}), _event({"content": "Paris"})]
        if Fault.CHUNK_NOT_JSON in self.faults:
            events.append('{"choices": [')
        if Fault.NO_FINISH_IN_STREAM not in self.faults:
            events.append(_event({"content": "."}, "stop"))
        if Fault.NO_USAGE_IN_STREAM not in self.faults:
            events.append(json.dumps({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}))
        if Fault.NO_DONE not in self.faults:
            events.append("[DONE]")
        if Fault.CHUNKS_AFTER_DONE in self.faults:
            events.append(_event({"content": "more"}))
        text = "".join(f"data: {event}\n\n" for event in events)
        content_type = "application/json" if Fault.STREAM_AS_JSON in self.faults else "text/event-stream; charset=utf-8"
        return Response(200, text.encode(), content_type)


def _event(delta: dict[str, str], finish_reason: str | None = None) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})
