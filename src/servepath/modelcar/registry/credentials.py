"""Registry credentials from Docker's `config.json`, as `docker login` writes it, and from credential helpers."""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anyio import to_thread

from servepath.errors import InputError
from servepath.modelcar.registry.reference import HUB_NAMES, is_hub
from servepath.modelcar.store import load_object

_HUB_KEY = "https://index.docker.io/v1/"
_HELPER = re.compile(r"[A-Za-z0-9._-]+")
HELPER_TIMEOUT_S = 30.0
logger = logging.getLogger(__name__)
_TOKEN_USER = "<token>"  # noqa: S105 - the user name with which helpers mark an identity token


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and password for one registry, or an identity token; the secrets are kept out of `repr`.

    Attributes:
        username: empty for an identity token.
        password: its password.
        identity_token: what a token service takes instead of both.
        password_file: where the password is instead, read each time it is needed: a short-lived one is renewed there.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    password_file: Path | None = None

    def present_password(self) -> str:
        """Give the password as it is now."""
        return self.password if self.password_file is None else self.password_file.read_text().strip()


def docker_config_directory() -> Path:
    """Return where Docker's tools look: `$DOCKER_CONFIG`, else `~/.docker`; nothing is there without a home."""
    with suppress(RuntimeError):
        return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    return Path(os.devnull, "docker")


async def find_credentials(host: str, config_directory: Path) -> Credentials | None:
    """Look up a registry's credentials; None when the file or the entry is not there.

    A helper that is configured for this registry (`credHelpers`) or for all (`credsStore`) is asked first. One that is
    not installed, or that fails otherwise than by having no entry, is named in the log: a public image needs neither.

    Args:
        host: the registry's `host[:port]`; Docker Hub's under any of its names.
        config_directory: the directory of `config.json`.

    Raises:
        InputError: `config.json` or the answer of a credential helper does not parse, or a helper does not answer.
    """
    path = config_directory / "config.json"
    if not path.is_file():
        return None
    config = load_object(path.read_bytes(), str(path))
    key = _HUB_KEY if is_hub(host) else host
    helpers = _section(config, "credHelpers")
    helper = next((helpers[name] for name in _names_of(key) if name in helpers), config.get("credsStore"))
    if isinstance(helper, str) and helper and (found := await _ask_helper(helper, key)):
        return found
    auths = _section(config, "auths")
    entry = next((auths[name] for name in _names_of(key) if name in auths), None)
    return _from_entry(entry, str(path)) if isinstance(entry, dict) and entry else None


def _names_of(key: str) -> tuple[str, ...]:
    """The names under which Docker's tools have written a registry."""
    if key == _HUB_KEY:
        return (key, *HUB_NAMES)
    return (key, f"https://{key}", f"https://{key}/", f"https://{key}/v1/", f"https://{key}/v2/", f"http://{key}")


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
    program = shutil.which(f"docker-credential-{helper}") if _HELPER.fullmatch(helper) else None
    if program is None:
        logger.warning("the credential helper docker-credential-%s is not installed", helper)
        return None

    # `subprocess` bears a helper that ends without reading what it was told; anyio's streams do not.
    def get() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [program, "get"], input=key.encode(), capture_output=True, check=False, timeout=HELPER_TIMEOUT_S
        )

    try:
        result = await to_thread.run_sync(get)
    except subprocess.TimeoutExpired:
        raise InputError(
            f"a credential helper did not answer in {HELPER_TIMEOUT_S:.0f} s",
            where=program,
            expected="an answer without a question to a person",
            next_command=f"echo {key} | {program} get",
        ) from None
    except OSError as error:
        logger.warning("%s cannot be run: %s", program, error.strerror)
        return None
    if result.returncode != 0:
        said = result.stdout.decode("utf-8", "replace").strip()
        if "not found" not in said:  # the helpers' way to say that they have no entry
            logger.warning("%s: %s", program, said[:200] or f"exit code {result.returncode}")
        return None
    try:
        answer = json.loads(result.stdout)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(
            "a credential helper answered something else than JSON with Username and Secret",
            where=program,
            expected="what the helpers of Docker answer",
            next_command=f"echo {key} | {program} get",
        ) from None
    if username == _TOKEN_USER:
        return Credentials(identity_token=secret)
    return Credentials(username, secret)
