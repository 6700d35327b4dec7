"""From a directory to a validated `ModelSource`: a bad model never costs a push."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servepath.errors import InputError
from servepath.modelcar.model import ModelSource
from servepath.modelcar.source.licence import licence_of
from servepath.modelcar.source.safetensors import Header, dtype_of, read_header
from servepath.modelcar.source.weight_map import INDEX_SUFFIX, MAX_INDEX_BYTES, check_weight_map
from servepath.modelcar.store import load_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NEVER_SHIPPED = frozenset({".git", ".cache", ".DS_Store"})
"""Version control and download bookkeeping: not the model, and different on every machine."""
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill")
MAX_CONFIG_BYTES = 16 << 20
_SNIFFED_BYTES = 256
GGUF_MAGIC = b"GGUF"
_CARD = "README.md"
MAX_NAME_BYTES = 255
_METHOD = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")
_REPOSITORY_ID = re.compile(r"[A-Za-z0-9][\w.-]*/([A-Za-z0-9][\w.-]*)")


def open_source(  # noqa: PLR0913 - all but the directory are optional facts about the model
    directory: Path,
    *,
    name: str = "",
    origin: str = "",
    revision: str = "",
    exclude: Sequence[str] = (),
    allow_pickle: bool = False,
) -> ModelSource:
    """Validate a model directory.

    Nothing of the result depends on where the directory lies, so that the same files give the same image everywhere.

    Args:
        directory: a directory with `config.json` and weights; a Hub cache snapshot is one too.
        name: a human name; by default that of `config.json` (its `_name_or_path` or `model_type`).
        origin: the Hub repository that it came from.
        revision: the Hub commit.
        exclude: patterns of relative paths to leave out, such as `original/*`.
        allow_pickle: take pickle checkpoints, which run code when they are loaded.

    Raises:
        InputError: the directory cannot be served or shipped; says which file, what was expected and what to do.
    """
    try:
        source = _validate(directory, exclude, allow_pickle=allow_pickle)
    except OSError as error:
        raise InputError(
            f"cannot read: {error.strerror}",
            where=str(error.filename or directory),
            expected="files that this user can read",
            next_command=f"ls -l {error.filename or directory}",
        ) from error
    shown_name = name or origin.rpartition("/")[2] or source.name
    return replace(source, name=shown_name, origin=origin, revision=revision)


def _validate(directory: Path, exclude: Sequence[str], *, allow_pickle: bool) -> ModelSource:
    if not directory.is_dir():
        raise InputError(
            "no such directory",
            where=str(directory),
            expected="a model directory",
            next_command=f"ls {directory.parent}",
        )
    files = tuple(sorted(name for name in _walk(directory) if not any(fnmatch(name, pattern) for pattern in exclude)))
    if not allow_pickle:
        _refuse_pickles(files, directory)
    headers = {
        file: read_header(directory / file, str(directory / file)) for file in files if file.endswith(".safetensors")
    }
    _check_weights(files, directory, headers, allow_pickle=allow_pickle)
    for file in files:
        if file.endswith(INDEX_SUFFIX):
            _check_index(directory, file, headers)
    config = _read_config(directory, files)
    return ModelSource(
        directory=directory,
        name=_name_of(config),
        files=files,
        licence=licence_of(directory / _CARD) if _CARD in files else "",
        parameters=sum(header.parameters for header in headers.values()),
        dtype=dtype_of(headers.values()),
        quantization=_quantization_of(config),
    )


def _walk(directory: Path) -> Iterator[str]:
    """Yield the relative POSIX path of every file to ship, after checking that it can be shipped."""
    root = directory.resolve()
    pending = [directory]
    while pending:
        folder = pending.pop()
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: os.fsencode(entry.name))
        for entry in entries:
            if entry.name in NEVER_SHIPPED:
                continue
            relative = Path(entry.path).relative_to(directory).as_posix()
            _check_name(relative)
            if entry.is_symlink():
                _check_link(Path(entry.path), relative, root)
            if entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))
            elif entry.is_file():
                yield relative
            else:
                raise InputError(
                    "neither a file nor a directory",
                    where=relative,
                    expected="regular files",
                    next_command=f"stat {entry.path!r}",
                )


def _check_name(relative: str) -> None:
    name = relative.rpartition("/")[2]
    try:
        encoded = name.encode("utf-8")
    except UnicodeEncodeError:
        raise _bad_name(relative, "is not UTF-8") from None
    if len(encoded) > MAX_NAME_BYTES:
        raise _bad_name(relative, f"has {len(encoded)} bytes")
    if name.startswith(".wh."):
        raise _bad_name(relative, "begins with `.wh.`, which deletes a file in an image layer")
    if any(ord(character) < ord(" ") or ord(character) == 0x7F for character in name) or "\\" in name:  # noqa: PLR2004
        raise _bad_name(relative, "has a control character or a backslash")


def _bad_name(relative: str, what: str) -> InputError:
    return InputError(
        f"the name {what}",
        where=repr(relative),
        expected="a name that tar and an image layer can carry",
        next_command="rename or exclude the file",
    )


def _check_link(path: Path, relative: str, root: Path) -> None:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise InputError(
            "a dangling symbolic link",
            where=relative,
            expected="a link to a file of the model",
            next_command="download the missing file, or exclude the link",
        ) from None
    if target.is_dir():
        raise InputError(
            "a symbolic link to a directory",
            where=relative,
            expected="files and real directories",
            next_command=f"cp -rL the directory, or exclude {relative!r}",
        )
    if not target.is_relative_to(root) and not _in_hub_cache(target, root):
        raise InputError(
            f"a symbolic link that leaves the model directory, to {target}",
            where=relative,
            expected="links inside the directory, or a Hub cache snapshot's into its own blobs/",
            next_command=f"cp --remove-destination {str(target)!r} {str(path)!r}",
        )


def _in_hub_cache(target: Path, root: Path) -> bool:
    """Tell whether `root` is `REPO/snapshots/COMMIT` of a Hub cache and `target` lies in `REPO/blobs`."""
    repository = root.parent.parent
    is_snapshot = root.parent.name == "snapshots" and repository.name.startswith("models--")
    return is_snapshot and target.parent == repository / "blobs"


def _refuse_pickles(files: Sequence[str], directory: Path) -> None:
    found = [file for file in files if _is_pickle(file) or _holds_pickle(directory / file)]
    if found:
        raise InputError(
            f"a pickle checkpoint, which runs code when it is loaded: {', '.join(found[:3])}",
            where=str(directory),
            expected="safetensors weights",
            next_command="convert it to safetensors, exclude it (*.bin, *.pt, *.pth), or allow pickles",
        )


def _is_pickle(file: str) -> bool:
    return file.lower().endswith(PICKLE_SUFFIXES)


def _holds_pickle(path: Path) -> bool:
    """Tell whether a file is a pickle whatever its name: a stream of protocol 2 to 5, or torch's zip around one."""
    with path.open("rb") as file:
        head = file.read(_SNIFFED_BYTES)
    is_stream = len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5  # noqa: PLR2004 - PROTO and its versions
    if path.suffix == ".safetensors" and head[8:9] == b"{":
        is_stream = False  # a header of 640 bytes begins like a pickle; what is no safetensors file is refused as such
    return is_stream or (head.startswith(b"PK\x03\x04") and b"data.pkl" in head)


def _check_weights(files: Sequence[str], directory: Path, headers: dict[str, Header], *, allow_pickle: bool) -> None:
    ggufs = [file for file in files if file.endswith(".gguf")]
    for file in ggufs:
        with (directory / file).open("rb") as opened:
            if opened.read(len(GGUF_MAGIC)) != GGUF_MAGIC:
                raise InputError("not a GGUF file", where=file, expected="a file that begins with GGUF")
    pickles = [file for file in files if _is_pickle(file)] if allow_pickle else []
    if not (headers or ggufs or pickles):
        raise InputError(
            "no weights",
            where=str(directory),
            expected="*.safetensors or *.gguf",
            next_command=f"ls -l {directory}",
        )


def _check_index(directory: Path, file: str, headers: dict[str, Header]) -> None:
    path = directory / file
    if path.stat().st_size > MAX_INDEX_BYTES:
        raise InputError("the index is too large", where=file, expected=f"at most {MAX_INDEX_BYTES} bytes")
    check_weight_map(path.read_bytes(), file, headers)


def _read_config(directory: Path, files: Sequence[str]) -> dict[str, Any]:
    if "config.json" in files:
        size_bytes = (directory / "config.json").stat().st_size
        if size_bytes > MAX_CONFIG_BYTES:
            raise InputError(
                f"config.json has {size_bytes} bytes", where="config.json", expected=f"at most {MAX_CONFIG_BYTES} bytes"
            )
        return load_object((directory / "config.json").read_bytes(), "config.json")
    if "params.json" in files or any(file.endswith(".gguf") for file in files):
        return {}
    raise InputError(
        "no config.json",
        where=str(directory),
        expected="the model's config.json beside its weights",
        next_command=f"ls -l {directory}",
    )


def _name_of(config: dict[str, Any]) -> str:
    match = _REPOSITORY_ID.fullmatch(str(config.get("_name_or_path", "")))
    return match.group(1) if match else str(config.get("model_type") or "model")


def _quantization_of(config: dict[str, Any]) -> str:
    """Return the method of transformers' `quantization_config`; empty for a model that is not quantized."""
    quantization = config.get("quantization_config")
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    return method if isinstance(method, str) and _METHOD.fullmatch(method) else ""
