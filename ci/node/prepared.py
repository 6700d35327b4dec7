"""All that needs a network: packages, programs and the engine image, each cached by what it is built from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ci.node import (
    browser,
    engine_image,
    envoy_gateway,
    keda,
    kserve,
    kubernetes,
    llmisvc,
    network_policy,
    oci_tools,
    packages,
    preflight,
    programs,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ci.node.engine_image import EngineImage
    from ci.node.envoy_gateway import GatewayFiles
    from ci.node.kserve import KServeFiles
    from ci.node.layout import Layout
    from servepath.stages import Stages


@dataclass(frozen=True, slots=True)
class Platform:
    """What the node and its platform are started from.

    Attributes:
        kubernetes: the folder of the Kubernetes programs.
        kserve: KServe's manager and manifests.
        gateway: Envoy Gateway, its CRDs and Envoy's image.
    """

    kubernetes: Path
    kserve: KServeFiles
    gateway: GatewayFiles


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the main job on the embedded node is started from.

    Attributes:
        platform: the node's programs.
        engine: the engine's image, as an OCI layout.
    """

    platform: Platform
    engine: EngineImage


async def prepare_platform(layout: Layout, stages: Stages) -> Platform:
    """Check the machine, install packages and build the programs, one after the other: each build uses every core.

    Raises:
        ClusterError: the machine will not do, or apt or Go failed.
    """
    with stages.stage("preflight"):
        preflight.check(preflight.observe(layout))
    with stages.stage("packages") as note:
        installed = await packages.install()
        note(f"{len(installed)} installed" if installed else "all there")
    with stages.stage("kubernetes"):
        kubernetes_programs = await programs.build(kubernetes.KUBERNETES, layout.cache)
    with stages.stage("kserve build"):
        kserve_files = await kserve.prepare(layout.cache)
    with stages.stage("gateway build"):
        gateway_files = await envoy_gateway.prepare(layout.cache)
    return Platform(kubernetes_programs, kserve_files, gateway_files)


async def prepare_tests(layout: Layout, stages: Stages) -> Platform:
    """Prepare what the tests need besides the platform: Helm, KServe's chart, kube-router, KEDA, llm-d, OCI tools.

    Raises:
        ClusterError: a step failed, with what its tool said.
    """
    platform = await prepare_platform(layout, stages)
    with stages.stage("helm"):
        await programs.build(kubernetes.HELM, layout.cache)
        await kserve.keep_chart(layout.cache)
    with stages.stage("policy enforcer"):
        await network_policy.prepare(layout.cache)
    with stages.stage("keda"):
        await keda.prepare(layout.cache)
    with stages.stage("llm-d build"):
        await llmisvc.prepare(layout.cache)
        await llmisvc.keep_charts(layout.cache)
    with stages.stage("image tools"):
        await oci_tools.prepare(layout.cache)
    with stages.stage("browser"):
        await browser.prepare()
    return platform


async def prepare(layout: Layout, stages: Stages) -> Prepared:
    """Prepare everything; the second time all of it is found.

    Raises:
        ClusterError: a step failed, with what its tool said.
    """
    platform = await prepare_platform(layout, stages)
    with stages.stage("engine image") as note:
        engine = await engine_image.build_engine_image(layout.cache)
        note(engine.digest[:19])
    return Prepared(platform, engine)


async def prepared(layout: Layout) -> Prepared:
    """Give what `prepare` has prepared, without a network: every step finds its result in the cache.

    Raises:
        ClusterError: something is not there.
    """
    return Prepared(
        Platform(
            await programs.build(kubernetes.KUBERNETES, layout.cache),
            await kserve.prepare(layout.cache),
            await envoy_gateway.prepare(layout.cache),
        ),
        await engine_image.build_engine_image(layout.cache),
    )
