"""oci-modelcar's own pipeline with its download replaced: the model is on disk already, as for every other tool.

Its records for a crashed run, which docker-registry refuses, are off: it has the less to do.

Run by the Python of oci-modelcar's environment: `… peer_oci_modelcar.py DIRECTORY REGISTRY REPOSITORY TAG SPOOL`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from oci_modelcar.config import Config  # type: ignore[import-not-found]
from oci_modelcar.download import HfFile  # type: ignore[import-not-found]
from oci_modelcar.http import build_session  # type: ignore[import-not-found]
from oci_modelcar.logging import PipelineLogger  # type: ignore[import-not-found]
from oci_modelcar.pipeline import Pipeline  # type: ignore[import-not-found]
from oci_modelcar.registry import OciClient  # type: ignore[import-not-found]


class Directory:
    """What its pipeline asks a downloader for, answered from a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def resolve_revision(self, repo: str, revision: str) -> str:  # noqa: ARG002 - the pipeline's signature
        """Give a commit."""
        return "0" * 40

    def list_files(self, *_: object) -> list[HfFile]:
        """List the files."""
        return [HfFile(path.name, path.stat().st_size, None) for path in sorted(self._directory.iterdir())]

    def download(self, repo: str, revision: str, hf_file: HfFile, progress_cb: object = None) -> Path:  # noqa: ARG002
        """Give the file where it is."""
        return self._directory / str(hf_file.path)


def push(directory: Path, registry: str, repository: str, tag: str, spool: Path) -> None:
    """Push a directory."""
    client = OciClient(registry_host=registry, target_repo=repository, session=build_session())
    Pipeline(
        Config("model", registry, repository, target_tag=tag, spool_dir=spool, force=True),
        PipelineLogger(log_style="text", verbose=False, quiet=True),
        Directory(directory),
        client,
    ).run()


if __name__ == "__main__":
    push(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], Path(sys.argv[5]))
