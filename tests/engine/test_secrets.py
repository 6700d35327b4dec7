"""Secrets that are given to a function are in no log, layer, cache or report of the run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from servepath.platform.mirror import parse_mirror
from tests.engine.leaks import PRIVATE_KEYS, leaks

if TYPE_CHECKING:
    from tests.engine.conftest import Dagger

PASSWORD, HUB_TOKEN, CLUSTER_TOKEN = "pa55-of-a-registry-7f3e", "hf_token-of-the-hub-91ab", "bearer-of-a-cluster-44cd"
KUBECONFIG = f"""\
apiVersion: v1
kind: Config
current-context: c
contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
clusters: [{{name: c, cluster: {{server: "https://127.0.0.1:1"}}}}]
users: [{{name: u, user: {{token: {CLUSTER_TOKEN}}}}}]
"""


@pytest.fixture
def state() -> Path:
    """The engine's state directory."""
    named = os.environ.get("SERVEPATH_ENGINE_STATE", "")
    if not named:
        pytest.skip("SERVEPATH_ENGINE_STATE does not name the engine's state directory")
    return Path(named)


def test_a_secret_is_left_nowhere(
    dagger: Dagger, model: Path, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not dagger.mirror:
        pytest.skip("SERVEPATH_ENGINE_MIRROR names no registry to publish to")
    monkeypatch.setenv("SERVEPATH_TEST_PASSWORD", PASSWORD)
    monkeypatch.setenv("SERVEPATH_TEST_TOKEN", HUB_TOKEN)
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(KUBECONFIG)
    seen = tmp_path / "seen"
    seen.mkdir()
    began = time.time()
    address = parse_mirror(dagger.mirror).address
    publish = [f"--source={model}", "publish", f"--address={address}/secrets", "--username=me"]
    hub = ["--repo=a/b", f"--revision={'7' * 40}", "--token=env:SERVEPATH_TEST_TOKEN", "digest"]
    cluster = [f"--kubeconfig=file:{kubeconfig}", "--registry=localhost:5000", "--gateway-url=http://127.0.0.1:1"]
    calls = [
        ("modelcar", *publish, "--password=env:SERVEPATH_TEST_PASSWORD"),
        ("modelcar-from-hub", *hub),
        ("cluster-from", *cluster, "diagnostics", "export", f"--path={seen / 'diagnostics'}"),
        ("modelcar", f"--source={model}", "as-layout", "export", f"--path={seen / 'layout'}"),
    ]
    for index, call in enumerate(calls):
        done = dagger.run("call", *call)
        (seen / f"{index}.log").write_text(done.stdout + done.stderr)
    secrets = (PASSWORD, HUB_TOKEN, CLUSTER_TOKEN)
    assert leaks(secrets, seen) == []
    assert leaks(secrets, state, began) == []


def test_a_cluster_leaves_no_credential(dagger: Dagger, state: Path, gateway_class: str, tmp_path: Path) -> None:
    began = time.time()
    done = dagger.run("call", "cluster", f"--gateway-class={gateway_class}", "kubeconfig", "plaintext")
    assert done.returncode == 0, done.stderr
    (user,) = yaml.safe_load(done.stdout)["users"]
    (tmp_path / "log").write_text(done.stderr)
    secrets = (user["user"]["token"], *PRIVATE_KEYS)
    assert leaks(secrets, tmp_path) == []
    assert leaks(secrets, state, began) == []


def test_a_secret_that_is_left_would_be_found(dagger: Dagger, model: Path, state: Path, tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    planted.mkdir()
    for file in model.iterdir():
        (planted / file.name).write_bytes(file.read_bytes())
    secret = f"planted-{time.time_ns()}"
    (planted / "README.md").write_text(secret)
    began = time.time()
    dagger.call("modelcar", f"--source={planted}", "as-layout", "export", f"--path={tmp_path / 'layout'}")
    assert leaks((secret,), tmp_path / "layout") != []
    assert leaks((secret,), state, began) != []
