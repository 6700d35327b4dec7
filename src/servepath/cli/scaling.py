"""The options of autoscaling: who decides how many engines a path runs, and within which numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from servepath.serving.autoscaling import check_autoscaling
from servepath.serving.model import AutoscalerClass, Autoscaling

if TYPE_CHECKING:
    from servepath.serving.model import Profile

Autoscaler: TypeAlias = Annotated[
    AutoscalerClass,
    typer.Option("--autoscaler", help="Who decides how many engines run; none: exactly one (docs/scaling.md)."),
]
MinReplicas: TypeAlias = Annotated[
    int, typer.Option(min=0, help="Fewest engines; 0 with --autoscaler keda and --wake-query.")
]
MaxReplicas: TypeAlias = Annotated[int, typer.Option(min=1, help="Most engines.")]
WaitingPerReplica: TypeAlias = Annotated[
    int, typer.Option(min=1, help="Requests that may wait for each engine before one is added.")
]
PrometheusUrl: TypeAlias = Annotated[
    str, typer.Option("--prometheus-url", metavar="URL", help="Prometheus that KEDA asks; it scrapes the engines.")
]
WakeQuery: TypeAlias = Annotated[
    str,
    typer.Option(
        "--wake-query",
        metavar="PROMQL",
        help="Above 0 while requests arrive at the gateway: wakes a path of no engines.",
    ),
]
DEFAULTS = Autoscaling()


def with_autoscaling(
    profile: Profile,
    autoscaler: AutoscalerClass,
    min_replicas: int,
    max_replicas: int,
    waiting_per_replica: int,
    prometheus_url: str,
    wake_query: str,
) -> Profile:
    """Give a profile with these options.

    Raises:
        UsageError: a cluster would accept them and then not do it.
    """
    autoscaling = Autoscaling(
        autoscaler,
        min_replicas,
        max_replicas,
        waiting_per_replica=waiting_per_replica,
        prometheus_url=prometheus_url,
        wake_query=wake_query,
    )
    check_autoscaling(autoscaling)
    return replace(profile, autoscaling=autoscaling)
