from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from servepath.errors import InputError
from servepath.report.document import plain
from servepath.report.recompute import computed_values, differences, recompute
from servepath.report.samples import kept_samples, pack
from servepath.report.write import REPORT_FILE, load_report, write_report
from tests.unit.report.example_runs import comparison, failed_run, full_run, passed_run, stopped_run
from tests.unit.report.test_report_schema import DOCUMENTS, Leaf, numbers_of

if TYPE_CHECKING:
    from pathlib import Path

RUNS = {"full": full_run(), "passed": passed_run(1.08), "failed": failed_run(), "stopped": stopped_run()}
SECTIONS = ("comparison", "slo", "sweep", "instrument", "lifecycle", "samples")
# Raw samples themselves, and what was observed once and has no samples.
NOT_COMPUTED = {
    ".lifecycle.measurements.samples",
    ".lifecycle.rollouts.duration_s",
    ".sweep.points.waiting_requests",
    ".instrument.points.cpu_s",
    ".instrument.points.wall_s",
    ".instrument.points.token_count",
}


@pytest.mark.parametrize("name", RUNS)
def test_a_report_follows_from_its_samples(name: str, tmp_path: Path) -> None:
    write_report(RUNS[name], tmp_path)
    again = recompute(tmp_path)
    assert again.differences == ()
    assert again.request_count == load_report(tmp_path)["samples"]["request_count"]
    assert again.value_count > (100 if RUNS[name].comparison else 3)


def is_computed(leaf: Leaf) -> bool:
    """Whether a number derives from samples: it is in a measured section and was not chosen."""
    return (
        leaf.where.split(".")[1] in SECTIONS and leaf.schema["x-samples"] != "chosen" and leaf.where not in NOT_COMPUTED
    )


def computed(document: dict[str, Any]) -> dict[str, Any]:
    kept = kept_samples(RUNS["full"])
    values: dict[str, Any] = plain(computed_values(document, kept, pack(kept)))
    return values


def test_each_number_that_is_changed_is_named() -> None:
    document = plain(DOCUMENTS["full"])
    again = computed(document)
    places = set()
    for leaf in filter(is_computed, numbers_of(document)):
        before = leaf.value
        leaf.holder[leaf.key] = before + 1 if isinstance(before, int) else before * 1.000001 + 1e-12
        found = list(differences({name: document[name] for name in again}, again))
        assert [one.computed for one in found] == [before], leaf.where
        leaf.holder[leaf.key] = before
        places.add(leaf.where)
    assert len(places) > 70


def test_nothing_is_computed_from_the_numbers_it_is_compared_with() -> None:
    document = plain(DOCUMENTS["full"])
    emptied = copy.deepcopy(document)
    for leaf in filter(is_computed, numbers_of(emptied)):
        leaf.holder[leaf.key] = None
    assert computed(emptied) == computed(document)


def test_a_changed_report_and_changed_samples_are_found(tmp_path: Path) -> None:
    write_report(full_run(), tmp_path)
    document = load_report(tmp_path)
    document["comparison"]["ratios"][0]["ratio_high"] += 0.01
    (tmp_path / REPORT_FILE).write_text(json.dumps(document))
    (difference,) = recompute(tmp_path).differences
    assert difference.where == "comparison.ratios[0].ratio_high"

    write_report(full_run(), tmp_path / "other")
    other = replace(full_run(), comparison=comparison(1.3))
    (tmp_path / "other" / "samples.json.zst").write_bytes(pack(kept_samples(other)))
    found = {one.where for one in recompute(tmp_path / "other").differences}
    assert {"samples.digest", "comparison.headline", "comparison.paths[1].latency.e2e.p50_s"} <= found


def test_objectives_of_one_path_alone_are_computed_again_for_that_one(tmp_path: Path) -> None:
    full = full_run()
    one = tuple(result for result in full.slo if result.path == "kserve")
    assert 0 < len(one) < len(full.slo)
    write_report(replace(full, slo=one), tmp_path)
    assert recompute(tmp_path).differences == ()


def test_a_report_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    write_report(full_run(), tmp_path)
    document = load_report(tmp_path)
    del document["comparison"]["plan"]["seed"]
    document["comparison"]["plan"]["unheard_of"] = 1
    (tmp_path / REPORT_FILE).write_text(json.dumps(document))
    with pytest.raises(InputError, match="computed again"):
        recompute(tmp_path)
