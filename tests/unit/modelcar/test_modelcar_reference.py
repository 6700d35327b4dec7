from __future__ import annotations

import pytest

from servepath.errors import InputError
from servepath.modelcar.registry.reference import (
    Reference,
    check_repository,
    is_loopback,
    parse_pinned,
    parse_reference,
)
from servepath.modelcar.source.hub import parse_spec

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"127.0.0.1:5000/a/b@{DIGEST}", Reference("127.0.0.1:5000", "a/b", "", DIGEST)),
        ("ghcr.io/o/r:v1", Reference("ghcr.io", "o/r", "v1")),
        (f"busybox:1.38.0@{DIGEST}", Reference("registry-1.docker.io", "library/busybox", "1.38.0", DIGEST)),
        ("docker.io/vllm/vllm-openai:v1", Reference("registry-1.docker.io", "vllm/vllm-openai", "v1")),
        ("localhost/x", Reference("localhost", "x")),
    ],
)
def test_references(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    "text", ["", "a b", "r.example/UPPER", "r.example/x@sha256:1", "r.example/x:bad tag", "r.example/../x"]
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_reference(text)


def test_a_tag_is_no_pin() -> None:
    assert parse_pinned(f"r.example/x@{DIGEST}").digest == DIGEST
    with pytest.raises(InputError, match="named by tag"):
        parse_pinned("r.example/x:1")


def test_repository_names() -> None:
    assert check_repository("a/b-c__d.e") == "a/b-c__d.e"
    for name in ("A", "a//b", "/a", "a" * 256):
        with pytest.raises(InputError):
            check_repository(name)


def test_loopback() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1:1", "127.9.9.9", "localhost:5", "[::1]:5"))
    assert not any(
        is_loopback(host) for host in ("10.0.0.1:5000", "localhost.example", "[fe80::1]:5", "127.0.0.1.example")
    )


@pytest.mark.parametrize("spec", ["Qwen/Qwen2.5@main", "Qwen/Qwen2.5@v1", "Qwen/Qwen2.5", "Qwen/Qwen2.5@" + "A" * 40])
def test_a_branch_is_no_commit(spec: str) -> None:
    with pytest.raises(InputError, match="revision") as caught:
        parse_spec(spec)
    assert "tomorrow" in caught.value.expected


def test_a_commit_is_accepted() -> None:
    assert parse_spec("Qwen/Qwen2.5@" + "a" * 40) == ("Qwen/Qwen2.5", "a" * 40)
    with pytest.raises(InputError, match="not a Hub repository"):
        parse_spec("Qwen@" + "a" * 40)
