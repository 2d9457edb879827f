"""Trained rows: find the graph of a method and a camera, train it, or say why there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from models.cameras import SimulatedCamera
from models.training.divergence import TrainingDivergedError

OURS, PLAIN, PAIRED = "ours", "plain", "paired"


@dataclass(frozen=True)
class Absent:
    """A cell that was not measured, and why."""

    reason: str


Train = Callable[[str, SimulatedCamera, Path], None]
"""Trains a method for a camera and writes its graph to the path."""


class Graphs:
    """Graphs by method and camera key, in ``folder/<method>/<camera key>.onnx``.

    Args:
        folder: Where graphs are looked for, and where those are written that this run trains.
        adapters: Adapters of the bundle, by camera key; they come first for ``ours``.
        train: Trains one, or None where there is nothing to train from.
        trained: Keys of the cameras for which each method may be trained.
    """

    def __init__(
        self,
        folder: Path,
        adapters: Mapping[str, Path],
        train: Train | None,
        trained: Mapping[str, frozenset[str]],
    ) -> None:
        self._folder, self._adapters = folder, adapters
        self._train, self._trained = train, trained

    def find(self, method: str, camera: SimulatedCamera) -> Path | Absent:
        """The graph of a method for a camera; trained now if it is missing and may be."""
        if method == OURS and camera.key in self._adapters:
            return self._adapters[camera.key]
        path = self._folder / method / f"{camera.key}.onnx"
        if path.exists():
            return path
        if self._train is None:
            return Absent(
                f"no {method}/{camera.key}.onnx, and no run folder with a trunk.pt to train it from"
            )
        if camera.key not in self._trained[method]:
            return Absent("not trained for this camera in this run")
        partial = path.with_suffix(".partial")
        try:
            self._train(method, camera, partial)
        except TrainingDivergedError as error:
            return Absent(f"its training failed: {error}")
        partial.replace(path)
        return path
