"""The arithmetic of the pull experiment; the experiment itself needs root and containerd."""

from __future__ import annotations

import shutil

import pytest

from ci.modelcar_pull.__main__ import table
from ci.modelcar_pull.experiment import Pull, require_programs
from servepath.errors import ClusterError


def test_the_table_holds_medians_by_form() -> None:
    pulls = [Pull("shards", 4, 10**9, fetch_s, 2.0, 2 * 10**9) for fetch_s in (9.0, 1.0, 3.0)]
    pulls.append(Pull("one layer", 1, 10**9, 5.0, 6.0, 2 * 10**9))
    assert table(pulls).splitlines()[2:] == [
        "| one layer | 1 | 1000 MB | 5.0 s | 6.0 s | 11.0 s | 2000 MB |",
        "| shards | 4 | 1000 MB | 3.0 s | 2.0 s | 5.0 s | 2000 MB |",
    ]


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "ctr" else f"/bin/{name}")
    with pytest.raises(ClusterError, match="ctr is not installed"):
        require_programs()
