"""Tools of others that read and copy images: the interoperability tests try ours on them.

crane, oras and umoci are Go modules; crane brings a second registry (`crane registry serve`). Debian's umoci is older
than zstd layers; its skopeo will do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ci.node import packages, programs
from ci.node.programs import HERE, GoProgram

if TYPE_CHECKING:
    from pathlib import Path

_MODULE = HERE / "oci-tools"
CRANE = GoProgram(name="crane", module=_MODULE, package="github.com/google/go-containerregistry/cmd/crane")
ORAS = GoProgram(name="oras", module=_MODULE, package="oras.land/oras/cmd/oras")
UMOCI = GoProgram(name="umoci", module=_MODULE, package="github.com/opencontainers/umoci/cmd/umoci")
PROGRAMS = (CRANE, ORAS, UMOCI)
PACKAGES = {"skopeo": "/usr/bin/skopeo"}


async def prepare(cache: Path) -> None:
    """Install and build the tools that are missing.

    Raises:
        ClusterError: apt or Go failed.
    """
    await packages.install(PACKAGES)
    for program in PROGRAMS:
        await programs.build(program, cache)
