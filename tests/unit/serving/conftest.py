"""What the serving tests share: a spec, and asyncio as anyio's backend."""

from collections.abc import Mapping

import pytest

from servepath.serving.model import Profile, ServingSpec
from servepath.serving.profiles import CPU_SMALL

MODEL_DIGEST = "sha256:" + "a" * 64
ENGINE_DIGEST = "sha256:" + "b" * 64


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def spec() -> ServingSpec:
    return make_spec()


def make_spec(profile: Profile = CPU_SMALL, changes: Mapping[str, str] | None = None) -> ServingSpec:
    values = {
        "namespace": "demo",
        "name": "smol",
        "served_model_name": "smollm2-135m-instruct",
        "modelcar_reference": f"127.0.0.1:5000/servepath/smol@{MODEL_DIGEST}",
        "engine_image": f"127.0.0.1:5000/servepath/engine@{ENGINE_DIGEST}",
    }
    return ServingSpec(profile=profile, **(values | dict(changes or {})))
