"""What a user types, on a real engine: results, files, failures, and what a change rebuilds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from servepath.errors import InputError
from servepath.platform import lock
from servepath.platform.mirror import parse_mirror

if TYPE_CHECKING:
    from tests.engine.conftest import Dagger


@pytest.fixture(scope="module")
def layout(dagger: Dagger, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The modelcar of the tiny model as the engine exports it."""
    directory = tmp_path_factory.mktemp("layouts") / "layout"
    dagger.call("modelcar", f"--source={model}", "as-layout", "export", f"--path={directory}")
    return directory


def entries(layout: Path) -> list[dict[str, Any]]:
    """What an OCI layout lists."""
    listed: list[dict[str, Any]] = json.loads((layout / "index.json").read_text())["manifests"]
    return listed


def manifest_digest(layout: Path) -> str:
    """The digest of the one image of an OCI layout."""
    (manifest,) = entries(layout)
    return str(manifest["digest"])


def test_functions_are_listed(dagger: Dagger) -> None:
    done = dagger.run("functions")
    assert done.returncode == 0, done.stderr
    names = {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
    assert {"modelcar", "modelcar-from-hub", "cluster", "cluster-from", "evidence", "e-2-e", "prove", "check"} <= names


def test_help_names_units_and_choices(dagger: Dagger) -> None:
    done = dagger.run("call", "cluster", "deploy", "--help")
    assert done.returncode == 0, done.stderr
    assert "--path raw|kserve|llm_d" in done.stdout
    assert "--profile cpu|cpu_small|gpu" in done.stdout


def test_the_digest_is_the_command_line_s(dagger: Dagger, model: Path, layout: Path, tmp_path: Path) -> None:
    base = lock.read(dagger.module / "manifests/lock.yaml").image("modelcar-base").reference
    servepath = Path(sys.executable).with_name("servepath")
    command = [str(servepath), "modelcar", f"--source={model}", f"--layout={tmp_path / 'host'}", f"--base-image={base}"]
    environment = dict(os.environ)
    if dagger.mirror:
        mirror = parse_mirror(dagger.mirror)
        command[-1] = f"--base-image={mirror.image(base)}"
        environment["SERVEPATH_PLAIN_HTTP"] = mirror.host if mirror.plain_http else ""
    subprocess.run(command, env=environment, check=True, timeout=300)
    assert manifest_digest(tmp_path / "host") == manifest_digest(layout)


def test_the_exported_layout_has_the_digest_and_every_blob(dagger: Dagger, model: Path, layout: Path) -> None:
    assert manifest_digest(layout) == dagger.call("modelcar", f"--source={model}", "digest")
    layers = dagger.call("modelcar", f"--source={model}", "layers").splitlines()
    assert layers
    assert all((layout / "blobs" / layer.replace(":", "/")).is_file() for layer in layers)


def test_a_registry_gives_the_same_digest(dagger: Dagger, model: Path, layout: Path) -> None:
    assert dagger.call("modelcar", f"--source={model}", "verify", "digest") == manifest_digest(layout)


def test_another_module_uses_ours(dagger: Dagger, model: Path, layout: Path) -> None:
    example = replace(dagger, module=dagger.module / "examples/python")
    assert example.call("servepath-modelcar-digest", f"--source={model}") == manifest_digest(layout)


def test_another_model_has_another_digest(dagger: Dagger, next_model: Path, layout: Path) -> None:
    assert dagger.call("modelcar", f"--source={next_model}", "digest") != manifest_digest(layout)


def test_a_modelcar_has_the_form_that_is_asked_for(dagger: Dagger, model: Path, layout: Path, tmp_path: Path) -> None:
    form = ["--reshard=300kB", "--compression=zstd", "--platforms=linux/amd64"]
    dagger.call("modelcar", f"--source={model}", *form, "as-layout", "export", f"--path={tmp_path}")
    (manifest,) = entries(tmp_path)
    described = json.loads((tmp_path / "blobs" / manifest["digest"].replace(":", "/")).read_text())
    assert {layer["mediaType"].rpartition("+")[2] for layer in described["layers"][1:]} == {"zstd"}
    assert dagger.call("modelcar", f"--source={model}", *form, "verify", "digest") == manifest["digest"]
    assert manifest["digest"] != manifest_digest(layout)


def test_a_mirror_is_one_layout_that_another_registry_takes(dagger: Dagger, tmp_path: Path) -> None:
    if not dagger.mirror:
        pytest.skip("SERVEPATH_ENGINE_MIRROR names no registry to publish to")
    dagger.call("mirror", "--only=uv,modelcar-base", "layout", "export", f"--path={tmp_path}")
    names = {entry["annotations"]["org.opencontainers.image.ref.name"] for entry in entries(tmp_path)}
    pins = lock.read(dagger.module / "manifests/lock.yaml")
    assert names == {pins.image(name).reference.partition("@")[0] for name in ("uv", "modelcar-base")}
    published = dagger.call("mirror-from", f"--layout={tmp_path}", "publish", f"--address={dagger.mirror}/copy")
    digests = {line.rpartition("@")[2] for line in published.splitlines()}
    assert digests == {pins.image(name).reference.rpartition("@")[2] for name in ("uv", "modelcar-base")}


def test_a_directory_without_weights_is_refused_in_words(dagger: Dagger, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    done = dagger.run("call", "modelcar", f"--source={tmp_path}", "digest")
    assert done.returncode == InputError.exit_code
    _, _, said = done.stderr.rpartition("\nError: ")
    assert "no weights" in said
    assert "next: ls" in said
    assert "Traceback" not in said


def test_a_cluster_that_existed_is_no_service(dagger: Dagger, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text("apiVersion: v1\nkind: Config\n")
    existing = [f"--kubeconfig=file:{kubeconfig}", "--registry=registry.example.com", "--gateway-url=http://192.0.2.1"]
    assert dagger.call("cluster-from", *existing, "registry") == "registry.example.com"
    done = dagger.run("call", "cluster-from", *existing, "up", "hostname")
    assert done.returncode != 0
    assert "no Dagger service" in done.stderr
