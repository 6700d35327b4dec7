"""The search for secrets of the engine tests: it finds them in every form, and nothing else."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from tests.engine import leaks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "pa55-of-a-registry"


@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "me:"])
@pytest.mark.parametrize("after", ["", "z", "zy", "zyx"])
def test_a_secret_is_found_in_base64_wherever_it_begins(tmp_path: Path, before: str, after: str) -> None:
    (tmp_path / "config.json").write_bytes(base64.b64encode(f"{before}{SECRET}{after}".encode()))
    assert leaks.leaks([SECRET], tmp_path) == ["config.json"]


def test_a_secret_across_two_reads_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "CHUNK_BYTES", 16)
    (tmp_path / "layer").write_text("0123456789" + SECRET + "0123456789")
    (tmp_path / "other").write_text("0123456789" * 10)
    assert leaks.leaks([SECRET], tmp_path) == ["layer"]


def test_what_was_there_before_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "old"
    file.write_text(SECRET)
    assert leaks.leaks([SECRET], tmp_path, file.stat().st_mtime + 1) == []


@pytest.mark.parametrize("kind", ["", "EC ", "RSA "])
@pytest.mark.parametrize("carried", [bytes, base64.b64encode])
def test_a_private_key_is_found_but_no_program_that_names_one(
    tmp_path: Path, kind: str, carried: Callable[[bytes], bytes]
) -> None:
    key = f"-----BEGIN {kind}PRIVATE KEY-----\nMHcCAQEEIJ\n-----END {kind}PRIVATE KEY-----\n"
    (tmp_path / "kubeconfig").write_bytes(b"client-key-data: " + carried(key.encode()))
    (tmp_path / "program.py").write_text(f'HEADER = "-----BEGIN {kind}PRIVATE KEY-----"\n')
    assert leaks.leaks(leaks.PRIVATE_KEYS, tmp_path) == ["kubeconfig"]
