"""From the laptop's registry to the cluster's: the digest stays, what speaks of it comes along, faults are borne."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servepath.errors import CheckFailedError, RegistryError
from servepath.evidence import Verdict
from servepath.modelcar.attach.referrers import SBOM, list_referrers
from servepath.modelcar.build import build_and_push
from servepath.modelcar.plan import BuildOptions
from servepath.modelcar.registry.client import RegistryOptions, open_registry
from servepath.modelcar.registry.repository import Repository
from servepath.modelcar.source.directory import open_source
from servepath.promotion.copying import copy_modelcar, plan_copy
from servepath.promotion.signature import signature_tag
from tests.unit.modelcar.faults import Faults, Rule
from tests.unit.promotion.signing import sign, write_key

if TYPE_CHECKING:
    from pathlib import Path

    from servepath.modelcar.model import Modelcar

pytestmark = pytest.mark.anyio


@pytest.fixture
async def modelcar(
    model: Path,
    base: str,
    laptop: str,
    repository: str,
    options: RegistryOptions,
) -> Modelcar:
    """A modelcar with SBOM and provenance in the laptop's registry."""
    return await build_and_push(
        open_source(model), base, laptop, repository, build=BuildOptions(attest=True), options=options
    )


async def test_the_plan_says_what_is_to_be_sent_and_sends_nothing(
    modelcar: Modelcar,
    faults: Faults,
    repository: str,
    options: RegistryOptions,
) -> None:
    plan = await plan_copy(modelcar.reference, faults.host, repository, options)
    assert plan.target == f"{faults.host}/{repository}@{modelcar.digest}"
    assert plan.missing_bytes == plan.size_bytes > modelcar.size_bytes / 2
    assert plan.referrers == 2
    assert plan.tags == ()
    assert {method for method, _, _ in faults.seen} <= {"GET", "HEAD"}
    copied = await copy_modelcar(modelcar.reference, faults.host, repository, options)
    assert copied.sent_bytes > plan.size_bytes, "what refers to it is sent too"
    again = await plan_copy(modelcar.reference, faults.host, repository, options)
    assert again.missing_bytes == 0


@pytest.mark.parametrize("denied_by", ["the registry", "its token service"])
async def test_a_repository_that_may_not_be_read_before_it_is_there_is_made_by_the_copy(
    modelcar: Modelcar, faults: Faults, repository: str, options: RegistryOptions, denied_by: str
) -> None:
    def deny(times: int) -> list[Rule]:
        if denied_by == "the registry":
            return [Rule("HEAD", f"/{repository}/blobs/", times, status=403)]
        return [Rule("GET", r"/token\?.*pull(&|$)", times, status=403)]

    faults.token, faults.rules = ("t" if denied_by == "its token service" else ""), deny(99)
    plan = await plan_copy(modelcar.reference, faults.host, repository, options)
    assert plan.missing_bytes == plan.size_bytes
    faults.rules = deny(1)
    copied = await copy_modelcar(modelcar.reference, faults.host, repository, options)
    assert all(check.verdict is Verdict.PASS for check in copied.checks)


async def test_the_digest_stays_and_signature_and_attestations_come_along(
    modelcar: Modelcar,
    registry: str,
    repository: str,
    options: RegistryOptions,
    tmp_path: Path,
) -> None:
    private, _ = write_key(tmp_path / "cosign.pub")
    await sign(modelcar.reference, private, options)
    copied = await copy_modelcar(modelcar.reference, registry, repository, options)
    assert copied.reference == f"{registry}/{repository}@{modelcar.digest}"
    assert copied.tags == (signature_tag(modelcar.digest),)
    assert {check.verdict for check in copied.checks} <= {Verdict.PASS, Verdict.SKIP}
    async with open_registry(registry, options) as client:
        there = Repository(client, repository)
        kinds = {entry.artifact_type for entry in await list_referrers(there, modelcar.digest)}
        assert SBOM in kinds
        assert len(kinds) == len(copied.referrers) == 2
        signature = await there.read_manifest(signature_tag(modelcar.digest))
    async with open_registry(modelcar.reference.partition("/")[0], options) as client:
        origin = await Repository(client, repository).read_manifest(signature_tag(modelcar.digest))
    assert origin == signature


@pytest.mark.parametrize("status", [500, 502, 503, 429])
async def test_a_registry_that_fails_for_a_moment_is_asked_again(
    modelcar: Modelcar,
    faults: Faults,
    repository: str,
    options: RegistryOptions,
    status: int,
) -> None:
    faults.rules = [Rule("PUT", "/manifests/", status=status), Rule("POST", "/uploads/", status=status)]
    copied = await copy_modelcar(modelcar.reference, faults.host, repository, options)
    assert copied.reference.endswith(modelcar.digest)
    assert all(rule.times == 0 for rule in faults.rules)


async def test_a_token_that_expires_on_the_way_is_asked_for_again(
    modelcar: Modelcar,
    faults: Faults,
    repository: str,
    options: RegistryOptions,
) -> None:
    faults.token = "first"
    faults.rules = [Rule("PUT", "/manifests/", forget_token=True)]
    await copy_modelcar(modelcar.reference, faults.host, repository, options)
    assert faults.token == "first-next"
    assert len(faults.token_requests) >= 2


async def test_a_registry_that_stays_broken_is_named(
    modelcar: Modelcar,
    faults: Faults,
    repository: str,
    options: RegistryOptions,
) -> None:
    faults.rules = [Rule("POST", "/uploads/", times=1000, status=503)]
    with pytest.raises(RegistryError, match="503"):
        await copy_modelcar(modelcar.reference, faults.host, repository, options)


async def test_a_quota_refusal_is_said_in_the_registrys_own_words(
    modelcar: Modelcar,
    faults: Faults,
    repository: str,
    options: RegistryOptions,
) -> None:
    refusal = b'{"errors":[{"code":"DENIED","message":"Quota exceeded for quota metric"}]}'
    faults.rules = [Rule("POST", "/uploads/", times=1000, status=403, body=refusal)]
    with pytest.raises(RegistryError, match="Quota exceeded"):
        await copy_modelcar(modelcar.reference, faults.host, repository, options)


async def test_what_does_not_arrive_whole_fails_the_stage(
    modelcar: Modelcar,
    faults: Faults,
    repository: str,
    options: RegistryOptions,
) -> None:
    await copy_modelcar(modelcar.reference, faults.host, repository, options)
    largest = max(modelcar.layers, key=lambda layer: layer.size_bytes)
    faults.rules = [Rule("GET", largest.digest, times=1000, change=lambda body: bytes(len(body)))]
    with pytest.raises((CheckFailedError, RegistryError)) as caught:
        await copy_modelcar(modelcar.reference, faults.host, repository, options)
    assert caught.value.exit_code in {4, 6}
