"""Judge one picture at a time: the classifier's answer, and likeness to the unshifted photograph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.training.benchmark import fidelity
from models.training.evaluate import Scores, session

Uint8Image = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]
Method = Callable[[Uint8Image, int], Uint8Image]
"""A way of adapting: picture uint8 (S, S, 4) and the photograph's number to uint8 (S, S, 4)."""


@dataclass(frozen=True)
class Answer:
    """What the classifier says of a picture: cumulative float64 (4,), quality, maps uint8 (K, h, w)."""

    cumulative: FloatArray
    quality: float
    activation: Uint8Image


class Classifier:
    """The bundle's classifier.

    Args:
        bundle: The bundle.
        threads: CPU threads.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._graph = session(bundle.classifier_path, threads)
        self._tensors, self._size = bundle.manifest.tensors, bundle.manifest.size

    def __call__(self, picture: Uint8Image) -> Answer:
        """Judge uint8 (S, S, 4)."""
        names = self._tensors
        outputs = [names.cumulative, names.quality, names.activation]
        cumulative, quality, activation = self._graph.run(outputs, {names.image: picture[None]})
        return Answer(cumulative[0].astype(np.float64), float(quality[0, 0]), activation[0])

    def ungraded(self) -> Answer:
        """What is noted where no field of view is found: no disease, no component, lowest quality."""
        blank = self(np.zeros((self._size, self._size, 4), np.uint8))
        return Answer(np.zeros(4), -1.0, np.zeros_like(blank.activation))


def adapter(path: Path, threads: int) -> Method:
    """An adapter's graph as a method."""
    graph = session(path, threads)

    def apply(picture: Uint8Image, _number: int) -> Uint8Image:
        adapted: Uint8Image = graph.run(["adapted"], {"image": picture[None]})[0][0]
        return adapted

    return apply


@dataclass
class Row:
    """One row of one camera while its photographs pass by."""

    answers: list[Answer] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)

    def note(
        self, answer: Answer, picture: Uint8Image | None, truth: Uint8Image | None, reference: Answer | None
    ) -> None:
        """Note one photograph.

        Args:
            answer: The classifier's.
            picture: The picture it saw, or None where no field was found.
            truth: The unshifted photograph in the same geometry.
            reference: The oracle's answer, for a photograph of grade 0; else None.
        """
        self.answers.append(answer)
        found = {"psnr": float("nan"), "ssim": float("nan")}
        if picture is not None and truth is not None:
            found = {"psnr": fidelity.psnr(picture, truth), "ssim": fidelity.ssim(picture, truth)}
        found |= {"components": float("nan"), "new_components": float("nan")}
        if reference is not None:
            total, fresh = fidelity.components(answer.activation, reference.activation)
            found |= {"components": float(total), "new_components": float(fresh)}
        for name, value in found.items():
            self.values.setdefault(name, []).append(value)

    def scores(self) -> Scores:
        """The answers as arrays."""
        cumulative = np.stack([answer.cumulative for answer in self.answers])
        return Scores(cumulative, np.array([answer.quality for answer in self.answers]))
