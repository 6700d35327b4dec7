"""What the options of a benchmark describe, and what they cannot."""

import pytest

from servepath.cli.plan import plan_of, sweep_of
from servepath.errors import UsageError


def test_every_option_arrives_in_the_plan() -> None:
    plan = plan_of(9, 3, 0.75, 64, 24, 7, 2.5, 90.0)
    assert (plan.blocks, plan.requests_per_block, plan.rate_per_s) == (9, 3, 0.75)
    assert (plan.prompt_tokens, plan.output_tokens, plan.seed) == (64, 24, 7)
    assert (plan.precision_percent, plan.budget_s) == (2.5, 90.0)


def test_a_price_needs_a_sweep() -> None:
    assert sweep_of(None, wanted=False) is None
    design = sweep_of(3.6, wanted=True)
    assert design is not None
    assert design.usd_per_hour == 3.6
    with pytest.raises(UsageError, match="gives no cost") as caught:
        sweep_of(3.6, wanted=False)
    assert caught.value.expected == "--sweep with it"
