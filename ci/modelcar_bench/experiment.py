"""The experiment: rounds in which every tool pushes the same model to the same kind of registry, in a drawn order."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ci.modelcar_bench import measured, synthetic
from ci.modelcar_bench.peers import Push
from ci.node import process
from ci.node import registry as docker_registry
from servepath.cluster.facts import cpu_model

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

    from ci.modelcar_bench.measured import Cost
    from ci.modelcar_bench.peers import Tool

T = TypeVar("T")
_SYNCED = ("sh", "-euc", '"$@"; sync --file-system .', "sh")
"""Runs a command, and waits until the disk has what it wrote."""


class Registry(StrEnum):
    """What is pushed to."""

    DISCARD = "discarding sink"
    VERIFY = "verifying sink"
    DEBIAN = "docker-registry"


class Step(StrEnum):
    """What is done; the three pushes follow each other, to one repository."""

    FIRST = "first push"
    AGAIN = "nothing changed"
    CHANGED = "generation_config.json changed"
    SHARDS = "first push in shards"
    LAYOUT = "to a directory, in memory"
    WRITTEN = "to a directory, on the disk"
    SHARDS_WRITTEN = "to a directory in shards, on the disk"


@dataclass(frozen=True, slots=True)
class Run:
    """One measured command.

    Attributes:
        tool: its name.
        registry: what it pushed to; empty for a directory.
        step: what it did.
        number: number of the round, from 0.
        cost: what it cost.
    """

    tool: str
    registry: str
    step: Step
    number: int
    cost: Cost


@dataclass(frozen=True, slots=True)
class Bench:
    """What all runs share.

    Attributes:
        model: the model's directory; its `generation_config.json` is changed.
        shards: the directory of the same model, its weights in several files.
        base: OCI layout of the base image.
        work: a folder for scratch files, on the model's disk.
        rounds: how often each tool is run.
        seed: of the order within each round.
    """

    model: Path
    shards: Path
    base: Path
    work: Path
    rounds: int
    seed: int


async def measure_pushes(bench: Bench, tools: Sequence[Tool], registry: Registry, said: Callable[[Run], None]) -> None:
    """Push with every tool in every round; each has a new registry and a home of its own, so that nothing is known.

    Raises:
        CheckFailedError: a tool failed.
        ClusterError: the registry did not start.
    """
    for number, tool in _order(bench, tools):
        synthetic.set_temperature(bench.model, 0.7)
        for model, steps in ((bench.model, (Step.FIRST, Step.AGAIN, Step.CHANGED)), (bench.shards, (Step.SHARDS,))):
            async with _new_user(bench, registry) as (home, address):
                for step in steps:
                    if step is Step.CHANGED:
                        synthetic.set_temperature(model, 0.8)
                    with _scratch(home) as scratch:
                        push = Push(model, address, "bench/model", bench.base, scratch)
                        said(Run(tool.name, registry, step, number, _measure(tool.command(push), home)))


def measure_directories(bench: Bench, said: Callable[[Run], None]) -> None:
    """Write an OCI layout in every round, and a plain copy beside it: as the commands end, and until the disk has it.

    Raises:
        CheckFailedError: a command failed.
    """
    program = str(Path(sys.executable).with_name("servepath"))

    def servepath(model: Path, target: Path) -> list[str]:
        base = f"--base-image=oci:{bench.base}"
        return [program, "modelcar", f"--source={model}", f"--layout={target}", base]

    def copy(model: Path, target: Path) -> list[str]:
        return ["cp", "-r", str(model), str(target)]

    for step in (Step.LAYOUT, Step.WRITTEN, Step.SHARDS_WRITTEN):
        model = bench.shards if step is Step.SHARDS_WRITTEN else bench.model
        for number, (name, command) in _order(bench, (("servepath", servepath), ("cp -r", copy))):
            with tempfile.TemporaryDirectory(dir=bench.work) as home, _scratch(Path(home)) as scratch:
                whole = [*(() if step is Step.LAYOUT else _SYNCED), *command(model, scratch / "to")]
                said(Run(name, "", step, number, _measure(whole, Path(home))))


@asynccontextmanager
async def _new_user(bench: Bench, registry: Registry) -> AsyncGenerator[tuple[Path, str]]:
    """Give an empty home and the address of an empty registry."""
    with tempfile.TemporaryDirectory(dir=bench.work) as home:
        async with running(registry, Path(home)) as address:
            yield Path(home), address


@asynccontextmanager
async def running(registry: Registry, folder: Path) -> AsyncGenerator[str]:
    """Run an empty registry and give its address.

    Raises:
        ClusterError: it did not start.
    """
    port = _free_port()
    address = f"127.0.0.1:{port}"
    if registry is Registry.DEBIAN:
        server = (await docker_registry.start(folder / "registry", folder, folder, address)).running
    else:
        kind = "verify" if registry is Registry.VERIFY else "discard"
        command = [sys.executable, "-m", "ci.modelcar_bench.sink", kind, str(port)]
        server = await process.start("registry", command, logs=folder, ready=process.answers(f"http://{address}/v2/"))
    try:
        yield address
    finally:
        await server.stop()


def _order(bench: Bench, tools: Sequence[T]) -> Iterator[tuple[int, T]]:
    """Each round's number with each tool, in an order drawn anew for each round."""
    source = random.Random(bench.seed)  # noqa: S311 - an order, not a secret
    for number in range(bench.rounds):
        yield from ((number, tool) for tool in source.sample(tools, len(tools)))


def _measure(command: Sequence[str], home: Path) -> Cost:
    """Run a command as a user whose home is `home`, once the disk is quiet."""
    os.sync()
    environment = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "PATH": os.environ["PATH"]}
    return measured.run(command, directory=home, environment=environment, log=home / "said.log")


@contextmanager
def _scratch(home: Path) -> Iterator[Path]:
    """An empty folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(dir=home) as folder:
        yield Path(folder)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_name() -> str:
    """Name the machine's processor and say how many there are."""
    return f"{os.cpu_count()} x {cpu_model(Path('/proc/cpuinfo').read_text()) or 'unknown processor'}"


def file_system(path: Path) -> str:
    """Name the type of the file system that holds `path`."""
    done = subprocess.run(["stat", "-f", "-c", "%T", str(path)], check=True, capture_output=True, text=True)
    return done.stdout.strip()
