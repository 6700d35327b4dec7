"""A signature counts when the policy's key made it, over this digest; everything else is refused with its reason."""

from __future__ import annotations

import base64
import sys
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from servepath.errors import InputError, PromotionRefusedError, UsageError
from servepath.modelcar.build import build_and_push
from servepath.modelcar.source.directory import open_source
from servepath.promotion.signature import read_policy, require_signature
from tests.unit.promotion.signing import payload_of, sign, write_key

if TYPE_CHECKING:
    from pathlib import Path

    from servepath.modelcar.model import Modelcar
    from servepath.modelcar.registry.client import RegistryOptions

pytestmark = pytest.mark.anyio
OTHER = "sha256:" + "9" * 64


@pytest.fixture
async def modelcar(
    model: Path,
    base: str,
    laptop: str,
    repository: str,
    options: RegistryOptions,
) -> Modelcar:
    return await build_and_push(open_source(model), base, laptop, repository, options=options)


@pytest.mark.parametrize("as_referrer", [False, True], ids=["tag", "referrer"])
async def test_the_keys_signature_holds(
    modelcar: Modelcar,
    options: RegistryOptions,
    tmp_path: Path,
    as_referrer: bool,  # noqa: FBT001
) -> None:
    private, policy = write_key(tmp_path / "cosign.pub")
    await sign(modelcar.reference, private, options, as_referrer=as_referrer)
    signed = await require_signature(modelcar.reference, read_policy(tmp_path / "cosign.pub"), options)
    assert signed.optional == {"commit": "abc"}
    assert signed.place.startswith("referrer" if as_referrer else "tag")
    assert policy == read_policy(tmp_path / "cosign.pub")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"signature": base64.b64encode(b"nothing").decode()}, "signed by another key, or changed since"),
        ({"signature": "!"}, "not base64"),
        ({"payload": payload_of(OTHER)}, f"it signs {OTHER}"),
        ({"payload": payload_of(OTHER, type="atomic container signature")}, "of type 'atomic container signature'"),
        ({"payload": []}, "not a simple signing payload"),
    ],
    ids=["changed", "not base64", "another digest", "another type", "no payload"],
)
async def test_any_other_signature_does_not(
    modelcar: Modelcar,
    options: RegistryOptions,
    tmp_path: Path,
    change: dict[str, Any],
    complaint: str,
) -> None:
    private, policy = write_key(tmp_path / "cosign.pub")
    await sign(modelcar.reference, private, options, **change)
    with pytest.raises(PromotionRefusedError, match=complaint) as caught:
        await require_signature(modelcar.reference, policy, options)
    assert caught.value.exit_code == 8
    assert f"cosign verify --key {policy.name}" in caught.value.next_command


async def test_another_keys_signature_does_not_hold_and_does_not_hide_the_right_one(
    modelcar: Modelcar,
    options: RegistryOptions,
    tmp_path: Path,
) -> None:
    stranger, _ = write_key(tmp_path / "stranger.pub")
    private, policy = write_key(tmp_path / "cosign.pub")
    with pytest.raises(PromotionRefusedError, match="the image is not signed"):
        await require_signature(modelcar.reference, policy, options)
    await sign(modelcar.reference, stranger, options)
    with pytest.raises(PromotionRefusedError, match="another key"):
        await require_signature(modelcar.reference, policy, options)
    await sign(modelcar.reference, private, options, as_referrer=True)
    await require_signature(modelcar.reference, policy, options)


def test_a_key_that_is_none_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_policy(tmp_path / "missing.pub")
    (tmp_path / "text.pub").write_text("hello")
    with pytest.raises(InputError, match="not a public key"):
        read_policy(tmp_path / "text.pub")
    for name, key in (("p384", ec.generate_private_key(ec.SECP384R1())), ("ed", ed25519.Ed25519PrivateKey.generate())):
        pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / name).write_bytes(pem)
        with pytest.raises(InputError, match="not an ECDSA P-256 key"):
            read_policy(tmp_path / name)


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_key(tmp_path / "cosign.pub")
    for module in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match="needs the package `cryptography`") as caught:
        read_policy(tmp_path / "cosign.pub")
    assert "servepath[signature]" in caught.value.next_command
