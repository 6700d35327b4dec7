"""Whether quotas leave room: those of the namespace, and the GPU quota of a region of Google's."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from servepath.promotion.preflight.needs import GPU, Needs, PodNeed, is_put_away, quantity
from servepath.promotion.preflight.results import judged, untold

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from servepath.evidence import CheckResult
    from servepath.gke.model import GkeFacts, NodePool, Quota

_PREFIXED = ("requests.", "limits.")


def asked_of_quota(needs: Needs) -> dict[str, Decimal]:
    """Give what the objects count for in a ResourceQuota, by its names."""
    asked: dict[str, Decimal] = {
        "pods": Decimal(len(needs.pods)),
        "persistentvolumeclaims": Decimal(len(needs.volume_bytes)),
        "requests.storage": Decimal(sum(needs.volume_bytes)),
        "services": Decimal(sum(_makes_a_service(obj) for obj in needs.objects)),
    }
    for pod in needs.pods:
        for kind, amounts in (("requests", pod.requests), ("limits", pod.limits)):
            for name, value in amounts.items():
                key = f"{kind}.{name}"
                asked[key] = asked.get(key, Decimal(0)) + value
    for name in ("cpu", "memory"):
        asked[name] = asked.get(f"requests.{name}", Decimal(0))
    return asked


def _makes_a_service(obj: Mapping[str, Any]) -> bool:
    return obj["kind"] in ("Service", "InferenceService") and not is_put_away(obj)


def check_resource_quotas(
    needs: Needs, quotas: Iterable[Mapping[str, Any]], replaced: Needs, kubectl: str
) -> tuple[CheckResult, ...]:
    """Compare what is asked with what each quota of the namespace leaves.

    Args:
        needs: what is to be applied.
        quotas: the namespace's ResourceQuotas.
        replaced: what is there now under the same names, whose share becomes free; what is stopped has none.
        kubectl: kubectl with its kubeconfig.
    """
    asked, returned = asked_of_quota(needs), asked_of_quota(replaced)
    results = []
    for quota in quotas:
        status = quota.get("status") or {}
        hard = {name: quantity(text) for name, text in (status.get("hard") or {}).items()}
        used = {name: quantity(text) for name, text in (status.get("used") or {}).items()}
        short = {}
        for name, limit in hard.items():
            wanted = used.get(name, Decimal(0)) - returned.get(name, Decimal(0)) + asked.get(name, Decimal(0))
            if name in asked and wanted > limit:
                short[name] = wanted
        metadata = quota["metadata"]
        patch = ",".join(f'"{name}":"{_plain(value)}"' for name, value in short.items())
        results.append(
            judged(
                f"quota_{metadata['name'].replace('-', '_')}",
                f"ResourceQuota {metadata['name']} leaves room",
                "; ".join(
                    f"{name}: {_plain(hard[name])} are allowed, {_plain(wanted)} are needed"
                    for name, wanted in short.items()
                )
                or "it does",
                f"{kubectl} -n {metadata['namespace']} patch resourcequota {metadata['name']} --type merge "
                f'-p \'{{"spec":{{"hard":{{{patch}}}}}}}\'',
                is_there=not short,
            )
        )
    return tuple(results)


def _plain(value: Decimal) -> str:
    return f"{value.normalize():f}"


def check_regional_quota(
    growing: Sequence[tuple[PodNeed, NodePool]], quotas: Mapping[str, Quota], facts: GkeFacts
) -> tuple[CheckResult, ...]:
    """Compare the GPUs of the nodes that must be added with what the region's quota leaves.

    Google lists the older quotas by metric; those of newer GPUs are in Cloud Quotas alone and cannot be told here.
    """
    wanted: dict[str, int] = {}
    for pod, pool in growing:
        if pod.requests.get(GPU):
            wanted[metric_of(pool)] = wanted.get(metric_of(pool), 0) + pool.accelerators
    return tuple(_regional(metric, count, quotas, facts) for metric, count in wanted.items())


def metric_of(pool: NodePool) -> str:
    """Give the name of a GPU's quota: `nvidia-l4` counts as NVIDIA_L4_GPUS, on Spot as PREEMPTIBLE_NVIDIA_L4_GPUS."""
    model = pool.accelerator_type.removeprefix("nvidia-").removeprefix("tesla-").replace("-", "_").upper()
    return f"{'PREEMPTIBLE_' if pool.is_spot or pool.is_preemptible else ''}NVIDIA_{model}_GPUS"


def _regional(metric: str, count: int, quotas: Mapping[str, Quota], facts: GkeFacts) -> CheckResult:
    target = facts.target
    name, expected = f"quota_{metric.lower()}", f"{count} more {metric} in {target.region}"
    quota = quotas.get(metric)
    if quota is None:
        show = f"gcloud quotas info list --service=compute.googleapis.com --project={target.project} --filter=GPUS"
        return untold(name, expected, "Compute Engine does not list this quota", show)
    fix = (
        f"gcloud quotas preferences create --service=compute.googleapis.com --project={target.project} "
        f"--quota-id={metric.replace('_', '-')}-per-project-region --dimensions=region={target.region} "
        f"--preferred-value={quota.usage + count:.0f}"
    )
    seen = f"{quota.usage:.0f} of {quota.limit:.0f} are used"
    return judged(name, expected, seen, fix, is_there=quota.usage + count <= quota.limit)
