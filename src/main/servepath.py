"""The door of the module: from a model directory to a modelcar, a cluster, an endpoint, evidence."""

import secrets
import uuid
from typing import Annotated

import dagger
from dagger import DefaultPath, Doc, Ignore, dag

from main import mirror as mirrors
from main import modelcar as modelcars
from main import node
from main.arguments import (
    CompressionChoice,
    ExpectedAnswer,
    GatewayClass,
    ModelDirectory,
    Platforms,
    ProfileChoice,
    Reshard,
    modelcar_options,
)
from main.choices import Compression, Profile
from main.cluster import Cluster
from main.connect import Addresses, connect, stop
from main.declare import never_cached, object_type, session_cached
from main.evidence import Evidence
from main.mirror import Mirror
from main.modelcar import Modelcar
from main.workbench import EVERYTHING_BUT_THE_LIBRARY, MODEL, workbench

AGENTGATEWAY = "agentgateway"
NOBODY = "65534:65534"


@object_type
class Servepath:
    """One model, two serving paths: raw vLLM against KServe, side by side."""

    # The engine knows a directory of the module's context by its content, so a change of a README rebuilds nothing.
    # What `current_module().source()` gives has the identity of the whole module instead.
    library: Annotated[
        dagger.Directory,
        DefaultPath("."),
        Ignore(EVERYTHING_BUT_THE_LIBRARY),
        Doc("Source of the servepath library whose commands the functions run: this module's own"),
    ]
    registry_mirror: Annotated[
        str,
        Doc(
            "`[http://]host[:port][/prefix]` of a registry that has every image and chart that this module pins, as "
            "`mirror` fills it; the engine and the nodes read from it and from nowhere else. Upstream when empty"
        ),
    ] = ""

    @dagger.function
    async def modelcar(
        self,
        source: ModelDirectory,
        reshard: Reshard = "",
        compression: CompressionChoice = Compression.NONE,
        platforms: Platforms = None,
    ) -> Modelcar:
        """Build a modelcar from a model directory.

        Example: `dagger call modelcar --source=./model digest`
        """
        container = self._workbench().with_mounted_directory(MODEL, source)
        options = [f"--source={MODEL}", *modelcar_options(reshard, compression, platforms)]
        return await modelcars.build(container, options, self.registry_mirror)

    @dagger.function
    async def modelcar_from_hub(  # noqa: PLR0913, PLR0917 - what model it is, and what form it gets
        self,
        repo: Annotated[str, Doc("Hub repository, such as `Qwen/Qwen2.5-0.5B-Instruct`")],
        revision: Annotated[str, Doc("Commit of the repository, 40 hexadecimal digits; a branch is refused")],
        token: Annotated[dagger.Secret | None, Doc("Access token for a gated model, such as `env:HF_TOKEN`")] = None,
        reshard: Reshard = "",
        compression: CompressionChoice = Compression.NONE,
        platforms: Platforms = None,
    ) -> Modelcar:
        """Build a modelcar from a revision on the Hugging Face Hub.

        Example: `dagger call modelcar-from-hub --repo=Qwen/Qwen2.5-0.5B-Instruct --revision=COMMIT digest`
        """
        hub = dag.cache_volume("servepath-hub")
        container = self._workbench().with_mounted_cache("/root/.cache/huggingface", hub)
        if token is not None:
            container = container.with_secret_variable("HF_TOKEN", token)
        options = [f"--hub={repo}@{revision}", *modelcar_options(reshard, compression, platforms)]
        return await modelcars.build(container, options, self.registry_mirror)

    @session_cached
    async def cluster(self, gateway_class: GatewayClass = AGENTGATEWAY) -> Cluster:
        """Start a one-node k3s cluster with a registry, KServe and the gateway, for the rest of this `dagger call`.

        Example: `dagger call cluster up up --ports=6443:6443 --ports=8080:80`
        """
        return await start_cluster(self._workbench(), gateway_class, self.registry_mirror)

    @session_cached
    def cluster_from(
        self,
        kubeconfig: Annotated[
            dagger.Secret,
            Doc(
                "Kubeconfig without references to other files, such as `file:./kubeconfig` or "
                "`cmd:kubectl config view --raw --minify --flatten`; its current context is used"
            ),
        ],
        registry: Annotated[str, Doc("`host[:port]` of a registry that this engine and the nodes reach")],
        gateway_url: Annotated[str, Doc("Base URL of the gateway, such as `http://172.30.0.2`")],
        gateway_class: GatewayClass = AGENTGATEWAY,
    ) -> Cluster:
        """Use a cluster that exists. Nothing is installed there, unless `with-platform` is called on it.

        Example: `dagger call cluster-from --kubeconfig=file:./kubeconfig --registry=registry.example.com
        --gateway-url=http://172.30.0.2 evidence --source=./model report export --path=report`
        """
        addresses = Addresses(registry, gateway_url, gateway_class)
        return connect(self._workbench(), kubeconfig, addresses, self.registry_mirror, [])

    @never_cached
    async def evidence(
        self,
        source: ModelDirectory,
        profile: ProfileChoice = Profile.CPU,
        expected_answer: ExpectedAnswer = "Paris",
        gateway_class: GatewayClass = AGENTGATEWAY,
    ) -> Evidence:
        """Do the whole job on a new cluster, and give what came of it, passed or not.

        Example: `dagger call evidence --source=./model report export --path=report`
        """
        cluster = await start_cluster(self._workbench(), gateway_class, self.registry_mirror)
        try:
            return await cluster.evidence(source, profile, expected_answer)
        finally:
            await stop(cluster.services)

    @never_cached
    async def e2e(
        self,
        source: ModelDirectory,
        profile: ProfileChoice = Profile.CPU,
        expected_answer: ExpectedAnswer = "Paris",
        gateway_class: GatewayClass = AGENTGATEWAY,
    ) -> dagger.Directory:
        """Do the whole job on a new cluster, and give the report; fails with its summary unless everything holds.

        `dagger call` spells this function `e-2-e`; `prove` is the same. To keep the report of a run that failed, use
        `evidence`.

        Example: `dagger call prove --source=./model export --path=report`
        """
        evidence = await self.evidence(source, profile, expected_answer, gateway_class)
        return evidence.assert_passed().report

    @never_cached
    async def prove(
        self,
        source: ModelDirectory,
        profile: ProfileChoice = Profile.CPU,
        expected_answer: ExpectedAnswer = "Paris",
        gateway_class: GatewayClass = AGENTGATEWAY,
    ) -> dagger.Directory:
        """Do what `e2e` does: the same function under a name that `dagger call` leaves as it is.

        Example: `dagger call prove --source=./model export --path=report`
        """
        return await self.e2e(source, profile, expected_answer, gateway_class)

    @dagger.function
    def mirror(
        self,
        only: Annotated[
            list[str] | None, Doc("Images and charts by their names in `manifests/lock.yaml`; all when none is named")
        ] = None,
        also: Annotated[
            list[str] | None, Doc("Further images with their digests, such as those that the charts start")
        ] = None,
    ) -> Mirror:
        """Copy every image and chart that this module pins into one OCI layout, for a network without registries.

        Example: `dagger call mirror layout export --path=mirror`
        """
        return mirrors.fetch(self._workbench(), only or [], also or [], self.registry_mirror)

    @dagger.function
    def mirror_from(
        self, layout: Annotated[dagger.Directory, Doc("OCI layout that `mirror` has made, carried to where you are")]
    ) -> Mirror:
        """Take a layout that `mirror` has made, to put it into a registry.

        Example: `dagger call mirror-from --layout=./mirror publish --address=registry.internal:5000`
        """
        return Mirror(layout=layout, builder=self._workbench())

    @dagger.function
    @dagger.check
    async def check(
        self,
        source: Annotated[
            dagger.Directory,
            DefaultPath("/"),
            Ignore([".git", ".venv", ".uv", "report", "**/__pycache__", "**/.*_cache"]),
            Doc("The source of servepath itself"),
        ],
    ) -> None:
        """Check servepath itself: format, lint, types, and the unit and contract tests.

        Example: `dagger check`
        """
        await (
            self._workbench()
            .with_workdir("/work/source")
            .with_directory(".", source, owner=NOBODY)
            .with_exec(["uv", "sync", "--frozen"])
            # Root of a container may not make namespaces; the tests that do are skipped for any other user.
            .with_user(NOBODY)
            .with_env_variable("HOME", "/work/source")
            .with_exec(["ruff", "format", "--check"])
            .with_exec(["ruff", "check"])
            .with_exec(["mypy", "src", "ci", "tests"])
            .with_exec(["pytest", "tests/unit", "tests/contract"])
            .sync()
        )

    def _workbench(self) -> dagger.Container:
        return workbench(self.library, self.registry_mirror)


async def start_cluster(tools: dagger.Container, gateway_class: str, mirror: str) -> Cluster:
    """Start the services of a cluster of our own, and install the platform on it; stop them if that fails."""
    run_id = uuid.uuid4().hex[:12]
    token = secrets.token_hex(32)
    administrator = dag.set_secret(f"servepath-token-{run_id}", token)
    registry = node.registry(mirror)
    server = await node.k3s(run_id, administrator, registry, mirror).start()
    services = [server, registry]
    try:
        beside = tools.with_service_binding(node.REGISTRY_HOST, registry).with_service_binding("k3s", server)
        addresses = Addresses(node.REGISTRY, node.GATEWAY_URL, gateway_class)
        authority = await node.certificate(run_id, administrator, server, mirror)
        kubeconfig = dag.set_secret(f"servepath-kubeconfig-{run_id}", node.kubeconfig(token, authority))
        cluster = connect(beside, kubeconfig, addresses, mirror, services)
        return await cluster.with_platform()
    except dagger.DaggerError:
        await stop(services)
        raise
