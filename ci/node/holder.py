"""The holder: one process whose death ends the node.

`tini` runs as process 1 of its own pid, mount, network, UTS and IPC namespaces. Everything else of the node runs in
there, so killing the holder's process kills every program, unmounts every mount and removes every interface at once.
What the kernel does not remove by itself are the pods' cgroups and a few empty folders; `stop` does.

There is no route out of the network namespace: what runs inside reaches nothing but the node.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from ci.node import cgroups, mount_points
from servepath.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from ci.node.layout import Layout

NODE_ADDRESS = "10.77.0.1"
SERVICE_RANGE = "10.96.0.0/16"

# Process 2 is the one that waits for our word; from then on it holds the lock of mount_points.
_MOUNTS = """
until [ "$(cat /proc/2/comm)" = sleep ]; do sleep 0.01; done
mount -t tmpfs -o mode=755 servepath-run /run
mkdir -p /run/lock /run/netns /run/servepath
for name in kubelet cni pods containers; do mkdir -p "$RUN/private/$name"; done
mount --bind "$RUN/private/kubelet" /var/lib/kubelet
mount --bind "$RUN/private/cni" /var/lib/cni
mount --bind "$RUN/private/pods" /var/log/pods
mount --bind "$RUN/private/containers" /var/log/containers
"""

# kubelet insists on these values. It is shown files that hold them already, so the machine's own stay as they are.
SYSCTLS = """
show() {
  if [ -e "/proc/sys/$1" ]; then
    echo "$2" > "/run/servepath/${1##*/}"
    mount --bind "/run/servepath/${1##*/}" "/proc/sys/$1"
  fi
}
show vm/overcommit_memory 1
show vm/panic_on_oom 0
show kernel/panic 10
show kernel/panic_on_oops 1
show kernel/keys/root_maxkeys 1000000
show kernel/keys/root_maxbytes 25000000
"""

NETWORK = f"""
hostname "$NAME"
ip link set lo up
ip link add node0 type bridge
ip addr add {NODE_ADDRESS}/24 dev node0
ip link set node0 up
ip route add {SERVICE_RANGE} dev node0
echo 1 > /proc/sys/net/ipv4/ip_forward
"""


class _BusyError(ClusterError):
    """Another process starts or stops this node right now."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A running holder.

    Attributes:
        pid: process 1 of the node, by its number outside.
        started: its start time in clock ticks since boot, which tells it from a later process with the same number.
        boot: the kernel's boot id.
        cgroup: the cgroup of the node's pods.
    """

    pid: int
    started: int
    boot: str
    cgroup: str


async def start(layout: Layout) -> Holder:
    """End what an earlier run left, then start a holder and record it.

    The holder's process waits for a word from us until its record is on disk, and goes away if that never comes: there
    is no moment at which a kill leaves a holder that the next run would not find.

    Raises:
        ClusterError: another run is starting this node now, or the namespaces could not be made.
    """
    layout.state.mkdir(parents=True, exist_ok=True)
    with _lock(layout):
        await _end(layout)
        with mount_points.made():
            holder = await _spawn_recorded(layout)
            try:
                await _prepare(layout, holder)
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await _end(layout)
                raise
    return holder


async def stop(layout: Layout) -> bool:
    """End this node, whoever started it, and remove what it left; False if there was none."""
    if not layout.record.exists():
        return False
    with _lock(layout):
        return await _end(layout)


async def give_up(layout: Layout, holder: Holder) -> None:
    """End this holder and remove what it left, unless another run has replaced it by its own or does so right now."""
    with suppress(_BusyError), _lock(layout):
        if _read_record(layout) == holder:
            await _end(layout)


def current(layout: Layout) -> Holder | None:
    """The holder that runs now, None if there is none."""
    holder = _read_record(layout)
    return holder if holder and _is_alive(holder) else None


@asynccontextmanager
async def held(layout: Layout) -> AsyncIterator[Holder]:
    """A holder for the length of the block, whatever ends it."""
    holder = await start(layout)
    try:
        yield holder
    finally:
        with anyio.CancelScope(shield=True):
            await give_up(layout, holder)


def enter(holder: Holder, command: Sequence[str]) -> list[str]:
    """The command line that runs `command` inside the holder, in the current directory."""
    namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid")
    # nsenter starts in the root of the new mount namespace: go back to where the caller is.
    change_folder = ("sh", "-c", 'cd "$0" && exec "$@"', str(Path.cwd()))
    return ["nsenter", f"--target={holder.pid}", *namespaces, "--", *change_folder, *command]


def is_inside() -> bool:
    """Whether this process runs in a holder."""
    return Path("/run/servepath").is_dir() and Path("/proc/1/comm").read_text().strip() == "tini"


async def _spawn_recorded(layout: Layout) -> Holder:
    read_end, write_end = os.pipe()
    try:
        holder = await _spawn(layout, read_end)
        _write_record(layout, holder)
        os.write(write_end, b"go\n")
    finally:
        os.close(write_end)
    return holder


async def _spawn(layout: Layout, read_end: int) -> Holder:
    layout.logs.mkdir(parents=True, exist_ok=True)
    wait_for_word = f"{mount_points.HOLD_LOCK} && read -r go && exec sleep infinity"
    command = ["unshare", "--net", "--pid", "--mount", "--uts", "--ipc", "--mount-proc", "--fork", "--kill-child"]
    with (layout.logs / "holder.log").open("wb") as log:
        unshare = subprocess.Popen(  # noqa: ASYNC220 - returns at once, and outlives the event loop
            [*command, "tini", "-g", "--", "sh", "-c", wait_for_word],
            stdin=read_end,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    os.close(read_end)
    with anyio.move_on_after(10):
        while unshare.poll() is None:
            pid = _child(unshare.pid)
            started = pid and _start_time(pid)
            if pid and started and _command_name(pid) == "tini":
                unshare.returncode = 0  # it is the holder's from now on, not ours to wait for
                return Holder(pid, started, _boot_id(), layout.cgroup)
            await anyio.sleep(0.01)  # the kernel announces an exec to nobody
    raise ClusterError(
        f"the node's namespaces could not be made: {(layout.logs / 'holder.log').read_text().strip()}",
        where="unshare",
        expected="root, and a kernel that allows new namespaces",
    )


async def _prepare(layout: Layout, holder: Holder) -> None:
    layout.run.mkdir(parents=True)
    environment = {**os.environ, "RUN": str(layout.run), "NAME": f"servepath-{layout.name}"}
    script = enter(holder, ["sh", "-ec", _MOUNTS + SYSCTLS + NETWORK])
    done = await anyio.run_process(script, env=environment, check=False, stderr=subprocess.STDOUT)
    if done.returncode:
        raise ClusterError(
            f"preparing the node's mounts and network failed: {done.stdout.decode(errors='replace').strip()}",
            where=f"holder {holder.pid}",
            next_command="python -m ci.node down",
        )
    cgroups.create(holder.cgroup)


async def _end(layout: Layout) -> bool:
    holder = _read_record(layout)
    if holder is None:
        return False
    await _kill(holder)
    await cgroups.remove(holder.cgroup)
    mount_points.remove()
    await anyio.run_process(["rm", "-rf", "--one-file-system", str(layout.run)])
    layout.record.unlink()
    return True


async def _kill(holder: Holder) -> None:
    try:
        handle = os.pidfd_open(holder.pid)
    except ProcessLookupError:
        return
    try:
        if _is_alive(holder):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            await anyio.wait_readable(handle)  # readable once it and every process in its namespace are gone
    finally:
        os.close(handle)


@contextmanager
def _lock(layout: Layout) -> Iterator[None]:
    with (layout.state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _BusyError(
                "another process starts or stops this node right now",
                where=str(layout.state),
                next_command="wait for it, or set SERVEPATH_NODE to another name",
            ) from None
        yield


def _write_record(layout: Layout, holder: Holder) -> None:
    new = layout.record.with_suffix(".new")
    new.write_text(json.dumps(asdict(holder)))
    new.replace(layout.record)


def _read_record(layout: Layout) -> Holder | None:
    try:
        fields = json.loads(layout.record.read_text())
    except FileNotFoundError:
        return None
    return Holder(**fields)


def _is_alive(holder: Holder) -> bool:
    return holder.boot == _boot_id() and _start_time(holder.pid) == holder.started


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on: a command's name may hold spaces, so cut after it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _start_time(pid: int) -> int | None:
    try:
        fields = _stat(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _command_name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _child(parent: int) -> int | None:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if int(_stat(int(entry.name))[1]) == parent:
                    return int(entry.name)
            except (FileNotFoundError, ProcessLookupError):
                continue
    return None
