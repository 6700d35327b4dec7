"""What `collect` writes of a namespace whose engine logs its key: everything but that."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from servepath.cluster.diagnostics import collect
from servepath.cluster.model import Cluster
from servepath.redaction import REDACTED, redact
from tests.unit.checks.loopback import Request, Response, json_response, serving
from tests.unit.checks.world import write_kubeconfig

if TYPE_CHECKING:
    from pathlib import Path

KEY = "planted-k3y"
ENCODED = base64.b64encode(KEY.encode()).decode()
TOKEN = "hf_abcdefghijklmnop"
API = "/api/v1/namespaces/servepath"
POD = {
    "metadata": {"name": "engine", "namespace": "servepath", "annotations": {"note": f"started with {KEY}"}},
    "status": {"containerStatuses": [{"name": "vllm", "image": "x", "imageID": "", "ready": False, "restartCount": 1}]},
}
SECRET = {"metadata": {"name": "model-raw"}, "data": {"VLLM_API_KEY": ENCODED}}
EVENT = {
    "metadata": {"name": "e"},
    "involvedObject": {"kind": "Pod", "name": "engine"},
    "type": "Warning",
    "reason": "Failed",
    "message": f"the hook said {KEY}",
}
LOG = f"vllm serve --api-key {KEY}\nkwargs: ['{KEY}'], {ENCODED}\nasked the Hub with {TOKEN}\nready\n"


def answer(request: Request, *, secrets: Response) -> Response:
    lists: dict[str, list[dict[str, Any]]] = {f"{API}/pods": [POD], f"{API}/events": [EVENT]}
    if request.path == f"{API}/secrets":
        return secrets
    if request.path == f"{API}/pods/engine/log":
        return Response(200, LOG.encode(), "text/plain")
    return listed(lists.get(request.path, []))


def listed(items: list[dict[str, Any]]) -> Response:
    return json_response(200, {"kind": "List", "metadata": {"resourceVersion": "1"}, "items": items})


async def collected(folder: Path, secrets: Response) -> dict[str, str]:
    async with serving(lambda request: answer(request, secrets=secrets)) as url:
        cluster = Cluster(write_kubeconfig(folder, url), "127.0.0.1:5000", "http://127.0.0.1")
        written = await collect(cluster, "servepath", folder / "diagnostics")
    return {str(path.relative_to(folder / "diagnostics")): path.read_text() for path in written}


@pytest.mark.anyio
async def test_no_file_holds_the_key_that_the_engine_logged(tmp_path: Path) -> None:
    texts = await collected(tmp_path, listed([SECRET]))
    log = texts["logs/servepath/engine.vllm.log"]
    assert log.splitlines()[1:] == [f"kwargs: ['{REDACTED}'], {REDACTED}", f"asked the Hub with {REDACTED}", "ready"]
    assert "logs/servepath/engine.vllm.previous.log" in texts
    assert f"the hook said {REDACTED}" in texts["events/servepath.txt"]
    assert f"started with {REDACTED}" in texts["objects/servepath/pods.yaml"]
    assert texts["secrets/servepath.txt"] == "model-raw: VLLM_API_KEY\n"
    for secret in (KEY, ENCODED, TOKEN):
        assert [name for name, text in texts.items() if secret in text] == []


@pytest.mark.anyio
async def test_where_secrets_cannot_be_read_their_looks_still_count(tmp_path: Path) -> None:
    forbidden = json_response(403, {"kind": "Status", "status": "Failure", "code": 403, "message": "secrets: no"})
    texts = await collected(tmp_path, forbidden)
    log = texts["logs/servepath/engine.vllm.log"]
    assert f"--api-key {REDACTED}" in log
    assert TOKEN not in log
    assert "secrets of servepath: secrets: no" in texts["problems.txt"]


def test_a_secret_within_a_longer_one_leaves_nothing_of_it() -> None:
    assert redact("it said abcdefgh", ["abcdef", "abcdefgh"]) == f"it said {REDACTED}"
    assert redact({"k abcdef": ["abcdef", 1]}, ["abcdef"]) == {f"k {REDACTED}": [REDACTED, 1]}
    assert redact("a word of one", ["one", ""]) == "a word of one"
