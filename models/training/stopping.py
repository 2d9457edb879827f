"""Early stop on a falling criterion that stops falling; the best is remembered."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class EarlyStop:
    """Counts checks that did not improve a criterion.

    Attributes:
        patience: Checks without improvement after which to stop; 0 never stops.
        improvement: Share of the best value by which a check must be lower to count as an improvement.
        best: Lowest value so far.
        waited: Checks since the last improvement.
    """

    patience: int
    improvement: float
    best: float = math.inf
    waited: int = 0

    def check(self, value: float) -> bool:
        """Take in a value; returns whether it is the best so far, by the stated share."""
        if value < self.best * (1.0 - self.improvement) or math.isinf(self.best):
            self.best, self.waited = value, 0
            return True
        self.waited += 1
        return False

    @property
    def over(self) -> bool:
        """Whether training should stop."""
        return self.patience > 0 and self.waited >= self.patience

    def state(self) -> dict[str, Any]:
        """What a resumed training needs."""
        return asdict(self)

    def resume(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        self.best, self.waited = float(state["best"]), int(state["waited"])
