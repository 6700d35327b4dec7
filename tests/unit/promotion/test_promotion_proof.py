"""A digest without a passing report of the same lock, manifests and engine is refused, and every reason is named."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from servepath.errors import InputError, PromotionRefusedError
from servepath.manifests import LOCK, manifests_digest, manifests_directory
from servepath.platform import lock
from servepath.promotion.proof import Proof, Wanted, read_proof, refuse_unproven
from servepath.report.document import document_of
from servepath.report.write import write_report
from servepath.serving.model import ServingPath
from tests.unit.report.example_runs import DIGEST, ENGINE, RUN, failed_run, passed_run

if TYPE_CHECKING:
    from pathlib import Path

    from servepath.report.model import Report

MANIFESTS = "sha256:" + "5" * 64
LOCKED = lock.read(manifests_directory() / LOCK)
WANTED = Wanted(DIGEST, ServingPath.KSERVE, ENGINE, LOCKED, RUN.lock_digest, MANIFESTS)


def report() -> Report:
    passed = passed_run()
    return replace(passed, run=replace(passed.run, manifests_digest=MANIFESTS))


def proof(**changes: Any) -> Proof:
    return Proof("report.json", "sha256:0", document_of(report()) | changes)


def test_the_same_passes_and_its_digest_is_the_files(tmp_path: Path) -> None:
    write_report(report(), tmp_path)
    read = read_proof(tmp_path)
    assert read == read_proof(tmp_path / "report.json")
    assert read.reference.endswith(f"@{DIGEST}")
    refuse_unproven(read, WANTED)
    before = read.digest
    (tmp_path / "report.json").write_bytes((tmp_path / "report.json").read_bytes() + b"\n")
    assert read_proof(tmp_path).digest != before


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        (replace(WANTED, digest="sha256:" + "9" * 64), "it tested the modelcar sha256:4f9c"),
        (replace(WANTED, engine_image="r.test/e@sha256:" + "9" * 64), "it tested the engine 127.0.0.1:5000"),
        (replace(WANTED, lock_digest="sha256:9"), "its lock is sha256:c0de"),
        (replace(WANTED, manifests_digest="sha256:9"), f"its manifests is {MANIFESTS}"),
    ],
    ids=["digest", "engine", "lock", "manifests"],
)
def test_each_difference_is_refused(wanted: Wanted, complaint: str) -> None:
    with pytest.raises(PromotionRefusedError, match=complaint) as caught:
        refuse_unproven(proof(), wanted)
    assert caught.value.exit_code == 8
    assert ";" not in caught.value.what, "it is the only reason"


def test_a_report_that_did_not_pass_is_refused_with_its_own_reasons() -> None:
    failed = replace(failed_run(), run=report().run)
    with pytest.raises(PromotionRefusedError, match="its verdict is fail: ") as caught:
        refuse_unproven(proof(**document_of(failed)), WANTED)
    assert failed.failures[0] in caught.value.what


def test_a_report_of_another_path_or_without_checks_is_refused() -> None:
    only_raw = [one for one in document_of(report())["deployments"] if one["path"] == "raw"]
    with pytest.raises(PromotionRefusedError, match="it deployed no kserve path"):
        refuse_unproven(proof(deployments=only_raw), WANTED)
    with pytest.raises(PromotionRefusedError, match="it checked nothing of the kserve path"):
        refuse_unproven(proof(checks=[]), WANTED)


def test_a_report_of_an_older_version_says_that_it_lacks_the_manifests() -> None:
    run = {key: value for key, value in document_of(report())["run"].items() if key != "manifests_digest"}
    with pytest.raises(PromotionRefusedError, match="its manifests is not recorded"):
        refuse_unproven(proof(run=run), WANTED)


def test_the_locks_engine_for_a_gpu_stands_for_the_locks_engine_for_a_cpu() -> None:
    cpu, gpu = LOCKED.image("vllm-cpu").reference, LOCKED.image("vllm-gpu").reference
    document = document_of(report())
    deployments = [{**one, "engine_image": cpu} for one in document["deployments"]]
    refuse_unproven(proof(deployments=deployments), replace(WANTED, engine_image=gpu))
    with pytest.raises(PromotionRefusedError, match="it tested the engine"):
        refuse_unproven(proof(), replace(WANTED, engine_image=gpu))
    simulator = LOCKED.image("llm-d-inference-sim").reference
    with pytest.raises(PromotionRefusedError, match="it tested the engine"):
        refuse_unproven(proof(deployments=deployments), replace(WANTED, engine_image=simulator))


@pytest.mark.parametrize(
    "changes",
    [{"deployments": [{"path": "kserve"}]}, {"deployments": ["kserve"]}, {"checks": [{}]}, {"run": "yesterday"}],
    ids=["a deployment without digest", "a deployment in words", "a check without verdict", "a run in words"],
)
def test_a_report_that_is_not_complete_is_bad_input_and_named(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="the report is not complete: ") as caught:
        refuse_unproven(proof(**changes), WANTED)
    assert caught.value.where == "report.json"


def test_a_report_whose_modelcar_is_no_object_is_bad_input() -> None:
    with pytest.raises(InputError, match="the report is not complete: "):
        _ = proof(modelcar="smol").reference


def test_what_is_no_report_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_proof(tmp_path)


def test_the_manifests_digest_changes_with_any_file_but_the_lock(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.yaml").write_text("a: 1\n")
    first = manifests_digest(tmp_path)
    (tmp_path / LOCK).write_text("schema: x\n")
    assert manifests_digest(tmp_path) == first
    (tmp_path / "raw" / "a.yaml").rename(tmp_path / "raw" / "b.yaml")
    renamed = manifests_digest(tmp_path)
    (tmp_path / "raw" / "b.yaml").write_text("a: 2\n")
    assert len({first, renamed, manifests_digest(tmp_path)}) == 3
    assert manifests_digest().startswith("sha256:")
