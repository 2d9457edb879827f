"""Figures of the EyePACS experiment: operating point, one row a camera and adaptation, and the table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.table import Table
from scipy.special import expit
from scipy.stats import rankdata

from models.training.divergence import TrainingDivergedError
from models.training.evaluate import OperatingPoint, Scores, bootstrap, referable_figures
from models.training.eyepacs_pictures import Pictures
from models.training.grading import REFERABLE, choose_levels, fit_calibration

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Calibration:
    """Operating point of a grader, fitted on the validation part of the labelled camera.

    Attributes:
        slope: a of P(grade ≥ k) = σ(a·score − c_k).
        cuts: c_1..c_4, ascending.
        thresholds: On P(grade ≥ k), k = 1..4; the second decides on referable disease.
    """

    slope: float
    cuts: tuple[float, ...]
    thresholds: tuple[float, float, float, float]

    def cumulative(self, scores: FloatArray) -> FloatArray:
        """P(grade ≥ 1..4) of scores float64 (N,), float64 (N, 4)."""
        return np.asarray(expit(self.slope * scores[:, None] - np.asarray(self.cuts)[None]))


def calibrate(scores: FloatArray, grades: IntArray, sensitivity: float) -> Calibration:
    """Fit probabilities and thresholds on a validation part in its natural proportions.

    Args:
        scores: Of the validation part, float64 (N,).
        grades: int64 (N,).
        sensitivity: What the referable threshold reaches there.

    Raises:
        TrainingDivergedError: Higher scores do not go with higher grades: the grader learned nothing.
    """
    slope, cuts = fit_calibration(scores, grades, REFERABLE)
    if not slope > 0:
        raise TrainingDivergedError(
            "the classifier does not rank the validation part's grades: give it more photographs or steps"
        )
    levels = choose_levels(scores, grades, sensitivity)
    mild, referable, severe, proliferative = (
        float(expit(slope * level - cut)) for cut, level in zip(cuts, levels, strict=True)
    )
    return Calibration(slope, tuple(float(cut) for cut in cuts), (mild, referable, severe, proliferative))


@dataclass(frozen=True)
class Row:
    """One line of the table: photographs of one camera's evaluation part, with one kind of adaptation.

    Attributes:
        camera: Camera code.
        adaptation: ``labelled camera``, ``none``, ``ours`` or ``plain CycleGAN``.
        images: Photographs measured.
        patients: Their patients.
        not_prepared: Further photographs of the part that are unreadable or show no field of view.
        auc: Referable AUC; None where the adapter's training failed.
        auc_low: Lower end of its 95 % interval (bootstrap over patients).
        auc_high: Upper end.
        kappa: Quadratic kappa of the stated grades.
        sensitivity: For referable disease at the fixed threshold.
        specificity: Likewise.
        brier: Mean squared error of the referable probability.
        note: Why there are no figures, or empty.
    """

    camera: str
    adaptation: str
    images: int
    patients: int
    not_prepared: int
    auc: float | None = None
    auc_low: float | None = None
    auc_high: float | None = None
    kappa: float | None = None
    sensitivity: float | None = None
    specificity: float | None = None
    brier: float | None = None
    note: str = ""

    @classmethod
    def read(cls, file: Path) -> Row:
        """The row that ``write_json`` stored."""
        return cls(**json.loads(file.read_text(encoding="utf-8")))

    def cells(self) -> list[str]:
        """The row as text, one cell for each of ``COLUMNS``."""
        if self.auc is None:
            return [self.camera, self.adaptation, str(self.images), self.note, *[""] * 4]
        interval = f"{self.auc:.3f} ({self.auc_low:.3f} to {self.auc_high:.3f})"
        rest = (self.kappa, self.sensitivity, self.specificity, self.brier)
        return [self.camera, self.adaptation, str(self.images), interval, *(f"{value:.3f}" for value in rest)]


COLUMNS = ("camera", "adaptation", "n", "referable AUC", "kappa", "sensitivity", "specificity", "Brier")
REMARK = (
    "Referable is grade 2 or higher. Sensitivity and specificity are at one threshold, fixed on the "
    "validation part of the labelled camera. Intervals: 95 %, bootstrap over patients. Cameras differ in "
    "their patients too, so a difference between two cameras is not the camera's doing alone. No photograph "
    "exists by two cameras, so flipped decisions cannot be counted."
)


def empty_row(camera: str, adaptation: str, pictures: Pictures, note: str = "") -> Row:
    """A row without figures."""
    patients = len(np.unique(pictures.patients))
    missing = pictures.without_field + pictures.unreadable
    return Row(camera, adaptation, len(pictures.tensors), patients, missing, note=note)


def measured_row(
    camera: str, adaptation: str, pictures: Pictures, scores: FloatArray, calibration: Calibration
) -> Row:
    """The figures of scores float64 (N,) of an evaluation part; none where it lacks one of the classes."""
    grades, cumulative = pictures.grades, calibration.cumulative(scores)
    if len(np.unique(grades >= REFERABLE)) < 2:
        note = "only one of referable and other photographs could be measured"
        return empty_row(camera, adaptation, pictures, note)
    point = OperatingPoint(calibration.thresholds, minimum_quality=0.0)
    found = referable_figures(Scores(cumulative, np.ones(len(grades))), grades, point)
    low, high = patient_interval(cumulative[:, 1], grades >= REFERABLE, pictures.patients)
    return replace(
        empty_row(camera, adaptation, pictures),
        auc=found["auc"],
        auc_low=low,
        auc_high=high,
        kappa=found["quadratic_kappa"],
        sensitivity=found["sensitivity"],
        specificity=found["specificity"],
        brier=found["brier"],
    )


def patient_interval(
    probability: FloatArray, referable: npt.NDArray[np.bool_], patients: IntArray
) -> tuple[float, float]:
    """95 % interval of the AUC; patients are drawn again, as two eyes of one are not independent."""
    order = np.argsort(patients, kind="stable")
    starts = np.unique(patients[order], return_index=True)[1][1:]
    members = np.split(order, starts)

    def statistic(chosen: IntArray) -> float:
        drawn = np.concatenate([members[index] for index in chosen])
        return rank_auc(probability[drawn], referable[drawn])

    return bootstrap(len(members), statistic)


def rank_auc(score: FloatArray, positive: npt.NDArray[np.bool_]) -> float:
    """AUC from ranks (Mann-Whitney), ties counted half; nan where one class is missing. Fast: bootstrap."""
    with_it, without = int(positive.sum()), int((~positive).sum())
    if not with_it or not without:
        return float("nan")
    above = rankdata(score)[positive].sum() - with_it * (with_it + 1) / 2
    return float(above / (with_it * without))


def terminal_table(rows: Iterable[Row]) -> Table:
    """The table for a terminal."""
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*row.cells())
    return table


def markdown(rows: Iterable[Row], remarks: Sequence[str]) -> str:
    """The table and what must be said with it, as Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    lines += [f"| {' | '.join(row.cells())} |" for row in rows]
    return "\n".join(
        ["# EyePACS, one camera to the others", "", *lines, "", *(f"- {said}" for said in remarks), ""]
    )
