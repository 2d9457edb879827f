"""Run the benchmark: every photograph through every camera and every way of adapting, one at a time.

Pictures are made, judged and dropped one by one, so that memory does not grow with their number. All that is
random (exposure and noise, Fourier's draw, resamples) is seeded by the run's seed and a photograph's number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.cameras import SimulatedCamera, simulate
from models.errors import NoFieldOfViewError
from models.preprocess import Prepared, prepare
from models.training.adapter_config import AdapterConfig
from models.training.benchmark import fidelity, timing
from models.training.benchmark.baselines import SecondStyle, baselines, local_contrast
from models.training.benchmark.decisions import (
    Measured,
    decision_figures,
    recovered,
    reliability,
    roc_curve,
)
from models.training.benchmark.graphs import OURS, PAIRED, PLAIN, Absent, Graphs
from models.training.benchmark.heldout import HeldOut
from models.training.benchmark.judge import Answer, Classifier, Method, Row, adapter
from models.training.benchmark.resampling import Estimate, FloatArray, Resamples
from models.training.benchmark.results import (
    LOCAL,
    ORACLE,
    ROWS,
    UNADAPTED,
    Benchmark,
    CameraResult,
    Cell,
    Exhibit,
)
from models.training.data import lesion_masks, prepare_all, read_rgb
from models.training.evaluate import OperatingPoint
from models.training.lesions import Progress

Uint8Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class BenchmarkConfig:
    """How the benchmark is run.

    Attributes:
        seed: Seed of the cameras' noise, Fourier's draws and the resamples.
        resamples: Bootstrap resamples.
        fourier_beta: Half width of Fourier adaptation's window, as a share of the side.
        exhibits: Photographs in each camera's montage.
        timing_rounds: Runs over which the median cost is taken.
        limit: At most so many photographs of each kind, for a quick look; 0 takes all.
        cameras: Names of simulated cameras; none means all named ones.
        trained: Names of cameras for which the plain CycleGAN and the paired bound are trained where their
            graphs are not there yet; needs a run folder, and minutes of CPU each.
        adapter: How rows are trained.

    Raises:
        ValueError: A number is out of its range.
    """

    seed: int = 0
    resamples: int = 1000
    fourier_beta: float = 0.01
    exhibits: int = 2
    timing_rounds: int = 15
    limit: int = 0
    cameras: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
    adapter: AdapterConfig = field(default_factory=AdapterConfig)

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name, least in (("resamples", 1), ("timing_rounds", 1), ("exhibits", 0), ("limit", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name)} is below {least}")
        if not 0.0 < self.fourier_beta < 0.5:
            raise ValueError(f"fourier_beta {self.fourier_beta} is not between 0 and 0.5")


class CameraShift:
    """The benchmark of one bundle on held-out photographs.

    Args:
        bundle: Its classifier, thresholds and adapters are used.
        held: The photographs.
        graphs: Where the trained rows come from.
        config: Settings.
        threads: CPU threads of every graph.
        progress: Told what is done.
    """

    def __init__(
        self,
        bundle: Bundle,
        held: HeldOut,
        graphs: Graphs,
        config: BenchmarkConfig,
        *,
        threads: int,
        progress: Progress,
    ) -> None:
        self.held, self.graphs = held, graphs
        self.config, self.threads, self.progress = config, threads, progress
        manifest = bundle.manifest
        self.size = manifest.size
        self.classifier = Classifier(bundle, threads)
        self.style = SecondStyle.of(prepare_all([item.photograph.path for item in held.second], self.size))
        point = OperatingPoint(manifest.thresholds, manifest.minimum_quality)
        resamples = Resamples(len(held.photographs), config.resamples, config.seed)
        self.measured = Measured(held.grades, point, resamples)
        self.lesion_resamples = Resamples(max(len(held.lesions), 1), config.resamples, config.seed + 1)

    def run(self, cameras: Sequence[SimulatedCamera]) -> Benchmark:
        """Measure all rows for all cameras."""
        oracle = self._oracle()
        shown = self._shown(oracle[ORACLE])
        results, methods = [], {}
        for camera in cameras:
            ways, absent = self._methods(camera)
            methods.update(ways)
            rows, exhibits = self._camera(camera, ways, oracle[ORACLE], shown)
            contrasts = self._contrasts(camera, ways)
            scored = {**oracle, **rows}
            figures = {key: self._figures(key, scored, contrasts) for key in scored}
            cells: dict[str, Cell | Absent] = {key: self._cell(figures[key], scored[key]) for key in scored}
            ordered = {key: {**absent, **cells}[key] for key in ROWS}
            results.append(CameraResult(camera, ordered, exhibits))
        return Benchmark(results, self._costs(cameras[0], methods))

    def _methods(self, camera: SimulatedCamera) -> tuple[dict[str, Method], dict[str, Absent]]:
        """All ways of adapting that there are for a camera, and why others are not there."""
        found: dict[str, Method] = dict(baselines(self.style, self.config.fourier_beta, self.config.seed))
        absent: dict[str, Absent] = {}
        for key in (PLAIN, OURS, PAIRED):
            path = self.graphs.find(key, camera)
            if isinstance(path, Absent):
                absent[key] = path
            else:
                found[key] = adapter(path, self.threads)
        return found, absent

    def _oracle(self) -> dict[str, Row]:
        """Unshifted photographs, as they are and with local contrast normalised."""
        rows = {ORACLE: Row(), ORACLE + LOCAL: Row()}
        for done, item in enumerate(self.held.photographs):
            picture = prepare(read_rgb(item.photograph.path), self.size).tensor
            plain = self.classifier(picture)
            reference = plain if item.photograph.grade == 0 else None
            rows[ORACLE].note(plain, picture, picture, reference)
            normalised = local_contrast(picture, self.style)
            rows[ORACLE + LOCAL].note(self.classifier(normalised), normalised, picture, reference)
            self.progress("unshifted", done + 1, len(self.held.photographs), {})
        return rows

    def _camera(
        self, camera: SimulatedCamera, methods: Mapping[str, Method], oracle: Row, shown: Sequence[int]
    ) -> tuple[dict[str, Row], list[Exhibit]]:
        rows, exhibits = {key: Row() for key in methods}, []
        for done, item in enumerate(self.held.photographs):
            rgb = read_rgb(item.photograph.path)
            prepared = self._taken(rgb, camera, item.number)
            reference = oracle.answers[done] if item.photograph.grade == 0 else None
            if prepared is None:
                for row in rows.values():
                    row.note(self.classifier.ungraded(), None, None, reference)
                continue
            truth = fidelity.truth_of(rgb, prepared.field, prepared.tensor)
            pictures = {key: apply(prepared.tensor, item.number) for key, apply in methods.items()}
            for key, picture in pictures.items():
                rows[key].note(self.classifier(picture), picture, truth, reference)
            if done in shown:
                centre = _detail(oracle.answers[done], self.size)
                grade = int(item.photograph.grade or 0)
                exhibits.append(Exhibit(item.photograph.name, grade, centre, {ORACLE: truth, **pictures}))
            self.progress(camera.key, done + 1, len(self.held.photographs), {})
        return rows, exhibits

    def _contrasts(
        self, camera: SimulatedCamera, methods: Mapping[str, Method]
    ) -> dict[str, dict[str, Estimate]]:
        """Lesion contrast by row and type: ratio of the sums over photographs to the unshifted ones'."""
        if not self.held.lesions:
            return {}
        found: dict[str, list[FloatArray]] = {key: [] for key in (ORACLE, *methods)}
        for number, photograph in enumerate(self.held.lesions):
            rgb = read_rgb(photograph.path)
            prepared = self._taken(rgb, camera, number)
            if prepared is None:
                for rows in found.values():
                    rows.append(np.full(len(fidelity.GRADED_LESIONS), np.nan))
                continue
            masks = lesion_masks(photograph, prepared.field, self.size)
            places = fidelity.LesionPlaces.of(masks, prepared.tensor[..., 3])
            found[ORACLE].append(places.contrast(fidelity.truth_of(rgb, prepared.field, prepared.tensor)))
            for key, apply in methods.items():
                found[key].append(places.contrast(apply(prepared.tensor, number)))
            self.progress(f"{camera.key} lesions", number + 1, len(self.held.lesions), {})
        truth = np.stack(found[ORACLE])
        return {
            key: {
                f"contrast_{kind}": self.lesion_resamples.ratio(np.stack(rows)[:, index], truth[:, index])
                for index, kind in enumerate(fidelity.GRADED_LESIONS)
            }
            for key, rows in found.items()
        }

    def _taken(self, rgb: Uint8Image, camera: SimulatedCamera, number: int) -> Prepared | None:
        """A photograph as the camera takes it, prepared; None where no field of view is found."""
        try:
            return prepare(simulate(rgb, camera, self.config.seed + number), self.size)
        except NoFieldOfViewError:
            return None

    def _figures(
        self, key: str, rows: Mapping[str, Row], contrasts: Mapping[str, dict[str, Estimate]]
    ) -> dict[str, Estimate]:
        oracle, row, resamples = rows[ORACLE].scores(), rows[key], self.measured.resamples
        figures = decision_figures(row.scores(), oracle, self.measured)
        if not key.startswith(ORACLE):
            unadapted = decision_figures(rows[UNADAPTED].scores(), oracle, self.measured)["auc"]
            ceiling = decision_figures(oracle, oracle, self.measured)["auc"]
            back = recovered(figures["auc"], unadapted, ceiling)
            figures |= {} if back is None else {"recovered": back}
        figures |= {name: resamples.mean(np.array(values)) for name, values in row.values.items()}
        return figures | contrasts.get(key, {})

    def _cell(self, figures: dict[str, Estimate], row: Row) -> Cell:
        scores, grades = row.scores(), self.measured.grades
        return Cell(figures, roc_curve(scores, grades), reliability(scores, grades))

    def _shown(self, oracle: Row) -> list[int]:
        """Photographs for the montages: those with most and least signs of disease, by turns."""
        signs = [float((answer.activation > 127).sum()) for answer in oracle.answers]
        order = np.argsort(signs, kind="stable")[::-1]
        turns = [
            order[index // 2] if index % 2 == 0 else order[-1 - index // 2] for index in range(len(order))
        ]
        return [int(place) for place in turns[: self.config.exhibits]]

    def _costs(self, camera: SimulatedCamera, methods: Mapping[str, Method]) -> dict[str, float]:
        """Milliseconds a picture of every method, the classifier and EfficientNet-B0, timed in turn."""
        item = self.held.photographs[0]
        rgb = read_rgb(item.photograph.path)
        picture = (self._taken(rgb, camera, item.number) or prepare(rgb, self.size)).tensor
        timed = {key: apply for key, apply in methods.items() if key != UNADAPTED}
        cases: dict[str, Callable[[], object]] = {
            key: partial(apply, picture, item.number) for key, apply in timed.items()
        }
        cases["classifier"] = partial(self.classifier, picture)
        cases[timing.YARDSTICK] = timing.yardstick(self.size, self.threads)
        self.progress("timing", 0, 1, {})
        found = timing.interleaved_ms(cases, self.config.timing_rounds)
        self.progress("timing", 1, 1, {})
        return found


def _detail(answer: Answer, size: int) -> tuple[int, int]:
    """Place (x, y) in px with most signs of disease in the maps; the middle where there is none."""
    signs = answer.activation.astype(np.float32).sum(axis=0)
    reach = max(1, signs.shape[0] // 8)
    summed = np.asarray(fidelity.box_mean(signs, 2 * reach + 1))
    if summed.max() < 1.0:
        return size // 2, size // 2
    row, column = np.unravel_index(int(summed.argmax()), summed.shape)
    scale = size / signs.shape[0]
    return round(column * scale), round(row * scale)
