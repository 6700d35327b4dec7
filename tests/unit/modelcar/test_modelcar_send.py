"""The connection that bodies are sent over: TLS, proxies, refusals, broken answers, cancellation."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import socket
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from servepath.errors import RegistryError
from servepath.evidence import Verdict
from servepath.modelcar.build import build_and_push
from servepath.modelcar.image.layers import plan_layer
from servepath.modelcar.registry.client import RegistryOptions, open_registry
from servepath.modelcar.registry.repository import Repository
from servepath.modelcar.source.directory import open_source
from servepath.modelcar.verify import verify_content
from tests.unit.modelcar.cutting import break_off
from tests.unit.modelcar.helpers import MIB, write_model
from tests.unit.modelcar.registries import running_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio
BIG = 5 * MIB  # BF16 elements: a shard of 10 MiB


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Give a certificate for 127.0.0.1 and registry.example, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "registry")])
    now = dt.datetime.now(dt.UTC)
    address = x509.SubjectAlternativeName(
        [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("registry.example")]
    )
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(key.private_bytes(*form))
    return tmp_path / "cert.pem", tmp_path / "key.pem"


@pytest.fixture
def tls_registry(tmp_path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run docker-registry with TLS; loopback must not mean plain HTTP here."""
    monkeypatch.setattr(RegistryOptions, "allows_plain_http", lambda _self, _host: False)
    directory = tmp_path / "tls"
    directory.mkdir()
    with running_registry(directory, tls=certificate) as host:
        yield host


async def push_and_verify(model: Path, base: str, host: str, repository: str, options: RegistryOptions) -> None:
    pushed = await build_and_push(open_source(write_model(model, [BIG])), base, host, repository, options=options)
    results = await verify_content(pushed.reference, options=options)
    assert [r for r in results if r.verdict is Verdict.FAIL] == []


async def test_a_push_over_tls(
    model: Path,
    base: str,
    tls_registry: str,
    repository: str,
    options: RegistryOptions,
    certificate: tuple[Path, Path],
) -> None:
    await push_and_verify(model, base, tls_registry, repository, replace(options, ca_file=certificate[0]))
    with pytest.raises(RegistryError, match="CERTIFICATE_VERIFY_FAILED"):
        await build_and_push(open_source(model), base, tls_registry, repository, options=options)


async def test_bodies_go_through_the_proxies_that_the_environment_names(
    model: Path,
    base: str,
    tls_registry: str,
    repository: str,
    options: RegistryOptions,
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = tls_registry.replace("127.0.0.1", "registry.example")
    with tunnelling_proxy() as (address, seen):
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:p%40ss@{address}")
        monkeypatch.setenv("NO_PROXY", "")
        await push_and_verify(model, base, host, repository, replace(options, ca_file=certificate[0]))
    credentials = base64.b64encode(b"user:p@ss").decode()
    assert len(seen) >= 4  # one for all that has no body, one for each blob
    assert all(f"CONNECT {host} " in head and credentials in head for head in seen)


async def test_plain_http_through_a_proxy_names_the_whole_address(
    tmp_path: Path, options: RegistryOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads: list[str] = []

    def answer(connected: socket.socket) -> None:
        while head := read_head(connected):
            heads.append(head)
            location = "Location: http://registry.example:5000/v2/a/blobs/uploads/1\r\n"
            status = {"POST": "202 Accepted", "PUT": "201 Created"}[head.split()[0]]
            read_exactly(connected, length_of(head))
            connected.sendall(f"HTTP/1.1 {status}\r\n{location}Content-Length: 0\r\n\r\n".encode())

    (tmp_path / "x").write_bytes(b"x" * 1000)
    plan = plan_layer({"models/x": tmp_path / "x"})
    with answering(answer) as address:
        monkeypatch.setenv("HTTP_PROXY", f"http://{address}")
        allowed = replace(options, plain_http=frozenset({"registry.example:5000"}))
        async with open_registry("registry.example:5000", allowed) as client:
            await Repository(client, "a").write_blob(plan, "sha256:" + "a" * 64, lambda _: None)
    assert [head.split()[:2] for head in heads] == [
        ["POST", "http://registry.example:5000/v2/a/blobs/uploads/"],
        ["PUT", f"http://registry.example:5000/v2/a/blobs/uploads/1?digest=sha256%3A{'a' * 64}"],
    ]


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_a_registry_of_this_machine_is_never_reached_through_a_proxy(
    options: RegistryOptions, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    heads: dict[str, list[str]] = {"registry": [], "proxy": []}

    def hear(who: str) -> Callable[[socket.socket], None]:
        def answer(connected: socket.socket) -> None:
            while head := read_head(connected):
                heads[who].append(head)
                connected.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        return answer

    with answering(hear("registry")) as address, answering(hear("proxy")) as proxy:
        for variable in ("HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(variable, f"http://{proxy}")
        monkeypatch.setenv("NO_PROXY", "")
        async with open_registry(address.replace("127.0.0.1", name), options) as client:
            await client.ping()
    assert [len(heads["registry"]), len(heads["proxy"])] == [1, 0]


async def test_an_upload_that_is_sent_on_to_another_host(tmp_path: Path, options: RegistryOptions) -> None:
    (tmp_path / "x").write_bytes(b"x" * 1000)
    plan = plan_layer({"models/x": tmp_path / "x"})
    heads: list[tuple[str, str]] = []

    def serve(name: str, others: list[str]) -> Callable[[socket.socket], None]:
        def answer(connected: socket.socket) -> None:
            while head := read_head(connected):
                heads.append((name, head.split()[0]))
                read_exactly(connected, length_of(head))
                status = {"POST": "202 Accepted", "PATCH": "202 Accepted", "PUT": "201 Created"}[head.split()[0]]
                location = f"Location: http://{others[0]}/v2/a/blobs/uploads/1\r\n"
                connected.sendall(f"HTTP/1.1 {status}\r\n{location}Content-Length: 0\r\n\r\n".encode())

        return answer

    other: list[str] = []
    with answering(serve("storage", other)) as storage, answering(serve("registry", [storage])) as host:
        other.append(storage)
        async with open_registry(host, options) as client:
            assert (await Repository(client, "a").write_blob(plan, "", lambda _: None)).digest
    assert heads == [("registry", "POST"), ("storage", "PATCH"), ("storage", "PUT")]


async def test_a_refusal_before_the_whole_body_was_read_is_heard(tmp_path: Path, options: RegistryOptions) -> None:
    def refuse(connected: socket.socket) -> None:
        connected.sendall(b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        connected.shutdown(socket.SHUT_WR)
        read_exactly(connected, 1)

    with pytest.raises(RegistryError, match="answered 413"):
        await send_to(refuse, tmp_path, options)


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 20", b"HTTP/1.1 502 Bad Gateway\r\n\r\n"])
async def test_nonsense_is_tried_again_and_then_named(tmp_path: Path, options: RegistryOptions, said: bytes) -> None:
    def talk(connected: socket.socket) -> None:
        connected.sendall(said)

    with pytest.raises(RegistryError, match="failed 3 times"):
        await send_to(talk, tmp_path, options)


async def test_cancelling_does_not_wait_for_a_registry_that_reads_nothing(
    tmp_path: Path, options: RegistryOptions
) -> None:
    released = threading.Event()

    def read_nothing(_: socket.socket) -> None:
        released.wait(30)

    with anyio.move_on_after(0.5) as scope:
        try:
            await send_to(read_nothing, tmp_path, options, released)
        finally:
            released.set()
    assert scope.cancelled_caught
    assert anyio.current_time() - scope.deadline < 5


async def test_cancelling_does_not_try_the_other_addresses_of_a_host(
    options: RegistryOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        places = [stack.enter_context(hanging()) for _ in range(3)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses(places))
        allowed = replace(options, plain_http=frozenset({"registry.example"}), timeout_s=3)
        async with open_registry("registry.example", allowed) as client:
            with anyio.move_on_after(0.3) as scope:
                await client.ping()
            assert scope.cancelled_caught
            assert anyio.current_time() - scope.deadline < 2


async def test_what_was_cancelled_while_the_host_was_looked_up_is_not_sent(
    options: RegistryOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections: list[str] = []
    looking, looked_up = threading.Event(), threading.Event()

    def look_up(place: tuple[str, int]) -> list[object]:
        looking.set()
        looked_up.wait(30)
        return addresses([place])

    def answer(connected: socket.socket) -> None:
        connections.append(read_head(connected))

    with answering(answer) as address:
        host, _, port = address.partition(":")
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: look_up((host, int(port))))
        allowed = replace(options, plain_http=frozenset({"registry.example"}))
        async with open_registry("registry.example", allowed) as client, anyio.create_task_group() as group:
            group.start_soon(client.ping)
            await anyio.to_thread.run_sync(looking.wait, 30)
            group.cancel_scope.cancel()
            threading.Timer(0.1, looked_up.set).start()
    assert connections == []


def addresses(places: list[tuple[str, int]]) -> list[object]:
    return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", place) for place in places]


@contextmanager
def hanging() -> Iterator[tuple[str, int]]:
    """Give an address where a connect hangs: what nobody accepts fills its queue."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield full.getsockname()


async def send_to(
    serve: Callable[[socket.socket], None],
    tmp_path: Path,
    options: RegistryOptions,
    released: threading.Event | None = None,
) -> None:
    """Send 40 MiB to a server that begins an upload properly and then does as it likes."""
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.truncate(40 * MIB)

    def answer(connected: socket.socket) -> None:
        while head := read_head(connected):
            if head.startswith("POST"):
                connected.sendall(
                    b"HTTP/1.1 202 Accepted\r\nLocation: /v2/a/blobs/uploads/1\r\nContent-Length: 0\r\n\r\n"
                )
            elif head.startswith("GET"):
                connected.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            else:
                serve(connected)
                return

    with answering(answer, released) as host:
        async with open_registry(host, options) as client:
            await Repository(client, "a").write_blob(plan_layer({"models/x": path}), "", lambda _: None)


@contextmanager
def answering(answer: Callable[[socket.socket], None], released: threading.Event | None = None) -> Iterator[str]:
    """Run a server of one function per connection; yield its `host:port`."""
    threads: list[threading.Thread] = []
    open_sockets: list[socket.socket] = []

    def one(connected: socket.socket) -> None:
        with suppress(OSError):
            answer(connected)
        break_off(connected)

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connected, _ = listener.accept()
                open_sockets.append(connected)
                threads.append(threading.Thread(target=one, args=(connected,)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept, args=(listener,))
        accepting.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            if released is not None:
                released.set()
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for connected in open_sockets:
                break_off(connected)
            for thread in threads:
                thread.join()


@contextmanager
def tunnelling_proxy() -> Iterator[tuple[str, list[str]]]:
    """Run a proxy that knows CONNECT, to ports of this machine; yield its address and what it was asked."""
    seen: list[str] = []

    def tunnel(client: socket.socket) -> None:
        head = read_head(client)
        seen.append(head)
        port = int(head.split()[1].partition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as server:
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=carry, args=(server, client))
            back.start()
            carry(client, server)
            back.join()

    with answering(tunnel) as address:
        yield address, seen


def carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


def read_head(connected: socket.socket) -> str:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = connected.recv(1)
        if not data:
            return ""
        head += data
    return head.decode()


def read_exactly(connected: socket.socket, size_bytes: int) -> None:
    while size_bytes > 0:
        data = connected.recv(min(size_bytes, 65536))
        if not data:
            return
        size_bytes -= len(data)


def length_of(head: str) -> int:
    lines = [line for line in head.splitlines() if line.lower().startswith("content-length:")]
    return int(lines[0].partition(":")[2]) if lines else 0
