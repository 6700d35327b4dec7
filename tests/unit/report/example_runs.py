"""Example runs: one that passed, one that failed, one that was stopped. Their requests are drawn, not measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from servepath.bench.analysis import analyse
from servepath.bench.model import BenchPlan, Comparison, ErrorClass, Sample
from servepath.bench.schedule import arrival_times_s, block_order
from servepath.bench.slo import Slo, evaluate
from servepath.cluster.model import Cluster
from servepath.errors import ClusterError
from servepath.evidence import CheckResult, RunInfo, StageTiming, Verdict
from servepath.modelcar.model import Layer, Modelcar, ModelSource
from servepath.report.model import Quote, Report, report_error
from servepath.serving.model import Endpoint, ServingPath
from tests.unit.report.example_canary import example_canary
from tests.unit.report.example_measurements import example_instrument, example_lifecycle, example_sweep
from tests.unit.report.example_promotion import example_promotion

API_KEY = "sk-do-not-print-<&>\"'-0123456789"
DIGEST = "sha256:" + "4f9c" * 16
ENGINE = "127.0.0.1:5000/servepath/engine@sha256:" + "b01d" * 16
NAMES = ("raw", "kserve")

RUN = RunInfo(
    git_revision="3f2a91c07be4d85566aa01cf9e27d4b8803c51ee",
    lock_digest="sha256:" + "c0de" * 16,
    started_at="2026-01-02T03:04:05Z",
    command="servepath e2e --source SmolLM2-135M-Instruct",
    node={"cpu": "AMD EPYC 7B13", "cores": 2, "memory_bytes": 24696061952, "kernel": "6.1.0", "kubelet": "v1.36.2"},
)
MODELCAR = Modelcar(
    digest=DIGEST,
    reference=f"127.0.0.1:5000/servepath/smollm2@{DIGEST}",
    size_bytes=272_629_760,
    layers=(
        Layer("sha256:" + "1" * 64, 2_200_000, "application/vnd.oci.image.layer.v1.tar+gzip"),
        Layer("sha256:" + "2" * 64, 269_060_552, "application/vnd.oci.image.layer.v1.tar"),
        Layer("sha256:" + "3" * 64, 3_500_000, "application/vnd.oci.image.layer.v1.tar"),
    ),
    source=ModelSource(
        directory=Path("models/smollm2"),
        name="SmolLM2-135M-Instruct",
        files=("config.json", "model.safetensors"),
        licence="Apache-2.0",
        parameters=134_515_008,
        dtype="BF16",
    ),
    sent_bytes=272_629_760,
)
CLUSTER = Cluster(
    kubeconfig=Path("kubeconfig"),
    registry="127.0.0.1:5000",
    gateway_url="http://172.30.0.2:80",
    gateway_class="envoy",
)


def endpoint(path: ServingPath, ready_s: float) -> Endpoint:
    return Endpoint(
        path=path,
        base_url=CLUSTER.gateway_url,
        host=f"smollm2-{path}.servepath.test",
        model="smollm2-135m-instruct",
        namespace="servepath",
        workload=f"smollm2-{path}",
        modelcar_digest=DIGEST,
        engine_image=ENGINE,
        ready_s=ready_s,
        api_key=API_KEY if path is ServingPath.RAW else "",
    )


def check(name: str, subject: str, seen: str, verdict: Verdict = Verdict.PASS, duration_s: float = 0.02) -> CheckResult:
    return CheckResult(
        name, subject, verdict, "as documented", seen, duration_s, "kubectl -n servepath get pods -o wide"
    )


CHECKS = (
    check("api-server-serves-crds", "cluster", "v1.36.2; 14 CRDs of KServe and Gateway API established"),
    check(
        "modelcar-injected",
        "kserve",
        "init container, modelcar sidecar, shared process namespace, /mnt/models, uid 1010",
    ),
    check("modelcar-digest", "kserve", f"{DIGEST} is the one built"),
    *(check("health", path, "HTTP 200") for path in NAMES),
    *(check("models-names-the-model", path, "smollm2-135m-instruct") for path in NAMES),
    *(
        check("chat-completion", path, "HTTP 200, 'Paris', fingerprint vllm-0.23.0-2f1c9a7e", duration_s=1.31)
        for path in NAMES
    ),
    *(
        check("stream-ends-with-done", path, "1 role, 16 content, finish, usage, [DONE]", duration_s=1.12)
        for path in NAMES
    ),
    *(check("unknown-model-is-404", path, "HTTP 404") for path in NAMES),
    *(check("malformed-body-is-4xx", path, "HTTP 400") for path in NAMES),
    check("missing-key-is-401", "raw", "HTTP 401"),
    check("wrong-host-is-404", "cluster", "HTTP 404"),
    check("no-egress-for-weights", "both", "HF_HUB_OFFLINE=1; the node has no route out", Verdict.SKIP),
)
STAGES = (
    StageTiming("prepare", 0.0, 2.1, Verdict.PASS, "everything from the cache"),
    StageTiming("modelcar", 2.1, 3.4, Verdict.PASS, "260 MiB sent"),
    StageTiming("cluster", 2.2, 19.8, Verdict.PASS),
    StageTiming("platform", 22.0, 14.6, Verdict.PASS, "Gateway API, KServe v0.19.0, Envoy Gateway"),
    StageTiming("deploy raw", 36.6, 141.0, Verdict.PASS),
    StageTiming("deploy kserve", 36.9, 163.2, Verdict.PASS),
    StageTiming("smoke", 200.1, 9.7, Verdict.PASS),
    StageTiming("bench", 209.8, 71.3, Verdict.PASS),
)


def drawn_samples(plan: BenchPlan, *, slowdown: float, failing: str = "") -> tuple[Sample, ...]:
    """Requests as SmolLM2 on two cores would give them."""
    rng = np.random.default_rng(plan.seed)
    samples = []
    for block in range(plan.blocks):
        drift = float(rng.lognormal(0, 0.06))
        for path in NAMES:
            factor = drift * (slowdown if path == "kserve" else 1.0)
            for index, at_s in enumerate(arrival_times_s(plan, block)):
                first_s = at_s + 0.2 * factor * float(rng.lognormal(0, 0.07))
                gaps_s = 0.054 * factor * rng.lognormal(0, 0.12, plan.output_tokens - 1)
                times_s = tuple(float(t) for t in first_s + np.concatenate([[0.0], np.cumsum(gaps_s)]))
                cut = path == failing and index == 1 and block % 3 == 0
                samples.append(
                    Sample(
                        path=path,
                        block=block,
                        index=index,
                        intended_s=at_s,
                        sent_s=at_s + float(rng.exponential(0.001)),
                        token_times_s=times_s[:3] if cut else times_s,
                        end_s=times_s[-1] + 0.001,
                        prompt_tokens=41,
                        completion_tokens=0 if cut else plan.output_tokens,
                        error=ErrorClass.TRUNCATED if cut else None,
                        error_detail=f"the stream ended; the request had the key {API_KEY}" if cut else "",
                    )
                )
    return tuple(samples)


def comparison(slowdown: float = 1.0, failing: str = "", plan: BenchPlan | None = None) -> Comparison:
    plan = plan or BenchPlan()
    samples = drawn_samples(plan, slowdown=slowdown, failing=failing)
    return analyse(samples, plan, block_order(NAMES, plan), names=NAMES)


def passed_run(slowdown: float = 1.0) -> Report:
    return Report(
        run=RUN,
        stages=STAGES,
        modelcar=MODELCAR,
        cluster=CLUSTER,
        deployments=(endpoint(ServingPath.RAW, 141.0), endpoint(ServingPath.KSERVE, 163.2)),
        checks=CHECKS,
        comparison=comparison(slowdown),
    )


def full_run() -> Report:
    """Everything a run can measure."""
    run = passed_run()
    measured = comparison(1.031, plan=BenchPlan(blocks=20, requests_per_block=6))
    return replace(
        run,
        comparison=replace(measured, stopped="every median ratio is known to 3%"),
        slo=evaluate(measured, Slo(ttft_p95_s=0.4, itl_p95_s=0.1, e2e_p95_s=1.9)),
        sweep=example_sweep(),
        instrument=example_instrument(),
        lifecycle=example_lifecycle(),
        canary=example_canary(),
        promotion=example_promotion(),
    )


def failed_run() -> Report:
    """A failed check whose text a file format could trip over, failed requests, missed objectives."""
    bad = CheckResult(
        name="missing-key-is-401",
        subject="raw",
        verdict=Verdict.FAIL,
        expected="HTTP 401",
        seen=f"HTTP 200 with Authorization: Bearer {API_KEY} | <script>alert(1)</script> ```\x00\x1b[31m\ud83d\n]]>",
        duration_s=0.03,
        next_command="kubectl -n servepath get secret vllm-api-key -o yaml",
    )
    measured = comparison(1.4, failing="kserve", plan=BenchPlan(max_error_rate=0.0))
    return Report(
        run=RUN,
        stages=STAGES,
        modelcar=MODELCAR,
        cluster=CLUSTER,
        deployments=(endpoint(ServingPath.RAW, 141.0), endpoint(ServingPath.KSERVE, 163.2)),
        checks=(*CHECKS, bad),
        comparison=measured,
        slo=evaluate(measured, Slo(ttft_p95_s=0.25, itl_p95_s=0.1, e2e_p95_s=1.5)),
    )


def stopped_run() -> Report:
    """A run that never got its second path."""
    error = ClusterError(
        "deployment smollm2-kserve is not ready after 300 s: container kserve-container was OOMKilled",
        where="servepath/smollm2-kserve",
        expected="a completion within 300 s",
        next_command="kubectl -n servepath logs deployment/smollm2-kserve -c kserve-container --tail=50",
    )
    failed = StageTiming("deploy kserve", 36.9, 300.0, Verdict.FAIL, "OOMKilled")
    return Report(
        run=RUN,
        stages=(*STAGES[:5], failed),
        modelcar=MODELCAR,
        cluster=CLUSTER,
        deployments=(endpoint(ServingPath.RAW, 141.0),),
        checks=CHECKS[:1],
        error=report_error(error),
        quotes=(
            Quote(
                "diagnostics/logs/servepath/smollm2-kserve-5d9f.kserve-container.previous.log",
                "the end of container kserve-container of pod smollm2-kserve-5d9f, before its restart",
                ("INFO 03:06:41 loading weights", "ERROR 03:06:58 torch.OutOfMemoryError: tried to allocate 1.2 GiB"),
                412,
            ),
            Quote(
                "diagnostics/events/servepath.txt",
                "warnings of namespace servepath",
                (f"2026-01-02T03:07:01Z Warning BackOff Pod/smollm2-kserve-5d9f: restarting, key {API_KEY}",),
                31,
            ),
        ),
    )
