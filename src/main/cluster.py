"""A Kubernetes cluster with KServe, a registry and a gateway."""

import json
from typing import Annotated, Self

import dagger
from dagger import Doc, dag

from main import promotion
from main.arguments import (
    Blocks,
    ClientRatePerS,
    DeployPathChoice,
    ExpectedAnswer,
    HoldS,
    InPlace,
    MaxSlowdownPercent,
    ModelDirectory,
    OutputTokens,
    PathChoice,
    ProfileChoice,
    PromptTokens,
    RatePerS,
    RegistryLogins,
    RequestsPerBlock,
    Steps,
    bench_options,
    canary_options,
    steps_option,
)
from main.choices import Path, Profile
from main.declare import never_cached, object_type, session_cached
from main.endpoint import Endpoint
from main.evidence import Evidence, gather
from main.images import base_image_option
from main.promotion import PromotionPlan
from main.workbench import KUBECONFIG, MODEL, observing

DIAGNOSTICS = "/work/diagnostics"


@object_type
class Cluster:
    """A cluster to serve on. One of `cluster` lives as long as the `dagger call` that made it: chain what needs it."""

    registry: Annotated[str, Doc("`host[:port]` from which the nodes pull")] = dagger.field()
    gateway_url: Annotated[str, Doc("Base URL of the gateway, as seen from inside the session")] = dagger.field()
    kubeconfig: Annotated[
        dagger.Secret, Doc("Kubeconfig, for use beside the cluster; `kubeconfig plaintext` shows it")
    ] = dagger.field()
    tools: Annotated[
        dagger.Container, Doc("Container with servepath, kubectl and this cluster's kubeconfig; see also `terminal`")
    ] = dagger.field()
    arguments: list[str]
    mirror: str
    services: list[dagger.Service]

    @never_cached
    async def with_platform(self) -> Self:
        """Install what is missing of Gateway API, cert-manager, KServe and the gateway, and wait for all of it.

        Example: `dagger call cluster-from --kubeconfig=file:./kubeconfig --registry=… --gateway-url=… with-platform
        evidence --source=./model report export --path=report`
        """
        command = ["servepath", "platform", *self.arguments, *_mirror_option(self.mirror)]
        await observing(self.tools).with_exec([*command, "--apply"]).sync()
        return self

    @never_cached
    async def deploy(
        self, source: ModelDirectory, path: DeployPathChoice = Path.KSERVE, profile: ProfileChoice = Profile.CPU
    ) -> Endpoint:
        """Serve a model on one path, and wait for its first real completion.

        Example: `dagger call cluster deploy --source=./model --path=raw smoke report export --path=report`
        """
        container = observing(self.tools.with_mounted_directory(MODEL, source))
        # llm-d has a Gateway of its own, which says its own address.
        connection = _without(self.arguments, "--gateway-url") if path is Path.LLM_D else self.arguments
        arguments = [*connection, f"--profile={profile.value}"]
        options = [f"--path={path.value}", f"--source={MODEL}", *base_image_option(self.mirror), "--json"]
        command = ["servepath", "deploy", *arguments, *options]
        served = json.loads(await container.with_exec(command).stdout())
        return Endpoint(
            path=Path(served["path"]),
            host=served["host"],
            model=served["model"],
            modelcar_digest=served["modelcar_digest"],
            ready_s=served["ready_s"],
            tools=self.tools,
            registry=self.registry,
            mirror=self.mirror,
            arguments=arguments,
        )

    @never_cached
    async def with_model(self, source: ModelDirectory, profile: ProfileChoice = Profile.CPU) -> Self:
        """Serve a model on both paths, and give the cluster back: for `smoke`, `compare` and `canary`.

        Example: `dagger call cluster with-model --source=./model compare report export --path=report`
        """
        for path in (Path.RAW, Path.KSERVE):
            await self.deploy(source, path, profile)
        return self

    @never_cached
    async def smoke(self, profile: ProfileChoice = Profile.CPU, expected_answer: ExpectedAnswer = "Paris") -> Evidence:
        """Run every smoke check of both paths, which must be deployed.

        Example: `dagger call cluster with-model --source=./model smoke summary`
        """
        options = [f"--profile={profile.value}", f"--expected-answer={expected_answer}"]
        return await gather(self.tools, ["smoke", *self.arguments, *options])

    @never_cached
    async def compare(  # noqa: PLR0913, PLR0917 - the plan of a benchmark, one argument each
        self,
        profile: ProfileChoice = Profile.CPU,
        blocks: Blocks = 8,
        requests_per_block: RequestsPerBlock = 2,
        rate_per_s: RatePerS = 0.5,
        prompt_tokens: PromptTokens = 32,
        output_tokens: OutputTokens = 16,
    ) -> Evidence:
        """Measure both paths, which must be deployed, in interleaved blocks: ratios with 95% confidence intervals.

        Example: `dagger call cluster with-model --source=./model compare report export --path=report`
        """
        options = bench_options(blocks, requests_per_block, rate_per_s, prompt_tokens, output_tokens)
        return await gather(self.tools, ["bench", *self.arguments, f"--profile={profile.value}", *options])

    @never_cached
    async def canary(  # noqa: PLR0913, PLR0917 - the plan of a canary, one argument each
        self,
        to: Annotated[
            str, Doc("The next model: `sha256:…` in the served one's repository, or `host/repository@sha256:…`")
        ],
        profile: ProfileChoice = Profile.CPU,
        steps: Steps = None,
        hold_s: HoldS = 60.0,
        rate_per_s: ClientRatePerS = 2.0,
        max_slowdown_percent: MaxSlowdownPercent = 20.0,
        output_tokens: OutputTokens = 16,
    ) -> Evidence:
        """Lead a modelcar that is in the registry to all traffic of the KServe path, step by step, or back by itself.

        After a kill, the same call goes on. A canary of another model is refused.

        Example: `dagger call cluster-from --kubeconfig=file:./kubeconfig --registry=… --gateway-url=… canary
        --to=sha256:… report export --path=report`
        """
        plan = canary_options(steps, hold_s, rate_per_s, max_slowdown_percent, output_tokens)
        return await gather(self.tools, ["canary", *self.arguments, f"--profile={profile.value}", f"--to={to}", *plan])

    @never_cached
    async def evidence(
        self,
        source: ModelDirectory,
        profile: ProfileChoice = Profile.CPU,
        expected_answer: ExpectedAnswer = "Paris",
    ) -> Evidence:
        """Do the whole job on this cluster: build, push, deploy both paths, check them, compare them, and report.

        Example: `dagger call cluster evidence --source=./model report export --path=report`
        """
        container = self.tools.with_mounted_directory(MODEL, source)
        options = [f"--source={MODEL}", f"--profile={profile.value}", f"--expected-answer={expected_answer}"]
        return await gather(container, ["e2e", *self.arguments, *options, *base_image_option(self.mirror)])

    @never_cached
    async def promote(  # noqa: PLR0913, PLR0917 - what, on whose word, how it gets in, and how it is measured
        self,
        modelcar: Annotated[
            str, Doc("Where the modelcar is now, `host/repository@sha256:…`; that of `from-report` when empty")
        ] = "",
        from_report: Annotated[
            dagger.Directory | None, Doc("Report of the run that vouches for this digest, engine and manifests")
        ] = None,
        signed_by: Annotated[dagger.File | None, Doc("Public key of cosign that must have signed the modelcar")] = None,
        registry_logins: RegistryLogins = None,
        path: PathChoice = Path.KSERVE,
        profile: ProfileChoice = Profile.GPU,
        steps: Steps = None,
        hold_s: HoldS = 60.0,
        usd_per_hour: Annotated[float | None, Doc("Price of one engine, in US dollars per hour, for the plan")] = None,
        expected_answer: ExpectedAnswer = "Paris",
        blocks: Blocks = 8,
        requests_per_block: RequestsPerBlock = 4,
        rate_per_s: RatePerS = 1.0,
        prompt_tokens: PromptTokens = 256,
        output_tokens: OutputTokens = 128,
        *,
        in_place: InPlace = False,
        at_once: Annotated[bool, Doc("All of the traffic behind the gate, without steps")] = False,
        stop_after: Annotated[bool, Doc("Stop the engine once it is promoted, so that it costs nothing")] = False,
    ) -> PromotionPlan:
        """Plan to promote the digest that was tested to this cluster, and change nothing; `apply` on the plan does it.

        Example: `dagger call cluster-from --kubeconfig=file:./kubeconfig --registry=… --gateway-url=… promote
        --from-report=./report summary`
        """
        container, trust = promotion.vouched(self.tools, from_report, signed_by, registry_logins)
        shares = ["--at-once"] if at_once else [*steps_option(steps), f"--hold={hold_s}"]
        switches = [*(["--in-place"] if in_place else []), *(["--stop-after"] if stop_after else [])]
        command = [
            "promote",
            *self.arguments,
            *([f"--modelcar={modelcar}"] if modelcar else []),
            *trust,
            f"--path={path.value}",
            f"--profile={profile.value}",
            f"--expected-answer={expected_answer}",
            *shares,
            *switches,
            *([] if usd_per_hour is None else [f"--usd-per-hour={usd_per_hour}"]),
            *bench_options(blocks, requests_per_block, rate_per_s, prompt_tokens, output_tokens),
        ]
        return await promotion.plan(container, command)

    @never_cached
    async def rollback(
        self,
        to: Annotated[
            int, Doc("Number of the promotion to go back to, as `history` lists it; the one before when 0")
        ] = 0,
        registry_logins: RegistryLogins = None,
        *,
        in_place: InPlace = False,
    ) -> PromotionPlan:
        """Plan to go back to an earlier promotion, and change nothing; `apply` on the plan does it.

        Example: `dagger call cluster-from --kubeconfig=file:./kubeconfig --registry=… --gateway-url=… rollback summary`
        """
        container, _ = promotion.vouched(self.tools, None, None, registry_logins)
        options = [f"--to={to}", *(["--in-place"] if in_place else [])]
        return await promotion.plan(container, ["rollback", *_without(self.arguments, "--registry"), *options])

    @never_cached
    async def history(self) -> str:
        """List what was promoted to this cluster, the newest first: digest, result, by whom and on which report.

        Example: `dagger call cluster-from --kubeconfig=file:./kubeconfig --registry=… --gateway-url=… history`
        """
        command = ["servepath", "history", f"--kubeconfig={KUBECONFIG}"]
        return await observing(self.tools).with_exec(command).stdout()

    @never_cached
    def diagnostics(self) -> dagger.Directory:
        """Give what one needs to understand a failure: pods, events, logs and objects, as files.

        Example: `dagger call cluster-from --kubeconfig=file:./kubeconfig --registry=… --gateway-url=… diagnostics
        export --path=diagnostics`
        """
        command = ["servepath", "cluster", *self.arguments, f"--diagnostics={DIAGNOSTICS}"]
        return (
            observing(self.tools)
            .with_directory(DIAGNOSTICS, dag.directory())
            .with_exec(command, expect=dagger.ReturnType.ANY)
            .directory(DIAGNOSTICS)
        )

    @never_cached
    def terminal(self) -> dagger.Container:
        """Give an interactive shell beside the cluster, with servepath, kubectl and its kubeconfig.

        Example: `dagger call cluster terminal`
        """
        return self.tools.terminal(cmd=["bash"])

    @session_cached
    def up(self) -> dagger.Service:
        """Give the k3s service, to be forwarded to the host: the API on port 6443, the gateway on port 80.

        Example: `dagger call cluster up up --ports=6443:6443 --ports=8080:80`

        Raises:
            ValueError: the cluster existed before; it is no service of Dagger.
        """
        if not self.services:
            raise ValueError("a cluster of cluster-from is no Dagger service; next: use its own address")
        return self.services[0]


def _without(arguments: list[str], option: str) -> list[str]:
    return [one for one in arguments if not one.startswith(f"{option}=")]


def _mirror_option(mirror: str) -> list[str]:
    return [f"--registry-mirror={mirror}"] if mirror else []
