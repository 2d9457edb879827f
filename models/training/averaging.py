"""The running mean of a network's weights over the last part of a training."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


class WeightAverage(Generic[Network]):
    """Equal-weight mean of the weights after each step from a start on; before it, the latest weights.

    Adversarial training circles around its solution; the mean of the circle is closer to it (Izmailov et al.
    2018, "Averaging weights leads to wider optima", section 3).

    Args:
        network: The network that is trained.
        start: Steps after which averaging begins.

    Attributes:
        mean: The averaged network.
        count: Number of weights in the mean; 0 before the start.
    """

    def __init__(self, network: Network, start: float) -> None:
        self.mean: Network = copy.deepcopy(network)
        self.count = 0
        self._start = start

    def add(self, network: Network, step: int) -> None:
        """Take in the weights after step number ``step``, counted from 1."""
        if step <= self._start:
            self.mean.load_state_dict(network.state_dict())
            self.count = 0
            return
        self.count += 1
        with torch.no_grad():
            for mean, weight in zip(self.mean.parameters(), network.parameters(), strict=True):
                mean.lerp_(weight, 1.0 / self.count)
