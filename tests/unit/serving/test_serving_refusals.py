"""What the cluster would accept and not honour is refused, with the reason and the way out."""

from typing import Any

import pytest

from servepath.errors import UsageError
from servepath.serving.refusals import images_in, refuse_unpinned, refuse_unsupported

PINNED = "registry.test/x@sha256:" + "c" * 64


def service(**predictor: Any) -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "x"},
        "spec": {"predictor": {"containers": [{"name": "kserve-container", "image": PINNED}], **predictor}},
    }


def test_a_plain_service_passes() -> None:
    refuse_unsupported([service()])


def test_canary_is_refused_with_reason_and_alternative() -> None:
    with pytest.raises(UsageError) as caught:
        refuse_unsupported([service(canaryTrafficPercent=10)])
    text = str(caught.value)
    assert "ksvc_reconciler.go:134-152" in text
    assert "two InferenceServices behind one HTTPRoute with weights" in text
    assert text.startswith("InferenceService/x spec.predictor")
    assert caught.value.exit_code == 2


def test_canary_in_knative_mode_is_knatives_to_honour() -> None:
    obj = service(canaryTrafficPercent=10)
    obj["metadata"]["annotations"] = {"serving.kserve.io/deploymentMode": "Knative"}
    refuse_unsupported([obj])


@pytest.mark.parametrize(
    "obj",
    [
        {"kind": "LocalModelCache", "metadata": {"name": "x"}},
        {
            "kind": "InferenceService",
            "metadata": {"name": "x", "labels": {"internal.serving.kserve.io/localmodel": "y"}},
        },
    ],
)
def test_local_model_cache_is_refused(obj: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"no handler for oci://.*the modelcar alone"):
        refuse_unsupported([obj])


def test_storage_uri_is_an_image() -> None:
    obj = service()
    obj["spec"]["predictor"]["containers"][0]["env"] = [{"name": "STORAGE_URI", "value": "oci://r.test/m:latest"}]
    assert list(images_in(obj)) == [PINNED, "r.test/m:latest"]
    with pytest.raises(UsageError, match=r"'r\.test/m:latest' is not pinned"):
        refuse_unsupported([obj])


@pytest.mark.parametrize("image", ["x", "x:1", "x@sha256:12", f"{PINNED}0", "x@md5:" + "c" * 64])
def test_unpinned(image: str) -> None:
    with pytest.raises(UsageError, match="not pinned by digest"):
        refuse_unpinned(image, where="here")
