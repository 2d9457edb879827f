"""The camera-shift benchmark: what another camera breaks, and what each way of adapting to it gives back."""

from models.training.benchmark.folders import measure

__all__ = ["measure"]
