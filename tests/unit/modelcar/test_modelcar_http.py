"""Requests to a registry: addresses, connections that are used again, redirects, connects that hang."""

from __future__ import annotations

import traceback
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servepath.errors import InputError, RegistryError
from servepath.modelcar.registry.client import open_registry
from servepath.modelcar.registry.credentials import Credentials
from servepath.modelcar.registry.repository import Repository
from servepath.modelcar.registry.url import parse_url
from servepath.modelcar.store import Descriptor
from tests.unit.modelcar.test_modelcar_send import answering, hanging, length_of, read_exactly, read_head

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from servepath.modelcar.registry.client import RegistryOptions

BLOB = Descriptor("application/octet-stream", f"sha256:{'a' * 64}", 1)
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("text", "host", "port", "target"),
    [
        ("https://registry.example", "registry.example", 443, "/"),
        ("http://127.0.0.1:5000/v2/?a=b%3A", "127.0.0.1", 5000, "/v2/?a=b%3A"),
        ("http://[::1]:5000/v2/", "::1", 5000, "/v2/"),
        (f"https://{'a' * 63}.example.", f"{'a' * 63}.example.", 443, "/"),
        ("http://user:word@proxy.example:3128", "proxy.example", 3128, "/"),
        ("https://host/a b/ü?c=d e", "host", 443, "/a%20b/%C3%BC?c=d%20e"),
    ],
)
def test_an_address_is_read(text: str, host: str, port: int, target: str) -> None:
    url = parse_url(text)
    assert (url.host, url.port, url.target) == (host, port, target)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/v2/",
        "ftp://host/",
        "https://",
        "https://host:port/",
        "https://host:99999/",
        "http://[::1/",
        "http://hö/",
        "http://foo..bar/",
        "http://foo../",
        "http://.foo/",
        f"http://{'a' * 64}.example/",
        "http://foo bar.example/",
        "http://foo /",
        "http://foo\t.example/",
        "http://foo.example\n",
        "http://foo\x00/",
        "http://foo\x7f/",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_url(text)


def test_an_address_is_that_of_a_host_with_and_without_the_port_of_its_scheme() -> None:
    assert parse_url("https://Registry.example/v2/").is_at("registry.example:443")
    assert parse_url("https://registry.example:443/v2/").is_at("registry.example")
    assert not parse_url("https://registry.example:5000/v2/").is_at("registry.example")
    assert not parse_url("http://registry.example/v2/").is_at("registry.example:443")


def test_a_location_is_joined_and_its_query_kept() -> None:
    begun = parse_url("https://host/v2/a/blobs/uploads/").join("/v2/a/blobs/uploads/1?_state=a%2Fb==")
    assert str(begun.with_query(digest="sha256:0")) == (
        "https://host/v2/a/blobs/uploads/1?_state=a%2Fb==&digest=sha256%3A0"
    )
    assert begun.parameter("_state") == "a/b=="
    assert str(begun.join("https://other:1/x")) == "https://other:1/x"


@given(st.text(), st.text())
def test_any_location_is_an_address_that_can_be_requested_or_is_refused(location: str, state: str) -> None:
    try:
        url = parse_url("https://host/v2/").join(location).with_query(state=state)
    except ValueError:
        return
    line = f"GET {url.target} HTTP/1.1"
    assert line.isascii()
    assert len(line.split()) == 3
    assert url.parameter("state") == state or "state" in location


@pytest.mark.anyio
async def test_requests_share_a_connection_until_the_registry_closes_it(options: RegistryOptions) -> None:
    connections: list[int] = []

    def two_each(connected: socket.socket) -> None:
        connections.append(0)
        while read_head(connected) and connections[-1] < 2:
            connections[-1] += 1
            connected.sendall(EMPTY)
            if connections[-1] == 2:
                return

    with answering(two_each) as host:
        async with open_registry(host, options) as client:
            for _ in range(5):
                await client.ping()
                await anyio.sleep(0.05)  # the end of a connection takes a moment to arrive
    assert connections == [2, 2, 1]


@pytest.mark.anyio
async def test_a_redirect_is_followed_and_carries_no_credentials_to_another_host(options: RegistryOptions) -> None:
    heads: list[str] = []

    def storage(connected: socket.socket) -> None:
        while head := read_head(connected):
            heads.append(head)
            connected.sendall(EMPTY)

    def registry(location: str) -> Callable[[socket.socket], None]:
        def answer(connected: socket.socket) -> None:
            while head := read_head(connected):
                heads.append(head)
                if "Authorization" not in head:
                    connected.sendall(
                        b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"
                    )
                else:
                    text = f"HTTP/1.1 307 Go On\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
                    connected.sendall(text.encode())

        return answer

    with answering(storage) as other, answering(registry(f"http://{other}/there")) as host:
        known = replace(options, credentials={host: Credentials("user", "word")})
        async with open_registry(host, known) as client:
            await client.ping()
    assert [head.split()[1] for head in heads] == ["/v2/", "/v2/", "/there"]
    assert ["Authorization: Basic" in head for head in heads] == [False, True, False]


@pytest.mark.anyio
@pytest.mark.parametrize("location", ["/v2/", "http://[", "ftp://host/"])
async def test_a_redirect_to_itself_or_to_nowhere_ends(options: RegistryOptions, location: str) -> None:
    def again(connected: socket.socket) -> None:
        while read_head(connected):
            connected.sendall(f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())

    with answering(again) as host:
        async with open_registry(host, options) as client:
            with pytest.raises(RegistryError, match="redirect"):
                await client.ping()


@pytest.mark.anyio
async def test_an_answer_that_breaks_off_is_not_taken_for_a_short_one(options: RegistryOptions) -> None:
    def half(connected: socket.socket) -> None:
        read_head(connected)
        connected.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}")

    with answering(half) as host:
        async with open_registry(host, options) as client:
            with pytest.raises(RegistryError, match="IncompleteRead"):
                await client.ping()


@pytest.mark.anyio
async def test_a_location_that_is_no_address_is_named(options: RegistryOptions) -> None:
    def begin(connected: socket.socket) -> None:
        while head := read_head(connected):
            read_exactly(connected, length_of(head))
            connected.sendall(b"HTTP/1.1 202 Accepted\r\nLocation: http://[/\r\nContent-Length: 0\r\n\r\n")

    with answering(begin) as host:
        async with open_registry(host, options) as client:
            with pytest.raises(RegistryError, match="its Location is"):
                await Repository(client, "a").mount_blob(BLOB, "b")


@pytest.mark.anyio
async def test_cancelling_does_not_wait_for_a_host_that_does_not_answer(options: RegistryOptions) -> None:
    with hanging() as (host, port):
        async with open_registry(f"{host}:{port}", options) as client:
            with anyio.move_on_after(0.3) as scope:
                await client.ping()
            assert scope.cancelled_caught
            assert anyio.current_time() - scope.deadline < 5


@pytest.mark.anyio
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("proxy", ["socks5://{}@127.0.0.1:1080", "https://{}@proxy.example", "http://{}@host:port"])
async def test_a_proxy_that_cannot_be_used_is_refused_without_its_password(
    options: RegistryOptions, monkeypatch: pytest.MonkeyPatch, variable: str, proxy: str
) -> None:
    monkeypatch.setenv(variable, proxy.format("user:opensesame"))
    monkeypatch.setenv("NO_PROXY", "")
    async with open_registry("registry.example", options) as client:
        with pytest.raises(InputError, match="not plain HTTP") as caught:
            await client.ping()
    assert caught.value.where == variable
    assert "opensesame" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.anyio
async def test_what_is_no_host_is_refused(options: RegistryOptions) -> None:
    for host in ("host:port", "foo..bar", "foo bar.example", "foo.example\n"):
        with pytest.raises(InputError, match="not a registry"):
            async with open_registry(host, options):
                pass
