"""The roles of manifests/promotion/access allow what a promotion does, for every overlay, and nothing more."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from servepath.promotion.preflight.access import CLUSTER_ROLE, PLATFORM_ROLE, RELEASE_ROLE, Access, accesses
from tests.contract.kubernetes_schemas import ROOT
from tests.contract.test_manifests import SERVING, built

ROLES = ("release", "platform", "cluster")
Rules = set[tuple[str, str, str, str]]


def allowed() -> Rules:
    """Role, API group, resource and verb of each rule."""
    found: Rules = set()
    for name in ROLES:
        role: dict[str, Any] = yaml.safe_load((ROOT / "manifests/promotion/access" / f"{name}.yaml").read_text())
        for rule in role["rules"]:
            groups, resources, verbs = rule["apiGroups"], rule["resources"], rule["verbs"]
            found |= {(role["metadata"]["name"], g, r, v) for g in groups for r in resources for v in verbs}
    return found


def needed(wanted: tuple[Access, ...]) -> Rules:
    return {(access.role, access.group, access.resource, verb) for access in wanted for verb in access.verbs}


def of_all_overlays() -> Rules:
    objects = [obj for overlay in SERVING for obj in built(overlay)]
    return needed(accesses(objects, "servepath", "gateways", "kserve"))


def test_the_roles_allow_exactly_what_is_done() -> None:
    assert allowed() == of_all_overlays()


@pytest.mark.parametrize("role", [RELEASE_ROLE, PLATFORM_ROLE, CLUSTER_ROLE])
def test_no_role_allows_everything_of_anything(role: str) -> None:
    rules = {rule for rule in allowed() if rule[0] == role}
    assert rules
    assert not [rule for rule in rules if "*" in rule]
    assert not [rule for rule in rules if rule[2] in ("roles", "rolebindings", "clusterroles", "clusterrolebindings")]
