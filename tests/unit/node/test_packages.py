from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ci.node import packages
from servepath.errors import ClusterError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


def test_missing_names_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "NEEDED", {"there": str(tmp_path), "absent": str(tmp_path / "no")})
    assert packages.missing() == ("absent",)


async def test_nothing_is_installed_when_nothing_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packages, "NEEDED", {"there": str(tmp_path)})
    monkeypatch.setenv("PATH", "")  # apt-get would not be found
    assert await packages.install() == ()


async def test_a_machine_without_apt_is_told_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "NEEDED", {"absent": str(tmp_path / "no")})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match="no apt-get") as caught:
        await packages.install()
    assert "absent" in caught.value.next_command


async def test_services_stay_off_during_the_installation_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tmp_path / "policy-rc.d"
    apt = tmp_path / "apt-get"
    apt.write_text(
        f"#!/bin/sh\n{policy} >> {tmp_path}/status; echo $? >> {tmp_path}/status\necho $@ >> {tmp_path}/log\n"
    )
    apt.chmod(0o755)
    monkeypatch.setattr(packages, "NEEDED", {"absent": str(tmp_path / "no")})
    monkeypatch.setattr(packages, "_POLICY", policy)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert await packages.install() == ("absent",)
    assert (tmp_path / "status").read_text().split() == ["101", "101"]
    assert "install --yes --no-install-recommends absent" in (tmp_path / "log").read_text()
    assert not policy.exists()


async def test_a_failing_apt_shows_its_last_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\necho E: no such package\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setattr(packages, "NEEDED", {"absent": str(tmp_path / "no")})
    monkeypatch.setattr(packages, "_POLICY", tmp_path / "policy-rc.d")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ClusterError, match="E: no such package"):
        await packages.install()
    assert not (tmp_path / "policy-rc.d").exists()
