"""Registry credentials from Docker's `config.json`, as `docker login` writes it, and from credential helpers."""

from __future__ import annotations

import base64
import binascii
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from servepath.errors import InputError
from servepath.modelcar.reference import DOCKER_HUB
from servepath.modelcar.store import load_object

_HUB_KEY = "https://index.docker.io/v1/"
_TOKEN_USER = "<token>"  # noqa: S105 - the user name with which helpers mark an identity token


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and password for one registry, or an identity token; the secrets are kept out of `repr`."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


def docker_config_directory() -> Path:
    """Return where Docker's tools look: `$DOCKER_CONFIG`, else `~/.docker`."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")


async def find_credentials(host: str, config_directory: Path) -> Credentials | None:
    """Look up a registry's credentials; None when the file or the entry is not there.

    Args:
        host: the registry's `host[:port]`.
        config_directory: the directory of `config.json`.

    Raises:
        InputError: `config.json` or the answer of a credential helper does not parse.
    """
    path = config_directory / "config.json"
    if not path.is_file():
        return None
    config = load_object(path.read_bytes(), str(path))
    key = _HUB_KEY if host == DOCKER_HUB else host
    helper = _section(config, "credHelpers").get(key) or config.get("credsStore")
    if isinstance(helper, str) and helper and (found := await _ask_helper(helper, key)):
        return found
    auths = _section(config, "auths")
    entry = next((auths[name] for name in (key, f"https://{key}", f"https://{key}/v2/") if name in auths), None)
    return _from_entry(entry, str(path)) if isinstance(entry, dict) and entry else None


def _section(config: dict[str, Any], name: str) -> dict[str, Any]:
    section = config.get(name)
    return section if isinstance(section, dict) else {}


def _from_entry(entry: dict[str, Any], where: str) -> Credentials:
    username, password = str(entry.get("username", "")), str(entry.get("password", ""))
    if encoded := entry.get("auth"):
        try:
            username, _, password = base64.b64decode(str(encoded), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise InputError("an `auth` entry is not base64", where=where, next_command="docker login") from None
    return Credentials(username, password, str(entry.get("identitytoken", "")))


async def _ask_helper(helper: str, key: str) -> Credentials | None:
    program = shutil.which(f"docker-credential-{helper}")
    if program is None:
        return None
    result = await anyio.run_process([program, "get"], input=key.encode(), check=False)
    if result.returncode != 0:
        return None  # the helper's way to say that it has no entry
    try:
        answer = json.loads(result.stdout)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        raise InputError("a credential helper answered something else than JSON", where=program) from None
    if username == _TOKEN_USER:
        return Credentials(identity_token=secret)
    return Credentials(username, secret)
