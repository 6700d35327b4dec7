"""Make every stand-in, push them to a registry, and write a lock that names them by their digests.

    python -m tests.engine.standin 192.0.2.1:5000 build/standin build/lock.yaml

The registry is then `--registry-mirror`, and the lock is `SERVEPATH_ENGINE_LOCK`.
"""

from __future__ import annotations

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

LOCK = recipe.ROOT / "manifests/lock.yaml"


async def main(registry: str, work: Path, target: Path) -> None:
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
    engine = await recipe.engine(cache)
    text = named("vllm-cpu", await _push(engine.layout, registry, lock.image("vllm-cpu").reference, options))
    base = await images.push(images.busybox(), registry, _repository(lock.image("modelcar-base").reference))
    text = named("modelcar-base", base.rpartition("@")[2])
    await anyio.Path(target).write_text(text)


async def _push(layout: Path, registry: str, reference: str, options: RegistryOptions) -> str:
    pushed = await push_layout(layout, registry, _repository(reference), options=options)
    sys.stdout.write(f"{pushed}\n")
    return pushed.rpartition("@")[2]


def _repository(reference: str) -> str:
    return parse_reference(reference).repository


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
