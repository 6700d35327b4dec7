"""The registry client between a real registry and a network that misbehaves."""

from __future__ import annotations

import os
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from servepath.errors import RegistryError, ServepathError
from servepath.evidence import Verdict
from servepath.modelcar.build import build_and_push
from servepath.modelcar.content import BytesContent, digest_of_bytes
from servepath.modelcar.registry.client import RegistryOptions, open_registry
from servepath.modelcar.registry.credentials import Credentials
from servepath.modelcar.registry.repository import Repository
from servepath.modelcar.source.directory import open_source
from servepath.modelcar.store import Descriptor
from servepath.modelcar.verify import verify_content
from tests.unit.modelcar.faults import Faults, Rule, faulty_proxy
from tests.unit.modelcar.helpers import MIB, write_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio
DATA = os.urandom(5 * MIB)
BLOB = Descriptor("application/octet-stream", digest_of_bytes(DATA), len(DATA))


async def read_blob(host: str, repository: str, options: RegistryOptions, blob: Descriptor = BLOB) -> bytes:
    async with (
        open_registry(host, options) as client,
        aclosing(Repository(client, repository).blob(blob).open(lambda _: None)) as chunks,
    ):
        return b"".join([chunk async for chunk in chunks])


@pytest.fixture
async def stored(registry: str, repository: str, options: RegistryOptions) -> str:
    """Put the blob into the registry; gives the repository."""
    async with open_registry(registry, options) as client:
        await Repository(client, repository).write_blob(BytesContent(DATA), BLOB.digest, lambda _: None)
    return repository


async def test_a_download_that_is_cut_goes_on_where_it_stopped(
    faults: Faults, stored: str, options: RegistryOptions
) -> None:
    faults.rules = [Rule("GET", "blobs", cut_after_bytes=2 * MIB), Rule("GET", "blobs", cut_after_bytes=MIB)]
    assert await read_blob(faults.host, stored, options) == DATA
    ranges = [headers.get("Range") for method, path, headers in faults.seen if method == "GET" and "blobs" in path]
    assert ranges == [None, f"bytes={2 * MIB}-{5 * MIB - 1}", f"bytes={3 * MIB}-{5 * MIB - 1}"]


async def test_a_registry_without_ranges_sends_the_blob_again(
    faults: Faults, stored: str, options: RegistryOptions
) -> None:
    faults.without_ranges = True
    faults.rules = [Rule("GET", "blobs", cut_after_bytes=2 * MIB)]
    assert await read_blob(faults.host, stored, options) == DATA


async def test_a_download_that_is_always_cut_is_given_up(faults: Faults, stored: str, options: RegistryOptions) -> None:
    faults.rules = [Rule("GET", "blobs", times=99, cut_after_bytes=0)]
    with pytest.raises(RegistryError, match="3 times") as caught:
        await read_blob(faults.host, stored, options)
    assert BLOB.digest in caught.value.where


@pytest.mark.parametrize("status", [429, 502, 503])
async def test_a_download_that_is_refused_for_now_is_tried_again(
    faults: Faults, stored: str, options: RegistryOptions, status: int
) -> None:
    faults.rules = [Rule("GET", "blobs", status=status, headers={"Retry-After": "0"})]
    assert await read_blob(faults.host, stored, options) == DATA


async def test_a_registry_that_stalls_is_asked_again(faults: Faults, stored: str, options: RegistryOptions) -> None:
    faults.rules = [Rule("GET", "blobs", stall_s=0.5)]
    assert await read_blob(faults.host, stored, replace(options, timeout_s=0.2)) == DATA


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "other bytes under a digest"),
        (lambda data: data + b"x", f"more than {5 * MIB} bytes"),
    ],
    ids=["changed", "longer"],
)
async def test_other_bytes_are_refused(
    faults: Faults, stored: str, options: RegistryOptions, change: Callable[[bytes], bytes], message: str
) -> None:
    faults.rules = [Rule("GET", "blobs", times=99, change=change)]
    with pytest.raises(RegistryError, match=message):
        await read_blob(faults.host, stored, options)


async def test_what_a_short_answer_lacks_is_asked_for(faults: Faults, stored: str, options: RegistryOptions) -> None:
    faults.rules = [Rule("GET", "blobs", times=99, change=lambda data: data[:MIB])]
    assert await read_blob(faults.host, stored, options) == DATA
    assert len(faults.seen) == 5


async def test_another_range_than_asked_for_is_refused(faults: Faults, stored: str, options: RegistryOptions) -> None:
    faults.rules = [
        Rule("GET", "blobs", cut_after_bytes=MIB),
        Rule("GET", "blobs", change_headers=lambda headers: headers | {"Content-Range": f"bytes 0-9/{5 * MIB}"}),
    ]
    with pytest.raises(RegistryError, match="a range of 'bytes 0-9"):
        await read_blob(faults.host, stored, options)


async def test_a_redirect_to_plain_http_elsewhere_is_refused(
    faults: Faults, stored: str, options: RegistryOptions
) -> None:
    faults.rules = [Rule("GET", "blobs", times=99, status=307, headers={"Location": "http://192.0.2.1/blob?sig=x"})]
    with pytest.raises(RegistryError, match="redirect to plain HTTP") as caught:
        await read_blob(faults.host, stored, options)
    assert "sig=x" not in str(caught.value)


async def test_a_push_survives_a_network_that_breaks_everywhere(
    model: Path, base: str, faults: Faults, repository: str, options: RegistryOptions
) -> None:
    write_model(model, [5 * MIB])
    faults.rules = [
        Rule("GET", "/v2/$", drop_after_bytes=0),
        Rule("HEAD", "blobs", drop_after_bytes=0),
        Rule("POST", "uploads", status=429, headers={"Retry-After": "0"}),
        Rule("PATCH", "uploads", drop_after_bytes=3 * MIB),
        Rule("PATCH", "uploads", status=502),
        Rule("PUT", "uploads", drop_after_bytes=0),
        Rule("PUT", "manifests", drop_after_bytes=10),
        Rule("PUT", "manifests", status=503),
    ]
    patient = replace(options, retry=replace(options.retry, attempts=6))
    pushed = await build_and_push(open_source(model), base, faults.host, repository, options=patient)
    assert [rule for rule in faults.rules if rule.times] == []
    assert all(r.verdict is not Verdict.FAIL for r in await verify_content(pushed.reference, options=options))


async def test_a_token_that_expires_in_the_middle_of_an_upload_is_renewed(
    model: Path, base: str, faults: Faults, repository: str, options: RegistryOptions
) -> None:
    write_model(model, [5 * MIB])
    faults.token, faults.basic = "t0ken", "user:opensesame"
    faults.rules = [
        Rule("PATCH", "uploads", forget_token=True),
        Rule("PUT", "uploads", forget_token=True),
        Rule("PUT", "manifests", forget_token=True),
    ]
    known = replace(options, credentials={faults.host: Credentials("user", "opensesame")})
    pushed = await build_and_push(open_source(model), base, faults.host, repository, options=known)
    assert faults.token == "t0ken" + 3 * "-next"
    assert all(r.verdict is not Verdict.FAIL for r in await verify_content(pushed.reference, options=known))


@pytest.mark.parametrize("known", [Credentials("user", "opensesame"), Credentials(identity_token="r3fresh")])
async def test_a_token_that_is_renewed_for_reading_still_permits_writing(
    faults: Faults, repository: str, options: RegistryOptions, known: Credentials
) -> None:
    faults.token = "t0ken"
    faults.rules = [Rule("PUT", "uploads", forget_token=True)]
    async with open_registry(faults.host, replace(options, credentials={faults.host: known})) as client:
        await Repository(client, repository).write_blob(BytesContent(DATA), "", lambda _: None)
    assert faults.token == "t0ken-next"
    assert faults.count("PUT", "uploads") == 2  # what the old token did not permit, and the same again


async def test_an_identity_token_is_exchanged_in_a_form_and_never_in_an_address(
    faults: Faults, stored: str, options: RegistryOptions
) -> None:
    faults.token, faults.refresh = "t0ken", "r3fresh"
    known = replace(options, credentials={faults.host: Credentials(identity_token="r3fresh")})
    assert await read_blob(faults.host, stored, known) == DATA
    assert not [path for _, path, _ in faults.seen if "r3fresh" in path]
    wrong = replace(options, credentials={faults.host: Credentials(identity_token="other")})
    with pytest.raises(RegistryError, match="token service answered 401"):
        await read_blob(faults.host, stored, wrong)


async def test_a_token_service_that_is_busy_is_asked_again(
    faults: Faults, stored: str, options: RegistryOptions
) -> None:
    faults.token = "t0ken"
    faults.rules = [Rule("GET", "/token", status=503), Rule("GET", "/token", status=429, headers={"Retry-After": "0"})]
    assert await read_blob(faults.host, stored, options) == DATA


@pytest.mark.parametrize(
    "challenge",
    [
        'Bearer realm="http://[::1",service="x"',
        'Bearer realm="https://"',
        'Bearer realm="file:///etc/passwd"',
        "Bearer",
        'Bearer realm="http://192.0.2.1/token"',
        "Negotiate",
        "\x7f=",
    ],
)
async def test_a_challenge_that_makes_no_sense_is_an_error_of_the_registry(
    faults: Faults, stored: str, options: RegistryOptions, challenge: str
) -> None:
    faults.rules = [Rule("GET", "blobs", times=9, status=401, headers={"WWW-Authenticate": challenge})]
    known = replace(options, credentials={faults.host: Credentials("user", "opensesame")})
    with pytest.raises(ServepathError) as caught:
        await read_blob(faults.host, stored, known)
    assert "opensesame" not in str(caught.value)


async def test_a_challenge_without_quotes_is_understood(faults: Faults, stored: str, options: RegistryOptions) -> None:
    faults.token = "t0ken"
    faults.challenge = f"bearer Realm=http://{faults.host}/token,Service=test"
    assert await read_blob(faults.host, stored, options) == DATA


async def test_neither_host_sees_the_others_credentials(registry: str, stored: str, options: RegistryOptions) -> None:
    with faulty_proxy(registry) as faults, faulty_proxy(registry) as storage:
        faults.token, faults.basic = "t0ken", "user:opensesame"
        target = f"http://{storage.host}/v2/{stored}/blobs/{BLOB.digest}"
        faults.rules = [Rule("GET", "blobs", times=99, status=307, headers={"Location": target})]
        storage.rules = [Rule("GET", "blobs", cut_after_bytes=MIB)]
        known = replace(
            options,
            credentials={
                faults.host: Credentials("user", "opensesame"),
                storage.host: Credentials("storage", "other"),
            },
        )
        assert await read_blob(faults.host, stored, known) == DATA
        assert len(storage.seen) == 2  # the cut, and the rest by a range
        assert not [headers for _, _, headers in storage.seen if "authorization" in {name.lower() for name in headers}]
