"""A ModelPack manifest beside the image: the same layers, named as the CNCF's model specification names them.

Tools that know ModelPack find the model without an image; nothing is stored twice. Container runtimes cannot mount it,
which is why it stands beside the image and not instead of it.
Specification: https://github.com/modelpack/model-spec (docs/spec.md, docs/config.md, docs/annotations.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from servepath.modelcar.attach.referrers import MODELPACK, Attachment
from servepath.modelcar.content import digest_of_bytes
from servepath.modelcar.image.oci import created_text
from servepath.modelcar.plan import format_of
from servepath.modelcar.source.directory import PICKLE_SUFFIXES
from servepath.modelcar.store import MANIFEST, Descriptor, Document, canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from servepath.modelcar.attach.facts import ModelcarFacts
    from servepath.modelcar.push.write_layers import WrittenLayer

CONFIG = "application/vnd.cncf.model.config.v1+json"
WEIGHTS = "application/vnd.cncf.model.weight.v1.tar"
WEIGHT_CONFIG = "application/vnd.cncf.model.weight.config.v1.tar"
FILEPATH = "org.cncf.model.filepath"
UNTESTED = "org.cncf.model.file.mediatype.untested"
_WEIGHT_SUFFIXES = (".safetensors", ".gguf", *PICKLE_SUFFIXES)
_PRECISIONS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3",
    "F8_E5M2": "float8_e5m2",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "C64": "complex64",
    "BOOL": "bool",
}
_SCALES = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K"))


def make_modelpack(facts: ModelcarFacts, annotations: Mapping[str, str]) -> Attachment:
    """Return the ModelPack manifest of a modelcar, which refers to the image and shares its layers."""
    config = canonical_json(
        {
            "descriptor": _descriptor(facts),
            "config": _technical(facts),
            "modelfs": {"type": "layers", "diffIds": [layer.diff_id for layer in facts.layers]},
        }
    )
    descriptor = Descriptor(CONFIG, digest_of_bytes(config), len(config))
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": MODELPACK,
        "config": descriptor.to_json(),
        "layers": [_layer(layer) for layer in facts.layers],
        "subject": facts.subject.to_json(),
        "annotations": dict(annotations),
    }
    data = canonical_json(manifest)
    return Attachment(Document(MANIFEST, digest_of_bytes(data), data), ((descriptor, config),))


def parameter_size(parameters: int) -> str:
    """Return a count as the specification writes it, such as `494M` or `6.7B`: at most one decimal."""
    scale, letter = next(((scale, letter) for scale, letter in _SCALES if parameters >= scale), _SCALES[-1])
    return f"{parameters / scale:.1f}".removesuffix(".0") + letter


def _descriptor(facts: ModelcarFacts) -> dict[str, Any]:
    source = facts.source
    known = {
        "name": source.name,
        "title": source.name,
        "revision": source.revision,
        "sourceURL": f"https://huggingface.co/{source.origin}" if source.origin else "",
        "licenses": [source.licence] if source.licence else [],
        "createdAt": created_text(facts.build.created_s) if facts.build.created_s else "",
    }
    return {key: value for key, value in known.items() if value}


def _technical(facts: ModelcarFacts) -> dict[str, Any]:
    source = facts.source
    known = {
        "format": format_of(source),
        "paramSize": parameter_size(source.parameters) if source.parameters else "",
        "precision": _PRECISIONS.get(source.dtype, ""),
        "quantization": source.quantization,
    }
    return {key: value for key, value in known.items() if value}


def _layer(layer: WrittenLayer) -> dict[str, Any]:
    """Name a layer; one of several kinds of files is called configuration, and said to be not looked into."""
    alone = layer.members[0] if len(layer.members) == 1 else ""
    is_weights = all(member.endswith(_WEIGHT_SUFFIXES) for member in layer.members)
    compression = layer.descriptor.media_type.partition("+")[2]
    kind = (WEIGHTS if is_weights else WEIGHT_CONFIG) + (f"+{compression}" if compression else "")
    entry = layer.descriptor.to_json() | {"mediaType": kind}
    annotations = {FILEPATH: alone} if alone else {}
    if not is_weights and not alone:
        annotations[UNTESTED] = "true"
    return entry | ({"annotations": annotations} if annotations else {})
