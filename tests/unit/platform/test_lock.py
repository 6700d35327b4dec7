"""The lock: what the repository's own says, and what a bad one is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from servepath.errors import InputError
from servepath.platform import read_lock

MANIFESTS = Path(__file__).resolve().parents[3] / "manifests"
LOCK = MANIFESTS / "lock.yaml"
PINNED = "host/name:1@sha256:" + "a" * 64


def lock_of(tmp_path: Path, **changes: object) -> Path:
    """A lock of one image, one chart and one release, changed."""
    document = {
        "schema": "servepath.lock/v1",
        "images": {"one": {"image": PINNED}},
        "charts": {
            "two": {"chart": "oci://host/two", "version": "v2", "digest": "unknown", "fill": "crane digest two"}
        },
        "releases": {"three": {"version": "v3", "url": "https://host/three"}},
        **changes,
    }
    path = tmp_path / "lock.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_every_image_that_servepath_starts_is_pinned() -> None:
    lock = read_lock(LOCK)
    started = ("vllm-cpu", "vllm-gpu", "llm-d-inference-sim", "modelcar-base", "prebuilt-modelcar", "k3s", "registry")
    assert [name for name in started if not lock.image(name).is_pinned] == []


def test_what_is_not_pinned_says_how_to_pin_it() -> None:
    lock = read_lock(LOCK)
    unpinned = [pin for pin in lock.images.values() if not pin.is_pinned]
    assert [pin.name for pin in unpinned if pin.reference not in pin.fill] == []
    assert len(list(lock.unknown())) == len(unpinned) + sum(not chart.digest for chart in lock.charts.values())


@pytest.mark.parametrize(
    ("directory", "release"),
    [("gateway-api", "gateway-api"), ("inference-extension", "gateway-api-inference-extension")],
)
def test_kustomizations_read_the_release_of_the_lock(directory: str, release: str) -> None:
    kustomization = yaml.safe_load((MANIFESTS / "platform" / directory / "kustomization.yaml").read_text())
    assert kustomization["resources"] == [read_lock(LOCK).release(release).url]


def test_go_modules_are_those_of_their_go_mod() -> None:
    root = MANIFESTS.parent
    for name, entry in yaml.safe_load(LOCK.read_text())["go"].items():
        requirements = (root / entry["sums"]).with_name("go.mod").read_text()
        assert f"{entry['module']} {entry['version']}" in requirements, name


def test_a_chart_with_a_digest_is_installed_by_digest(tmp_path: Path) -> None:
    chart = {"chart": "oci://host/two", "version": "v2", "digest": "sha256:" + "b" * 64}
    pin = read_lock(lock_of(tmp_path, charts={"two": chart})).chart("two")
    assert pin.source == "oci://host/two@sha256:" + "b" * 64
    assert read_lock(lock_of(tmp_path)).chart("two").source == "oci://host/two"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "other"}, "not a lock file"),
        ({"images": {"one": {"image": "host/name:1"}}}, "either a digest or"),
        ({"images": {"one": {"image": PINNED, "digest": "unknown", "fill": "x"}}}, "either a digest or"),
        ({"images": {"one": {"image": "host/name:1", "digest": "unknown"}}}, "no command that fills it"),
        ({"charts": {"two": {"chart": "oci://host/two"}}}, "not complete"),
        ({"images": ["one"]}, "not complete"),
    ],
)
def test_a_bad_lock_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_lock(lock_of(tmp_path, **changes))


def test_a_missing_lock_or_entry_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_lock(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="no entry four"):
        read_lock(lock_of(tmp_path)).image("four")
