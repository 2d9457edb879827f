"""Curves of a training's measurements as SVG, from the log of its run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 420, 190, 58, 22, 8
_POINTS = 240
"""Points of a curve: as many as can be told apart."""
_SMOOTHING = 40
"""Parts of the training over which the thick curve is a running mean."""
_RAW, _SMOOTH = "#b9cbe6", "#1f5fbf"
Curve = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Steps and values."""


def read_curves(log: Path, stage: str) -> dict[str, Curve]:
    """Every measurement of a stage, by name.

    A run that was killed between checkpoints repeats steps: the last one counts.

    Args:
        log: ``log.jsonl`` of a run folder; without it there are no curves.
        stage: Whose measurements.
    """
    if not log.exists():
        return {}
    steps: dict[int, dict[str, float]] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row.pop("stage") == stage:
            steps[int(row.pop("step"))] = row
    names = dict.fromkeys(name for row in steps.values() for name in row)
    return {name: _curve(name, steps) for name in names}


def _curve(name: str, steps: Mapping[int, Mapping[str, float]]) -> Curve:
    places = [step for step in sorted(steps) if name in steps[step]]
    return np.array(places, np.float64), np.array([steps[step][name] for step in places], np.float64)


def curve_svg(name: str, curve: Curve) -> str:
    """One curve: every step pale, a running mean strong; both axes are linear, from 0 where values allow.

    Args:
        name: What it is called for screen readers.
        curve: Steps and values, at least one.
    """
    steps, values = curve
    finite = values[np.isfinite(values)]
    low, high = (min(0.0, float(finite.min())), float(finite.max())) if len(finite) else (0.0, 1.0)
    high = high if high > low else low + 1.0
    span = max(float(steps[-1] - steps[0]), 1.0)

    def path(chosen: npt.NDArray[np.float64]) -> str:
        places = np.unique(np.linspace(0, len(steps) - 1, min(_POINTS, len(steps))).astype(int))
        points = [
            (_LEFT + (steps[i] - steps[0]) / span * (_WIDTH - _LEFT - 8), _y(chosen[i], low, high))
            for i in places
            if np.isfinite(chosen[i])
        ]
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(name)}">']
    parts += _axes(float(steps[0]), float(steps[-1]), low, high)
    for chosen, colour, width in ((values, _RAW, 1.0), (smoothed(values), _SMOOTH, 2.2)):
        parts.append(
            f'<polyline points="{path(chosen)}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
        )
    return "".join(parts) + "</svg>"


def smoothed(values: Sequence[float] | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Running mean over 1/40 of the values, at least one; at the ends over those that there are."""
    reach = max(len(values) // _SMOOTHING, 1)
    window = np.ones(reach)
    return np.asarray(np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same"))


def _y(value: float, low: float, high: float) -> float:
    return _TOP + (high - value) / (high - low) * (_HEIGHT - _BOTTOM - _TOP)


def _axes(first: float, last: float, low: float, high: float) -> list[str]:
    right, base = _WIDTH - 8, _HEIGHT - _BOTTOM
    parts = []
    for share in (0.0, 0.5, 1.0):
        value = low + share * (high - low)
        y = _y(value, low, high)
        parts.append(f'<path d="M{_LEFT} {y:.1f} H{right}" stroke="#e3e7eb"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    parts.append(f'<text x="{_LEFT}" y="{base + 16}">step {first:.0f}</text>')
    parts.append(f'<text x="{right}" y="{base + 16}" text-anchor="end">{last:.0f}</text>')
    return parts
