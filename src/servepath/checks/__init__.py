"""Smoke checks: each a named, documented function that compares what a live system shows with what was asked for."""

from servepath.checks.context import CheckContext
from servepath.checks.run import smoke

__all__ = ["CheckContext", "smoke"]
