"""The tests of routes and the smoke checks of both paths that Envoy Gateway passes, on agentgateway."""

import pytest

from tests.cluster.pods.test_gateway_routes import (
    served,
    test_a_request_reaches_the_model_by_its_host,
    test_another_host_is_not_found,
    test_events_are_not_held_back,
    test_the_platform_is_what_both_paths_need,
    test_the_routes_timeout_is_the_predictors,
)
from tests.cluster.pods.test_standin_engine import (
    test_it_fails_as_often_as_it_is_told,
    test_the_smoke_checks_pass_on_both_paths,
)

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

__all__ = [
    "served",
    "test_a_request_reaches_the_model_by_its_host",
    "test_another_host_is_not_found",
    "test_events_are_not_held_back",
    "test_it_fails_as_often_as_it_is_told",
    "test_the_platform_is_what_both_paths_need",
    "test_the_routes_timeout_is_the_predictors",
    "test_the_smoke_checks_pass_on_both_paths",
]
