"""Debian packages that the node's programs come from."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from servepath.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Package by package, a file that proves it is there, however it was installed.
NEEDED = {
    "binutils": "/usr/bin/nm",
    "busybox-static": "/bin/busybox",
    "conntrack": "/usr/sbin/conntrack",
    "containerd": "/usr/bin/containerd",
    "containernetworking-plugins": "/usr/lib/cni/ptp",
    "docker-registry": "/usr/bin/docker-registry",
    "etcd-server": "/usr/bin/etcd",
    "gcc": "/usr/bin/gcc",
    "iproute2": "/usr/sbin/ip",
    "iptables": "/usr/sbin/iptables",
    "libc6-dev": "/usr/include/stdio.h",
    "mmdebstrap": "/usr/bin/mmdebstrap",
    "runc": "/usr/sbin/runc",
    "tini": "/usr/bin/tini-static",
    "util-linux": "/usr/bin/unshare",
}

_POLICY = Path("/usr/sbin/policy-rc.d")
_DENY_START = "#!/bin/sh\n# servepath installs packages: their services are not to be started\nexit 101\n"


def missing(needed: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The packages that are not there, sorted; of the node's own packages if no others are named."""
    proofs = NEEDED if needed is None else needed
    return tuple(sorted(name for name, path in proofs.items() if not Path(path).exists()))


async def install(needed: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Install the packages that are missing, start none of their services, and return their names.

    Args:
        needed: package by package, a file that proves it is there; the node's own packages by default.

    Raises:
        ClusterError: this is not a Debian, or apt failed.
    """
    proofs = NEEDED if needed is None else needed
    names = missing(proofs)
    if not names:
        return ()
    by_hand = f"apt-get install --no-install-recommends {' '.join(names)}"
    if shutil.which("apt-get") is None:
        raise ClusterError(
            f"programs are missing: {', '.join(proofs[name] for name in names)}",
            where="this machine, which has no apt-get",
            next_command=f"install what Debian calls {' '.join(names)}",
        )
    with _services_stay_off():
        await _apt(["update"], by_hand)
        await _apt(["install", "--yes", "--no-install-recommends", *names], by_hand)
    return names


async def _apt(arguments: list[str], by_hand: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "--quiet", "-o", "DPkg::Lock::Timeout=120", *arguments]
    done = await anyio.run_process(command, env=environment, check=False, stderr=subprocess.STDOUT)
    if done.returncode:
        last_lines = "\n".join(done.stdout.decode(errors="replace").splitlines()[-10:])
        raise ClusterError(f"apt-get {arguments[0]} failed:\n{last_lines}", where="apt", next_command=by_hand)


@contextmanager
def _services_stay_off() -> Iterator[None]:
    """Debian starts a service when its package is installed, unless this file says no."""
    if _POLICY.exists() and _POLICY.read_text() != _DENY_START:
        yield  # the machine has a policy of its own
        return
    _POLICY.write_text(_DENY_START)
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()
