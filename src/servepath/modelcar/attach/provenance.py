"""Provenance: an in-toto v1 statement with SLSA's v1 predicate (https://slsa.dev/spec/v1.0/provenance).

It is not signed: it says what was put together from what, and a verifier can build the same digest from it. It holds no
time and no machine, so that building again gives the same statement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import servepath
from servepath.modelcar.attach.facts import hex_of
from servepath.modelcar.store import canonical_json

if TYPE_CHECKING:
    from servepath.modelcar.attach.facts import ModelcarFacts

PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:servepath:modelcar:v1"
BUILDER = "urn:servepath:modelcar"


def make_provenance(facts: ModelcarFacts) -> bytes:
    """Return the provenance statement of a modelcar."""
    source, build = facts.source, facts.build
    definition = {
        "buildType": BUILD_TYPE,
        "externalParameters": {
            "model": {"name": source.name, "origin": source.origin, "revision": source.revision},
            "platforms": sorted(set(build.platforms)),
            "created": build.created_s,
            "compression": build.compression.value,
            "reshardBytes": build.reshard_bytes,
            "ownLayerBytes": build.own_layer_bytes,
            "maxLayers": build.max_layers,
        },
        "internalParameters": {},
        "resolvedDependencies": _dependencies(facts),
    }
    run = {
        "builder": {"id": BUILDER, "version": {"servepath": servepath.__version__}},
        "metadata": {},
        "byproducts": [
            {
                "name": ", ".join(layer.members[:3]) + (", …" if len(layer.members) > 3 else ""),  # noqa: PLR2004 - names enough
                "digest": {"sha256": hex_of(layer.diff_id)},
                "mediaType": "application/x-tar",
            }
            for layer in facts.layers
        ],
    }
    return canonical_json(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": source.name, "digest": {"sha256": hex_of(facts.subject.digest)}}],
            "predicateType": PREDICATE,
            "predicate": {"buildDefinition": definition, "runDetails": run},
        }
    )


def _dependencies(facts: ModelcarFacts) -> list[dict[str, Any]]:
    source, base = facts.source, facts.base
    found: list[dict[str, Any]] = []
    if source.origin:
        model: dict[str, Any] = {"name": "model", "uri": f"https://huggingface.co/{source.origin}"}
        found.append(model | ({"digest": {"gitCommit": source.revision}} if source.revision else {}))
    if base.digest:
        found.append({"name": base.name or "base image", "digest": {"sha256": hex_of(base.digest)}})
    return found
