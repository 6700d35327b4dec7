"""`servepath modelcar`: a model becomes an image, in a registry or in a directory."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from servepath.cli.defaults import base_image, build_options
from servepath.cli.options import AsJson, BaseImage, Hub, Source
from servepath.cli.results import print_fields, print_json
from servepath.cli.running import run
from servepath.cli.transfers import show_transfers
from servepath.errors import UsageError
from servepath.modelcar.attach.referrers import MODELPACK, PROVENANCE, SBOM
from servepath.modelcar.build import build_and_push, build_layout
from servepath.modelcar.image.compress import Compression
from servepath.modelcar.registry.reference import is_tag
from servepath.modelcar.source.directory import open_source
from servepath.modelcar.source.hub import IGNORED, HubOptions, download

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servepath.modelcar.model import Modelcar, ModelSource

_HELP = "servepath modelcar --help"
_ATTACHED = {SBOM: "SBOM", PROVENANCE: "provenance", MODELPACK: "ModelPack"}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kKMGT])(i?)B")
_POWERS = {"K": 1, "M": 2, "G": 3, "T": 4}

Layout = Annotated[Path | None, typer.Option(metavar="DIR", help="Write an OCI layout into this directory.")]
Push = Annotated[str, typer.Option(metavar="HOST/REPOSITORY", help="Push to this repository, streaming.")]
Tag = Annotated[str, typer.Option(help="A tag to put on it too; the reference that is printed has the digest.")]
Platforms = Annotated[
    list[str],
    typer.Option(
        "--platform",
        metavar="OS/ARCH",
        help="Platform of the base image; several, repeated or with commas, make one digest that serves all of them.",
    ),
]
Reshard = Annotated[
    str,
    typer.Option(
        metavar="SIZE",
        help="Cut safetensors weights anew into shards of at most this size, such as 500MB or 5GB: pulls run in "
        "parallel, and a fine-tune shares the layers that it did not change. Tensors stay bit-identical.",
    ),
]
Compress = Annotated[
    Compression,
    typer.Option("--compression", help="zstd: smaller, for slow links; costs time at push and at pull."),
]
Attest = Annotated[
    bool | None,
    typer.Option(
        "--attest/--no-attest",
        help="Attach SBOM and provenance; the image's digest stays the same. As if given with --push, not with "
        "--layout: some tools take the one image of a layout by its name alone when more is in it.",
    ),
]
ModelPack = Annotated[bool, typer.Option("--modelpack", help="Attach a ModelPack manifest that shares the layers.")]
ModelName = Annotated[str, typer.Option("--name", help="The model's name; from the Hub or config.json when empty.")]
Include = Annotated[
    list[str], typer.Option(metavar="PATTERN", help="Files of --hub to take, such as '*.json'; repeatable.")
]
Exclude = Annotated[
    list[str], typer.Option(metavar="PATTERN", help="Files to leave out, such as 'original/*'; repeatable.")
]
AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Take pickle checkpoints of --source, which run code when loaded.")
]


def modelcar_command(
    source: Source = None,
    hub: Hub = "",
    layout: Layout = None,
    push: Push = "",
    tag: Tag = "",
    base: BaseImage = "",
    platform: Platforms = ["linux/amd64"],  # noqa: B006 - typer copies it
    reshard: Reshard = "",
    compression: Compress = Compression.NONE,
    name: ModelName = "",
    include: Include = [],  # noqa: B006 - typer copies it
    exclude: Exclude = [],  # noqa: B006 - typer copies it
    *,
    allow_pickle: AllowPickle = False,
    attest: Attest = None,
    modelpack: ModelPack = False,
    as_json: AsJson = False,
) -> None:
    """Build a digest-pinned modelcar; the digest depends on the model, the base and these options alone.

    Credentials of a registry are those of `docker login`.

    Example: servepath modelcar --source ./my-model --push 127.0.0.1:5000/servepath/my-model
    """

    async def work() -> Modelcar:
        host, repository = _destination(layout, push, tag)
        build = replace(
            build_options(),
            platforms=tuple(entry for text in platform for entry in text.split(",")),
            reshard_bytes=parse_size(reshard) if reshard else 0,
            compression=compression,
            attest=bool(push) if attest is None else attest,
            modelpack=modelpack,
        )
        name_one_model(source, hub)
        if source is None:
            model = await _from_hub(hub, include, exclude, is_plain=not (name or allow_pickle))
        elif include:
            raise UsageError("an option of the Hub", where="--include", expected="--hub", next_command=_HELP)
        else:
            opening = partial(open_source, source, name=name, exclude=exclude, allow_pickle=allow_pickle)
            model = await anyio.to_thread.run_sync(opening)
        pinned = base_image(base)
        with show_transfers() as show:
            if layout is not None:
                return await build_layout(model, pinned, layout, tag=tag, build=build, progress=show)
            return await build_and_push(model, pinned, host, repository, tag=tag, build=build, progress=show)

    _show(run(work), as_json=as_json)


def _destination(layout: Path | None, push: str, tag: str) -> tuple[str, str]:
    """Check where the modelcar goes, and return the registry and the repository, empty for a layout."""
    if (layout is None) == (not push):
        raise UsageError(
            "say where the modelcar goes",
            where="--layout and --push",
            expected="exactly one of them",
            next_command=_HELP,
        )
    host, _, repository = push.partition("/")
    if push and not repository:
        raise UsageError("no repository", where=push, expected="HOST/REPOSITORY", next_command=_HELP)
    if tag and not is_tag(tag):
        raise UsageError(
            f"not a tag: {tag!r}", where="--tag", expected="letters, digits, `_`, `.` and `-`", next_command=_HELP
        )
    return host, repository


async def _from_hub(hub: str, include: Sequence[str], exclude: Sequence[str], *, is_plain: bool) -> ModelSource:
    if not is_plain:
        raise UsageError(
            "options of a directory", where="--name and --allow-pickle", expected="--source", next_command=_HELP
        )
    return await download(hub, HubOptions(included=tuple(include), ignored=(*IGNORED, *exclude)))


def parse_size(text: str) -> int:
    """Return a size in bytes: `500MB` is 500 000 000, `1.5GiB` is 1.5 x 1024 x 1024 x 1024.

    Raises:
        UsageError: not a size over 0.
    """
    match = _SIZE.fullmatch(text)
    size_bytes = 0
    if match:
        number, unit, binary = match.groups()
        size_bytes = int(Decimal(number) * (1024 if binary else 1000) ** _POWERS[unit.upper()])
    if not size_bytes:
        raise UsageError(
            f"not a size: {text!r}", where="--reshard", expected="a size such as 500MB or 5GiB", next_command=_HELP
        )
    return size_bytes


def name_one_model(directory: Path | None, hub: str) -> None:
    """Refuse the options of no model, or of two.

    Raises:
        UsageError: not exactly one was named.
    """
    if (directory is None) == (not hub):
        raise UsageError(
            "name one model",
            where="--source and --hub",
            expected="exactly one of them",
            next_command=_HELP,
        )


async def open_model(directory: Path | None, hub: str) -> ModelSource:
    """Validate the one model that was asked for.

    Raises:
        UsageError: none was named, or two.
        InputError: it is not usable.
    """
    name_one_model(directory, hub)
    if directory is None:
        return await download(hub)
    return await anyio.to_thread.run_sync(open_source, directory)


def _show(modelcar: Modelcar, *, as_json: bool) -> None:
    if as_json:
        print_json(modelcar)
        return
    fields: dict[str, object] = {
        "model": modelcar.source.name,
        "parameters": f"{modelcar.source.parameters:,}",
        "licence": modelcar.source.licence or "unknown",
        "layers": len(modelcar.layers),
        "size": f"{modelcar.size_bytes / 1e6:.1f} MB",
        "sent": f"{modelcar.sent_bytes / 1e6:.1f} MB",
    }
    if modelcar.referrers:
        fields["attached"] = ", ".join(_ATTACHED.get(kind, kind) for kind in modelcar.referrers)
    if MODELPACK in modelcar.referrers:
        fields["ModelPack"] = modelcar.referrers[MODELPACK]
    print_fields(modelcar.reference or modelcar.digest, fields)
