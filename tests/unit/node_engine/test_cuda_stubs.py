import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from ci.node.engine.commands import run
from ci.node.engine.cuda_stubs import LIBRARIES, StubLibrary, c_source, symbols_of, write_stubs
from servepath.errors import ClusterError

pytestmark = pytest.mark.anyio

needs_gcc = pytest.mark.skipif(
    shutil.which("gcc") is None or shutil.which("nm") is None, reason="needs gcc and binutils"
)
CUDA_HALF = StubLibrary("libtorch_cuda.so", "", versioned=False)
CUDA_FUNCTION = "_ZN2at4cuda5sleepEl"
CPU_FUNCTION = "_ZNSt6thread4joinEv"
TORCH_PYTHON = f"""
void {CUDA_FUNCTION}(long); void {CPU_FUNCTION}(void); int cudaGetDeviceCount(int *); int cudnnGetProperty(int, int *);
int devices(void) {{ int count = 7; return cudaGetDeviceCount(&count) == 100 ? count : -1; }}
void gpu_sleep(void) {{ {CUDA_FUNCTION}(1); }}
void join(void) {{ {CPU_FUNCTION}(); }}
int cudnn(void) {{ return cudnnGetProperty(0, 0); }}
"""
TORCH_CUDA = f"void {CUDA_FUNCTION}(long n) {{}} __attribute__((weak)) void {CPU_FUNCTION}(void) {{}}"


def _library(path: Path, source: str) -> None:
    code = path.with_suffix(".c")
    code.write_text(source)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", path, code], check=True)
    code.unlink()


def _torch(folder: Path) -> Path:
    folder.mkdir()
    _library(folder / "libtorch_python.so", TORCH_PYTHON)
    _library(folder / "libtorch_cuda.so", TORCH_CUDA)
    for name in ("libtorch_cpu.so", "libc10_cuda.so"):
        _library(folder / name, "")
    return folder


def _system(folder: Path) -> Path:
    folder.mkdir()
    _library(folder / "libstdc++.so.6", f"void {CPU_FUNCTION}(void) {{}}")
    return folder


@needs_gcc
async def test_torch_loads_and_finds_no_device(tmp_path: Path) -> None:
    libraries = _torch(tmp_path / "lib")
    await write_stubs(libraries, _system(tmp_path / "system"), tmp_path)
    for library in LIBRARIES:
        ctypes.CDLL(str(libraries / library.name), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(tmp_path / "system" / "libstdc++.so.6"), mode=ctypes.RTLD_GLOBAL)
    torch = ctypes.CDLL(str(libraries / "libtorch_python.so"))
    assert torch.devices() == 0
    assert torch.cudnn() == 100


@needs_gcc
async def test_what_a_library_that_stays_defines_is_not_stubbed(tmp_path: Path) -> None:
    libraries = _torch(tmp_path / "lib")
    await write_stubs(libraries, _system(tmp_path / "system"), tmp_path)
    defined = await run(["nm", "-D", "--defined-only", str(libraries / "libtorch_cuda.so")], what="reading the stub")
    assert CUDA_FUNCTION in defined
    assert CPU_FUNCTION not in defined


@needs_gcc
def test_a_function_of_the_cuda_half_names_itself_and_aborts(tmp_path: Path) -> None:
    source = tmp_path / "main.c"
    source.write_text(c_source(CUDA_HALF, [CUDA_FUNCTION]) + f"int main(void) {{ {CUDA_FUNCTION}(); return 0; }}")
    subprocess.run(["gcc", "-o", tmp_path / "main", source], check=True)
    done = subprocess.run([tmp_path / "main"], check=False, capture_output=True, text=True)
    assert done.returncode < 0
    assert f"{CUDA_FUNCTION} was called, but this engine image has no CUDA" in done.stderr


def test_every_symbol_goes_to_the_library_that_it_is_asked_of() -> None:
    missing = ["cudaMalloc", "cudnnGetProperty", "cuptiSubscribe", "cuFileRead", CUDA_FUNCTION, "PyList_New"]
    found = {library.name: symbols_of(library, missing, {CUDA_FUNCTION, "unused"}) for library in LIBRARIES}
    assert found == {
        "libcudart.so.13": ["cudaMalloc"],
        "libcudnn.so.9": ["cudnnGetProperty"],
        "libcupti.so.13": ["cuptiSubscribe"],
        "libcufile.so.0": ["cuFileRead"],
        "libtorch_cuda.so": [CUDA_FUNCTION],
    }


async def test_a_torch_without_its_libraries_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="libtorch_cuda"):
        await write_stubs(tmp_path, tmp_path, tmp_path)
