"""`servepath mirror`: every image and chart of the lock into one OCI layout, and from there into a registry."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from servepath.cli.defaults import lock_file
from servepath.cli.options import AsJson, RegistryMirror
from servepath.cli.output import console_line
from servepath.cli.results import print_fields, print_json
from servepath.cli.running import run
from servepath.platform import lock, mirroring
from servepath.platform.mirror import parse_mirror

LayoutDirectory = Annotated[Path, typer.Option("--layout", metavar="DIR", help="The OCI layout to fill, or to push.")]
Push = Annotated[
    str,
    typer.Option(
        metavar="[http://]HOST[:PORT][/PREFIX]", help="Put the layout's images and charts into this registry."
    ),
]
Only = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Image or chart of the lock; all when none is named.")
]
Also = Annotated[
    list[str] | None,
    typer.Option(metavar="IMAGE@DIGEST", help="A further image, such as one that a chart starts."),
]


def mirror_command(
    layout: LayoutDirectory,
    push: Push = "",
    only: Only = None,
    also: Also = None,
    registry_mirror: RegistryMirror = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Copy every image and chart of manifests/lock.yaml into an OCI layout, for a network that reaches no registry.

    With --push, put what the layout holds into a registry instead. What is there already is not copied again.
    Credentials of a registry are those of `docker login`.

    Example: servepath mirror --layout ./mirror && servepath mirror --layout ./mirror --push registry.internal:5000
    """
    if push:
        copied = run(partial(mirroring.publish, layout, parse_mirror(push)))
    else:
        references = mirroring.wanted(lock.read(lock_file()), only or (), also or ())
        through = parse_mirror(registry_mirror) if registry_mirror else None
        copied = run(partial(mirroring.fetch, references, layout, through=through))
    if as_json:
        print_json(copied)
        return
    for one in copied:
        console_line(f"{one.copied_bytes / 1e6:10.1f} MB  {one.name}@{one.digest}")
    print_fields(push or str(layout), {"images and charts": len(copied)})
