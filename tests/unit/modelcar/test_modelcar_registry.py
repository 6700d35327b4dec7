from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from servepath.errors import InputError, RegistryError
from servepath.evidence import Verdict
from servepath.modelcar.build import build_and_push, build_layout
from servepath.modelcar.copy import copy, push_layout
from servepath.modelcar.image.layers import plan_layer
from servepath.modelcar.layout import Layout
from servepath.modelcar.registry import reference
from servepath.modelcar.registry.client import RegistryOptions, open_registry
from servepath.modelcar.registry.credentials import Credentials, find_credentials
from servepath.modelcar.registry.repository import Repository
from servepath.modelcar.registry.retry import RetryPolicy, retry_after_s
from servepath.modelcar.source.directory import open_source
from servepath.modelcar.store import Descriptor
from servepath.modelcar.verify import verify, verify_content
from tests.unit.modelcar.faults import Faults, Rule, faulty_proxy
from tests.unit.modelcar.helpers import MIB, write_model

if TYPE_CHECKING:
    from servepath.modelcar.model import Progress

pytestmark = pytest.mark.anyio
BIG = 5 * MIB  # BF16 elements: a shard of 10 MiB, which gets a layer of its own


async def test_a_push_is_pulled_back_whole_and_again_sends_nothing(
    model: Path, base: str, registry: str, repository: str, options: RegistryOptions
) -> None:
    seen: list[Progress] = []
    source = open_source(write_model(model, [BIG]))
    first = await build_and_push(source, base, registry, repository, options=options, progress=seen.append)
    assert first.reference == f"{registry}/{repository}@{first.digest}"
    assert first.sent_bytes == first.size_bytes
    assert {p.name for p in seen if p.sent_bytes == p.total_bytes} >= {"base", "config"}
    again = await build_and_push(source, base, registry, repository, options=options)
    assert (again.digest, again.sent_bytes) == (first.digest, 0)
    results = await verify_content(first.reference, options=options)
    assert {r.name for r in results if r.verdict is not Verdict.PASS} <= {"modelcar-sbom", "modelcar-provenance"}
    assert len(results) == 10


async def test_layout_and_push_give_one_digest_and_a_layout_can_be_pushed(
    model: Path, tmp_path: Path, base: str, registry: str, repository: str, options: RegistryOptions
) -> None:
    source = open_source(model)
    pushed = await build_and_push(source, base, registry, repository, options=options)
    built = await build_layout(source, base, tmp_path / "out", options=options)
    assert built.digest == pushed.digest
    reference = await push_layout(tmp_path / "out", registry, f"{repository}-copy", options=options)
    assert reference == f"{registry}/{repository}-copy@{built.digest}"
    assert all(r.verdict is not Verdict.FAIL for r in await verify(reference, options=options))


async def test_a_base_in_a_registry_is_used_by_digest_and_never_by_tag(
    model: Path, base: str, registry: str, repository: str, options: RegistryOptions
) -> None:
    directory, _, digest = base.removeprefix("oci:").partition("@")
    reference = await push_layout(Path(directory), registry, "test/base", tag="1", options=options)
    assert reference == f"{registry}/test/base@{digest}"
    pushed = await build_and_push(open_source(model), reference, registry, repository, options=options)
    assert pushed.annotations["org.opencontainers.image.base.digest"] == digest
    with pytest.raises(InputError, match="named by tag"):
        await build_and_push(open_source(model), f"{registry}/test/base:1", registry, repository, options=options)


async def test_copy_keeps_the_digest_and_mounts_within_a_registry(
    model: Path, base: str, registry: str, repository: str, options: RegistryOptions
) -> None:
    with faulty_proxy(registry) as faults:
        pushed = await build_and_push(open_source(model), base, faults.host, repository, options=options)
        faults.seen.clear()
        copied = await copy(pushed.reference, faults.host, f"{repository}-mounted", options=options)
        assert (copied.digest, copied.sent_bytes) == (pushed.digest, 0)
        assert faults.count("POST", "mount=") == 3
        assert faults.count("PUT", "blobs") == 0
    elsewhere = await copy(f"{registry}/{repository}@{pushed.digest}", registry, f"{repository}-2", options=options)
    assert all(r.verdict is not Verdict.FAIL for r in await verify_content(elsewhere.reference, options=options))


async def test_a_changed_small_file_sends_kilobytes(
    model: Path, base: str, registry: str, repository: str, options: RegistryOptions
) -> None:
    write_model(model, [BIG, BIG])
    await build_and_push(open_source(model), base, registry, repository, options=options)
    (model / "generation_config.json").write_text('{"temperature": 0.1}')
    changed = await build_and_push(open_source(model), base, registry, repository, options=options)
    assert 0 < changed.sent_bytes < 100_000
    write_model(model, [BIG, BIG + 1])
    shard = await build_and_push(open_source(model), base, registry, repository, options=options)
    assert 10 * MIB < shard.sent_bytes < 11 * MIB


@pytest.mark.parametrize(("size_bytes", "chunk_bytes"), [(2000, 1000), (7 * MIB, 3 * MIB - 1), (7 * MIB, 1 << 40)])
async def test_uploads_in_chunks(
    tmp_path: Path, registry: str, repository: str, options: RegistryOptions, size_bytes: int, chunk_bytes: int
) -> None:
    path = tmp_path / "x"
    path.write_bytes(os.urandom(size_bytes))
    plan = plan_layer({"models/x": path})
    async with open_registry(registry, replace(options, chunk_bytes=chunk_bytes)) as client:
        target = Repository(client, repository)
        digest = (await target.write_blob(plan, "", lambda _: None)).digest
        descriptor = Descriptor("application/vnd.oci.image.layer.v1.tar", digest, plan.size_bytes)
        assert await target.has_blob(descriptor)
        read = b"".join([chunk async for chunk in target.blob(descriptor).open(lambda _: None)])
        assert read == b"".join([chunk async for chunk in plan.open(lambda _: None)])
        assert (await target.write_blob(plan, digest, lambda _: None)).digest == digest


_KILLED = """
import anyio, os, signal, sys
from pathlib import Path
from servepath.modelcar.build import build_and_push
from servepath.modelcar.registry import reference
from servepath.modelcar.registry.client import RegistryOptions
from servepath.modelcar.source.directory import open_source
def progress(p):
    if p.name.startswith("models/model-00003") and p.sent_bytes > p.total_bytes // 2:
        os.kill(os.getpid(), signal.SIGKILL)
async def main():
    model, base, registry, repository = sys.argv[1:]
    await build_and_push(open_source(Path(model)), base, registry, repository,
        options=RegistryOptions(uploads=1), progress=progress)
anyio.run(main)
"""


async def test_a_killed_push_continues(
    model: Path, base: str, registry: str, repository: str, options: RegistryOptions
) -> None:
    write_model(model, [BIG] * 4)
    killed = await anyio.run_process(
        [sys.executable, "-c", _KILLED, str(model), base, registry, repository], check=False, stderr=subprocess.STDOUT
    )
    assert killed.returncode == -signal.SIGKILL, killed.stdout.decode()
    second = await build_and_push(open_source(model), base, registry, repository, options=options)
    assert 20 * MIB < second.sent_bytes < 21 * MIB  # two of four shards, and the small files
    assert all(r.verdict is not Verdict.FAIL for r in await verify_content(second.reference, options=options))


_MEASURED = """
import anyio, resource, sys
from pathlib import Path
from servepath.modelcar.build import build_and_push
from servepath.modelcar.source.directory import open_source
def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
async def main():
    model, base, registry, repository = sys.argv[1:]
    before = peak_mib()
    await build_and_push(open_source(Path(model)), base, registry, repository)
    print(peak_mib() - before)
anyio.run(main)
"""


async def test_memory_is_bounded_whatever_the_size(model: Path, base: str, registry: str, repository: str) -> None:
    write_model(model, [20 * MIB] * 5)  # 200 MiB
    measured = await anyio.run_process([sys.executable, "-c", _MEASURED, str(model), base, registry, repository])
    assert float(measured.stdout) < 64


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_transient_answers_are_tried_again(
    model: Path, base: str, faults: Faults, repository: str, options: RegistryOptions, status: int
) -> None:
    slow = {"Retry-After": "0"}
    faults.rules = [
        Rule("HEAD", "blobs", status=status, headers=slow),
        Rule("POST", "uploads", status=status),
        Rule("PUT", "uploads", status=status),
        Rule("PUT", "manifests", status=status),
    ]
    pushed = await build_and_push(open_source(model), base, faults.host, repository, options=options)
    assert all(rule.times == 0 for rule in faults.rules)
    assert all(r.verdict is not Verdict.FAIL for r in await verify_content(pushed.reference, options=options))


async def test_a_dropped_upload_is_begun_anew(
    model: Path, base: str, faults: Faults, repository: str, options: RegistryOptions
) -> None:
    write_model(model, [BIG])
    faults.rules = [Rule("PATCH", "uploads", drop_after_bytes=3 * MIB)]
    pushed = await build_and_push(open_source(model), base, faults.host, repository, options=options)
    assert faults.rules[0].times == 0
    assert all(r.verdict is not Verdict.FAIL for r in await verify_content(pushed.reference, options=options))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Rule("POST", "uploads", times=99, status=500), "failed 3 times: the registry answered 500"),
        (Rule("POST", "uploads", status=401), "answered 401"),
        (Rule("POST", "uploads", status=403), r"answered 403 Forbidden \(TEST injected\)"),
        (Rule("GET", "/v2/$", status=404), "ping: the registry answered 404"),
        (Rule("GET", "/v2/$", times=99, drop_after_bytes=0), "failed 3 times"),
        (Rule("PUT", "digest=", status=400), "uploading a blob: the registry answered 400"),
        (Rule("PUT", "manifests", status=413), "writing the manifest"),
        (Rule("PUT", "manifests", change_headers=lambda h: h | {"Docker-Content-Digest": "sha256:0"}), "other bytes"),
        (Rule("POST", "uploads", change_headers=lambda h: h | {"Location": ""}), "without a Location"),
        (Rule("POST", "uploads", change_headers=lambda h: h | {"Location": "http://192.0.2.1/x"}), "not HTTPS"),
        (Rule("HEAD", "blobs", status=200, headers={"Content-Length": "7"}), "a blob has 7 bytes"),
    ],
)
async def test_a_registry_that_refuses_is_named(
    model: Path, base: str, faults: Faults, repository: str, options: RegistryOptions, rule: Rule, message: str
) -> None:
    faults.rules = [rule]
    with pytest.raises(RegistryError, match=message) as caught:
        await build_and_push(open_source(model), base, faults.host, repository, options=options)
    assert faults.host in caught.value.where
    assert caught.value.expected


async def test_nothing_listens(model: Path, base: str, repository: str, options: RegistryOptions) -> None:
    with pytest.raises(RegistryError, match="Connection refused"):
        await build_and_push(open_source(model), base, "127.0.0.1:1", repository, options=options)


async def test_verify_finds_a_changed_manifest_and_a_changed_layer(
    model: Path, base: str, faults: Faults, repository: str, options: RegistryOptions
) -> None:
    pushed = await build_and_push(open_source(model), base, faults.host, repository, options=options)
    faults.rules = [Rule("GET", "manifests", change=lambda data: data.replace(b"Tiny", b"Tony"))]
    with pytest.raises(RegistryError, match="other bytes under a digest"):
        await verify(pushed.reference, options=options)
    layer = pushed.layers[-1].digest
    faults.rules = [Rule("GET", f"blobs/{layer}", times=99, change=lambda data: data.replace(b"Apache", b"Opache"))]
    verdicts = {r.name: r.verdict for r in await verify_content(pushed.reference, options=options)}
    assert verdicts["modelcar-content"] is Verdict.FAIL
    config = (await manifest_of(pushed.reference, options))["config"]["digest"]
    faults.rules = [Rule("GET", f"blobs/{config}", times=99, change=lambda data: data.replace(b"amd64", b"arm64"))]
    failed = [r for r in await verify(pushed.reference, options=options) if r.verdict is Verdict.FAIL]
    assert [r.name for r in failed] == ["modelcar-config"]
    assert failed[0].next_command
    faults.rules = [Rule("HEAD", f"blobs/{layer}", status=404)]
    failed = [r for r in await verify(pushed.reference, options=options) if r.verdict is Verdict.FAIL]
    assert [r.name for r in failed] == ["modelcar-blobs"]


async def manifest_of(reference: str, options: RegistryOptions) -> dict[str, dict[str, str]]:
    host, _, rest = reference.partition("/")
    name, _, digest = rest.partition("@")
    async with open_registry(host, options) as client:
        return (await Repository(client, name).read_manifest(digest)).json


async def test_verify_finds_a_broken_safetensors_header_and_an_empty_model(
    model: Path, base: str, registry: str, repository: str, options: RegistryOptions
) -> None:
    source = open_source(model)
    shard = model / "model-00001-of-00001.safetensors"
    shard.write_bytes(b"\xff" * shard.stat().st_size)
    broken = await build_and_push(source, base, registry, repository, options=options)
    failed = [r for r in await verify(broken.reference, options=options) if r.verdict is Verdict.FAIL]
    assert [r.name for r in failed] == ["modelcar-safetensors"]
    directory, _, digest = base.removeprefix("oci:").partition("@")
    other = await push_layout(Path(directory), registry, f"{repository}-base", digest=digest, options=options)
    failed = [r for r in await verify(other, options=options) if r.verdict is Verdict.FAIL]
    assert [r.name for r in failed] == ["modelcar-config", "modelcar-members"]  # it has an entrypoint, and no model


async def test_basic_auth_of_a_real_registry(
    model: Path, base: str, registry_with_password: str, repository: str, options: RegistryOptions
) -> None:
    host = registry_with_password
    with pytest.raises(RegistryError, match="401") as caught:
        await build_and_push(open_source(model), base, host, repository, options=options)
    assert caught.value.next_command == f"docker login {host}"
    wrong = replace(options, credentials={host: Credentials("servepath", "wrong")})
    with pytest.raises(RegistryError, match="401") as caught:
        await build_and_push(open_source(model), base, host, repository, options=wrong)
    assert "wrong" not in str(caught.value)
    assert "wrong" not in repr(wrong)
    options.docker_config.mkdir()
    auth = base64.b64encode(b"servepath:opensesame").decode()
    (options.docker_config / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    pushed = await build_and_push(open_source(model), base, host, repository, options=options)
    assert all(r.verdict is not Verdict.FAIL for r in await verify_content(pushed.reference, options=options))


@pytest.mark.parametrize("name", ["docker.io", "index.docker.io", "registry-1.docker.io"])
async def test_docker_hub_is_asked_where_it_answers_and_named_as_references_do(
    name: str, options: RegistryOptions
) -> None:
    async with open_registry(name, options) as client:
        assert str(client.url("/v2/")) == "https://registry-1.docker.io/v2/"
        assert str(Repository(client, "someone/model")) == "docker.io/someone/model"
        assert str(Repository(client, "model")) == "docker.io/library/model"
    async with open_registry("registry.example", options) as other:
        assert str(other.url("/v2/")) == "https://registry.example/v2/"
        assert str(Repository(other, "model")) == "registry.example/model"


@pytest.fixture
def hub(registry_with_password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a registry here answer for Docker Hub."""
    monkeypatch.setattr(reference, "DOCKER_HUB", registry_with_password)
    monkeypatch.setattr(reference, "HUB_NAMES", ("docker.io", registry_with_password))


@pytest.mark.usefixtures("hub")
async def test_docker_hub_is_a_target_and_a_source_with_the_login_that_docker_keeps(
    model: Path, base: str, repository: str, options: RegistryOptions
) -> None:
    options.docker_config.mkdir()
    auth = base64.b64encode(b"servepath:opensesame").decode()
    login = {"auths": {"https://index.docker.io/v1/": {"auth": auth}}}
    (options.docker_config / "config.json").write_text(json.dumps(login))
    pushed = await build_and_push(open_source(model), base, "docker.io", repository, options=options)
    assert pushed.reference == f"docker.io/{repository}@{pushed.digest}"
    copied = await copy(pushed.reference, "docker.io", f"{repository}-copy", options=options)
    assert copied.reference == f"docker.io/{repository}-copy@{pushed.digest}"
    assert copied.sent_bytes == 0  # mounted: both are of one registry
    assert all(r.verdict is not Verdict.FAIL for r in await verify_content(copied.reference, options=options))


@pytest.mark.usefixtures("hub")
async def test_docker_hub_without_a_login_says_how_to_log_in(
    model: Path, base: str, repository: str, options: RegistryOptions
) -> None:
    with pytest.raises(RegistryError, match="401") as caught:
        await build_and_push(open_source(model), base, "docker.io", repository, options=options)
    assert caught.value.next_command == "docker login docker.io"
    given = replace(options, credentials={"docker.io": Credentials("servepath", "opensesame")})
    pushed = await build_and_push(open_source(model), base, "docker.io", repository, options=given)
    assert all(r.verdict is not Verdict.FAIL for r in await verify_content(pushed.reference, options=given))


async def test_bearer_tokens(model: Path, base: str, faults: Faults, repository: str, options: RegistryOptions) -> None:
    faults.token, faults.basic = "t0ken", "user:opensesame"
    with pytest.raises(RegistryError, match="token service answered 401"):
        await build_and_push(open_source(model), base, faults.host, repository, options=options)
    known = replace(options, credentials={faults.host: Credentials("user", "opensesame")})
    faults.token_requests.clear()
    pushed = await build_and_push(open_source(model), base, faults.host, repository, options=known)
    assert pushed.sent_bytes > 0
    assert len(faults.token_requests) <= 3  # the ping, and the first requests to the repository, which run together
    assert "scope=repository" in faults.token_requests[0]


async def test_a_token_service_without_tls_gets_no_password(
    model: Path, base: str, faults: Faults, repository: str, options: RegistryOptions
) -> None:
    challenge = {"WWW-Authenticate": 'Bearer realm="http://192.0.2.1/token",service="x"'}
    faults.rules = [Rule("GET", "/v2/$", status=401, headers=challenge)]
    known = replace(options, credentials={faults.host: Credentials("user", "opensesame")})
    with pytest.raises(RegistryError, match="not HTTPS"):
        await build_and_push(open_source(model), base, faults.host, repository, options=known)


async def test_credentials_do_not_follow_a_redirect(
    model: Path, base: str, registry: str, repository: str, options: RegistryOptions
) -> None:
    with faulty_proxy(registry) as faults, faulty_proxy(registry) as storage:
        faults.token, faults.basic = "t0ken", "user:opensesame"
        known = replace(options, credentials={faults.host: Credentials("user", "opensesame")})
        pushed = await build_and_push(open_source(model), base, faults.host, repository, options=known)
        layer = pushed.layers[-1].digest
        target = f"http://{storage.host}/v2/{repository}/blobs/{layer}"
        faults.rules = [Rule("GET", f"blobs/{layer}", times=99, status=307, headers={"Location": target})]
        assert all(r.verdict is not Verdict.FAIL for r in await verify_content(pushed.reference, options=known))
        assert storage.seen
        assert not [headers for _, _, headers in storage.seen if "authorization" in {name.lower() for name in headers}]


async def test_a_host_that_is_not_loopback_is_spoken_to_with_tls(options: RegistryOptions) -> None:
    async with open_registry("registry.example:5000", options) as client:
        assert client.scheme == "https"
    allowed = replace(options, plain_http=frozenset({"registry.example:5000"}))
    async with open_registry("registry.example:5000", allowed) as client:
        assert client.scheme == "http"
    for host in ("127.0.0.1:5000", "localhost", "[::1]:5000"):
        async with open_registry(host, options) as client:
            assert client.scheme == "http"


async def test_credential_helpers_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text('#!/bin/sh\nread host\necho "{\\"Username\\": \\"$host\\", \\"Secret\\": \\"s\\"}"\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "config.json").write_text('{"credHelpers": {"r.example": "test"}}')
    assert await find_credentials("r.example", tmp_path) == Credentials("r.example", "s")
    assert await find_credentials("other.example", tmp_path) is None
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        await find_credentials("r.example", tmp_path)


def test_waits_are_bounded_and_obey_retry_after() -> None:
    policy = RetryPolicy(attempts=9, base_s=1, longest_s=8)
    waits = [policy.wait_s(failures) for failures in range(1, 9)]
    assert all(0.5 <= wait <= 8 for wait in waits)
    assert min(waits[4:]) >= 4
    assert policy.wait_s(1, "3") == 3
    assert policy.wait_s(1, "3600") == 8
    assert retry_after_s("Thu, 01 Jan 1970 00:00:00 GMT") == 0
    assert retry_after_s("soon") is None


async def test_a_layout_that_lacks_a_blob_is_refused(
    model: Path, tmp_path: Path, base: str, registry: str, repository: str, options: RegistryOptions
) -> None:
    built = await build_layout(open_source(model), base, tmp_path / "out", options=options)
    (Layout(tmp_path / "out").directory / "blobs" / "sha256" / built.layers[-1].digest[7:]).unlink()
    with pytest.raises(InputError, match="blob is missing"):
        await push_layout(tmp_path / "out", registry, repository, options=options)
    with pytest.raises(InputError, match="not an OCI layout"):
        await push_layout(tmp_path, registry, repository, options=options)
