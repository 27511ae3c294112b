"""Numbers of steps that divide others."""

from __future__ import annotations

import math


def divisors_near(total: int, interval: int) -> tuple[int, ...]:
    """Return the largest divisor of `total` up to `interval` and the smallest from there, ascending, each once.

    What is less than half of the interval, or more than twice as long, is left out: it would be another plan.
    """
    divisors = [n for n in range(math.ceil(interval / 2), 2 * interval + 1) if n and total % n == 0]
    below = [n for n in divisors if n <= interval][-1:]
    above = [n for n in divisors if n >= interval][:1]
    return tuple(dict.fromkeys((*below, *above)))


def multiples_near(total: int, interval: int) -> tuple[int, ...]:
    """Return the largest multiple of `interval` up to `total`, if there is one, and the smallest from there."""
    below = total // interval * interval
    above = math.ceil(total / interval) * interval
    return tuple(dict.fromkeys(n for n in (below, above) if n))
