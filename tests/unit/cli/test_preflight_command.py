"""`servepath preflight` on what is no cluster: what is said, and the exit code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from servepath.cli.defaults import engine_image
from servepath.cli.gke import target_of
from servepath.errors import UsageError
from servepath.serving.profiles import GKE, GPU

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cli.conftest import Servepath

IMAGE = "127.0.0.1:1/x@sha256:" + "a" * 64


def test_a_cluster_must_be_named(servepath: Servepath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    ended = servepath("preflight", "--modelcar", IMAGE)
    assert ended.returncode == 2
    assert "no cluster is named" in ended.stderr


def test_a_cluster_that_does_not_answer_is_missing(servepath: Servepath, kubeconfig: Path, nobody: str) -> None:
    image = f"{nobody}/x@sha256:" + "a" * 64
    command = ("preflight", "--kubeconfig", str(kubeconfig), "--modelcar", image, "--engine-image", image, "--json")
    ended = servepath(*command)
    assert ended.returncode == 8
    (result,) = json.loads(ended.stdout)
    assert (result["name"], result["verdict"]) == ("api_server_answers", "fail")
    assert result["next_command"].startswith(f"kubectl --kubeconfig {kubeconfig}")


def test_the_name_of_a_gke_cluster() -> None:
    assert target_of("acme-models/europe-west4-a/models").region == "europe-west4"
    for text in ("models", "acme-models/models", "acme-models/europe/models", "a/b/c/d", "//"):
        with pytest.raises(UsageError):
            target_of(text)


def test_gke_has_the_engine_of_a_gpu() -> None:
    assert engine_image("", GKE) == engine_image("", GPU)
