"""What the kubelet's events tell of pulls."""

from typing import Any

import pytest

from servepath.lifecycle.staging import go_duration_s, times_in

IMAGE = "127.0.0.1:5000/servepath/model@sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("9.182s", 9.182), ("1m13.893s", 73.893), ("812.5ms", 0.8125), ("1h0m2s", 3602.0), ("40µs", 4e-5)],
)
def test_durations_as_go_writes_them(text: str, seconds: float) -> None:
    assert go_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "9", "9x", "s", "1m3", "fast"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"):
        go_duration_s(text)


def event(pod: str, message: str) -> dict[str, Any]:
    return {"involvedObject": {"name": pod}, "message": message}


def test_only_this_pods_pulls_of_this_image_count() -> None:
    # As kubelet 1.34.4 writes them.
    pulled = 'Successfully pulled image "{}" in {} (9.182s including waiting). Image size: 273639964 bytes.'
    events = [
        event("new", pulled.format(IMAGE, "9.182s")),
        event("new", pulled.format("127.0.0.1:5000/servepath/engine@sha256:" + "b" * 64, "1m13.893s")),
        event("new", f'Container image "{IMAGE}" already present on machine'),
        event("old", pulled.format(IMAGE, "6.315s")),
        {"involvedObject": {"name": "new"}},
    ]
    assert tuple(times_in(events, IMAGE, {"new"})) == (9.182,)
    assert tuple(times_in(events, IMAGE, {"new", "old"})) == (9.182, 6.315)
    assert tuple(times_in(events, IMAGE, set())) == ()
