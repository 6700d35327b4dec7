"""Credentials as `docker login` and the credential helpers keep them."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from servepath.errors import InputError
from servepath.modelcar.registry import credentials
from servepath.modelcar.registry.client import RegistryOptions, open_registry
from servepath.modelcar.registry.credentials import Credentials, docker_config_directory, find_credentials

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio
HOST = "registry.example:5000"
HUB = "registry-1.docker.io"


def auth(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def write(directory: Path, config: Any) -> None:
    (directory / "config.json").write_text(json.dumps(config))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a folder of our own in front of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def helper(folder: Path, name: str, script: str) -> None:
    program = folder / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


ANSWER = 'read key; echo "{\\"ServerURL\\": \\"$key\\", \\"Username\\": \\"u\\", \\"Secret\\": \\"s-$key\\"}"'
NOT_FOUND = 'echo "credentials not found in native keychain"; exit 1'


@pytest.mark.parametrize(
    ("host", "config", "expected"),
    [
        (HOST, {}, None),
        (HOST, {"auths": {}}, None),
        (HOST, {"auths": {HOST: {}}}, None),  # what `docker login` leaves when a helper keeps the secret
        (HOST, {"auths": {"other.example": {"auth": auth("u:p")}}}, None),
        (HOST, {"auths": {HOST: {"auth": auth("u:p")}}}, Credentials("u", "p")),
        (HOST, {"auths": {HOST: {"auth": auth("u:p:with:colons")}}}, Credentials("u", "p:with:colons")),
        (HOST, {"auths": {HOST: {"username": "u", "password": "p"}}}, Credentials("u", "p")),
        (HOST, {"auths": {HOST: {"auth": auth("u:p"), "identitytoken": "t"}}}, Credentials("u", "p", "t")),
        (HOST, {"auths": {f"https://{HOST}": {"auth": auth("u:p")}}}, Credentials("u", "p")),
        (HOST, {"auths": {f"https://{HOST}/v1/": {"auth": auth("u:p")}}}, Credentials("u", "p")),
        (HOST, {"auths": {f"https://{HOST}/v2/": {"auth": auth("u:p")}}}, Credentials("u", "p")),
        (HUB, {"auths": {"https://index.docker.io/v1/": {"auth": auth("u:p")}}}, Credentials("u", "p")),
        (HUB, {"auths": {"docker.io": {"auth": auth("u:p")}}}, Credentials("u", "p")),
        ("docker.io", {"auths": {"https://index.docker.io/v1/": {"auth": auth("u:p")}}}, Credentials("u", "p")),
        ("index.docker.io", {"auths": {"https://index.docker.io/v1/": {"auth": auth("u:p")}}}, Credentials("u", "p")),
        ("docker.io", {"auths": {HUB: {"auth": auth("u:p")}}}, Credentials("u", "p")),
        (HOST, {"auths": []}, None),
        (HOST, {"auths": {HOST: "u:p"}}, None),
        (HOST, {"credHelpers": [], "credsStore": 7}, None),
    ],
)
async def test_what_docker_login_writes_is_read(
    tmp_path: Path, host: str, config: Any, expected: Credentials | None
) -> None:
    write(tmp_path, config)
    assert await find_credentials(host, tmp_path) == expected


@pytest.mark.parametrize("text", ["{", "[]", "", "null"])
async def test_a_config_that_does_not_parse_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError):
        await find_credentials(HOST, tmp_path)


@pytest.mark.parametrize("entry", ["not base64!", auth("u:p")[:-1], base64.b64encode(b"\xff:\xff").decode()])
async def test_an_auth_entry_that_is_no_base64_of_text_is_refused(tmp_path: Path, entry: str) -> None:
    write(tmp_path, {"auths": {HOST: {"auth": entry}}})
    with pytest.raises(InputError, match="not base64") as caught:
        await find_credentials(HOST, tmp_path)
    assert entry not in str(caught.value)


async def test_the_registrys_helper_wins_over_the_store_and_both_over_the_file(tmp_path: Path, path: Path) -> None:
    helper(path, "one", ANSWER)
    helper(path, "all", ANSWER.replace("s-", "store-"))
    write(
        tmp_path,
        {"credHelpers": {HOST: "one"}, "credsStore": "all", "auths": {HOST: {"auth": auth("file:p")}}},
    )
    assert await find_credentials(HOST, tmp_path) == Credentials("u", f"s-{HOST}")
    assert await find_credentials("other.example", tmp_path) == Credentials("u", "store-other.example")
    assert await find_credentials(HUB, tmp_path) == Credentials("u", "store-https://index.docker.io/v1/")


async def test_an_identity_token_of_a_helper(tmp_path: Path, path: Path) -> None:
    helper(path, "one", ANSWER.replace('\\"u\\"', '\\"<token>\\"'))
    write(tmp_path, {"credsStore": "one"})
    assert await find_credentials(HOST, tmp_path) == Credentials(identity_token=f"s-{HOST}")


async def test_a_helper_without_an_entry_leaves_the_file(
    tmp_path: Path, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    helper(path, "one", NOT_FOUND)
    write(tmp_path, {"credsStore": "one", "auths": {HOST: {"auth": auth("u:p")}}})
    assert await find_credentials(HOST, tmp_path) == Credentials("u", "p")
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("script", "said"), [("echo the keychain is locked; exit 1", "the keychain is locked"), ("exit 3", "exit code 3")]
)
async def test_a_helper_that_fails_is_named_in_the_log(
    tmp_path: Path, path: Path, caplog: pytest.LogCaptureFixture, script: str, said: str
) -> None:
    helper(path, "one", script)
    write(tmp_path, {"credsStore": "one"})
    assert await find_credentials(HOST, tmp_path) is None
    assert said in caplog.text


@pytest.mark.parametrize("name", ["missing", "../../bin/sh", "a b"])
async def test_a_helper_that_is_not_installed_is_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    write(tmp_path, {"credsStore": name})
    assert await find_credentials(HOST, tmp_path) is None
    assert f"docker-credential-{name} is not installed" in caplog.text


@pytest.mark.parametrize("answer", ["", "not json", "[]", "{}", '{"Username": "opensesame"}', "null"])
async def test_a_helper_that_answers_nonsense_is_an_error_without_the_answer(
    tmp_path: Path, path: Path, answer: str
) -> None:
    helper(path, "one", f"printf '%s' '{answer}'")
    write(tmp_path, {"credsStore": "one"})
    with pytest.raises(InputError, match="something else than JSON") as caught:
        await find_credentials(HOST, tmp_path)
    assert "opensesame" not in str(caught.value)


async def test_a_helper_that_is_no_program_is_named_in_the_log(
    tmp_path: Path, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (path / "docker-credential-one").write_bytes(b"\x7fELF nothing")
    (path / "docker-credential-one").chmod(0o755)
    write(tmp_path, {"credsStore": "one"})
    assert await find_credentials(HOST, tmp_path) is None
    assert "cannot be run: Exec format error" in caplog.text


async def test_a_helper_that_waits_for_a_person_is_ended(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(path, "one", "exec sleep 60")
    write(tmp_path, {"credsStore": "one"})
    monkeypatch.setattr(credentials, "HELPER_TIMEOUT_S", 0.2)
    with pytest.raises(InputError, match="did not answer"):
        await find_credentials(HOST, tmp_path)


async def test_docker_config_names_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert docker_config_directory() == tmp_path
    write(tmp_path, {"auths": {HOST: {"auth": auth("u:p")}}})
    async with open_registry(HOST, RegistryOptions()) as client:
        assert client.scheme == "https"
        assert "secret" not in repr(Credentials("u", "secret", "secret"))
    monkeypatch.delenv("DOCKER_CONFIG")
    assert docker_config_directory().name == ".docker"


@pytest.mark.usefixtures("homeless")
async def test_a_user_without_a_home_has_no_credentials() -> None:
    options = RegistryOptions()
    assert not options.docker_config.exists()
    assert await find_credentials(HOST, options.docker_config) is None
