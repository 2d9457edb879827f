"""How long to wait before trying again."""

from __future__ import annotations

import random
from collections.abc import Callable

_LARGEST_EXPONENT = 62  # 2.0**62 s is beyond any limit; larger exponents would end as an OverflowError


def backoff_s(attempt: int, base_s: float, max_s: float, draw: Callable[[], float] = random.random) -> float:
    """Exponential backoff with full jitter: uniform between 0 and min(max_s, base_s * 2^(attempt - 1)).

    Full jitter spreads the retries of everything that failed at the same moment over the whole interval
    (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

    Args:
        attempt: How many attempts have failed, from 1.
        base_s: Seconds, upper bound after the first failure; above 0.
        max_s: Seconds, upper bound however many failures; at least `base_s`.
        draw: Uniform random numbers, 0 to 1.

    Returns:
        Seconds, 0 to `max_s`.

    Raises:
        ValueError: `attempt`, `base_s` or `max_s` is out of its range.
    """
    if attempt < 1 or not 0 < base_s <= max_s:
        raise ValueError("needs attempt of at least 1 and 0 < base_s <= max_s")
    return draw() * min(max_s, base_s * 2.0 ** min(attempt - 1, _LARGEST_EXPONENT))
