"""The report as plain JSON values: the document that `schema.json` describes and that every file is made of.

Every number carries its unit in its key. The API keys of the endpoints are left out, and where a key appears inside any
other text it is replaced.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from servepath.redaction import known, redact
from servepath.report.canary import canary_values
from servepath.report.measured import (
    comparison_values,
    instrument_values,
    lifecycle_values,
    slo_values,
    sweep_values,
)
from servepath.report.model import SCHEMA, Report
from servepath.report.promotion import promotion_values

if TYPE_CHECKING:
    from servepath.cluster.model import Cluster
    from servepath.modelcar.model import Modelcar
    from servepath.serving.model import Endpoint

# What XML 1.0 cannot hold, not even escaped.
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def document_of(report: Report) -> dict[str, Any]:
    """The content of `report.json`, but for `samples`, which is known only when the samples are packed."""
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
        "comparison": comparison_values(report.comparison) if report.comparison else None,
        "slo": slo_values(report.slo, report.comparison.summaries if report.comparison else ()),
        "sweep": sweep_values(report.sweep) if report.sweep else None,
        "instrument": instrument_values(report.instrument) if report.instrument else None,
        "lifecycle": lifecycle_values(report.lifecycle) if report.lifecycle else None,
        "canary": canary_values(report.canary) if report.canary else None,
        "promotion": promotion_values(report.promotion) if report.promotion else None,
        "error": asdict(report.error) if report.error else None,
        "diagnostics": [asdict(quote) for quote in report.quotes],
    }
    values: dict[str, Any] = plain(document)
    return redact(values, secrets_of(report))


def secrets_of(report: Report) -> tuple[str, ...]:
    """The strings that no file may hold."""
    return known(one.api_key for one in report.deployments)


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
