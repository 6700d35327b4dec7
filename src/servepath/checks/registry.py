"""Every smoke check, in the order of the report. A check that is not listed here does not run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servepath.checks import (
    canary_checks,
    cluster_checks,
    isolation_checks,
    modelcar_checks,
    network_checks,
    openai_checks,
    parity_checks,
    route_checks,
)

if TYPE_CHECKING:
    from servepath.checks.context import ClusterCheck, PairCheck, PathCheck

CLUSTER_CHECKS: tuple[ClusterCheck, ...] = (
    cluster_checks.api_server_answers,
    cluster_checks.crds_are_served,
    isolation_checks.namespace_enforces_pod_security,
)

PATH_CHECKS: tuple[PathCheck, ...] = (
    modelcar_checks.pod_runs_the_modelcar_built,
    isolation_checks.engine_is_offline,
    network_checks.network_policy_isolates_the_engine,
    route_checks.route_timeout_is_as_asked,
    openai_checks.health_answers_200,
    openai_checks.models_names_the_model,
    openai_checks.chat_completion_answers,
    openai_checks.answer_holds_what_it_knows,
    openai_checks.stream_ends_with_done,
    openai_checks.unknown_model_is_404,
    openai_checks.malformed_body_is_refused,
    openai_checks.missing_key_is_401,
    openai_checks.wrong_key_is_401,
    route_checks.wrong_host_is_404,
    route_checks.open_paths_are_not_routed,
)

RAW_CHECKS: tuple[PathCheck, ...] = (isolation_checks.raw_pod_is_hardened,)

KSERVE_CHECKS: tuple[PathCheck, ...] = (
    modelcar_checks.webhook_made_the_modelcar_form,
    modelcar_checks.modelcar_link_leads_to_the_model,
    isolation_checks.kserve_pod_is_hardened,
    network_checks.network_policy_is_enforced,
    canary_checks.canary_percent_is_refused,
)

PAIR_CHECKS: tuple[PairCheck, ...] = (
    parity_checks.same_modelcar_on_both_paths,
    parity_checks.same_engine_on_both_paths,
    openai_checks.each_key_opens_its_own_path_alone,
)
