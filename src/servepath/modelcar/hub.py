"""Models from the Hugging Face Hub, pinned to a commit. Needs the extra `hub` (the library `huggingface_hub`)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio import to_thread

from servepath.errors import InputError
from servepath.modelcar.retry import RETRIED_STATUS, RetryPolicy, TryAgainError
from servepath.modelcar.source import open_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from servepath.modelcar.model import ModelSource

IGNORED = ("*.pt", "*.pth", "*.bin", "original/*")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class HubOptions:
    """How the Hub is talked to.

    Attributes:
        cache: the Hub cache directory; None for the library's own, where other tools find the files too.
        endpoint: base URL of the Hub or a mirror of it; None for the library's default.
        token: an access token for gated models; None for the one that `hf auth login` stored.
        ignored: patterns of files that are not downloaded.
        offline: use what is in the cache, without a request.
        downloads: files downloaded at the same time.
        retry: bounds of retries; 429 is normal on the Hub, and a download continues where it stopped.
    """

    cache: Path | None = None
    endpoint: str | None = None
    token: str | None = None
    ignored: tuple[str, ...] = IGNORED
    offline: bool = False
    downloads: int = 4
    retry: RetryPolicy = field(default_factory=lambda: RetryPolicy(attempts=6, base_s=2.0, longest_s=120.0))

    def __repr__(self) -> str:
        return f"HubOptions(endpoint={self.endpoint!r}, cache={self.cache!r})"  # the token stays out of logs


async def download(spec: str, options: HubOptions | None = None) -> ModelSource:
    """Download `REPOSITORY@COMMIT` into the Hub cache, or find it there, and validate it.

    Args:
        spec: such as `Qwen/Qwen2.5-0.5B-Instruct@` and the 40 hexadecimal digits of a commit.
        options: how the Hub is talked to.

    Raises:
        InputError: the commit is not pinned, the Hub does not have it or refuses it, or the model is not usable.
    """
    repository, commit = parse_spec(spec)
    settings = options or HubOptions()
    fetch = _load_library()

    async def attempt() -> Path:
        return await to_thread.run_sync(_fetch, fetch, repository, commit, settings)

    try:
        directory = await settings.retry.run(f"downloading {spec}", attempt)
    except TryAgainError as error:
        raise _failed(
            spec, f"{error}, {settings.retry.attempts} times", "try again later: what is there is kept"
        ) from error
    return open_source(directory, origin=repository, revision=commit)


def parse_spec(spec: str) -> tuple[str, str]:
    """Split `REPOSITORY@COMMIT`.

    Raises:
        InputError: not of that form, or the revision is a branch or a tag.
    """
    repository, _, revision = spec.partition("@")
    if not _REPOSITORY.fullmatch(repository):
        raise InputError("not a Hub repository", where=spec, expected="OWNER/NAME@COMMIT")
    if not _COMMIT.fullmatch(revision):
        raise InputError(
            f"the revision {revision!r} is no commit" if revision else "no revision",
            where=spec,
            expected="40 hexadecimal digits: a branch or tag can name other weights tomorrow, with another digest",
            next_command=f"git ls-remote https://huggingface.co/{repository} HEAD",
        )
    return repository, revision


def _load_library() -> Callable[..., Any]:
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415 - an optional dependency
    except ImportError:
        raise InputError(
            "the library huggingface_hub is not installed",
            expected="the extra `hub`",
            next_command="pip install 'servepath[hub]'",
        ) from None
    return snapshot_download


def _fetch(fetch: Callable[..., Any], repository: str, commit: str, options: HubOptions) -> Path:
    """Call the library once, in a worker thread, and sort its errors."""
    import httpx2  # noqa: PLC0415 - comes with it
    from huggingface_hub import errors  # noqa: PLC0415 - an optional dependency

    spec = f"{repository}@{commit}"
    try:
        path = fetch(
            repository,
            revision=commit,
            cache_dir=options.cache,
            endpoint=options.endpoint,
            token=options.token,
            ignore_patterns=list(options.ignored),
            local_files_only=options.offline,
            max_workers=options.downloads,
        )
    except errors.GatedRepoError as error:
        raise _failed(spec, "the model is gated", "accept its terms on the Hub, then `hf auth login`") from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise _failed(
            spec, "the Hub has no such model or commit", f"git ls-remote https://huggingface.co/{repository}"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        if options.offline:
            raise _failed(spec, "not in the Hub cache, and offline", "run again with network") from error
        raise TryAgainError("the Hub cannot be reached") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in RETRIED_STATUS:
            raise TryAgainError(f"the Hub answered {status}", error.response.headers.get("Retry-After", "")) from error
        raise _failed(spec, f"the Hub answered {status}", "hf auth whoami") from error
    except httpx2.TransportError as error:
        raise TryAgainError(f"{type(error).__name__}: {error}") from error
    return Path(path)


def _failed(spec: str, what: str, next_command: str) -> InputError:
    return InputError(
        what, where=spec, expected="a model on the Hub that this account can read", next_command=next_command
    )
