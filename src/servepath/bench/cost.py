"""What serving costs at a rate, at an hourly price."""

from __future__ import annotations

from servepath.bench.capacity import Cost

SECONDS_PER_HOUR = 3600.0


def cost_of(usd_per_hour: float, *, goodput_requests_per_s: float, output_tokens_per_s: float) -> Cost | None:
    """The cost of requests that met every objective, and of output tokens; None when there were none.

    Args:
        usd_per_hour: price of everything that serves one path, accelerators, nodes and gateway, in US dollars.
        goodput_requests_per_s: requests per second that each met every latency objective.
        output_tokens_per_s: completion tokens per second.
    """
    if goodput_requests_per_s <= 0 or output_tokens_per_s <= 0:
        return None
    usd_per_s = usd_per_hour / SECONDS_PER_HOUR
    return Cost(
        usd_per_hour=usd_per_hour,
        usd_per_1k_requests=1e3 * usd_per_s / goodput_requests_per_s,
        usd_per_1m_output_tokens=1e6 * usd_per_s / output_tokens_per_s,
    )
