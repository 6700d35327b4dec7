"""The engine image: vLLM 0.23.0 on a CPU, built without a container engine and without a container registry.

It stands in for `vllm/vllm-openai-cpu` where no image registry is reached: the same entry point (`vllm serve`), the
same arguments, the same vLLM, from package registries. It has no compiler, so torch compiles nothing in it.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import anyio
from anyio import to_thread

from ci.node.engine import rootfs, tree
from servepath.modelcar.image.oci import BaseImage, ImageMetadata
from servepath.modelcar.layout import Layout
from servepath.modelcar.push.write import write_image

VERSION = "0.23.0"
RECIPE = Path(__file__).resolve().parent / "engine"

ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    # No compiler is in the image, and compiling would take longer than anything that the e2e generates.
    "TORCH_COMPILE_DISABLE": "1",
    # Descriptions of the model classes, which vLLM else makes by importing itself in one more process: 12 CPU seconds.
    "VLLM_CACHE_ROOT": rootfs.VLLM_CACHE,
    # The worker runs inside the engine's process: one process and 450 MB less, and again 10 CPU seconds.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # `auto` binds the workers of all pods of a node to the same core.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
ENTRYPOINT = ("vllm", "serve")


@dataclass(frozen=True, slots=True)
class EngineImage:
    """A built engine image.

    Attributes:
        layout: the OCI layout that holds it alone.
        digest: `sha256:…` of its manifest.
        rootfs: the root file system that it was made of; models are converted in it.
    """

    layout: Path
    digest: str
    rootfs: Path


def key() -> str:
    """The sha256, in hex, of everything that the image is built from but Debian's packages of the day."""
    digest = sha256()
    sources = [Path(__file__).resolve(), *sorted(path for path in RECIPE.iterdir() if path.is_file())]
    for path in sources:
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


async def build_engine_image(cache: Path) -> EngineImage:
    """Return the image in `<cache>/engine-image/<key>`, building it first if it is missing.

    Args:
        cache: the node's cache. The image takes 4 GB in it.

    Raises:
        ClusterError: not root, not a Debian, or a download or a program failed.
    """
    folder = cache / "engine-image" / key()
    if not await anyio.Path(folder).is_dir():
        await _build(folder)
    return EngineImage(folder / "layout", Layout(folder / "layout").only_digest(), folder / "rootfs")


async def write_engine_layout(root: Path, layout: Path) -> str:
    """Write a root file system as the engine image into an OCI layout, and return the manifest's digest."""
    plans = await to_thread.run_sync(tree.plan_image, root)
    written = await write_image(Layout(layout), BaseImage(), plans, metadata(), tag=VERSION)
    return written.document.digest


def metadata() -> ImageMetadata:
    """What the image says of itself, and how it starts."""
    return ImageMetadata(
        annotations={
            "org.opencontainers.image.title": "vllm-cpu",
            "org.opencontainers.image.version": VERSION,
            "org.opencontainers.image.description": "vLLM on a CPU from package registries, without CUDA and compilers",
            "org.opencontainers.image.licenses": "Apache-2.0",
        },
        config={
            "Entrypoint": list(ENTRYPOINT),
            "Env": [f"{name}={value}" for name, value in ENVIRONMENT.items()],
            "WorkingDir": "/",
        },
    )


async def _build(folder: Path) -> None:
    scratch = _make_scratch(folder.parent)
    built = scratch / "image"
    try:
        await rootfs.build_rootfs(built / "rootfs", scratch)
        await write_engine_layout(built / "rootfs", built / "layout")
        await anyio.Path(built).rename(folder)
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(lambda: shutil.rmtree(scratch, ignore_errors=True))


def _make_scratch(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".build-", dir=parent))
    (scratch / "image").mkdir()
    return scratch
