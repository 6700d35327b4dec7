"""The labels by which a release's records, Lease and objects are found."""

from __future__ import annotations

from servepath.cluster.objects import MANAGED_BY, OWNER

RELEASE = "servepath.dev/release"
"""The base name of what is promoted, as `servepath deploy --name` gives it."""
RECORD = "servepath.dev/promotion"
"""The number of a promotion, on its record."""
PART_OF = "app.kubernetes.io/part-of"


def labels_of(release: str) -> dict[str, str]:
    """Give the labels of everything that a release keeps about itself."""
    return {MANAGED_BY: OWNER, PART_OF: OWNER, RELEASE: release}
