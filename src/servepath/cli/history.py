"""`servepath history`: what was promoted, and what is left over."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from servepath.cli.gke import AllowKeyFile, GkeCluster, GkeConnection, GkeEndpoint
from servepath.cli.options import AsJson, Context, Name, Namespace
from servepath.cli.output import console_line
from servepath.cli.promotion import OptionalKubeconfig, Target
from servepath.cli.results import print_json, print_text
from servepath.cli.running import run
from servepath.promotion.history import last_succeeded
from servepath.promotion.orphans import find_orphans
from servepath.promotion.record import to_json
from servepath.promotion.rollback import read_release
from servepath.report.format import short_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servepath.promotion.history import Kept
    from servepath.promotion.orphans import Orphan


def history_command(
    kubeconfig: OptionalKubeconfig = None,
    gke: GkeCluster = "",
    gke_endpoint: GkeEndpoint = "",
    namespace: Namespace = "servepath",
    name: Name = "model",
    context: Context = "",
    *,
    orphans: Annotated[
        bool, typer.Option("--orphans", help="List what servepath made there and nothing needs, with the commands.")
    ] = False,
    allow_key_file: AllowKeyFile = False,
    as_json: AsJson = False,
) -> None:
    """List the promotions of a release, the newest first; the last that succeeded serves.

    Example: servepath history --kubeconfig ./kubeconfig --orphans
    """
    connection = GkeConnection(gke, "", "", gke_endpoint, allow_key_file) if gke else None
    target = Target(kubeconfig, "", "", "", context, connection)

    async def work() -> tuple[tuple[Kept, ...], tuple[Orphan, ...]]:
        async with AsyncExitStack() as stack:
            opened = await stack.enter_async_context(target.open(needs_gateway=False))
            found = await find_orphans(opened.cluster, namespace) if orphans else ()
            return await read_release(opened.cluster, namespace, name), found

    history, found = run(work)
    if as_json:
        print_json({"promotions": [to_json(kept.record) for kept in history], "orphans": found})
        return
    print_text("\n".join(lines_of(history)) or f"nothing was promoted as {namespace}/{name}")
    for orphan in found:
        print_text(f"{orphan.place}: {orphan.reason}\n  {orphan.delete_command}")
    if orphans and not found:
        console_line(f"nothing is left over in {namespace}")


def lines_of(history: Sequence[Kept]) -> list[str]:
    """Give one line for each promotion, the newest first."""
    serving = last_succeeded(history)
    lines = []
    for kept in reversed(history):
        record = kept.record
        mark = "*" if kept is serving else " "
        back = f", back to {record.back_to}" if record.back_to else ""
        report = f", report {short_digest(record.report_digest)}" if record.report_digest else ""
        lines.append(
            f"{mark} {record.number:>4}  {record.started_at}  {short_digest(record.digest)}  {record.state:<11}  "
            f"{record.stage:<6}  {record.who}{back}{report}" + (f"\n        {record.result}" if record.result else "")
        )
    return lines
