"""What a pod may do: the raw path's hardening, and engines that cannot fetch weights from elsewhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from servepath.checks import pods
from servepath.checks.context import Finding, Tools, finding
from servepath.checks.kubernetes import read_pod, show_pod

if TYPE_CHECKING:
    from servepath.cluster.objects import Json
    from servepath.serving.model import Endpoint

RAW_UID = 65532
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path, not a secret
MODEL = re.compile(r"(?:^|\s)(?:--model(?:=|\s+)|serve\s+)(\S+)")


async def engine_is_offline(tools: Tools, endpoint: Endpoint) -> Finding:
    """The engine's container has HF_HUB_OFFLINE=1 and TRANSFORMERS_OFFLINE=1, and its model is a local path.

    Why: an engine that may ask the Hub can serve other weights than the modelcar's, or hang where there is no network.
    Source: huggingface_hub's and transformers' documented offline variables.
    """
    pod = await read_pod(tools, endpoint)
    problems = judge_offline(pod, endpoint.engine_image)
    return finding(problems, f"{', '.join(OFFLINE)} are 1 and the model is a local path", show_pod(tools, pod))


def judge_offline(pod: Json, engine_image: str) -> list[str]:
    """Give what would let the engine of this pod fetch weights from elsewhere."""
    one = pods.engine(pod, engine_image)
    if one is None:
        return [f"no container runs {engine_image}; seen: {pods.images(pod)}"]
    environment = pods.environment(one)
    problems = [f"{name} is {environment.get(name, 'not set')}" for name in OFFLINE if environment.get(name) != "1"]
    model = model_argument(one)
    if not model.startswith("/"):
        problems.append(f"the model is {model or 'not in the arguments'}, not a local path")
    return problems


def model_argument(one: Json) -> str:
    """Give the model in an engine's arguments: of `--model`, after `serve`, or the first of all."""
    arguments = [str(word) for word in one.get("args") or []]
    named = MODEL.search(" ".join([*(one.get("command") or []), *arguments]))
    if named:
        return named.group(1).strip("'\"")
    return arguments[0] if arguments and not arguments[0].startswith("-") else ""


async def raw_pod_is_hardened(tools: Tools, endpoint: Endpoint) -> Finding:
    """Every container runs as uid 65532 with a read-only root, no capability, seccomp RuntimeDefault and no API token.

    Why: an engine parses untrusted input and needs none of these. This is more than the Pod Security Standard
    `restricted` asks.
    """
    pod = await read_pod(tools, endpoint)
    return finding(judge_hardening(pod), f"all of it holds in pod {pod['metadata']['name']}", show_pod(tools, pod))


def judge_hardening(pod: Json) -> list[str]:
    """Give every container's missing hardening, and the pod's own."""
    problems = [text for one in pods.containers(pod) for text in _judge_container(pod, one)]
    if pod.get("spec", {}).get("automountServiceAccountToken") is not False:
        problems.append("automountServiceAccountToken is not false")
    return problems


def _judge_container(pod: Json, one: Json) -> list[str]:
    own = one.get("securityContext") or {}
    seccomp = pods.effective(pod, one, "seccompProfile") or {}
    holds = {
        f"runAsUser {RAW_UID}": pods.effective(pod, one, "runAsUser") == RAW_UID,
        "runAsNonRoot": pods.effective(pod, one, "runAsNonRoot") is True,
        "readOnlyRootFilesystem": own.get("readOnlyRootFilesystem") is True,
        "allowPrivilegeEscalation false": own.get("allowPrivilegeEscalation") is False,
        "capabilities.drop ALL": "ALL" in ((own.get("capabilities") or {}).get("drop") or []),
        "seccompProfile RuntimeDefault": seccomp.get("type") == "RuntimeDefault",
        "no service-account token": all(
            mount.get("mountPath") != TOKEN_PATH for mount in one.get("volumeMounts") or []
        ),
    }
    return [f"{one.get('name')} lacks {name}" for name, ok in holds.items() if not ok]
