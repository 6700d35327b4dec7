"""`servepath deploy`, `smoke`, `bench` and `delete`: the serving paths on a cluster that is there."""

from __future__ import annotations

import os
from dataclasses import replace
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Annotated

import typer

from servepath.bench.compare import compare
from servepath.bench.model import Arrivals
from servepath.canary.slots import delete_canary
from servepath.checks.context import CheckContext
from servepath.checks.run import smoke
from servepath.cli.connection import Connection
from servepath.cli.defaults import base_image, build_options, engine_image
from servepath.cli.modelcar import open_model
from servepath.cli.options import (
    AsJson,
    BaseImage,
    Components,
    Context,
    EngineImage,
    ExpectedAnswer,
    GatewayClass,
    GatewayUrl,
    Hub,
    Kubeconfig,
    ModelName,
    Name,
    Namespace,
    OptionalReportDirectory,
    ProfileName,
    Registry,
    Repository,
    Source,
)
from servepath.cli.output import console_line, show_checks, without_secrets
from servepath.cli.plan import (
    ArrivalsOption,
    Blocks,
    BudgetS,
    BurstSize,
    OutputTokens,
    PrecisionPercent,
    PromptTokens,
    RatePerS,
    RequestsPerBlock,
    Seed,
    Tokenizer,
    Users,
    plan_of,
)
from servepath.cli.reporting import finish, stage_report
from servepath.cli.results import print_fields, print_json
from servepath.cli.running import run
from servepath.cli.scaling import (
    DEFAULTS,
    Autoscaler,
    MaxReplicas,
    MinReplicas,
    PrometheusUrl,
    WaitingPerReplica,
    WakeQuery,
    with_autoscaling,
)
from servepath.errors import ClusterError, UsageError
from servepath.modelcar.build import build_and_push
from servepath.serving.deploy import delete, deploy_kserve, deploy_raw
from servepath.serving.find import find
from servepath.serving.llmd_deploy import delete_llmd, deploy_llmd
from servepath.serving.model import DeployPath, Endpoint, Profile, ServingPath, ServingSpec
from servepath.serving.profiles import profile_named
from servepath.serving.render import check_names

if TYPE_CHECKING:
    from pathlib import Path

    from servepath.bench.model import Comparison
    from servepath.cluster.model import Cluster
    from servepath.evidence import CheckResult

API_KEY = "SERVEPATH_API_KEY"
"""The environment variable of the key: an option would show it to everybody who lists processes."""

OnePath = Annotated[DeployPath, typer.Option("--path", help="The serving path.")]
_DEPLOY = {DeployPath.RAW: deploy_raw, DeployPath.KSERVE: deploy_kserve, DeployPath.LLMD: deploy_llmd}
SomePath = Annotated[ServingPath | None, typer.Option("--path", help="One serving path; both when not given.")]


def deploy_command(
    kubeconfig: Kubeconfig,
    path: OnePath,
    registry: Registry = "",
    source: Source = None,
    hub: Hub = "",
    modelcar: Annotated[
        str, typer.Option(metavar="IMAGE@DIGEST", help="A modelcar that is pushed already, instead of a model.")
    ] = "",
    repository: Repository = "servepath/model",
    base: BaseImage = "",
    engine: EngineImage = "",
    profile_name: ProfileName = "cpu",
    components: Components = None,
    namespace: Namespace = "servepath",
    name: Name = "model",
    served_model_name: ModelName = "model",
    gateway_class: GatewayClass = "agentgateway",
    gateway_url: GatewayUrl = "",
    context: Context = "",
    autoscaler: Autoscaler = DEFAULTS.autoscaler,
    min_replicas: MinReplicas = DEFAULTS.min_replicas,
    max_replicas: MaxReplicas = DEFAULTS.max_replicas,
    waiting_per_replica: WaitingPerReplica = DEFAULTS.waiting_per_replica,
    prometheus_url: PrometheusUrl = DEFAULTS.prometheus_url,
    wake_query: WakeQuery = DEFAULTS.wake_query,
    *,
    as_json: AsJson = False,
) -> None:
    """Deploy one path and await its first real completion.

    The engine demands a key: that of the environment variable SERVEPATH_API_KEY, or a new one. It is kept in a Secret
    named like the Deployment or the InferenceService, and nowhere else. llm-d runs two engines in NAMESPACE-llm-d, with
    a Gateway of its own there; --gateway-url is that Gateway's.

    Example: servepath deploy --path kserve --source ./my-model --registry 127.0.0.1:5000 --kubeconfig ./kubeconfig
    """
    profile = with_autoscaling(
        profile_named(profile_name, components or ()),
        autoscaler,
        min_replicas,
        max_replicas,
        waiting_per_replica,
        prometheus_url,
        wake_query,
    )
    if modelcar and (source or hub):
        raise UsageError(
            "name one model",
            where="--modelcar, --source and --hub",
            expected="exactly one of them",
            next_command="servepath deploy --help",
        )

    async def work() -> Endpoint:
        check_names(namespace, name)
        reference = modelcar or await _pushed(source, hub, registry, repository, base)
        connection = Connection(kubeconfig, registry, gateway_class, gateway_url, context)
        cluster = connection.without_gateway() if path is DeployPath.LLMD else await connection.open()
        spec = ServingSpec(
            namespace=namespace,
            name=name,
            served_model_name=served_model_name,
            modelcar_reference=reference,
            engine_image=engine_image(engine, profile),
            profile=profile,
        )
        return await _DEPLOY[path](cluster, spec, os.environ.get(API_KEY) or token_urlsafe(32))

    endpoint = run(work)
    if as_json:
        print_json(endpoint)
    else:
        print_fields(
            f"{endpoint.path} answers as {endpoint.model}",
            {
                "gateway": endpoint.base_url,
                "host": endpoint.host or "any: the path of the URL routes",
                "modelcar": endpoint.modelcar_digest,
                "first completion": f"after {endpoint.ready_s:.1f} s",
            },
        )


async def _pushed(source: Path | None, hub: str, registry: str, repository: str, base: str) -> str:
    """Build the model's modelcar, push it, and give its reference."""
    if not registry:
        raise UsageError(
            "a model needs a registry to be pushed to",
            where="--registry",
            expected="host[:port], or --modelcar",
            next_command="servepath deploy --help",
        )
    model = await open_model(source, hub)
    modelcar = await build_and_push(model, base_image(base), registry, repository, build=build_options())
    return modelcar.reference


def smoke_command(
    kubeconfig: Kubeconfig,
    path: SomePath = None,
    registry: Registry = "",
    profile_name: ProfileName = "cpu",
    namespace: Namespace = "servepath",
    name: Name = "model",
    expected_answer: ExpectedAnswer = "Paris",
    gateway_class: GatewayClass = "agentgateway",
    gateway_url: GatewayUrl = "",
    context: Context = "",
    report: OptionalReportDirectory = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Run the smoke checks of what `servepath deploy` deployed; exit code 6 when one fails.

    Example: servepath smoke --kubeconfig ./kubeconfig --report ./report
    """
    profile = profile_named(profile_name)
    connection = Connection(kubeconfig, registry, gateway_class, gateway_url, context)

    async def work() -> tuple[Cluster, dict[ServingPath, Endpoint], tuple[CheckResult, ...]]:
        async with stage_report(report):
            cluster = await connection.open()
            spec, endpoints = await find_paths(cluster, namespace, name, path, profile)
            checking = CheckContext(
                cluster=cluster,
                spec=spec,
                modelcar_digest=spec.modelcar_reference.partition("@")[2],
                raw=endpoints.get(ServingPath.RAW),
                kserve=endpoints.get(ServingPath.KSERVE),
                expected_answer=expected_answer,
            )
            return cluster, endpoints, await smoke(checking, _quiet)

    cluster, endpoints, results = run(work)
    keys = tuple(endpoint.api_key for endpoint in endpoints.values() if endpoint.api_key)
    show_checks(without_secrets(results, keys), as_json=as_json)
    finish(report, cluster, tuple(endpoints.values()), checks=results)


def bench_command(
    kubeconfig: Kubeconfig,
    path: SomePath = None,
    registry: Registry = "",
    profile_name: ProfileName = "cpu",
    namespace: Namespace = "servepath",
    name: Name = "model",
    blocks: Blocks = 8,
    requests_per_block: RequestsPerBlock = 2,
    rate_per_s: RatePerS = 0.5,
    prompt_tokens: PromptTokens = 32,
    output_tokens: OutputTokens = 16,
    seed: Seed = 42,
    precision_percent: PrecisionPercent = 5.0,
    budget_s: BudgetS = 60.0,
    arrivals: ArrivalsOption = Arrivals.CONSTANT,
    users: Users = 4,
    burst_size: BurstSize = 4,
    tokenizer: Tokenizer = None,
    gateway_class: GatewayClass = "agentgateway",
    gateway_url: GatewayUrl = "",
    context: Context = "",
    report: OptionalReportDirectory = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Compare both paths in interleaved blocks, raw as the baseline; with --path, one path against itself.

    One path against itself must come out as "no difference": it shows what the instrument can tell apart here.

    Example: servepath bench --kubeconfig ./kubeconfig --report ./report
    """
    profile = profile_named(profile_name)
    connection = Connection(kubeconfig, registry, gateway_class, gateway_url, context)
    plan = plan_of(
        blocks, requests_per_block, rate_per_s, prompt_tokens, output_tokens, seed, precision_percent, budget_s
    )
    plan = replace(
        plan,
        arrivals=arrivals,
        users=users,
        burst_size=burst_size,
        tokenizer_path="" if tokenizer is None else str(tokenizer),
    )

    async def work() -> tuple[Cluster, dict[ServingPath, Endpoint], Comparison]:
        async with stage_report(report):
            cluster = await connection.open()
            _, endpoints = await find_paths(cluster, namespace, name, path, profile)
            named = {str(one): endpoint for one, endpoint in endpoints.items()}
            if path is not None:
                named = {f"{path}-a": endpoints[path], f"{path}-b": endpoints[path]}
            return cluster, endpoints, await compare(named, plan, lambda progress: console_line(progress.step))

    cluster, endpoints, comparison = run(work)
    if as_json:
        print_json(comparison)
    else:
        console_line(comparison.headline)
    finish(report, cluster, tuple(endpoints.values()), comparison=comparison)


def delete_command(
    kubeconfig: Kubeconfig,
    namespace: Namespace = "servepath",
    name: Name = "model",
    gateway_class: GatewayClass = "agentgateway",
    gateway_url: GatewayUrl = "",
    context: Context = "",
) -> None:
    """Delete what `servepath deploy` and `canary` deployed, and nothing that servepath did not label as its own.

    Example: servepath delete --kubeconfig ./kubeconfig
    """
    cluster = Connection(kubeconfig, "", gateway_class, gateway_url, context).without_gateway()

    async def work() -> tuple[str, ...]:
        return (
            *await delete_canary(cluster, namespace, name),
            *await delete(cluster, namespace, name),
            *await delete_llmd(cluster, namespace, name),
        )

    for one in run(work) or ("nothing was deployed",):
        console_line(one)


def _quiet(result: CheckResult) -> None:
    """Say nothing while the checks run: they are printed together."""
    del result


async def find_paths(
    cluster: Cluster, namespace: str, name: str, path: ServingPath | None, profile: Profile
) -> tuple[ServingSpec, dict[ServingPath, Endpoint]]:
    """Find the wanted paths; both must serve the same model on the same engine."""
    wanted = tuple(ServingPath) if path is None else (path,)
    found = {one: await find(cluster, namespace, name, one, profile) for one in wanted}
    served = {(spec.modelcar_reference, spec.engine_image, spec.served_model_name) for spec, _ in found.values()}
    if len(served) > 1:
        raise ClusterError(
            "the two paths do not serve the same model on the same engine",
            where=f"namespace {namespace}",
            next_command="servepath deploy --help",
        )
    return found[wanted[0]][0], {one: endpoint for one, (_, endpoint) in found.items()}
