"""From prepared pictures to gradings: one batch through the adapters and the classifier."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import structlog

from models.bundle import Bundle
from models.decision import REFERABLE_GRADE, grade_from_cumulative, probabilities_from_cumulative
from models.engines.base import AdapterRun, ChainOutput, EngineChoice
from models.engines.contract import output_problem, without_rounding
from models.engines.cores import usable_cores
from models.engines.selection import open_chain
from models.errors import BundleContractError, ImageContractError, UnknownAdapterError
from models.warmup import REMEDY, warm_up

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Prediction:
    """What the models say about one picture.

    Attributes:
        cumulative: calibrated P(grade ≥ k), k = 1 … 4, non-increasing.
        probabilities: calibrated P(grade = 0) … P(grade = 4); they add up to 1.
        grade: the stated grade, 0 to 4, at the bundle's thresholds.
        grade_label: its name.
        referable: whether the grade is 2 or more.
        referable_probability: P(grade ≥ 2).
        certainty: probability of the stated grade.
        quality: probability that the picture is a gradable colour fundus photograph, 0 to 1.
        gradable: whether quality reaches the bundle's minimum; if not, the grade must not be reported.
        activation: uint8 (K, h, w), one map per activation label of the manifest.
        adapted: uint8 (S, S, 4), the picture after its adapter; None where there was none, or it was not
            asked for.
    """

    cumulative: tuple[float, ...]
    probabilities: tuple[float, ...]
    grade: int
    grade_label: str
    referable: bool
    referable_probability: float
    certainty: float
    quality: float
    gradable: bool
    activation: np.ndarray = field(repr=False, compare=False)
    adapted: np.ndarray | None = field(repr=False, compare=False)


class Predictor:
    """A bundle, loaded, checked and warm.

    Not safe for several threads: one thread (the batcher's) makes every call. Constructing it takes seconds,
    and a bundle that breaks its contract is refused here, before any patient's picture.

    Args:
        bundle: a verified bundle.
        engine: ``auto``, ``onnx`` or ``tensorrt``.
        threads: threads for one run on the CPU; 0 for as many as there are cores to use.

    Raises:
        EngineUnavailableError: the engine asked for by name cannot run here.
        BundleContractError: a graph does not keep the contract; the message names bundle and file.
    """

    def __init__(self, bundle: Bundle, *, engine: str = "auto", threads: int = 0) -> None:
        started = time.perf_counter()
        self.bundle = bundle
        self._chain = open_chain(bundle, engine, threads or usable_cores())
        warm_up(bundle, self._chain)
        log.info(
            "bundle_loaded",
            bundle_id=bundle.manifest.id,
            bundle_version=bundle.manifest.version,
            bundle_sha256=bundle.digest,
            engine=self.engine.name,
            device=self.engine.device,
            reason=self.engine.reason,
            ms=round(1000 * (time.perf_counter() - started)),
        )

    @property
    def engine(self) -> EngineChoice:
        """The engine that runs, and why."""
        return self._chain.choice

    def predict(
        self, images: Sequence[np.ndarray], adapters: Sequence[str | None], keep_adapted: bool = False
    ) -> list[Prediction]:
        """Grade pictures of any mix of cameras in one batch.

        Args:
            images: uint8 (S, S, 4) each, as ``models.preprocess.prepare`` makes them. They are not changed.
            adapters: for each, the camera key of the adapter that it goes through, or None.
            keep_adapted: also return the adapted pictures.

        Returns:
            One prediction a picture, in the order given.

        Raises:
            ImageContractError: a picture of another shape or type.
            UnknownAdapterError: an adapter that the bundle does not hold.
            BundleContractError: an answer outside the contract; it is never repaired.
            InferenceError: the engine failed.
        """
        if len(images) != len(adapters):
            raise ValueError(f"{len(images)} pictures, but {len(adapters)} adapters")
        if not images:
            return []
        self._check(images, adapters)
        order = sorted(range(len(images)), key=lambda index: adapters[index] or "")
        runs = adapter_runs([adapters[index] for index in order])
        batch = np.stack([images[index] for index in order])
        output = self._chain.run(batch, runs, keep_adapted=keep_adapted)
        problem = output_problem(output, len(images), self.bundle.manifest)
        if problem is not None:
            raise BundleContractError(self.bundle.classifier_path, problem, REMEDY)
        graded = dict(zip(order, self._predictions(output, runs), strict=True))
        return [graded[index] for index in range(len(images))]

    def _check(self, images: Sequence[np.ndarray], adapters: Sequence[str | None]) -> None:
        size = self.bundle.manifest.size
        for image in images:
            if image.shape != (size, size, 4) or image.dtype != np.uint8:
                wanted = f"uint8 ({size}, {size}, 4)"
                raise ImageContractError(f"a picture is {image.dtype} {image.shape}, not {wanted}")
        unknown = sorted({name for name in adapters if name is not None} - set(self.bundle.manifest.adapters))
        if unknown:
            raise UnknownAdapterError(f"bundle '{self.bundle.manifest.id}' has no adapter for {unknown}")

    def _predictions(self, output: ChainOutput, runs: Sequence[AdapterRun]) -> Iterator[Prediction]:
        manifest = self.bundle.manifest
        adapted_rows = {row for run in runs for row in range(run.start, run.stop)}
        for row, falling in enumerate(without_rounding(output.cumulative).tolist()):
            grade = grade_from_cumulative(falling, manifest.thresholds)
            probabilities = probabilities_from_cumulative(falling)
            quality = float(np.clip(output.quality[row, 0], 0.0, 1.0))
            adapted = output.adapted if row in adapted_rows else None
            yield Prediction(
                cumulative=tuple(falling),
                probabilities=probabilities,
                grade=grade,
                grade_label=manifest.labels[grade],
                referable=grade >= REFERABLE_GRADE,
                referable_probability=falling[REFERABLE_GRADE - 1],
                certainty=probabilities[grade],
                quality=quality,
                gradable=quality >= manifest.minimum_quality,
                activation=output.activation[row].copy(),
                adapted=None if adapted is None else adapted[row].copy(),
            )


def adapter_runs(adapters: Sequence[str | None]) -> list[AdapterRun]:
    """Ranges of equal neighbours in a sequence of adapters, without those of None."""
    runs: list[AdapterRun] = []
    for row, adapter in enumerate(adapters):
        if adapter is None:
            continue
        if runs and runs[-1].adapter == adapter and runs[-1].stop == row:
            runs[-1] = AdapterRun(adapter, runs[-1].start, row + 1)
        else:
            runs.append(AdapterRun(adapter, row, row + 1))
    return runs
