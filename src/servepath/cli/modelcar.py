"""`servepath modelcar`: a model becomes an image, in a registry or in a directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from servepath.cli.defaults import base_image, build_options
from servepath.cli.options import AsJson, BaseImage, Hub, Source
from servepath.cli.output import print_fields, print_json
from servepath.cli.running import run
from servepath.errors import UsageError
from servepath.modelcar.build import build_and_push, build_layout
from servepath.modelcar.hub import download
from servepath.modelcar.source import open_source

if TYPE_CHECKING:
    from servepath.modelcar.model import Modelcar, ModelSource

_HELP = "servepath modelcar --help"
Layout = Annotated[Path | None, typer.Option(metavar="DIR", help="Write an OCI layout into this directory.")]
Push = Annotated[str, typer.Option(metavar="HOST/REPOSITORY", help="Push to this repository, streaming.")]


def modelcar_command(
    source: Source = None,
    hub: Hub = "",
    layout: Layout = None,
    push: Push = "",
    base: BaseImage = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Build a digest-pinned modelcar; the digest depends on the model and the base alone.

    Credentials of a registry are those of `docker login`.

    Example: servepath modelcar --source ./my-model --push 127.0.0.1:5000/servepath/my-model
    """

    async def work() -> Modelcar:
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
        model = await open_model(source, hub)
        if layout is not None:
            return await build_layout(model, base_image(base), layout, build=build_options())
        return await build_and_push(model, base_image(base), host, repository, build=build_options())

    _show(run(work), as_json=as_json)


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
    print_fields(
        modelcar.reference or modelcar.digest,
        {
            "model": modelcar.source.name,
            "parameters": f"{modelcar.source.parameters:,}",
            "licence": modelcar.source.licence or "unknown",
            "layers": len(modelcar.layers),
            "size": f"{modelcar.size_bytes / 1e6:.1f} MB",
            "sent": f"{modelcar.sent_bytes / 1e6:.1f} MB",
        },
    )
