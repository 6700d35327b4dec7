from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from servepath.report.document import document_of
from servepath.report.samples import kept_samples, pack
from servepath.report.write import samples_values
from tests.unit.report.example_runs import failed_run, full_run, passed_run, stopped_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servepath.report.model import Report

SCHEMA: dict[str, Any] = json.loads(files("servepath.report").joinpath("schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
KINDS = {"one", "count", "chosen"}
OPEN_OBJECTS = {"node", "errors", "latency"}


def whole(report: Report) -> dict[str, Any]:
    kept = kept_samples(report)
    return document_of(report) | {"samples": samples_values(kept, pack(kept))}


DOCUMENTS = {
    name: whole(report)
    for name, report in (
        ("full", full_run()),
        ("passed", passed_run()),
        ("failed", failed_run()),
        ("stopped", stopped_run()),
    )
}


def short(value: Any) -> Any:
    """The document with one item of each list: enough to meet every field."""
    if isinstance(value, dict):
        return {key: short(item) for key, item in value.items()}
    return [short(value[0])] if isinstance(value, list) and value else value


def fields(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every field of the document is, but for those of objects that are open by intent."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not (place and place[-1] in OPEN_OBJECTS):
                yield (*place, key)
            yield from fields(item, (*place, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from fields(item, (*place, number))


SHORT = {name: short(document) for name, document in DOCUMENTS.items()}
FIELDS = {
    tuple("*" if isinstance(p, int) else p for p in place): (name, place)
    for name in SHORT
    for place in fields(SHORT[name])
}


def holder(document: Any, place: tuple[Any, ...]) -> Any:
    for part in place[:-1]:
        document = document[part]
    return document


def test_the_schema_is_one_and_takes_every_example() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for document in (*DOCUMENTS.values(), *SHORT.values()):
        VALIDATOR.validate(document)
    assert len(FIELDS) > 180


@pytest.mark.parametrize("where", sorted(FIELDS, key=str), ids=".".join)
def test_a_field_that_is_removed_or_renamed_is_found(where: tuple[str, ...]) -> None:
    name, place = FIELDS[where]
    without = copy.deepcopy(SHORT[name])
    value = holder(without, place).pop(place[-1])
    assert not VALIDATOR.is_valid(without)
    holder(without, place)[f"{place[-1]}_renamed"] = value
    assert not VALIDATOR.is_valid(without)


@pytest.mark.parametrize(
    "damage",
    [
        {"verdict": "maybe"},
        {"schema": "servepath/v2"},
        {"unheard_of": 1},
        {"stages": [{"name": "x", "start_s": -1, "duration_s": 1, "verdict": "pass", "detail": ""}]},
        {"comparison": {}},
        {"sweep": {"points": []}},
        {"instrument": {"points": [{"streams": 0}]}},
    ],
)
def test_the_schema_refuses_what_is_no_report(damage: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(DOCUMENTS["passed"] | damage)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A number of a document: its schema, the object or list that holds it, its key there, the objects it is in."""

    schema: dict[str, Any]
    holder: Any
    key: Any
    above: tuple[dict[str, Any], ...]
    where: str

    @property
    def value(self) -> Any:
        return self.holder[self.key]


def numbers(
    schema: Any, holder: Any, key: Any, above: tuple[dict[str, Any], ...] = (), where: str = ""
) -> Iterator[Leaf]:
    """Every number of a document, the nearest object above it last."""
    value = holder[key]
    while "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    if "oneOf" in schema and value is not None:
        (schema,) = (one for one in schema["oneOf"] if one.get("type") != "null")
        yield from numbers(schema, holder, key, above, where)
    elif isinstance(value, dict):
        for name in value:
            inner = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if inner:
                yield from numbers(inner, value, name, (*above, value), f"{where}.{name}")
    elif isinstance(value, list):
        for number in range(len(value)):
            yield from numbers(schema["items"], value, number, above, where)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield Leaf(schema, holder, key, above, where)


def numbers_of(document: dict[str, Any]) -> Iterator[Leaf]:
    return numbers(SCHEMA, {"": document}, "")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_number_has_its_unit_and_the_number_of_samples_behind_it(name: str) -> None:
    found = list(numbers_of(DOCUMENTS[name]))
    assert len(found) > 10
    for leaf in found:
        if leaf.schema["x-unit"] == "unit":
            assert leaf.above[-1]["unit"] in {"s", "share", "bytes", "requests", "cores"}, leaf.where
        behind = leaf.schema["x-samples"]
        if behind not in KINDS:
            nearest = next((one for one in reversed(leaf.above) if behind in one), None)
            assert nearest is not None, leaf.where
            assert isinstance(nearest[behind], (int, list)), leaf.where


UNITS_IN_KEYS = {"s": r"_s$|_times_s$", "bytes": r"_bytes$", "percent": r"_percent$"}


def test_the_unit_of_a_key_is_the_unit_of_its_schema() -> None:
    for document in DOCUMENTS.values():
        for leaf in numbers_of(document):
            pattern = UNITS_IN_KEYS.get(leaf.schema["x-unit"])
            assert pattern is None or re.search(pattern, leaf.where), leaf.where
            if leaf.schema["x-unit"].endswith("/s"):
                assert leaf.where.endswith("_per_s"), leaf.where


def test_a_number_without_unit_would_be_found() -> None:
    broken = copy.deepcopy(SCHEMA["$defs"]["latency"])
    del broken["properties"]["p95_s"]["x-unit"]
    latency = DOCUMENTS["passed"]["comparison"]["paths"][0]["latency"]
    found = numbers(broken, latency, "ttft")
    assert [leaf.where for leaf in found if "x-unit" not in leaf.schema] == [".p95_s"]
