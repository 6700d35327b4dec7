"""A promotion to a cluster of our own on a real engine: what it would do, and then the doing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from servepath.platform.mirror import parse_mirror

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.conftest import Dagger


def test_a_promotion_is_planned(dagger: Dagger, model: Path, gateway_class: str) -> None:
    digest = dagger.call("modelcar", f"--source={model}", "digest")
    cluster = ["cluster", f"--gateway-class={gateway_class}", "with-model", f"--source={model}", "--profile=cpu_small"]
    modelcar = f"--modelcar=registry.localhost:5000/servepath/model@{digest}"
    plan = dagger.call(*cluster, "promote", modelcar, "--profile=cpu_small", "--usd-per-hour=0.7", "summary")
    assert digest in plan
    assert "InferenceService" in plan


def test_what_was_published_is_promoted(dagger: Dagger, next_model: Path, gateway_class: str, tmp_path: Path) -> None:
    if not dagger.mirror:
        pytest.skip("SERVEPATH_ENGINE_MIRROR names no registry to publish to")
    address = f"--address={parse_mirror(dagger.mirror).address}/tested/model"
    reference = dagger.call("modelcar", f"--source={next_model}", "publish", address)
    what = [f"--modelcar={reference}", "--profile=cpu_small", "--expected-answer="]
    load = ["--blocks=8", "--requests-per-block=1", "--rate-per-s=4", "--prompt-tokens=16", "--output-tokens=8"]
    cluster = ["cluster", f"--gateway-class={gateway_class}"]
    dagger.call(*cluster, "promote", *what, *load, "apply", "report", "export", f"--path={tmp_path}")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["verdict"] == "pass"
    assert report["promotion"]["record"]["state"] == "succeeded"
