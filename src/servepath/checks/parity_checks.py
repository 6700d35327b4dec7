"""The two paths against each other: the comparison means nothing unless model and engine are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servepath.checks import pods
from servepath.checks.context import Finding, Tools, finding
from servepath.checks.kubernetes import describe_workload, read_pod
from servepath.checks.modelcar_checks import judge_modelcar_digest

if TYPE_CHECKING:
    from servepath.cluster.objects import Json
    from servepath.serving.model import Endpoint


async def same_modelcar_on_both_paths(tools: Tools, raw: Endpoint, kserve: Endpoint) -> Finding:
    """Both pods run the modelcar of one digest.

    Why: with two models the ratio between the paths says nothing about KServe.
    """
    found = [(one, await read_pod(tools, one)) for one in (raw, kserve)]
    digest = raw.modelcar_digest
    problems = [f"{one.path}: {text}" for one, pod in found for text in judge_modelcar_digest(pod, digest)]
    if raw.modelcar_digest != kserve.modelcar_digest:
        problems.insert(0, f"raw was deployed with {raw.modelcar_digest}, kserve with {kserve.modelcar_digest}")
    return finding(problems, digest, describe_workload(tools, kserve))


async def same_engine_on_both_paths(tools: Tools, raw: Endpoint, kserve: Endpoint) -> Finding:
    """Both engines run the image that was asked for, by the imageID in the pods' status.

    Why: another build of the engine would be measured as if it were KServe's cost.
    """
    found = [(await read_pod(tools, one), one.engine_image) for one in (raw, kserve)]
    problems = judge_same_engine(*found[0], *found[1])
    return finding(problems, running_engine(*found[0]), describe_workload(tools, kserve))


def running_engine(pod: Json, engine_image: str) -> str:
    """Give the imageID of the engine's container, empty when there is none or it was not created yet."""
    one = pods.engine(pod, engine_image)
    return pods.image_id(pod, one["name"]) if one else ""


def judge_same_engine(raw_pod: Json, raw_image: str, kserve_pod: Json, kserve_image: str) -> list[str]:
    """Give what speaks against both pods running the same engine.

    An imageID without `@` is the image's config digest (containerd gives it for an image that it did not pull): it can
    be compared between the paths, but not with a reference.
    """
    problems = []
    if pods.digest_of(raw_image) != pods.digest_of(kserve_image):
        problems.append(f"raw was deployed with {raw_image}, kserve with {kserve_image}")
    running = {"raw": running_engine(raw_pod, raw_image), "kserve": running_engine(kserve_pod, kserve_image)}
    for path, pod, image in (("raw", raw_pod, raw_image), ("kserve", kserve_pod, kserve_image)):
        if not running[path]:
            problems.append(f"{path}: no container runs {image}; seen: {pods.images(pod)}")
        elif "@" in running[path] and pods.digest_of(running[path]) != pods.digest_of(image):
            problems.append(f"{path}: runs {running[path]} instead of {image}")
    if all(running.values()) and len({pods.digest_of(one) for one in running.values()}) > 1:
        problems.append(f"raw runs {running['raw']}, kserve runs {running['kserve']}")
    return problems
