"""containerd pulls the image as a kubelet's node would, and shows the model bit by bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.interop.forms import digests_below, hidden_from
from tests.interop.raw import put_scrambled
from tests.interop.tools import SNAPSHOTTER, ctr, pull

if TYPE_CHECKING:
    from pathlib import Path

    from tests.interop.forms import Shipped

KSERVE_UID = 1010


def test_containerd_pulls_and_mounts_it(containerd: Path, shipped: Shipped, tmp_path: Path) -> None:
    pull(containerd, shipped.reference)
    assert shipped.digest in ctr(containerd, "images", "list")
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    ctr(containerd, "images", "mount", SNAPSHOTTER, shipped.reference, mounted)
    try:
        assert digests_below(mounted / "models") == shipped.files
        assert hidden_from(mounted / "models", KSERVE_UID) == []
    finally:
        ctr(containerd, "images", "unmount", SNAPSHOTTER, mounted)


def test_containerd_refuses_layers_out_of_order(containerd: Path, shipped: Shipped) -> None:
    """The same pull fails on an image that is not what its config says."""
    digest = put_scrambled(shipped.registry, shipped.repository, shipped.digest)
    with pytest.raises(AssertionError, match="wrong diff id"):
        pull(containerd, f"{shipped.registry}/{shipped.repository}@{digest}", namespace="broken")
