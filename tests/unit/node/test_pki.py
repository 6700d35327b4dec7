from __future__ import annotations

import datetime as dt
import stat
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from ci.node import kubeconfig, pki

if TYPE_CHECKING:
    from pathlib import Path


def _load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_a_client_certificate_carries_user_and_group(tmp_path: Path) -> None:
    authority = pki.create_authority(tmp_path)
    pair = authority.issue("admin", "somebody", "system:masters")
    certificate = _load(pair.certificate)
    certificate.verify_directly_issued_by(_load(authority.pair.certificate))
    names = {attribute.oid: attribute.value for attribute in certificate.subject}
    assert names == {NameOID.COMMON_NAME: "somebody", NameOID.ORGANIZATION_NAME: "system:masters"}
    assert stat.S_IMODE(pair.key.stat().st_mode) == 0o600
    assert certificate.not_valid_after_utc < dt.datetime.now(dt.UTC) + dt.timedelta(days=8)


def test_a_strict_client_finds_the_issuer_s_key(tmp_path: Path) -> None:
    authority = pki.create_authority(tmp_path)
    own = _load(authority.pair.certificate).extensions
    issued = _load(authority.issue("server", "server", hosts=("localhost",)).certificate).extensions
    key = own.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert issued.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == key
    assert own.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_a_serving_certificate_is_good_for_its_hosts_and_no_other(tmp_path: Path) -> None:
    authority = pki.create_authority(tmp_path)
    names = _load(authority.issue("server", "server", hosts=("localhost", "10.0.0.1")).certificate)
    found = names.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert found.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in found.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]


def test_another_authoritys_certificate_is_not_accepted(tmp_path: Path) -> None:
    ours, other = pki.create_authority(tmp_path / "ours"), pki.create_authority(tmp_path / "other")
    certificate = _load(other.issue("admin", "somebody").certificate)
    with pytest.raises((InvalidSignature, ValueError)):
        certificate.verify_directly_issued_by(_load(ours.pair.certificate))
    verifier = PolicyBuilder().store(Store([_load(ours.pair.certificate)])).build_client_verifier()
    with pytest.raises(VerificationError):
        verifier.verify(certificate, [])


def test_a_kubeconfig_names_the_files(tmp_path: Path) -> None:
    authority = pki.create_authority(tmp_path)
    path = kubeconfig.write(tmp_path / "config", "https://127.0.0.1:6443", authority, authority.issue("me", "me"))
    assert str(tmp_path / "me.key") in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
