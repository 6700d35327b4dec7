"""A new cluster to look at: on the host's own ports, and from a shell beside it."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from contextlib import closing

import httpx
import pytest

from tests.engine.conftest import ON_A_TERMINAL, PLAIN, Dagger
from tests.engine.keyboard import typed_into

READY_TIMEOUT_S = 1500
END_TIMEOUT_S = 120


def free_port() -> int:
    """A port of the host that nobody listens on."""
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def await_answer(url: str, process: subprocess.Popen[bytes]) -> int:
    """The status with which a server answers, as soon as it does."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            # The certificate names the node, not this end of the tunnel.
            return httpx.get(url, verify=False, timeout=10).status_code  # noqa: S501
        except httpx.TransportError:
            assert process.poll() is None, "dagger has ended"
            assert time.monotonic() < deadline, f"{url} did not answer"
            time.sleep(1)


def test_a_cluster_is_up_on_the_host(dagger: Dagger, gateway_class: str) -> None:
    api, gateway = free_port(), free_port()
    ports = [f"--ports={api}:6443", f"--ports={gateway}:80"]
    command = dagger.command("call", "cluster", f"--gateway-class={gateway_class}", "up", "up", *ports)
    with subprocess.Popen(command, env=PLAIN, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            # An API server that asks who one is, and a gateway that has no route yet.
            assert await_answer(f"https://127.0.0.1:{api}/api", process) in {401, 403}
            assert await_answer(f"http://127.0.0.1:{gateway}/", process) == 404
            process.send_signal(signal.SIGINT)
            process.wait(END_TIMEOUT_S)
        finally:
            process.kill()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{gateway}/", timeout=10)


def test_a_shell_has_the_cluster(dagger: Dagger, gateway_class: str) -> None:
    command = dagger.command("call", "cluster", f"--gateway-class={gateway_class}", "terminal")
    with typed_into(command, ON_A_TERMINAL) as keyboard:
        keyboard.wait_for(r"root@\S+:/work# ", READY_TIMEOUT_S)
        keyboard.type("kubectl get --raw /readyz && echo seen-$((40+2)); exit")
        keyboard.wait_for("ok\\s*seen-42", END_TIMEOUT_S)
        keyboard.process.wait(END_TIMEOUT_S)
