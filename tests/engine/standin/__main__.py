"""Make every stand-in, push them to a registry, and write a lock that names them by their digests.

    python -m tests.engine.standin 192.0.2.1:5000 build/standin build/lock.yaml

The registry is then `--registry-mirror`, and the lock is `SERVEPATH_ENGINE_LOCK`. With `--engine standin` an engine
that starts at once is in vLLM's place, which is what the tests of `tests/engine` are measured with.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import anyio

from ci.node import images
from ci.node.layout import from_environment
from servepath.modelcar.copy import push_layout
from servepath.modelcar.registry.client import RegistryOptions
from servepath.modelcar.registry.reference import parse_reference
from servepath.platform import lock as locks
from tests.engine.standin import recipe
from tests.standin_engine.image import build_standin_engine

LOCK = recipe.ROOT / "manifests/lock.yaml"


async def main(registry: str, work: Path, target: Path, engine: str) -> None:
    """Make, push, and write the lock."""
    await anyio.Path(work).mkdir(parents=True, exist_ok=True)
    cache = from_environment().cache
    options = RegistryOptions(plain_http=frozenset({registry}))
    lock = locks.read(LOCK)
    text = LOCK.read_text()

    def named(name: str, digest: str) -> str:
        reference = lock.image(name).reference
        return text.replace(reference, f"{reference.partition('@')[0]}@{digest}")

    for name, standin in (await recipe.make(work, cache)).items():
        layout = work / f"{name}.layout"
        shutil.rmtree(layout, ignore_errors=True)
        await standin.write(layout)
        text = named(name, await _push(layout, registry, lock.image(name).reference, options))
        shutil.rmtree(layout)
    vllm = lock.image("vllm-cpu").reference
    if engine == "vllm":
        pushed = await _push((await recipe.engine(cache)).layout, registry, vllm, options)
    else:
        pushed = (await images.push(await build_standin_engine(cache), registry, _repository(vllm))).rpartition("@")[2]
    text = named("vllm-cpu", pushed)
    base = await images.push(images.busybox(), registry, _repository(lock.image("modelcar-base").reference))
    text = named("modelcar-base", base.rpartition("@")[2])
    await anyio.Path(target).write_text(text)


async def _push(layout: Path, registry: str, reference: str, options: RegistryOptions) -> str:
    pushed = await push_layout(layout, registry, _repository(reference), options=options)
    sys.stdout.write(f"{pushed}\n")
    return pushed.rpartition("@")[2]


def _repository(reference: str) -> str:
    return parse_reference(reference).repository


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.engine.standin")
    parser.add_argument("registry", help="where the images go, HOST:PORT, plain HTTP")
    parser.add_argument("work", type=Path, help="where Debian's files are kept between runs")
    parser.add_argument("lock", type=Path, help="the lock to write")
    parser.add_argument("--engine", choices=["vllm", "standin"], default="vllm", help="what vLLM's image is made of")
    options = parser.parse_args()
    anyio.run(main, options.registry, options.work, options.lock, options.engine)


if __name__ == "__main__":
    _main()
