"""Two real registries: push, copy and verify in each form, in one request or in chunks, with faults in between."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from servepath.evidence import Verdict
from servepath.modelcar.attach.referrers import MODELPACK, PROVENANCE, SBOM
from servepath.modelcar.build import build_and_push
from servepath.modelcar.copy import copy
from servepath.modelcar.registry.client import RegistryOptions
from servepath.modelcar.registry.retry import RetryPolicy
from servepath.modelcar.source.directory import open_source
from servepath.modelcar.verify import verify, verify_content
from tests.interop.forms import FORMS, Shipped, output, write_varied_model
from tests.unit.modelcar.faults import Rule, faulty_proxy
from tests.unit.modelcar.helpers import MIB

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from servepath.evidence import CheckResult

pytestmark = pytest.mark.anyio


@pytest.fixture
def options(tmp_path: Path) -> RegistryOptions:
    return RegistryOptions(docker_config=tmp_path / "docker", retry=RetryPolicy(attempts=5, base_s=0.01, longest_s=0.2))


def failed(results: Sequence[CheckResult]) -> dict[str, str]:
    return {f"{r.subject} {r.name}": r.seen for r in results if r.verdict is Verdict.FAIL}


async def test_every_form_is_verified(shipped: Shipped, options: RegistryOptions) -> None:
    required = frozenset({SBOM, PROVENANCE} if shipped.form == "attested" else ())
    assert failed(await verify(shipped.reference, required=required, options=options)) == {}
    assert failed(await verify_content(shipped.reference, required=required, options=options)) == {}


async def test_every_form_is_copied_with_all_that_refers_to_it(
    shipped: Shipped, crane_registry: str, oras: Path, options: RegistryOptions
) -> None:
    copied = await copy(shipped.reference, crane_registry, f"copied/{shipped.form}", tag="v1", options=options)
    assert copied.digest == shipped.digest
    assert failed(await verify_content(copied.reference, options=options)) == {}
    assert (
        output([oras, "resolve", "--plain-http", f"{crane_registry}/copied/{shipped.form}:v1"]).strip() == copied.digest
    )
    said = json.loads(output([oras, "discover", "--plain-http", "--format", "json", copied.reference]))
    kinds = {entry["artifactType"] for entry in said.get("referrers") or ()}
    assert kinds == ({SBOM, PROVENANCE, MODELPACK} if shipped.form == "attested" else set())
    again = await copy(shipped.reference, crane_registry, f"copied/{shipped.form}", options=options)
    assert again.sent_bytes == 0


@pytest.mark.parametrize("chunk_bytes", [0, 3 * MIB], ids=["one request", "chunks"])
async def test_a_push_gives_the_same_digest_in_every_registry_and_way(
    any_registry: str, model: Path, base_index: str, shipped: Shipped, options: RegistryOptions, chunk_bytes: int
) -> None:
    chunked = replace(options, chunk_bytes=chunk_bytes)
    build, repository = FORMS[shipped.form], f"again/{shipped.form}-{chunk_bytes}"
    pushed = await build_and_push(
        open_source(model), base_index, any_registry, repository, build=build, options=chunked
    )
    assert pushed.digest == shipped.digest
    assert failed(await verify_content(pushed.reference, options=options)) == {}
    again = await build_and_push(open_source(model), base_index, any_registry, repository, build=build, options=chunked)
    assert (again.digest, again.sent_bytes) == (shipped.digest, 0)


async def test_a_push_survives_a_network_that_breaks_everywhere(
    any_registry: str, tmp_path: Path, base_index: str, options: RegistryOptions
) -> None:
    model = write_varied_model(tmp_path / "m", seed=100)  # crane's registry keeps a blob for all its repositories
    with faulty_proxy(any_registry) as faults:
        faults.rules = [
            Rule("HEAD", "blobs", drop_after_bytes=0),
            Rule("POST", "uploads", status=429, headers={"Retry-After": "0"}),
            Rule("(PATCH|PUT)", "uploads", drop_after_bytes=MIB),
            Rule("(PATCH|PUT)", "uploads", status=502),
            Rule("PUT", "manifests", drop_after_bytes=10),
        ]
        pushed = await build_and_push(open_source(model), base_index, faults.host, "faulty/model", options=options)
        assert [rule for rule in faults.rules if rule.times] == []
    assert failed(await verify_content(f"{any_registry}/faulty/model@{pushed.digest}", options=options)) == {}
