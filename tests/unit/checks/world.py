"""A whole small world on loopback: an API server, a gateway with two engines, and the context that looks at them."""

from __future__ import annotations

import json
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import httpx
from lightkube import AsyncClient, KubeConfig

from servepath.checks.context import CheckContext, Finding, PathCheck, Tools
from servepath.cluster.model import Cluster
from servepath.serving.model import Endpoint, Profile, ServingPath, ServingSpec
from tests.unit.checks import objects
from tests.unit.checks.engine import Engine
from tests.unit.checks.loopback import Request, Response, serving
from tests.unit.checks.objects import ApiServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MODEL = "smollm2-135m-instruct"
KEY = "k3y-that-nobody-prints"
KSERVE_KEY = "an0ther-k3y-that-nobody-prints"
# Everything here is plain HTTP: loading the machine's certificates for each test would be most of its time.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
PROFILE = Profile("tiny", "1", "2", "4Gi", "8Gi", 1, 1024, 600, 300)
SPEC = ServingSpec(objects.NAMESPACE, "qwen", MODEL, objects.MODELCAR, objects.ENGINE, PROFILE)


@dataclass(slots=True)
class World:
    """What is running; a test changes it before it asks."""

    api: ApiServer = field(default_factory=ApiServer)
    raw: Engine = field(default_factory=lambda: Engine(objects.RAW_HOST, MODEL, KEY))
    kserve: Engine = field(default_factory=lambda: Engine(objects.KSERVE_HOST, MODEL, KSERVE_KEY))

    def gateway(self, request: Request) -> Response:
        engine = self.kserve if request.headers["host"] == self.kserve.host else self.raw
        return engine.answer(request)


@asynccontextmanager
async def running(world: World, folder: Path, **changes: Any) -> AsyncIterator[Tools]:
    """Serve the world; gives the tools to look at it. `changes` replace fields of the context."""
    async with serving(world.api.answer) as api_url, serving(world.gateway) as gateway_url:
        kubeconfig = write_kubeconfig(folder, api_url)
        cluster = Cluster(kubeconfig, "127.0.0.1:5000", gateway_url)
        context = CheckContext(
            cluster,
            SPEC,
            objects.MODELCAR_DIGEST,
            raw=endpoint(ServingPath.RAW, gateway_url),
            kserve=endpoint(ServingPath.KSERVE, gateway_url),
        )
        config = KubeConfig.from_file(kubeconfig)
        async with (
            AsyncClient(config=config, trust_env=False) as kube,
            httpx.AsyncClient(trust_env=False, verify=NO_TLS) as http,
        ):
            yield Tools(replace(context, **changes), kube, http)


async def look(check: PathCheck, world: World, folder: Path, path: ServingPath = ServingPath.RAW) -> Finding:
    """Run one check of a path against the world."""
    async with running(world, folder) as tools:
        return await check(tools, endpoint(path, tools.context.cluster.gateway_url))


def endpoint(path: ServingPath, gateway_url: str) -> Endpoint:
    raw = path is ServingPath.RAW
    return Endpoint(
        path=path,
        base_url=gateway_url,
        host=objects.RAW_HOST if raw else objects.KSERVE_HOST,
        model=MODEL,
        namespace=objects.NAMESPACE,
        workload="qwen-raw" if raw else "qwen-kserve-predictor",
        modelcar_digest=objects.MODELCAR_DIGEST,
        engine_image=objects.ENGINE,
        ready_s=1.0,
        api_key=KEY if raw else KSERVE_KEY,
    )


def write_kubeconfig(folder: Path, api_url: str) -> Path:
    path = folder / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "clusters": [{"name": "test", "cluster": {"server": api_url, "insecure-skip-tls-verify": True}}],
                "users": [{"name": "test", "user": {}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            }
        )
    )
    return path
