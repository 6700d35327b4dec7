"""The lock: what the repository's own says, and what a bad one is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from servepath.errors import InputError
from servepath.platform.lock import read as read_lock

MANIFESTS = Path(__file__).resolve().parents[3] / "manifests"
LOCK = MANIFESTS / "lock.yaml"
PINNED = "host/name:1@sha256:" + "a" * 64


def lock_of(tmp_path: Path, **changes: object) -> Path:
    """A lock of one image, one chart and one release, changed."""
    document = {
        "schema": "servepath.lock/v1",
        "images": {"one": {"image": PINNED}},
        "charts": {"two": {"chart": "oci://host/two", "version": "v2", "digest": "unknown"}},
        "releases": {"three": {"version": "v3", "url": "https://host/three"}},
        **changes,
    }
    path = tmp_path / "lock.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_the_repository_s_lock_has_what_servepath_starts() -> None:
    lock = read_lock(LOCK)
    started = ("vllm-cpu", "vllm-gpu", "modelcar-base", "prebuilt-modelcar", "k3s", "registry", "python", "uv", "helm")
    assert set(started) <= set(lock.images)


@pytest.mark.parametrize(
    ("directory", "release"),
    [
        ("gateway-api", "gateway-api"),
        ("inference-extension", "gateway-api-inference-extension"),
        ("inference-extension-v1alpha2", "gateway-api-inference-extension-v1alpha2"),
    ],
)
def test_kustomizations_read_the_release_of_the_lock(directory: str, release: str) -> None:
    kustomization = yaml.safe_load((MANIFESTS / "platform" / directory / "kustomization.yaml").read_text())
    assert kustomization["resources"] == [read_lock(LOCK).release(release).url]


def test_go_modules_are_those_of_their_go_mod() -> None:
    root = MANIFESTS.parent
    for name, entry in yaml.safe_load(LOCK.read_text())["go"].items():
        requirements = (root / entry["sums"]).with_name("go.mod").read_text()
        assert f"{entry['module']} {entry['version']}" in requirements, name


def test_a_chart_with_a_digest_is_fetched_by_digest(tmp_path: Path) -> None:
    chart = {"chart": "oci://host/two", "version": "v2", "digest": "sha256:" + "b" * 64}
    pin = read_lock(lock_of(tmp_path, charts={"two": chart})).chart("two")
    assert pin.source == "oci://host/two@sha256:" + "b" * 64


def test_a_chart_without_a_digest_is_fetched_by_version_and_knows_how_to_see_its_digest(tmp_path: Path) -> None:
    pin = read_lock(lock_of(tmp_path)).chart("two")
    assert (pin.source, pin.digest) == ("oci://host/two", "")
    assert pin.digest_command == "helm pull oci://host/two --version v2"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "other"}, "not a lock file"),
        ({"images": {"one": {"image": "host/name:1"}}}, "image one is not pinned.*next: crane digest host/name:1$"),
        ({"images": {"one": {"image": "host/name:1@sha256:abc"}}}, "image one is not pinned"),
        ({"images": {"one": {"image": "host/name:1", "digest": "unknown"}}}, "image one is not pinned"),
        (
            {"charts": {"two": {"chart": "oci://host/two", "version": "v2", "digest": "latest"}}},
            "chart two is not pinn",
        ),
        ({"charts": {"two": {"chart": "oci://host/two", "version": "v2"}}}, "not complete"),
        ({"charts": {"two": {"chart": "oci://host/two"}}}, "not complete"),
        ({"images": ["one"]}, "not complete"),
    ],
)
def test_a_bad_lock_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_lock(lock_of(tmp_path, **changes))
    assert re.search(message, str(caught.value))


def test_a_missing_lock_or_entry_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_lock(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="no entry four"):
        read_lock(lock_of(tmp_path)).image("four")
