"""Whether a report vouches for what is to be promoted: the same digest, lock, manifests and engine, and it passed."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from servepath.errors import InputError, PromotionRefusedError
from servepath.report.write import REPORT_FILE, load_report

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from servepath.platform.lock import Lock
    from servepath.serving.model import ServingPath

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Proof:
    """A report that was read.

    Attributes:
        place: its file.
        digest: sha256 of the file.
        document: what it says.
    """

    place: str
    digest: str
    document: Mapping[str, Any]

    @property
    def reference(self) -> str:
        """Where the modelcar lies that it is of, empty where it built none.

        Raises:
            InputError: the report is not complete.
        """
        with _complete(self.place):
            return str((self.document.get("modelcar") or {}).get("reference") or "")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be promoted, as far as a report can vouch for it.

    Attributes:
        digest: of the modelcar.
        path: the serving path.
        engine_image: `repository@sha256:…`.
        lock: the lock in use, None where no engine may stand for another.
        lock_digest: sha256 of its file.
        manifests_digest: of the manifests in use.
    """

    digest: str
    path: ServingPath
    engine_image: str
    lock: Lock | None
    lock_digest: str
    manifests_digest: str


def read_proof(path: Path) -> Proof:
    """Read a report.

    Args:
        path: a report directory or its `report.json`.

    Raises:
        InputError: it is not there, or it is no report.
    """
    file = path / REPORT_FILE if path.is_dir() else path
    document = load_report(file)
    return Proof(str(file), f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}", document)


def refuse_unproven(proof: Proof, wanted: Wanted) -> None:
    """Refuse what a report does not vouch for.

    Raises:
        PromotionRefusedError: it did not pass, or what it tested differs; every difference is named.
        InputError: the report is not complete.
    """
    with _complete(proof.place):
        problems = list(_problems(proof.document, wanted))
    if problems:
        raise PromotionRefusedError(
            "; ".join(problems),
            where=proof.place,
            expected=f"a passing report of {wanted.digest} on the same engine, with the same lock and manifests",
            next_command="servepath e2e --help",
        )


@contextmanager
def _complete(place: str) -> Iterator[None]:
    """Refuse a report that says its schema and lacks what that demands: an older version or an editor may leave it."""
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"the report is not complete: {type(error).__name__} {error}",
            where=place,
            expected="a report as servepath writes it",
            next_command="servepath e2e --help",
        ) from error


def _problems(document: Mapping[str, Any], wanted: Wanted) -> Iterator[str]:
    run = document.get("run") or {}
    if document.get("verdict") != "pass":
        failures = [str(one) for one in document.get("failures") or ()]
        more = f" and {len(failures) - _SHOWN} more" if len(failures) > _SHOWN else ""
        yield f"its verdict is {document.get('verdict')}: {', '.join(failures[:_SHOWN]) or 'no reason given'}{more}"
    deployed = [one for one in document.get("deployments") or () if one["path"] == wanted.path]
    if not deployed:
        yield f"it deployed no {wanted.path} path"
    for one in deployed:
        if one["modelcar_digest"] != wanted.digest:
            yield f"it tested the modelcar {one['modelcar_digest']}, not {wanted.digest}"
        if not _same_engine(one["engine_image"], wanted):
            yield f"it tested the engine {one['engine_image']}, not {wanted.engine_image}"
    passed = [one for one in document.get("checks") or () if one["verdict"] == "pass" and one["subject"] == wanted.path]
    if not passed:
        yield f"it checked nothing of the {wanted.path} path"
    for name, expected in (("lock_digest", wanted.lock_digest), ("manifests_digest", wanted.manifests_digest)):
        if run.get(name) != expected:
            what = name.partition("_")[0]
            yield f"its {what} is {run.get(name) or 'not recorded'}, the {what} in use is {expected}"


def _same_engine(tested: str, wanted: Wanted) -> bool:
    """Tell whether the engine is the tested one, or the lock's for other hardware where the lock's own was tested.

    The lock names one release of vLLM for each kind of hardware: a laptop tests the one, a GPU runs the other.
    """
    digest = tested.partition("@")[2]
    if digest == wanted.engine_image.partition("@")[2]:
        return True
    releases = {
        pin.reference.partition("@")[2]: _release(pin.reference)
        for name, pin in (wanted.lock.images if wanted.lock else {}).items()
        if name.startswith("vllm-")
    }
    first, second = releases.get(digest), releases.get(wanted.engine_image.partition("@")[2])
    return first is not None and first == second


def _release(reference: str) -> str:
    """Give the release of a tag: `v0.23.0-x86_64` is v0.23.0 built for one architecture."""
    return reference.partition("@")[0].rpartition(":")[2].partition("-")[0]
