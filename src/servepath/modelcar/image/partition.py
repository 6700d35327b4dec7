"""Cut a row of sizes into consecutive groups, evenly and always alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def cut_by_limit(sizes: Sequence[int], limit: int) -> list[range]:
    """Cut into the fewest consecutive groups of at most `limit`, as even as that number allows.

    A size over the limit gets a group of its own. Each range holds the positions of one group.

    Args:
        sizes: the sizes, in order; none gives no group.
        limit: the most that a group may sum up to.
    """
    count = len(_greedy(sizes, limit))
    return _greedy(sizes, _least(sizes, count, limit))


def cut_by_count(sizes: Sequence[int], count: int) -> list[range]:
    """Cut into at most `count` consecutive groups: one each if that is enough, else with the smallest largest group."""
    if len(sizes) <= count:
        return [range(position, position + 1) for position in range(len(sizes))]
    return _greedy(sizes, _least(sizes, count, sum(sizes)))


def _least(sizes: Sequence[int], count: int, high: int) -> int:
    """Return the least limit, up to `high`, that needs no more than `count` groups."""
    low = 0
    while low < high:
        middle = (low + high) // 2
        if len(_greedy(sizes, middle)) <= count:
            high = middle
        else:
            low = middle + 1
    return low


def _greedy(sizes: Sequence[int], limit: int) -> list[range]:
    groups: list[range] = []
    start = total = 0
    for position, size in enumerate(sizes):
        if position > start and total + size > limit:
            groups.append(range(start, position))
            start, total = position, 0
        total += size
    return [*groups, range(start, len(sizes))] if sizes else []
