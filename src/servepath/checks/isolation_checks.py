"""What a pod may do: each path's hardening, and engines that cannot fetch weights from elsewhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lightkube.resources.core_v1 import Namespace

from servepath.checks import pods
from servepath.checks.context import Finding, Tools, finding
from servepath.checks.kubernetes import kubectl, read_pod, show_pod
from servepath.cluster.objects import is_ours
from servepath.evidence import Verdict

if TYPE_CHECKING:
    from servepath.cluster.objects import Json
    from servepath.serving.model import Endpoint

RAW_UID = 65532
KSERVE_UID = 1010
KSERVES_EXCEPTIONS = tuple(
    f"{container} lacks {field}"
    for container in ("modelcar-init", "modelcar")
    for field in ("readOnlyRootFilesystem", "allowPrivilegeEscalation false", "capabilities.drop ALL")
)
"""What KServe v0.19.0 leaves out of its own two containers, and nobody can add; the first is beyond `restricted`."""

POD_SECURITY_LABEL = "pod-security.kubernetes.io/enforce"
ENFORCED = ("baseline", "restricted")
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
    seen = f"all of it holds in pod {pod['metadata']['name']}"
    return finding(judge_hardening(pod, RAW_UID), seen, show_pod(tools, pod))


async def kserve_pod_is_hardened(tools: Tools, endpoint: Endpoint) -> Finding:
    """Every container is hardened as on the raw path, as uid 1010; of KServe's own two, what KServe lets be set.

    Why: KServe's webhook makes the modelcar's containers after the InferenceService was checked, and has no setting for
    what they lack of the Pod Security Standard `restricted`. Source: KServe v0.19.0, `pkg/utils/storage.go`.
    """
    pod = await read_pod(tools, endpoint)
    lacking = judge_hardening(pod, KSERVE_UID)
    problems = [text for text in lacking if text not in KSERVES_EXCEPTIONS]
    excepted = ", ".join(text for text in lacking if text in KSERVES_EXCEPTIONS)
    seen = f"all of it holds in pod {pod['metadata']['name']}" + (f" but {excepted}" if excepted else "")
    return finding(problems, seen, show_pod(tools, pod))


async def namespace_enforces_pod_security(tools: Tools) -> Finding:
    """The namespace of both paths enforces the Pod Security Standard `baseline` or `restricted`.

    Why: without the label anybody who may make a pod there may make a privileged one. Skipped where servepath did not
    make the namespace and it has no such label: that is its owner's to decide.
    """
    name = tools.context.spec.namespace
    namespace = (await tools.kube.get(Namespace, name)).to_dict()
    level = (namespace["metadata"].get("labels") or {}).get(POD_SECURITY_LABEL, "")
    if not level and not is_ours(namespace):
        return Finding(
            Verdict.SKIP, f"namespace {name} has no label {POD_SECURITY_LABEL}, and servepath did not make it"
        )
    problems = [] if level in ENFORCED else [f"namespace {name} enforces {level or 'nothing'}"]
    mend = kubectl(tools.context.cluster, "label", "namespace", name, f"{POD_SECURITY_LABEL}=baseline")
    return finding(problems, f"namespace {name} enforces {level}", mend)


def judge_hardening(pod: Json, uid: int) -> list[str]:
    """Give every container's missing hardening, and the pod's own, where all are to run as that uid."""
    problems = [text for one in pods.containers(pod) for text in _judge_container(pod, one, uid)]
    if pod.get("spec", {}).get("automountServiceAccountToken") is not False:
        problems.append("automountServiceAccountToken is not false")
    return problems


def _judge_container(pod: Json, one: Json, uid: int) -> list[str]:
    own = one.get("securityContext") or {}
    seccomp = pods.effective(pod, one, "seccompProfile") or {}
    holds = {
        f"runAsUser {uid}": pods.effective(pod, one, "runAsUser") == uid,
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
