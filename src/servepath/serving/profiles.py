"""The profiles: what one engine may use on the machines that servepath knows; each is named after its overlay."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from servepath.errors import UsageError
from servepath.serving.model import Profile

if TYPE_CHECKING:
    from collections.abc import Iterable

CPU = Profile(
    name="cpu",
    cpu_request="2",
    cpu_limit="4",
    memory_request="6Gi",
    memory_limit="10Gi",
    kv_cache_gib=2,
    max_model_len=4096,
    startup_timeout_s=900,
    request_timeout_s=300,
)

CPU_SMALL = Profile(
    name="cpu-small",
    cpu_request="500m",
    cpu_limit="2",
    memory_request="3Gi",
    memory_limit="6Gi",
    kv_cache_gib=1,
    max_model_len=2048,
    startup_timeout_s=900,
    request_timeout_s=300,
    engine_args=("--max-num-seqs=16",),
)
"""Two engines at once on two cores and 16 GiB: they ask for little, and are loaded in turns."""

GPU = Profile(
    name="gpu",
    cpu_request="2",
    cpu_limit="4",
    memory_request="12Gi",
    memory_limit="32Gi",
    kv_cache_gib=0,
    max_model_len=8192,
    startup_timeout_s=1500,
    request_timeout_s=300,
    # A node with an accelerator is often made only for the pod.
    patience_s=600,
)

# The node, its GPU driver and the engine's image may all come first.
GKE = replace(GPU, name="gke", startup_timeout_s=3000, patience_s=900)

PROFILES = {profile.name: profile for profile in (CPU, CPU_SMALL, GPU, GKE)}


def profile_named(name: str, components: Iterable[str] = ()) -> Profile:
    """Give the profile of that name, with options of its overlay.

    Raises:
        UsageError: there is none.
    """
    if name not in PROFILES:
        raise UsageError(f"no profile is named {name!r}", where="--profile", expected=" or ".join(PROFILES))
    return replace(PROFILES[name], components=tuple(components))
