"""What earlier pushes learnt, kept on disk: digests of layers, where blobs are, documents of bases, cut uploads.

A no-change push then reads no weights. Nothing here is trusted with correctness: a registry checks every digest, an
entry that does not parse is as good as none, and a cache that cannot be written is done without.

Layout: `layers/KEY` (digest of a layer, by fingerprint of its files), `blobs/DIGEST` (repositories that hold a blob),
`documents/DIGEST` (a base's manifest, index or configuration), `uploads/KEY` (the address of an upload that may be
continued; locked while one process uses it).
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from msgspec import Struct

from servepath.modelcar.content import digest_of_bytes
from servepath.modelcar.registry.reference import is_digest
from servepath.modelcar.store import Descriptor, Document, canonical_json, load_object

if TYPE_CHECKING:
    from collections.abc import Generator

    from servepath.modelcar.push.fingerprint import Fingerprint

MAX_ENTRIES = 4096
"""Of each kind; over that the older half goes."""
MAX_HOLDERS = 16
"""Repositories remembered of one blob."""
logger = logging.getLogger(__name__)


class KnownLayer(Struct, frozen=True):
    """A layer whose digests are known: as it is stored, and of the tar inside."""

    descriptor: Descriptor
    diff_id: str


class UploadSession:
    """The address of one upload, written to a file if there is one, so that another process can go on with it.

    Args:
        file: an open file that this process has locked; None keeps the address in memory.
    """

    def __init__(self, file: IO[bytes] | None = None) -> None:
        self._file = file
        self._location = _load(file.read(), "location") if file else {}

    @property
    def location(self) -> str:
        """The upload's address; empty for none."""
        return str(self._location.get("location", ""))

    def save(self, location: str) -> None:
        """Remember the address; empty when there is nothing to continue."""
        self._location = {"location": location}
        if self._file is None:
            return
        with suppress(OSError):
            self._file.seek(0)
            self._file.truncate()
            self._file.write(_sealed(self._location) if location else b"")
            self._file.flush()


class PushCache:
    """The cache of one user.

    Args:
        directory: where it is; None for no cache.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def layer(self, fingerprint: Fingerprint) -> KnownLayer | None:
        """Return what a layer of exactly these files came to, None if that is not known."""
        match self._read("layers", fingerprint.key):
            case {"media_type": str(kind), "digest": str(digest), "size_bytes": int(size), "diff_id": str(diff_id)} if (
                is_digest(digest) and is_digest(diff_id)
            ):
                return KnownLayer(Descriptor(kind, digest, size), diff_id)
        return None

    def remember_layer(self, fingerprint: Fingerprint, layer: KnownLayer) -> None:
        """Remember a layer, unless one of its files was so fresh that an edit might not show."""
        if not fingerprint.is_settled:
            return
        descriptor = layer.descriptor
        entry = {
            "media_type": descriptor.media_type,
            "digest": descriptor.digest,
            "size_bytes": descriptor.size_bytes,
            "diff_id": layer.diff_id,
        }
        self._write("layers", fingerprint.key, entry)

    def holders(self, host: str, digest: str) -> tuple[str, ...]:
        """Return the repositories of a registry that held a blob, the latest first."""
        found = self._read("blobs", digest).get(host)
        return tuple(str(name) for name in found) if isinstance(found, list) else ()

    def remember_holder(self, host: str, repository: str, digest: str) -> None:
        """Remember that a repository holds a blob."""
        held = self.holders(host, digest)
        if held[:1] != (repository,):
            self._set_holders(host, digest, (repository, *(name for name in held if name != repository)))

    def forget_holder(self, host: str, repository: str, digest: str) -> None:
        """Remember that a repository does not hold a blob any more."""
        held = self.holders(host, digest)
        if repository in held:
            self._set_holders(host, digest, tuple(name for name in held if name != repository))

    def document(self, digest: str) -> Document | None:
        """Return a document by its digest, None if it is not known."""
        match self._read("documents", digest):
            case {"media_type": str(kind), "text": str(text)} if digest_of_bytes(text.encode()) == digest:
                return Document(kind, digest, text.encode())
        return None

    def remember_document(self, document: Document) -> None:
        """Remember a document, unless it is no text, and so no JSON."""
        with suppress(UnicodeDecodeError):
            entry = {"media_type": document.media_type, "text": document.data.decode()}
            self._write("documents", document.digest, entry)

    @contextmanager
    def upload(
        self, host: str, repository: str, fingerprint: Fingerprint | None
    ) -> Generator[UploadSession, None, None]:
        """Give the upload of a layer into a repository; in memory alone if another process has it."""
        if self._directory is None or fingerprint is None:
            yield UploadSession()
            return
        key = hashlib.sha256(canonical_json([host, repository, fingerprint.key])).hexdigest()
        path = self._directory / "uploads" / key
        file = _locked(path)
        if file is None:
            yield UploadSession()
            return
        with file:
            session = UploadSession(file)
            try:
                yield session
            finally:
                if not session.location:
                    path.unlink(missing_ok=True)  # while it is locked: whoever opened it before finds it empty

    def _set_holders(self, host: str, digest: str, names: tuple[str, ...]) -> None:
        self._write("blobs", digest, self._read("blobs", digest) | {host: list(names[:MAX_HOLDERS])})

    def _read(self, kind: str, key: str) -> dict[str, Any]:
        if self._directory is None:
            return {}
        try:
            data = (self._directory / kind / _file_name(key)).read_bytes()
        except OSError:
            return {}
        return _load(data, f"{kind}/{key}")

    def _write(self, kind: str, key: str, entry: dict[str, Any]) -> None:
        if self._directory is None:
            return
        place = self._directory / kind
        try:
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, partial = tempfile.mkstemp(dir=place, prefix=".partial-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_sealed(entry))
                Path(partial).rename(place / _file_name(key))
            finally:
                Path(partial).unlink(missing_ok=True)
            _prune(place)
        except OSError as error:
            logger.debug("cannot write the cache %s: %s", place, error)


NO_CACHE = PushCache(None)


def default_cache() -> PushCache:
    """Return the user's cache: `servepath/push` in `$XDG_CACHE_HOME`, else in `~/.cache`; none without a home."""
    with suppress(RuntimeError):
        return PushCache(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "servepath", "push"))
    return NO_CACHE


def _sealed(entry: dict[str, Any]) -> bytes:
    """Return an entry with a checksum: a flipped bit must not name another digest."""
    return canonical_json({"entry": entry, "sha256": hashlib.sha256(canonical_json(entry)).hexdigest()})


def _load(data: bytes, where: str) -> dict[str, Any]:
    """Return a sealed entry; empty if it is broken in any way."""
    if not data:
        return {}
    with suppress(Exception):
        sealed = load_object(data, where)
        entry = sealed.get("entry")
        if isinstance(entry, dict) and sealed.get("sha256") == hashlib.sha256(canonical_json(entry)).hexdigest():
            return entry
    logger.debug("a cache entry is broken and ignored: %s", where)
    return {}


def _locked(path: Path) -> IO[bytes] | None:
    """Open a file that no one else uses; None where someone does, or where it cannot be opened."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", buffering=0)
    except OSError as error:
        logger.debug("cannot use %s: %s", path, error)
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _file_name(key: str) -> str:
    return key.replace(":", "-")


def _prune(place: Path) -> None:
    entries = [entry for entry in os.scandir(place) if not entry.name.startswith(".")]
    if len(entries) <= MAX_ENTRIES:
        return
    for entry in sorted(entries, key=lambda one: one.stat().st_mtime_ns)[: len(entries) // 2]:
        Path(entry.path).unlink(missing_ok=True)
