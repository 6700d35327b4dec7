"""Models from the Hugging Face Hub, pinned to a commit. Needs the extra `hub` (the library `huggingface_hub`)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio import to_thread

from servepath.errors import InputError
from servepath.modelcar.registry.retry import RETRIED_STATUS, RetryPolicy, TryAgainError
from servepath.modelcar.source.directory import open_source
from servepath.modelcar.source.hub_digests import check_snapshot

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
        included: patterns of files to download; all when empty.
        ignored: patterns of files that are not downloaded, even if included.
        offline: use what is in the cache, without a request.
        downloads: files downloaded at the same time.
        retry: bounds of retries; 429 is normal on the Hub, and a download continues where it stopped.
    """

    cache: Path | None = None
    endpoint: str | None = None
    token: str | None = None
    included: tuple[str, ...] = ()
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
    await to_thread.run_sync(check_snapshot, directory)
    source = partial(open_source, directory, origin=repository, revision=commit)
    return await to_thread.run_sync(source)


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
            allow_patterns=list(options.included) or None,
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
    except (errors.LocalEntryNotFoundError, errors.IncompleteSnapshotError) as error:
        if options.offline:
            raise _failed(spec, "not, or not all of it, in the Hub cache, and offline", "run again online") from error
        raise _cause(error, spec) from error
    except errors.HfHubHTTPError as error:
        raise _answered(error, spec) from error
    except httpx2.TransportError as error:
        raise TryAgainError(f"{type(error).__name__}: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise  # the disk's, not the Hub's
        raise TryAgainError(f"a file did not arrive whole: {error}") from error
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, TypeError, LookupError, AttributeError) as error:
        raise _failed(spec, f"the Hub's answer makes no sense: {str(error)[:200]}", "hf auth whoami") from error
    return Path(path)


def _answered(error: Any, spec: str) -> Exception:
    status = error.response.status_code
    if status in RETRIED_STATUS:
        return TryAgainError(f"the Hub answered {status}", error.response.headers.get("Retry-After", ""))
    return _failed(spec, f"the Hub answered {status}", "hf auth whoami")


def _cause(error: Exception, spec: str) -> Exception:
    """Say why nothing was downloaded; the library puts what the Hub answered under its own error."""
    cause = error.__cause__
    return (
        TryAgainError("the Hub cannot be reached")
        if getattr(cause, "response", None) is None
        else _answered(cause, spec)
    )


def _failed(spec: str, what: str, next_command: str) -> InputError:
    return InputError(
        what, where=spec, expected="a model on the Hub that this account can read", next_command=next_command
    )
