"""GuideLLM in an environment of its own: installed once, run without a network, its JSON read.

GuideLLM 0.8.1 as seen: https://github.com/vllm-project/guidellm.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from ci.node.engine import cuda_stubs
from ci.node.engine.commands import run
from servepath.errors import CheckFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = "0.8.1"
HERE = Path(__file__).resolve().parent
SYSTEM_LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")


@dataclass(frozen=True, slots=True)
class Shape:
    """A closed loop: so many users, each with one request in flight.

    Attributes:
        users: requests in flight.
        requests: requests in all.
        prompt_tokens: length of each prompt.
        output_tokens: length of each answer.
    """

    users: int
    requests: int
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class GuidellmRequest:
    """One successful request as GuideLLM reports it.

    Attributes:
        prompt: the user's message.
        ttft_s: `time_to_first_token_ms`.
        itl_s: `inter_token_latency_ms`: one mean per request.
        e2e_s: `request_latency`.
        output_tokens: by the server's usage.
        chunk_count: `token_iterations`.
    """

    prompt: str
    ttft_s: float
    itl_s: float
    e2e_s: float
    output_tokens: int
    chunk_count: int


@dataclass(frozen=True, slots=True)
class GuidellmResult:
    """One benchmark of GuideLLM.

    Attributes:
        requests: the successful ones.
        failed_count: the others.
        requests_per_s: `requests_per_second`, mean.
        output_tokens_per_s: `output_tokens_per_second`, mean.
    """

    requests: tuple[GuidellmRequest, ...]
    failed_count: int
    requests_per_s: float
    output_tokens_per_s: float


def environment_of(cache: Path) -> Path:
    """Where the environment lies once it is installed, by what it is made of."""
    digest = sha256(f"{sys.version_info[:2]}".encode())
    for source in (HERE / "requirements.txt", Path(cuda_stubs.__file__)):
        digest.update(source.read_bytes())
    return cache / "guidellm" / digest.hexdigest()


async def install(cache: Path) -> Path:
    """Install GuideLLM, 1.1 GB, unless it is there; its Python is returned.

    Raises:
        ClusterError: uv, gcc or nm is missing, or a download failed.
    """
    environment = environment_of(cache)
    if not environment.is_dir():
        environment.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=environment.parent, prefix=".build-"))
        try:
            await _build(scratch / "environment", scratch)
            (scratch / "environment").rename(environment)
        finally:
            await to_thread.run_sync(lambda: shutil.rmtree(scratch, ignore_errors=True))
    return environment / "bin" / "python"


def command(python: Path, base_url: str, shape: Shape, tokenizer: Path, result: Path) -> list[str]:
    """The command line of one benchmark; it runs in the environment `variables()`."""
    prompts = f"prompt_tokens={shape.prompt_tokens},output_tokens={shape.output_tokens}"
    return [
        str(python),
        "-m",
        "guidellm",
        "run",
        f"--backend=kind=openai_http,target={base_url}",
        f"--profile=kind=concurrent,streams={shape.users}",
        f"--constraint=kind=max_requests,count={shape.requests}",
        f"--tokenizer=kind=huggingface_auto,model={tokenizer}",
        f"--data=kind=synthetic_text,{prompts}",
        f"--output=kind=json,path={result}",
        "--disable-console",
    ]


def variables() -> dict[str, str]:
    """The process's own environment, nothing fetched from a model hub, and a worker per CPU (ten are its default)."""
    return {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "PYTHONPATH": "",
        "GUIDELLM__MAX_WORKER_PROCESSES": str(os.cpu_count() or 1),
    }


async def measure(python: Path, base_url: str, shape: Shape, tokenizer: Path) -> GuidellmResult:
    """Run one benchmark to its end.

    Raises:
        ClusterError: GuideLLM failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        await run(
            command(python, base_url, shape, tokenizer, result),
            what="benchmarking with GuideLLM",
            environment=variables(),
        )
        return read_result(json.loads(await anyio.Path(result).read_text()))


def read_result(document: Mapping[str, Any]) -> GuidellmResult:
    """What GuideLLM wrote.

    Raises:
        CheckFailedError: it has another form than that of this version.
    """
    try:
        benchmark = document["benchmarks"][0]
        totals, metrics = benchmark["metrics"]["request_totals"], benchmark["metrics"]
        return GuidellmResult(
            requests=tuple(_request(one) for one in benchmark["requests"]["successful"]),
            failed_count=totals["total"] - totals["successful"],
            requests_per_s=metrics["requests_per_second"]["successful"]["mean"],
            output_tokens_per_s=metrics["output_tokens_per_second"]["successful"]["mean"],
        )
    except (KeyError, IndexError, TypeError) as error:
        raise CheckFailedError(
            f"its result has no {error}", where="GuideLLM", expected=f"the JSON of version {VERSION}"
        ) from error


def _request(one: Mapping[str, Any]) -> GuidellmRequest:
    content = json.loads(one["request_args"])["body"]["messages"][-1]["content"]
    return GuidellmRequest(
        prompt="".join(part["text"] for part in content),
        ttft_s=one["time_to_first_token_ms"] / 1000,
        itl_s=one["inter_token_latency_ms"] / 1000,
        e2e_s=one["request_latency"],
        output_tokens=one["output_tokens"],
        chunk_count=one["info"]["timings"]["token_iterations"],
    )


async def _build(environment: Path, scratch: Path) -> None:
    python = environment / "bin" / "python"
    await run(["uv", "venv", "--quiet", f"--python={sys.executable}", str(environment)], what="making an environment")
    installing = ["uv", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    await run(
        [*installing, f"--python={python}", f"--requirements={HERE / 'requirements.txt'}"], what="installing GuideLLM"
    )
    packages = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    await cuda_stubs.write_stubs(environment / packages / "torch" / "lib", SYSTEM_LIBRARIES, scratch)
