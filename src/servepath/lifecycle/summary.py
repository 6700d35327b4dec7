"""Samples -> a measurement."""

from __future__ import annotations

import statistics

from servepath.lifecycle.model import Measurement


def measurement(name: str, subject: str, unit: str, samples: tuple[float, ...], how: str) -> Measurement:
    """Give a measurement of at least one sample; its value is their median."""
    return Measurement(name, subject, unit, statistics.median(samples), samples, how)
