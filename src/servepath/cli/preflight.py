"""`servepath preflight`: what a promotion would miss in a cluster, before anything is created."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from servepath.cli.connection import Connection
from servepath.cli.defaults import engine_image
from servepath.cli.gke import AllowKeyFile, ArtifactRegistry, GkeCluster, GkeConnection, GkeEndpoint
from servepath.cli.options import (
    AsJson,
    Components,
    Context,
    EngineImage,
    GatewayClass,
    Name,
    Namespace,
    ProfileName,
    Registry,
)
from servepath.cli.output import show_checks
from servepath.cli.running import run
from servepath.errors import PromotionRefusedError, UsageError
from servepath.modelcar.registry.client import RegistryOptions
from servepath.promotion.preflight.images import image_bytes
from servepath.promotion.preflight.results import missing_of
from servepath.promotion.preflight.run import preflight
from servepath.serving.model import ServingPath, ServingSpec
from servepath.serving.profiles import profile_named

if TYPE_CHECKING:
    from servepath.evidence import CheckResult

OnePath = Annotated[ServingPath | None, typer.Option("--path", help="One serving path; both when not given.")]


def preflight_command(
    modelcar: Annotated[str, typer.Option(metavar="IMAGE@DIGEST", help="The modelcar that is to be promoted.")],
    kubeconfig: Annotated[
        Path | None, typer.Option(envvar="KUBECONFIG", help="Kubeconfig file; its current context is never changed.")
    ] = None,
    gke: GkeCluster = "",
    artifact_registry: ArtifactRegistry = "",
    gke_endpoint: GkeEndpoint = "",
    path: OnePath = None,
    registry: Registry = "",
    engine: EngineImage = "",
    profile_name: ProfileName = "gpu",
    components: Components = None,
    namespace: Namespace = "servepath",
    name: Name = "model",
    gateway_class: GatewayClass = "agentgateway",
    context: Context = "",
    *,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="Let a pod try whether the nodes reach the registry, and begin a push; both are undone again.",
        ),
    ] = False,
    allow_key_file: AllowKeyFile = False,
    as_json: AsJson = False,
) -> None:
    """Say all that a cluster lacks for this model, each with the command that fixes it; exit code 8 if there is any.

    Nothing is created and nothing is changed, but with --probe.

    Example: servepath preflight --gke acme/europe-west4/models --profile gke --modelcar HOST/model@sha256:...
    """
    profile = profile_named(profile_name, components or ())
    asked = ServingSpec(
        namespace=namespace,
        name=name,
        served_model_name=name,
        modelcar_reference=modelcar,
        engine_image=engine_image(engine, profile),
        profile=profile,
    )
    paths = tuple(ServingPath) if path is None else (path,)

    async def work() -> tuple[CheckResult, ...]:
        spec = asked
        async with AsyncExitStack() as stack:
            session, credentials = None, {}
            if gke:
                connection = GkeConnection(gke, artifact_registry, gateway_class, gke_endpoint, allow_key_file)
                session = await stack.enter_async_context(connection.open())
                cluster = session.cluster
                if session.repository:
                    credentials = {session.repository.registry: session.registry_credentials}
            elif kubeconfig is not None:
                cluster = Connection(kubeconfig, registry, gateway_class, "", context).without_gateway()
            else:
                raise UsageError("no cluster is named", where="--kubeconfig and --gke", expected="one of them")
            options = RegistryOptions(credentials=credentials)
            size_bytes = await image_bytes((spec.modelcar_reference, spec.engine_image), options)
            if session is not None and session.repository:
                spec = replace(spec, modelcar_reference=session.repository.reference(name, modelcar))
            return await preflight(
                cluster,
                spec,
                paths,
                image_bytes=size_bytes,
                gke=session,
                registries=options,
                may_start_a_pod=probe,
            )

    results = run(work)
    show_checks(results, as_json=as_json)
    if missing_of(results):
        raise typer.Exit(PromotionRefusedError.exit_code)
