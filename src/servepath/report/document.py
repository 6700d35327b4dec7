"""The report as plain JSON values: the document that `schema.json` describes and that every file is made of.

Every number carries its unit in its key. The API keys of the endpoints are left out, and where a key appears inside any
other text it is replaced.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from servepath.bench.model import Comparison, Distribution, ErrorClass, PairedRatio, PathSummary, Sample
from servepath.report.model import SCHEMA, Report

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from servepath.cluster.model import Cluster
    from servepath.modelcar.model import Modelcar
    from servepath.serving.model import Endpoint

SAMPLES_SCHEMA = "servepath-samples/v1"
# What XML 1.0 cannot hold, not even escaped.
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
REDACTED = "[redacted]"
# Shorter strings are no secrets, and replacing them would take ordinary words apart.
MIN_SECRET_CHARS = 6


def document_of(report: Report) -> dict[str, Any]:
    """The content of `report.json`."""
    document = {
        "schema": SCHEMA,
        "verdict": str(report.verdict),
        "failures": list(report.failures),
        "run": asdict(report.run),
        "stages": [asdict(stage) for stage in report.stages],
        "modelcar": _modelcar(report.modelcar) if report.modelcar else None,
        "cluster": _cluster(report.cluster) if report.cluster else None,
        "deployments": [_deployment(endpoint) for endpoint in report.deployments],
        "checks": [asdict(check) for check in report.checks],
        "comparison": _comparison(report.comparison) if report.comparison else None,
        "slo": [asdict(one) for one in report.slo],
        "error": asdict(report.error) if report.error else None,
    }
    redacted: dict[str, Any] = redact(plain(document), secrets_of(report))
    return redacted


def samples_document_of(report: Report) -> dict[str, Any]:
    """The content of `samples.json.zst`: every request of the comparison, or none."""
    samples = report.comparison.samples if report.comparison else ()
    document = {"schema": SAMPLES_SCHEMA, "samples": [asdict(sample) for sample in samples]}
    redacted: dict[str, Any] = redact(plain(document), secrets_of(report))
    return redacted


def comparison_document(comparison: Comparison) -> dict[str, Any]:
    """What `report.json` says of a comparison."""
    document: dict[str, Any] = plain(_comparison(comparison))
    return document


def sample_of(value: dict[str, Any]) -> Sample:
    """A sample from its JSON value."""
    error = ErrorClass(value["error"]) if value["error"] else None
    return Sample(**{**value, "token_times_s": tuple(value["token_times_s"]), "error": error})


def secrets_of(report: Report) -> tuple[str, ...]:
    """The strings that no file may hold."""
    return tuple({one.api_key for one in report.deployments if len(one.api_key) >= MIN_SECRET_CHARS})


def redact(value: Any, secrets: Sequence[str]) -> Any:
    """The value with every secret in any string, keys included, replaced."""
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, REDACTED)
        return value
    if isinstance(value, dict):
        return {redact(key, secrets): redact(item, secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [redact(item, secrets) for item in value]
    return value


def plain(value: Any) -> Any:
    """The value with only JSON's types: enumerations and paths as strings, tuples as lists, no infinity or NaN.

    What XML cannot hold (control characters, halves of surrogate pairs) is replaced in every string.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, dict):
        return {plain(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return NOT_XML.sub("\N{REPLACEMENT CHARACTER}", str(value))


def _modelcar(modelcar: Modelcar) -> dict[str, Any]:
    source = modelcar.source
    return {
        "digest": modelcar.digest,
        "reference": modelcar.reference,
        "size_bytes": modelcar.size_bytes,
        "sent_bytes": modelcar.sent_bytes,
        "layers": [
            {"digest": layer.digest, "size_bytes": layer.size_bytes, "media_type": layer.media_type}
            for layer in modelcar.layers
        ],
        "model": {
            "name": source.name,
            "origin": source.origin,
            "revision": source.revision,
            "licence": source.licence,
            "parameter_count": source.parameters,
            "dtype": source.dtype,
        },
    }


def _cluster(cluster: Cluster) -> dict[str, Any]:
    return {
        "registry": cluster.registry,
        "gateway_class": cluster.gateway_class,
        "gateway_url": cluster.gateway_url,
        "gateway_namespace": cluster.gateway_namespace,
        "gateway_name": cluster.gateway_name,
        "context": cluster.context,
    }


def _deployment(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "path": endpoint.path,
        "base_url": endpoint.base_url,
        "host": endpoint.host,
        "model": endpoint.model,
        "namespace": endpoint.namespace,
        "workload": endpoint.workload,
        "modelcar_digest": endpoint.modelcar_digest,
        "engine_image": endpoint.engine_image,
        "ready_s": endpoint.ready_s,
        "needs_key": bool(endpoint.api_key),
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "headline": comparison.headline,
        "baseline": comparison.baseline,
        "plan": asdict(comparison.plan),
        "order": comparison.order,
        "client": asdict(comparison.client),
        "paths": [_summary(summary) for summary in comparison.summaries],
        "ratios": [_ratio(ratio) for ratio in comparison.ratios],
        "sample_count": len(comparison.samples),
    }


def _summary(summary: PathSummary) -> dict[str, Any]:
    return {
        "path": summary.path,
        "request_count": summary.request_count,
        "error_count": summary.error_count,
        "error_rate": summary.error_rate,
        "errors": summary.errors,
        "latency": _latencies(summary.latencies),
        "loaded_s": summary.loaded_s,
        "output_tokens_per_s": summary.output_tokens_per_s,
        "completed_requests_per_s": summary.completed_requests_per_s,
        "prompt_tokens_mean": summary.prompt_tokens_mean,
        "completion_tokens_mean": summary.completion_tokens_mean,
        "content_chunks_mean": summary.content_chunks_mean,
    }


def _latencies(latencies: Iterable[Distribution]) -> dict[str, Any]:
    return {
        str(one.metric): {
            "sample_count": one.sample_count,
            "mean_s": one.mean_s,
            "p50_s": one.p50_s,
            "p95_s": one.p95_s,
            "p99_s": one.p99_s,
            "max_s": one.max_s,
        }
        for one in latencies
    }


def _ratio(ratio: PairedRatio) -> dict[str, Any]:
    return {
        "metric": ratio.metric,
        "baseline": ratio.baseline,
        "path": ratio.path,
        "ratio": ratio.ratio,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "differs": ratio.differs,
        "detectable_percent": ratio.detectable_percent,
        "block_count": ratio.block_count,
        "block_ratios": ratio.block_ratios,
        "verdict": ratio.verdict,
    }
