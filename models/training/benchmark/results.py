"""What a benchmark finds: cells of figures, by camera and row; and how a figure is called and written."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from models.cameras import SimulatedCamera
from models.training.benchmark.fidelity import GRADED_LESIONS
from models.training.benchmark.graphs import OURS, PAIRED, PLAIN, Absent
from models.training.benchmark.resampling import Estimate, average

ORACLE, UNADAPTED = "oracle", "none"
LOCAL = "+local"

ROWS: dict[str, str] = {
    ORACLE: "Oracle: unshifted",
    ORACLE + LOCAL: "Oracle + local contrast",
    UNADAPTED: "No adaptation",
    UNADAPTED + LOCAL: "Local contrast",
    "reinhard": "Reinhard colour transfer",
    "reinhard" + LOCAL: "Reinhard + local contrast",
    "histogram": "Histogram matching",
    "histogram" + LOCAL: "Histogram + local contrast",
    "fourier": "Fourier domain adaptation",
    "fourier" + LOCAL: "Fourier + local contrast",
    PLAIN: "Plain CycleGAN",
    OURS: "Residual adapter (ours)",
    PAIRED: "Upper bound: paired truth",
}
"""Rows of every table, in their order."""
BASELINES = tuple(key for key in ROWS if key not in (ORACLE, ORACLE + LOCAL, OURS, PAIRED))
"""Rows that ours is compared with; no adaptation is one of them."""


@dataclass(frozen=True)
class Figure:
    """A column: its heading, what it means, and its format."""

    heading: str
    meaning: str
    pattern: str = "{:.3f}"

    def text(self, estimate: Estimate | None) -> str:
        """The value, or a dash."""
        if estimate is None or not np.isfinite(estimate.value):
            return "-"
        return self.pattern.format(estimate.value)

    def interval(self, estimate: Estimate | None) -> str:
        """The 95 % interval, or nothing."""
        if estimate is None or not np.isfinite(estimate.interval).all():
            return ""
        low, high = estimate.interval
        return f"{self.pattern.format(low)} to {self.pattern.format(high)}"


FIGURES: dict[str, Figure] = {
    "auc": Figure("AUC", "area under the ROC curve of referable disease"),
    "recovered": Figure(
        "AUC back", "share of the lost AUC that came back, where at least 0.03 was lost", "{:.0%}"
    ),
    "quadratic_kappa": Figure("kappa", "Cohen's kappa of the grade, quadratic weights"),
    "sensitivity": Figure("sens.", "sensitivity at the bundle's fixed threshold, of graded photographs"),
    "specificity": Figure("spec.", "specificity at the bundle's fixed threshold, of graded photographs"),
    "flipped": Figure(
        "flipped", "referable decisions other than the unshifted photograph's; ungraded is flipped", "{:.1%}"
    ),
    "graded": Figure("graded", "share of photographs with sufficient quality", "{:.0%}"),
    "brier": Figure("Brier", "mean squared error of the referable probability"),
    "calibration_slope": Figure("slope", "slope of the calibration line; ideal 1", "{:.2f}"),
    "calibration_intercept": Figure("intercept", "intercept of the calibration line; ideal 0", "{:.2f}"),
    "psnr": Figure("PSNR", "dB to the unshifted photograph, RGB inside the field", "{:.1f}"),
    "ssim": Figure("SSIM", "structural similarity to the unshifted photograph, luma inside the field"),
    **{
        f"contrast_{kind}": Figure(
            f"{kind} contrast", f"contrast of {name} relative to the unshifted photograph; ideal 1", "{:.2f}"
        )
        for kind, name in zip(
            GRADED_LESIONS,
            ("microaneurysms", "haemorrhages", "hard exudates", "soft exudates"),
            strict=True,
        )
    },
    "components": Figure("comp.", "lesion components above 0.5 in a photograph of grade 0", "{:.2f}"),
    "new_components": Figure(
        "new comp.", "those of them that the unshifted photograph's maps do not have", "{:.2f}"
    ),
}
"""Columns by key, in their order."""


@dataclass(frozen=True)
class Cell:
    """One row of one camera: figures by key (absent where undefined), curves for the charts."""

    figures: dict[str, Estimate]
    roc: list[tuple[float, float]] = field(default_factory=list)
    reliability: list[tuple[float, float, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Exhibit:
    """One photograph in a montage: uint8 (S, S, 4) by row, and the centre (x, y) of the detail shown."""

    name: str
    grade: int
    centre: tuple[int, int]
    pictures: dict[str, npt.NDArray[np.uint8]]


@dataclass(frozen=True)
class CameraResult:
    """One camera: its cells by row (oracle rows included) and its montage."""

    camera: SimulatedCamera
    cells: dict[str, Cell | Absent]
    exhibits: list[Exhibit]

    def cell(self, row: str) -> Cell | None:
        """A row's cell, or None where it was not run."""
        found = self.cells.get(row)
        return found if isinstance(found, Cell) else None

    def figure(self, row: str, name: str) -> Estimate | None:
        """A figure of a row, or None where it was not run or is undefined."""
        cell = self.cell(row)
        return None if cell is None else cell.figures.get(name)


@dataclass(frozen=True)
class Benchmark:
    """Everything that was measured.

    Attributes:
        cameras: In the order they were asked for.
        ms: Median milliseconds a picture by row, and of ``classifier`` and ``efficientnet-b0``.
    """

    cameras: list[CameraResult]
    ms: dict[str, float]

    def averaged(self, row: str, name: str, among: list[CameraResult] | None = None) -> Estimate | None:
        """Mean of a figure over the cameras (of ``among``) where the row has it, paired by resample."""
        cameras = self.cameras if among is None else among
        found = [estimate for camera in cameras if (estimate := camera.figure(row, name)) is not None]
        return average(found) if found else None

    def measured(self, row: str) -> list[CameraResult]:
        """Cameras where a row was run."""
        return [camera for camera in self.cameras if camera.cell(row) is not None]
