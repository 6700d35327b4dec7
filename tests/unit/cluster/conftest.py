from __future__ import annotations

from tests.unit.promotion.conftest import cluster, world

__all__ = ["cluster", "world"]
