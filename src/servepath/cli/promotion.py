"""`servepath promote` and `servepath rollback`: a digest into a cluster, gated and reversible; a plan by default."""

from __future__ import annotations

import os
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from servepath.bench.slo import Slo
from servepath.canary.model import CanaryPlan
from servepath.cli.connection import Connection
from servepath.cli.defaults import engine_image, lock_file
from servepath.cli.gke import AllowKeyFile, ArtifactRegistry, GkeCluster, GkeConnection, GkeEndpoint
from servepath.cli.options import (
    AsJson,
    Components,
    Context,
    EngineImage,
    ExpectedAnswer,
    GatewayClass,
    GatewayUrl,
    ModelName,
    Name,
    Namespace,
    OptionalReportDirectory,
    ProfileName,
    Registry,
)
from servepath.cli.output import check_line, print_outcome, stderr_console
from servepath.cli.plan import (
    Blocks,
    BudgetS,
    OutputTokens,
    PrecisionPercent,
    PromptTokens,
    RatePerS,
    RequestsPerBlock,
    Seed,
    plan_of,
)
from servepath.cli.progress import show_stages
from servepath.cli.results import print_json, print_text
from servepath.cli.run_info import run_info
from servepath.cli.running import run
from servepath.cli.serving import API_KEY
from servepath.e2e import exit_code_of
from servepath.errors import UsageError
from servepath.evidence import Verdict
from servepath.gke.connect import lasting
from servepath.modelcar.registry.client import RegistryOptions
from servepath.platform import lock
from servepath.promotion.model import GatePlan, PromotionRequest
from servepath.promotion.preflight.images import image_bytes
from servepath.promotion.preflight.run import preflight
from servepath.promotion.promote import recover_release
from servepath.promotion.proof import read_proof
from servepath.promotion.rollback import read_release, request_back, version_before
from servepath.promotion.run import run_promotion
from servepath.promotion.signature import read_policy
from servepath.report.promotion import plan_markdown, plan_values, promotion_values
from servepath.serving.model import ServingPath
from servepath.serving.profiles import profile_named
from servepath.stages import Stages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from servepath.cluster.model import Cluster
    from servepath.evidence import CheckResult
    from servepath.gke.connect import GkeSession
    from servepath.promotion.transaction import Recovered
    from servepath.report.model import Report
    from servepath.serving.model import ServingSpec

OptionalKubeconfig: TypeAlias = Annotated[
    Path | None, typer.Option(envvar="KUBECONFIG", help="Kubeconfig file; its current context is never changed.")
]
Apply: TypeAlias = Annotated[bool, typer.Option("--apply", help="Do it; else the plan is printed, nothing is changed.")]
Steps: TypeAlias = Annotated[
    str, typer.Option(metavar="PERCENTS", help="The canary's share of the traffic, step by step, such as 5,25,50,100.")
]
OnePath: TypeAlias = Annotated[ServingPath, typer.Option("--path", help="The serving path.")]


@dataclass(frozen=True, slots=True)
class Target:
    """Where to: a cluster by kubeconfig, or a GKE cluster."""

    kubeconfig: Path | None
    registry: str
    gateway_class: str
    gateway_url: str
    context: str
    gke: GkeConnection | None

    @asynccontextmanager
    async def open(self, *, needs_gateway: bool) -> AsyncIterator[Opened]:
        """Open it for one run; a plan needs no gateway.

        Raises:
            UsageError: no cluster is named, or two.
            ClusterError: it is not reachable, or its Gateway is not there.
        """
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(self.gke.open()) if self.gke else None
            if session is None and self.kubeconfig is None:
                raise UsageError("no cluster is named", where="--kubeconfig and --gke", expected="one of them")
            kubeconfig = session.cluster.kubeconfig if session else self.kubeconfig
            if kubeconfig is None:  # pragma: no cover - the refusal above
                raise UsageError("no cluster is named", where="--kubeconfig and --gke", expected="one of them")
            registry = (session.cluster.registry if session else "") or self.registry
            connection = Connection(kubeconfig, registry, self.gateway_class, self.gateway_url, self.context)
            cluster = await connection.open() if needs_gateway else connection.without_gateway()
            yield Opened(cluster, session)


@dataclass(frozen=True, slots=True)
class Opened:
    """A cluster while a run lasts, and what Google says of it."""

    cluster: Cluster
    gke: GkeSession | None

    def repository(self, given: str) -> str:
        """Give the repository: on GKE it lies within that of Artifact Registry.

        Raises:
            UsageError: no registry is named.
        """
        if self.gke is not None and self.gke.repository is not None:
            return f"{self.gke.repository.path}/{given}"
        if not self.cluster.registry:
            raise UsageError(
                "no registry is named", where="--registry", expected="the registry that the cluster's nodes pull from"
            )
        return given

    def lasting(self, command: str) -> str:
        """Give a command that still works when the run is over."""
        return command if self.gke is None else lasting(command, self.gke)

    @property
    def registries(self) -> RegistryOptions:
        """How registries are talked to: Artifact Registry with the run's own token."""
        if self.gke is None or self.gke.repository is None:
            return RegistryOptions()
        return RegistryOptions(credentials={self.gke.repository.registry: self.gke.registry_credentials})


def promote_command(
    modelcar: Annotated[
        str, typer.Option(metavar="IMAGE@DIGEST", help="The modelcar where it is now; that of the report when empty.")
    ] = "",
    kubeconfig: OptionalKubeconfig = None,
    gke: GkeCluster = "",
    artifact_registry: ArtifactRegistry = "",
    gke_endpoint: GkeEndpoint = "",
    registry: Registry = "",
    repository: Annotated[str, typer.Option(help="Repository of the modelcar in that registry.")] = "servepath/model",
    path: OnePath = ServingPath.KSERVE,
    engine: EngineImage = "",
    profile_name: ProfileName = "gpu",
    components: Components = None,
    namespace: Namespace = "servepath",
    name: Name = "model",
    served_model_name: ModelName = "model",
    expected_answer: ExpectedAnswer = "Paris",
    gateway_class: GatewayClass = "agentgateway",
    gateway_url: GatewayUrl = "",
    context: Context = "",
    from_report: Annotated[
        Path | None,
        typer.Option(
            "--from-report", metavar="REPORT", help="The report that vouches for the digest; 8 if it does not."
        ),
    ] = None,
    require_signature: Annotated[
        Path | None,
        typer.Option("--require-signature", metavar="KEY", help="A cosign public key that must have signed it."),
    ] = None,
    steps: Steps = "5,25,50,100",
    hold_s: Annotated[float, typer.Option("--hold", metavar="SECONDS", help="How long each step is measured.")] = 60.0,
    blocks: Blocks = 8,
    requests_per_block: RequestsPerBlock = 4,
    rate_per_s: RatePerS = 1.0,
    prompt_tokens: PromptTokens = 256,
    output_tokens: OutputTokens = 128,
    seed: Seed = 42,
    precision_percent: PrecisionPercent = 5.0,
    budget_s: BudgetS = 120.0,
    max_slowdown_percent: Annotated[
        float, typer.Option(min=0.0, help="A slowdown beyond this against what was promoted last fails, in percent.")
    ] = 5.0,
    usd_per_hour: Annotated[
        float | None, typer.Option(min=0.0, help="Price of one engine, in US dollars per hour, for the plan.")
    ] = None,
    report: OptionalReportDirectory = None,
    *,
    slo: Annotated[
        bool | None,
        typer.Option("--slo/--no-slo", help="Gate on the GPU's objectives; by default where the profile is a GPU's."),
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Replace what serves, where only one engine can run: it is interrupted.")
    ] = False,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="All of the traffic behind the gate, without steps.")
    ] = False,
    stop_after: Annotated[bool, typer.Option("--stop-after", help="Stop it once it is promoted; it is kept.")] = False,
    without_preflight: Annotated[
        bool, typer.Option("--without-preflight", help="Do not look for what the cluster lacks first.")
    ] = False,
    allow_key_file: AllowKeyFile = False,
    apply: Apply = False,
    as_json: AsJson = False,
) -> None:
    """Promote the digest that was tested: copy, deploy, gate, shift, verify; without --apply print the plan alone.

    On any failure everything is put back to exactly what was there (exit code 9). What may not be promoted is refused
    and nothing is changed (exit code 8). A promotion that was killed is finished or undone by the next one.

    Example: servepath promote --from-report ./report --kubeconfig ./kubeconfig --registry registry.example --apply
    """
    profile = profile_named(profile_name, components or ())
    connection = GkeConnection(gke, artifact_registry, gateway_class, gke_endpoint, allow_key_file) if gke else None
    target = Target(kubeconfig, registry, gateway_class, gateway_url, context, connection)
    bench = plan_of(
        blocks, requests_per_block, rate_per_s, prompt_tokens, output_tokens, seed, precision_percent, budget_s
    )
    is_gated = slo if slo is not None else not profile.name.startswith("cpu")
    objectives = Slo() if is_gated else None
    gate = GatePlan(bench, objectives, max_slowdown_percent, expected_answer)
    shares = None if at_once else CanaryPlan(steps_of(steps), hold_s, slo=objectives)
    origin_unix_s = time.time()

    async def work() -> Report:
        proof = read_proof(from_report) if from_report else None
        source = modelcar or (proof.reference if proof else "")
        if not source:
            raise UsageError(
                "no modelcar is named", where="promote", expected="--modelcar IMAGE@DIGEST, or --from-report"
            )
        info = run_info()
        async with target.open(needs_gateway=apply) as opened:
            request = PromotionRequest(
                cluster=opened.cluster,
                source=source,
                repository=opened.repository(repository),
                namespace=namespace,
                name=name,
                served_model_name=served_model_name,
                engine_image=engine_image(engine, profile),
                profile=profile,
                path=path,
                replace=in_place,
                gate=gate,
                canary=shares,
                usd_per_hour=usd_per_hour,
                stop_after=stop_after,
                proof=proof,
                lock=lock.read(lock_file()),
                signature=read_policy(require_signature) if require_signature else None,
                preflight=None if without_preflight else partial(preflight_of, opened, path, source, apply=apply),
                api_key=os.environ.get(API_KEY) or token_urlsafe(32),
                lasting=opened.lasting,
                registries=opened.registries,
                lock_digest=info.lock_digest,
                manifests_digest=info.manifests_digest,
                git_revision=info.git_revision,
            )
            with show_stages(stderr_console()) as observer:
                stages = Stages(observer, origin_unix_s)
                return await run_promotion(request, info, stages, apply=apply, report_directory=report)

    show(run(work), report, apply=apply, as_json=as_json)


def rollback_command(
    kubeconfig: OptionalKubeconfig = None,
    gke: GkeCluster = "",
    artifact_registry: ArtifactRegistry = "",
    gke_endpoint: GkeEndpoint = "",
    to: Annotated[int, typer.Option(min=0, help="Number of the promotion to go back to; the one before when 0.")] = 0,
    namespace: Namespace = "servepath",
    name: Name = "model",
    gateway_class: GatewayClass = "agentgateway",
    gateway_url: GatewayUrl = "",
    context: Context = "",
    report: OptionalReportDirectory = None,
    *,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Replace what serves, where only one engine can run: it is interrupted.")
    ] = False,
    allow_key_file: AllowKeyFile = False,
    apply: Apply = False,
    as_json: AsJson = False,
) -> None:
    """Go back to an earlier promotion: its digest, engine and settings; without --apply print the plan alone.

    It was measured when it was promoted: it is deployed, checked, and then has all of the traffic at once. After a
    promotion that was killed, that one is finished or undone, and nothing else, unless --to names a number.

    Example: servepath rollback --kubeconfig ./kubeconfig --to 3 --apply
    """
    connection = GkeConnection(gke, artifact_registry, gateway_class, gke_endpoint, allow_key_file) if gke else None
    target = Target(kubeconfig, "", gateway_class, gateway_url, context, connection)
    origin_unix_s = time.time()

    async def work() -> Report | tuple[Recovered, ...]:
        info = run_info()
        async with target.open(needs_gateway=apply) as opened:
            history = await read_release(opened.cluster, namespace, name)
            if not to and any(not kept.record.is_over for kept in history):
                return await recover_release(opened.cluster, namespace, name, opened.registries, apply=apply)
            request = request_back(opened.cluster, version_before(history, to), opened.registries)
            request = replace(request, replace=in_place, git_revision=info.git_revision, lasting=opened.lasting)
            with show_stages(stderr_console()) as observer:
                stages = Stages(observer, origin_unix_s)
                return await run_promotion(request, info, stages, apply=apply, report_directory=report)

    outcome = run(work)
    if isinstance(outcome, tuple):
        for one in outcome:
            print_text(str(one))
    else:
        show(outcome, report, apply=apply, as_json=as_json)


async def preflight_of(
    opened: Opened, path: ServingPath, source: str, spec: ServingSpec, *, apply: bool
) -> tuple[CheckResult, ...]:
    """Look for what the cluster lacks for this spec; only a promotion that acts tries the registry.

    What cannot be told, though there is something to do about it, refuses nothing, and is said at once.
    """
    size_bytes = await image_bytes((source, spec.engine_image), opened.registries)
    results = await preflight(
        opened.cluster,
        spec,
        (path,),
        image_bytes=size_bytes,
        gke=opened.gke,
        registries=opened.registries,
        may_start_a_pod=apply,
    )
    for result in results:
        if result.verdict is Verdict.SKIP and result.next_command:
            stderr_console().print(check_line(result), soft_wrap=True, highlight=False)
    return results


def steps_of(text: str) -> tuple[int, ...]:
    """Read percents, separated by commas.

    Raises:
        UsageError: not whole numbers.
    """
    try:
        return tuple(int(step) for step in text.split(","))
    except ValueError as error:
        raise UsageError(f"{text!r} are no percents", where="--steps", expected="such as 5,25,50,100") from error


def show(outcome: Report, directory: Path | None, *, apply: bool, as_json: bool) -> None:
    """Print the plan or what came of the promotion, and end with its exit code.

    Raises:
        typer.Exit: it was refused, rolled back, or failed.
    """
    evidence = outcome.promotion
    if evidence is not None and as_json:
        print_json(promotion_values(evidence))
    elif evidence is not None and evidence.plan is not None and not apply:
        print_text(plan_markdown(plan_values(evidence.plan)))
    if apply or outcome.error is not None:
        print_outcome(outcome, directory)
    code = exit_code_of(outcome) if apply else outcome.error.exit_code if outcome.error else 0
    if code:
        raise typer.Exit(code)
