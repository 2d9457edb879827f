"""What the predictor asks of an engine, and nothing about any particular one.

An ``Engine`` is one loaded graph. A ``Chain`` is a bundle's classifier behind its adapters: it is the seam at
which an engine may keep the adapted pictures on its own device instead of bringing them back to the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class EngineChoice:
    """Which engine runs, and why: for the log, ``status`` and ``check``.

    Attributes:
        name: the engine, as the configuration names it.
        device: what it runs on, ``cpu`` or ``cuda``.
        reason: why this one, one clause.
    """

    name: str
    device: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} on {self.device} ({self.reason})"


@dataclass(frozen=True)
class AdapterRun:
    """Rows ``start`` to ``stop`` (excluded) of a batch that go through one camera's adapter."""

    adapter: str
    start: int
    stop: int


@dataclass(frozen=True)
class ChainOutput:
    """What a chain returns for N pictures, in their order.

    Attributes:
        cumulative: float32 (N, 4), P(grade ≥ k) for k = 1 … 4.
        quality: float32 (N, 1).
        activation: uint8 (N, K, h, w).
        adapted: uint8 (N, S, S, 4), what the classifier saw; None when it was not asked for.
    """

    cumulative: np.ndarray
    quality: np.ndarray
    activation: np.ndarray
    adapted: np.ndarray | None


class Engine(Protocol):
    """One loaded graph. Used by one thread at a time."""

    @property
    def name(self) -> str:
        """The engine, as the configuration names it."""
        ...

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Run the graph on uint8 (N, S, S, 4), N ≥ 1, and return its outputs by name.

        Raises:
            InferenceError: the engine failed.
        """
        ...


class Chain(Protocol):
    """A classifier behind its adapters. Used by one thread at a time."""

    @property
    def choice(self) -> EngineChoice:
        """What runs it, and why."""
        ...

    def run(
        self, image: np.ndarray, adapter_runs: Sequence[AdapterRun], *, keep_adapted: bool
    ) -> ChainOutput:
        """Adapt the rows that ask for it, then classify the whole batch at once.

        Args:
            image: uint8 (N, S, S, 4), C-contiguous, N ≥ 1. The chain may overwrite it.
            adapter_runs: disjoint ranges of rows; rows in none of them go to the classifier as they are.
            keep_adapted: also return what the classifier saw.

        Raises:
            InferenceError: the engine failed.
        """
        ...
