"""The modelcar in the pod: the form that KServe's webhook gives it, and the digest that was built."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from servepath.checks import pods
from servepath.checks.context import Finding, Tools, finding
from servepath.checks.kubernetes import exec_line, execute, read_pod, show_pod

if TYPE_CHECKING:
    from servepath.cluster.objects import Json
    from servepath.serving.model import Endpoint

MODELCAR_UID = 1010
SERVER = "kserve-container"
SIDECAR = "modelcar"
INIT = "modelcar-init"
LINK = re.compile(r"ln -sf /proc/\$+/root/models /mnt/models\b")


async def webhook_made_the_modelcar_form(tools: Tools, endpoint: Endpoint) -> Finding:
    """The pod has modelcar-init, the modelcar sidecar, a shared process namespace, a shared /mnt and uid 1010.

    Why: without this form the engine starts without weights, and `STORAGE_URI` alone does not show that the
    webhook ran. Source: KServe v0.19.0, `pkg/utils/storage.go`, `ConfigureModelcarToContainer`; `uidModelcar` of its
    configuration.
    """
    pod = await read_pod(tools, endpoint)
    return finding(
        judge_modelcar_form(pod),
        f"pod {pod['metadata']['name']} has {INIT}, {SIDECAR}, shareProcessNamespace, /mnt shared, uid {MODELCAR_UID}",
        show_pod(tools, pod),
    )


def judge_modelcar_form(pod: Json) -> list[str]:
    """Give what a pod lacks of the modelcar form; empty when it has all of it."""
    problems = []
    server, sidecar, init = (pods.container(pod, name) for name in (SERVER, SIDECAR, INIT))
    if init is None:
        problems.append(f"no init container {INIT}")
    if sidecar is None:
        problems.append(f"no sidecar {SIDECAR}")
    elif not LINK.search(" ".join(sidecar.get("args") or [])):
        problems.append(f"{SIDECAR} does not link /mnt/models: args {sidecar.get('args')}")
    if server is None:
        problems.append(f"no container {SERVER}")
    elif pods.environment(server).get("MODEL_INIT_MODE") != "async":
        problems.append(f"{SERVER} lacks MODEL_INIT_MODE=async")
    if pod.get("spec", {}).get("shareProcessNamespace") is not True:
        problems.append(f"shareProcessNamespace is {pod.get('spec', {}).get('shareProcessNamespace')}")
    for one in (server, sidecar):
        uid = (one.get("securityContext") or {}).get("runAsUser") if one else MODELCAR_UID
        if one and uid != MODELCAR_UID:
            problems.append(f"{one['name']} runs as uid {uid}")
    if server and sidecar:
        problems += _judge_shared_mnt(pod, server, sidecar)
    return problems


def _judge_shared_mnt(pod: Json, server: Json, sidecar: Json) -> list[str]:
    mounted = [
        next((mount["name"] for mount in one.get("volumeMounts") or [] if mount.get("mountPath") == "/mnt"), "")
        for one in (server, sidecar)
    ]
    if not mounted[0] or mounted[0] != mounted[1]:
        return [f"/mnt is volume {mounted[0] or 'none'} in {SERVER} and {mounted[1] or 'none'} in {SIDECAR}"]
    shared: Json = next((one for one in pod["spec"].get("volumes") or [] if one.get("name") == mounted[0]), {})
    return [] if "emptyDir" in shared else [f"volume {mounted[0]} on /mnt is not an emptyDir"]


async def modelcar_link_leads_to_the_model(tools: Tools, endpoint: Endpoint) -> Finding:
    """In the running pod /mnt/models is a symbolic link, and config.json can be read through it.

    Why: the link leads through /proc into the sidecar's root; it dangles when the process namespace or the uid is not
    shared. Source: KServe v0.19.0, `modelcarCommand`; `sh` and `test` are in the modelcar's base image.
    """
    pod = await read_pod(tools, endpoint)
    script = "test -L /mnt/models && test -r /mnt/models/config.json"
    exit_code, stderr = await execute(tools, pod, SIDECAR, script)
    look = exec_line(tools, pod, SIDECAR, "ls -l /mnt/models /mnt/models/")
    return finding(judge_link(exit_code, stderr), "/mnt/models/config.json can be read", look)


def judge_link(exit_code: int, stderr: str) -> list[str]:
    """Judge how the test of the link in the pod ended."""
    if exit_code == 0:
        return []
    return [f"the test of /mnt/models in {SIDECAR} ended with {exit_code} {stderr.strip()}".rstrip()]


async def pod_runs_the_modelcar_built(tools: Tools, endpoint: Endpoint) -> Finding:
    """The pod names the modelcar's digest in its spec and runs it, as imageID in its status.

    Why: a tag, a stale cache or a second build would serve another model under the same name. The spec says what was
    asked for, `status.…imageID` what the container runtime has.
    """
    pod = await read_pod(tools, endpoint)
    digest = tools.context.modelcar_digest
    return finding(
        judge_modelcar_digest(pod, digest), f"{digest} in spec and status", show_pod(tools, pod), expected=digest
    )


def judge_modelcar_digest(pod: Json, digest: str) -> list[str]:
    """Give what speaks against the pod running the modelcar of that digest.

    Every container made from it must run it. An image volume has no imageID in the status: its spec decides. On the raw
    path MODELCAR_DIGEST names the directory of the volume that the engine mounts, so it must be the same digest.
    """
    holders = [one for one in pods.containers(pod) if pods.digest_of(str(one.get("image", ""))) == digest]
    volumes = [name for name, reference in pods.image_volumes(pod).items() if pods.digest_of(reference) == digest]
    if not holders and not volumes:
        return [f"no container or image volume names it; seen: {pods.images(pod)}"]
    problems = []
    for one in holders:
        running = pods.image_id(pod, one["name"])
        if pods.digest_of(running) != digest:
            problems.append(f"container {one['name']} runs {running or 'nothing yet'}")
    for one in pods.containers(pod):
        copied = pods.environment(one).get("MODELCAR_DIGEST", digest)
        if copied != digest:
            problems.append(f"container {one['name']} has MODELCAR_DIGEST {copied}")
    return problems
