"""Stand-ins for the CUDA libraries that torch's wheel is linked against, on a machine that has no CUDA.

The registry's torch for x86_64 Linux is built for CUDA: its Python half (`libtorch_python.so`) is linked against its
CUDA half (`libtorch_cuda.so`) and NVIDIA's libraries. The loader wants each of them, with every symbol, before
`import torch` returns, though a CPU engine calls almost none. Taking CUDA out saves over 3 GB of image and seconds of
each start. What stands in says what it is:

- NVIDIA's C functions return 100 (`cudaErrorNoDevice`): what the real ones answer on a machine without a device, so
  that `torch.cuda.is_available()` is False.
- C++ functions of torch's CUDA half name themselves on stderr and abort. Nothing computes a made-up result.
- Type descriptions are real (`__class_type_info`), because pybind11 registers classes by them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ci.node.engine.commands import run

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

REMOVED = ("libtorch_cuda.so", "libtorch_cuda_linalg.so", "libtorch_nvshmem.so", "libcaffe2_nvrtc.so")
"""Torch's CUDA half: left out of the image."""

_NEEDING = ("libtorch_python.so", "libtorch_cpu.so", "libc10_cuda.so")
_SYSTEM = ("libc.so.6", "libgcc_s.so.1", "libm.so.6", "libstdc++.so.6")
_NO_DEVICE = 100
_CUDA_HALF = "libtorch_cuda.so"


@dataclass(frozen=True, slots=True)
class StubLibrary:
    """One library that stands in for a CUDA library.

    Attributes:
        name: its file name and SONAME.
        prefix: the beginning of the C symbols that belong to it; empty for torch's own CUDA half.
        versioned: whether the loader asks for its symbols under a version of the library's own name.
    """

    name: str
    prefix: str
    versioned: bool


LIBRARIES = (
    StubLibrary("libcudart.so.13", "cuda", versioned=True),
    StubLibrary("libcudnn.so.9", "cudnn", versioned=True),
    StubLibrary("libcupti.so.13", "cupti", versioned=True),
    StubLibrary("libcufile.so.0", "cuFile", versioned=False),
    StubLibrary(_CUDA_HALF, "", versioned=False),
)


async def write_stubs(libraries: Path, system: Path, scratch: Path) -> None:
    """Replace torch's CUDA half, and add what is missing of NVIDIA's libraries.

    Args:
        libraries: the folder `torch/lib` of an installed torch.
        system: the folder of the C and C++ libraries that torch will be loaded with.
        scratch: a folder for the generated C sources.

    Raises:
        ClusterError: gcc or nm is missing or failed.
    """
    cuda_half = await _defined(libraries / _CUDA_HALF)
    missing: set[str] = set()
    for name in _NEEDING:
        missing |= await _undefined(libraries / name)
    for path in _others(libraries, system):
        missing -= await _defined(path)
    for name in REMOVED:
        (libraries / name).unlink(missing_ok=True)
    for library in LIBRARIES:
        await _compile(library, symbols_of(library, missing, cuda_half), libraries, scratch)


def symbols_of(library: StubLibrary, missing: Iterable[str], cuda_half: set[str]) -> list[str]:
    """The symbols that a library has to define, sorted.

    Args:
        library: the library.
        missing: every symbol that nothing else defines.
        cuda_half: what torch's CUDA half defines, and no other library is asked for.
    """
    if library.prefix:
        return sorted(s for s in missing if s.startswith(library.prefix))
    # The two functions of torch's NVSHMEM library are asked of the CUDA half, which is linked against it.
    return sorted(s for s in missing if s in cuda_half or s.startswith("_ZN4c10d17nvshmem_extension"))


def c_source(library: StubLibrary, symbols: Iterable[str]) -> str:
    """The C source of a stand-in."""
    return "\n".join(["#include <stdio.h>", "#include <stdlib.h>", *(_define(library, s) for s in symbols), ""])


def _define(library: StubLibrary, symbol: str) -> str:
    if library.prefix:
        return _define_nvidia(symbol)
    if symbol.startswith("_ZTI"):
        table = "_ZTVN10__cxxabiv117__class_type_infoE"
        return f'extern void *{table}[]; void *{symbol}[2] = {{ &{table}[2], "{symbol[4:]}" }};'
    if symbol.startswith("_ZT"):
        return f"void *{symbol}[32];"
    if symbol == "_ZN4c10d15get_gil_checkerEv":
        # Returns a reference that torch fills in when it is loaded; only torch's CUDA half reads it.
        return f"static void *gil_checker; void *{symbol}(void) {{ return &gil_checker; }}"
    message = f"servepath: {symbol} was called, but this engine image has no CUDA\\n"
    return f'void {symbol}(void) {{ fputs("{message}", stderr); abort(); }}'


def _define_nvidia(symbol: str) -> str:
    if symbol == "cudaGetDeviceCount":
        return f"int {symbol}(int *count) {{ *count = 0; return {_NO_DEVICE}; }}"
    if symbol in {"cudaGetErrorString", "cudaGetErrorName"}:
        return f'const char *{symbol}(int error) {{ return "no CUDA in this engine image (servepath)"; }}'
    return f"int {symbol}(void) {{ return {_NO_DEVICE}; }}"


async def _compile(library: StubLibrary, symbols: Iterable[str], folder: Path, scratch: Path) -> None:
    source, version = scratch / f"{library.name}.c", scratch / f"{library.name}.map"
    source.write_text(c_source(library, symbols))
    version.write_text(f"{library.name} {{ global: *; }};\n")
    script = [f"-Wl,--version-script={version}"] if library.versioned else []
    command = ["gcc", "-shared", "-fPIC", "-O1", "-s", f"-Wl,-soname,{library.name}", *script]
    output = str(folder / library.name)
    await run([*command, "-o", output, str(source)], what=f"compiling the stand-in for {library.name}")


def _others(libraries: Path, system: Path) -> list[Path]:
    """Every library that torch loads besides its CUDA half and NVIDIA's."""
    ours = {*REMOVED, *(library.name for library in LIBRARIES)}
    of_system = [path for name in _SYSTEM for path in system.glob(name)]
    return [path for path in libraries.glob("*.so*") if path.name not in ours] + of_system


async def _defined(library: Path) -> set[str]:
    return _names(await run(["nm", "-D", "--defined-only", str(library)], what=f"reading {library.name}"))


async def _undefined(library: Path) -> set[str]:
    # Weak symbols (v, w) may stay undefined.
    lines = (await run(["nm", "-D", "--undefined-only", str(library)], what=f"reading {library.name}")).splitlines()
    return _names("\n".join(line for line in lines if " U " in line))


def _names(listing: str) -> set[str]:
    return {line.split()[-1].partition("@")[0] for line in listing.splitlines() if line.strip()}
