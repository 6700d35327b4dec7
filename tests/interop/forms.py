"""The forms in which servepath writes a modelcar, and what must arrive whatever the form."""

from __future__ import annotations

import hashlib
import os
import random
import stat
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from servepath.modelcar.build import build_and_push, build_layout
from servepath.modelcar.image.compress import Compression
from servepath.modelcar.plan import BuildOptions
from servepath.modelcar.source.directory import open_source
from tests.unit.modelcar.helpers import MIB, extract, write_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FORMS = {
    "plain": BuildOptions(),
    "resharded": BuildOptions(reshard_bytes=6 * MIB),
    "zstd": BuildOptions(compression=Compression.ZSTD),
    "index": BuildOptions(platforms=("linux/amd64", "linux/arm64")),
    "attested": BuildOptions(attest=True, modelpack=True, created_s=1_700_000_000),
}
LONG_NAME = "/".join(["a-directory-whose-name-is-long"] * 4) + "/and-a-file-in-it-with-a-long-name.txt"


@dataclass(frozen=True, slots=True)
class Shipped:
    """A pushed image.

    Attributes:
        form: how it was made.
        registry: `host:port`.
        repository: the repository there.
        digest: of its manifest or index.
        files: SHA-256 by path below `/models`.
    """

    form: str
    registry: str
    repository: str
    digest: str
    files: dict[str, str]

    @property
    def reference(self) -> str:
        """`host:port/repository@sha256:…`."""
        return f"{self.registry}/{self.repository}@{self.digest}"


def write_varied_model(directory: Path, seed: int = 0) -> Path:
    """Write a model of two shards of 10 MiB that do not compress, and names that a plain tar header cannot carry."""
    write_model(directory, [5 * MIB, 5 * MIB])
    for number, shard in enumerate(sorted(directory.glob("*.safetensors"))):
        data = shard.read_bytes()
        header_bytes = 8 + int.from_bytes(data[:8], "little")
        shard.write_bytes(data[:header_bytes] + random.Random(seed + number).randbytes(len(data) - header_bytes))  # noqa: S311
    (directory / LONG_NAME).parent.mkdir(parents=True)
    (directory / LONG_NAME).write_text("a name of more than 100 bytes")
    (directory / "größe.txt").write_text("a name that is not ASCII")
    (directory / "empty").write_bytes(b"")
    secret = directory / "tokenizer.json"
    secret.write_text("{}")
    secret.chmod(0o600)  # readable by its owner alone: in the image it must not be
    return directory


async def ship(form: str, model: Path, base: str, registry: str, scratch: Path) -> Shipped:
    """Push the model in one of `FORMS`.

    Args:
        form: which.
        model: the model's directory.
        base: a base image of two platforms.
        registry: `host:port`.
        scratch: an empty directory.
    """
    repository, source, build = f"interop/{form}", open_source(model), FORMS[form]
    pushed = await build_and_push(source, base, registry, repository, tag="v1", build=build)
    files = digests_below(model)
    if build.reshard_bytes:
        built = await build_layout(source, base, scratch / "layout", build=build)
        for layer in built.layers[1:]:
            blob = scratch / "layout" / "blobs" / "sha256" / layer.digest.removeprefix("sha256:")
            extract(blob, scratch / "out")
        files = digests_below(scratch / "out" / "models")
    return Shipped(form, registry, repository, pushed.digest, files)


def digests_below(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a directory, by relative path."""
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def hidden_from(directory: Path, uid: int) -> list[str]:
    """Return what a user who owns nothing there cannot read."""
    hidden = []
    for path in [directory, *directory.rglob("*")]:
        status = path.stat()
        needed = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(status.st_mode) else 0)
        if status.st_uid == uid or status.st_mode & needed != needed:
            hidden.append(str(path))
    return hidden


def output(command: Sequence[str | Path], **environment: str) -> str:
    """Run a program to its end and return what it printed; its error output is in the assertion if it failed."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, f"{command}: {done.stderr.decode(errors='replace')[-2000:]}"
    return done.stdout.decode(errors="replace")
