"""`servepath verify` and `servepath copy`: a modelcar that is in a registry."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from servepath.cli.options import AsJson
from servepath.cli.output import show_checks
from servepath.cli.results import print_fields, print_json
from servepath.cli.running import run
from servepath.errors import CheckFailedError, UsageError
from servepath.evidence import Verdict
from servepath.modelcar.attach.referrers import PROVENANCE, SBOM
from servepath.modelcar.copy import copy
from servepath.modelcar.registry.client import RegistryOptions
from servepath.modelcar.verify import verify, verify_content

if TYPE_CHECKING:
    from servepath.evidence import CheckResult
    from servepath.modelcar.copy import CopiedImage

_REQUIRABLE = {"sbom": SBOM, "provenance": PROVENANCE}
Reference = Annotated[str, typer.Argument(metavar="REFERENCE", help="HOST/REPOSITORY@sha256:…; a tag is refused.")]
Origin = Annotated[
    str, typer.Argument(metavar="REFERENCE", help="HOST/REPOSITORY@sha256:… or oci:DIRECTORY[@sha256:…]; no tag.")
]
PlainHttp = Annotated[
    list[str] | None,
    typer.Option(metavar="HOST[:PORT]", help="Speak to this registry without TLS; loopback needs no permission."),
]


def verify_command(
    reference: Reference,
    require: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help="Fail if it is not attached: sbom or provenance.")
    ] = None,
    plain_http: PlainHttp = None,
    *,
    content: Annotated[bool, typer.Option("--content", help="Read every byte and recompute every digest.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check a modelcar where it is: digests, config, members, safetensors headers, SBOM and provenance.

    Reads kilobytes: parts of the layers, by range requests. Exits with 6 if a check failed.

    Example: servepath verify 127.0.0.1:5000/servepath/my-model@sha256:…
    """
    unknown = [kind for kind in require or () if kind not in _REQUIRABLE]
    if unknown:
        raise UsageError(
            f"nothing of this kind is known: {unknown[0]!r}",
            where="--require",
            expected=" or ".join(_REQUIRABLE),
            next_command="servepath verify --help",
        )
    required = frozenset(_REQUIRABLE[kind] for kind in require or ())
    check = verify_content if content else verify

    async def work() -> tuple[CheckResult, ...]:
        return await check(reference, required=required, options=_options(plain_http))

    results = run(work)
    show_checks(results, as_json=as_json)
    if any(result.verdict is Verdict.FAIL for result in results):
        raise typer.Exit(CheckFailedError.exit_code)


def copy_command(
    reference: Origin,
    to: Annotated[str, typer.Argument(metavar="HOST/REPOSITORY", help="Where to copy it.")],
    tag: Annotated[str, typer.Option(help="A tag to put on it there too.")] = "",
    plain_http: PlainHttp = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Copy an image from a registry or an OCI layout under its digest, with all that refers to it.

    Streams: nothing is written to disk. What is there already is not sent, so that a copy that was interrupted goes on.

    Example: servepath copy 127.0.0.1:5000/servepath/my-model@sha256:… registry.example/models/my-model
    """

    async def work() -> CopiedImage:
        host, _, repository = to.partition("/")
        if not repository:
            raise UsageError(
                "no repository", where=to, expected="HOST/REPOSITORY", next_command="servepath copy --help"
            )
        return await copy(reference, host, repository, tag=tag, options=_options(plain_http))

    copied = run(work)
    if as_json:
        print_json(copied)
        return
    print_fields(
        copied.reference, {"sent": f"{copied.sent_bytes / 1e6:.1f} MB", "referrers": str(len(copied.referrers))}
    )


def _options(plain_http: list[str] | None) -> RegistryOptions:
    defaults = RegistryOptions()
    return replace(defaults, plain_http=defaults.plain_http | frozenset(plain_http or ()))
