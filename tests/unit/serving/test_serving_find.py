"""What is read back from the objects of a path: what was deployed, or one clear error where somebody changed them."""

from __future__ import annotations

import copy
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from servepath.errors import ClusterError
from servepath.serving import find
from servepath.serving.model import ServingPath
from servepath.serving.render import engine_container, render

if TYPE_CHECKING:
    from servepath.serving.model import ServingSpec

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed"),
]
KIND = {ServingPath.RAW: "Deployment", ServingPath.KSERVE: "InferenceService"}


async def engine_of(spec: ServingSpec, path: ServingPath) -> dict[str, Any]:
    objects = await render(spec, path)
    return copy.deepcopy(next(obj for obj in objects if obj["kind"] == KIND[path]))


@pytest.mark.parametrize("path", list(ServingPath))
async def test_model_and_engine_are_read_from_what_is_rendered(spec: ServingSpec, path: ServingPath) -> None:
    engine = await engine_of(spec, path)
    assert find.modelcar_reference(engine, path) == spec.modelcar_reference
    assert find.model_name(engine_container(engine, path), engine) == spec.served_model_name
    assert engine_container(engine, path)["image"] == spec.engine_image


async def test_an_engine_that_is_not_told_its_models_name_is_refused(spec: ServingSpec) -> None:
    engine = await engine_of(spec, ServingPath.RAW)
    container = engine_container(engine, ServingPath.RAW)
    container["args"] = [one for one in container["args"] if not one.startswith("--served-model-name")]
    with pytest.raises(ClusterError, match="is not told its model's name"):
        find.model_name(container, engine)


@pytest.mark.parametrize("path", list(ServingPath))
async def test_an_object_that_was_changed_is_one_error_that_names_it(spec: ServingSpec, path: ServingPath) -> None:
    engine = await engine_of(spec, path)
    if path is ServingPath.RAW:
        engine["spec"]["template"]["spec"]["initContainers"] = []
    else:
        engine["spec"]["predictor"] = {"model": {"modelFormat": {"name": "huggingface"}}}
    with pytest.raises(ClusterError, match="not as servepath deploys it") as caught, find._as_deployed(engine):
        find.modelcar_reference(engine, path)
    assert caught.value.where == f"{spec.namespace}/{engine['metadata']['name']}"
    assert caught.value.next_command
