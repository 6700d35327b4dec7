"""The values of the serving paths: what is asked for, and what answers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal, TypeAlias

from servepath.serving.slots import SLOT_HEADER, Slot, slot_name


class ServingPath(StrEnum):
    """How a model is served: the two paths that are compared, one engine each."""

    RAW = "raw"
    KSERVE = "kserve"


class DeployPath(StrEnum):
    """All that `servepath deploy` deploys: the two that are compared, and llm-d with several engines for itself."""

    RAW = "raw"
    KSERVE = "kserve"
    LLMD = "llm-d"


AnyPath: TypeAlias = ServingPath | Literal[DeployPath.LLMD]
"""A path that answers."""


class AutoscalerClass(StrEnum):
    """Who decides how many engines a path runs: nobody, Kubernetes' HorizontalPodAutoscaler, or KEDA."""

    NONE = "none"
    HPA = "hpa"
    KEDA = "keda"


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """How many engines a path runs, and by what. The default is exactly one, else paths could not be compared.

    Attributes:
        autoscaler: who decides.
        min_replicas: the fewest engines; 0 with KEDA alone, and with a `wake_query`.
        max_replicas: the most engines.
        waiting_per_replica: requests that may wait for each engine (`vllm:num_requests_waiting`) before one is added;
            not heard by KServe's HPA, which knows CPU and memory alone.
        cpu_percent: of the CPU request, before KServe's HPA adds an engine.
        prometheus_url: the Prometheus that KEDA asks.
        wake_query: PromQL that is above 0 while requests arrive, from somewhere that outlives the engines, such as the
            gateway: what wakes a path that has none.
    """

    autoscaler: AutoscalerClass = AutoscalerClass.NONE
    min_replicas: int = 1
    max_replicas: int = 1
    waiting_per_replica: int = 5
    cpu_percent: int = 80
    prometheus_url: str = "http://prometheus-operated.monitoring.svc:9090"
    wake_query: str = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """What one engine may use, and how it is told to run.

    Attributes:
        name: `cpu`, `gpu` or a smaller one for a 2-core machine: the overlay of `manifests/` in use.
        cpu_request: Kubernetes quantity, as in `resources.requests.cpu`.
        cpu_limit: Kubernetes quantity.
        memory_request: Kubernetes quantity.
        memory_limit: Kubernetes quantity.
        kv_cache_gib: `VLLM_CPU_KVCACHE_SPACE`, in GiB.
        max_model_len: context length in tokens.
        startup_timeout_s: budget from apply to the first completion, in seconds.
        request_timeout_s: the HTTPRoute's request timeout, in seconds (KServe's default of 60 s cuts generations).
        engine_args: further arguments of vLLM.
        patience_s: how long a pod may be unschedulable before that is an error, in seconds: an autoscaler's time.
        components: options of the overlay: directories of `manifests/<path>/components`, such as `gke-spot`.
        autoscaling: how many engines, and who decides.
    """

    name: str
    cpu_request: str
    cpu_limit: str
    memory_request: str
    memory_limit: str
    kv_cache_gib: int
    max_model_len: int
    startup_timeout_s: int
    request_timeout_s: int
    engine_args: tuple[str, ...] = ()
    patience_s: int = 60
    components: tuple[str, ...] = ()
    autoscaling: Autoscaling = Autoscaling()


@dataclass(frozen=True, slots=True)
class ServingSpec:
    """One model on one engine, the same for every path.

    Attributes:
        namespace: where both paths live.
        name: base name of the objects; the path is appended.
        served_model_name: the `model` of the OpenAI API.
        modelcar_reference: `host/repository@sha256:…`.
        engine_image: `host/repository@sha256:…`.
        profile: resources and engine settings.
        domain: DNS suffix of the gateway's hostnames.
    """

    namespace: str
    name: str
    served_model_name: str
    modelcar_reference: str
    engine_image: str
    profile: Profile
    domain: str = "servepath.test"

    def in_slot(self, slot: Slot) -> ServingSpec:
        """The same in one of the two places between which a canary moves traffic."""
        return replace(self, name=slot_name(self.name, slot))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model that has answered one real completion.

    Attributes:
        path: the serving path.
        base_url: the gateway's URL.
        host: the Host header that routes to this path.
        model: the served model name.
        api_key: the key that the engine demands, empty for none. Never printed.
        namespace: namespace of its objects.
        workload: name of the Deployment that runs it.
        modelcar_digest: digest of the model it was deployed with.
        engine_image: the engine's image reference.
        ready_s: seconds from apply to the first completion.
        slot: asks this slot of the KServe path, whatever the weights of its canary; None asks the stable hostname.
    """

    path: AnyPath
    base_url: str
    host: str
    model: str
    namespace: str
    workload: str
    modelcar_digest: str
    engine_image: str
    ready_s: float
    api_key: str = field(default="", repr=False)
    slot: Slot | None = None

    def headers(self) -> dict[str, str]:
        """Give the headers that every request to it carries."""
        chosen = {SLOT_HEADER: str(self.slot)} if self.slot else {}
        return {**request_headers(self.host, self.api_key), **chosen}


def request_headers(host: str, api_key: str) -> dict[str, str]:
    """Give the headers by which a gateway routes and an engine lets in; an empty one is not sent."""
    headers = {"Host": host, "Authorization": f"Bearer {api_key}" if api_key else ""}
    return {name: value for name, value in headers.items() if value}
