"""What the figures say of the adapter: acceptance points, met, missed or not measured, and one paragraph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from models.training.benchmark.fidelity import GRADED_LESIONS
from models.training.benchmark.graphs import OURS, PAIRED
from models.training.benchmark.results import (
    BASELINES,
    ORACLE,
    ROWS,
    UNADAPTED,
    Benchmark,
    CameraResult,
)
from models.training.benchmark.timing import YARDSTICK

FLIP_SHARE = 1 / 5
FLIP_LIMIT = 0.05
RATE_AVERAGE, RATE_ANY = 0.05, 0.08
AUC_BACK, AUC_OF_BOUND = 0.8, 0.9
CONTRAST = (0.9, 1.15)
GRADED = 0.95
COST = 0.35


@dataclass(frozen=True)
class Check:
    """One acceptance point: what is asked, whether it holds (None: not measured), and the figures."""

    asked: str
    met: bool | None
    found: str


def checks(benchmark: Benchmark) -> list[Check]:
    """All acceptance points of the adapter, over the cameras where it was measured."""
    cameras = benchmark.measured(OURS)
    if not cameras:
        return [Check("the adapter is measured", None, "there was no adapter for any camera")]
    return [
        *_flips(cameras),
        *_rates(cameras),
        *_auc(cameras),
        *_comparison(cameras),
        *_likeness(cameras),
        _graded(cameras),
        _cost(benchmark),
    ]


def paragraph(benchmark: Benchmark, points: Sequence[Check]) -> str:
    """The verdict in one paragraph, from the figures alone; what is missed comes first."""
    cameras = benchmark.measured(OURS)
    missed, unknown = [c for c in points if c.met is False], [c for c in points if c.met is None]
    if not cameras:
        return (
            "No camera has an adapter, so this run says nothing of it: the rows of the baselines stand alone."
        )
    names = f"{len(cameras)} of {len(benchmark.cameras)} cameras"
    ours, none = (float(_values(cameras, row, "flipped").mean()) for row in (OURS, UNADAPTED))
    text = f"Over {names}, the adapter leaves {ours:.1%} of the referable decisions flipped, "
    text += f"against {none:.1%} without adaptation. "
    best = _best_baseline(benchmark, cameras)
    if best is not None:
        text += f"The best baseline on the same cameras is {ROWS[best[0]]} with {best[1]:.1%}. "
    if missed:
        text += f"It misses {len(missed)} of {len(points)} acceptance points: "
        text += "; ".join(f"{check.asked} ({check.found})" for check in missed) + ". "
    else:
        text += f"Every one of the {len(points) - len(unknown)} acceptance points that were measured is met. "
    if unknown:
        text += "Not measured: " + "; ".join(f"{check.asked} ({check.found})" for check in unknown) + ". "
    return text + "The cameras are simulated: nothing here is a statement on a real product."


def _flips(cameras: list[CameraResult]) -> Iterator[Check]:
    ours, none = (_values(cameras, row, "flipped") for row in (OURS, UNADAPTED))
    yield Check(
        "flipped decisions at most a fifth of those without adaptation, on average",
        bool(ours.mean() <= FLIP_SHARE * none.mean()),
        f"{ours.mean():.1%} against {none.mean():.1%}",
    )
    sharp = [place for place, result in enumerate(cameras) if result.camera.blur_px == 0.0]
    above = [cameras[place].camera.name for place in sharp if ours[place] > FLIP_LIMIT]
    yield Check(
        "at most 5 % flipped on every camera without blur",
        not above if sharp else None,
        _named(above, "above it") if sharp else "no camera without blur",
    )
    worse = [result.camera.name for result, a, b in zip(cameras, ours, none, strict=True) if a >= b]
    yield Check(
        "fewer flipped than without adaptation on every camera", not worse, _named(worse, "not fewer")
    )


def _rates(cameras: list[CameraResult]) -> Iterator[Check]:
    for name in ("sensitivity", "specificity"):
        moved = np.abs(_values(cameras, OURS, name) - _values(cameras, ORACLE, name))
        worst = cameras[int(np.nanargmax(moved))].camera.name
        yield Check(
            f"{name} within 0.05 of the unshifted on average and 0.08 on any camera",
            bool(np.nanmean(moved) <= RATE_AVERAGE and np.nanmax(moved) <= RATE_ANY),
            f"off by {np.nanmean(moved):.3f} on average, {np.nanmax(moved):.3f} on {worst}",
        )


def _auc(cameras: list[CameraResult]) -> Iterator[Check]:
    lost = [result for result in cameras if result.figure(OURS, "recovered") is not None]
    back = _values(lost, OURS, "recovered")
    low = [result.camera.name for result, share in zip(lost, back, strict=True) if share < AUC_BACK]
    yield Check(
        "at least 80 % of the AUC back on every camera that cost 0.03 or more",
        not low if lost else None,
        _named(low, "below it") if lost else "no camera cost as much",
    )
    bounded = [result for result in lost if (result.figure(PAIRED, "recovered")) is not None]
    bound = _values(bounded, PAIRED, "recovered")
    shares = _values(bounded, OURS, "recovered")
    below = [
        result.camera.name
        for result, share, most in zip(bounded, shares, bound, strict=True)
        if share < AUC_OF_BOUND * most
    ]
    yield Check(
        "at least 90 % of the AUC that the paired bound gets back",
        not below if bounded else None,
        _named(below, "below it") if bounded else "no camera with a loss has a paired bound",
    )


def _comparison(cameras: list[CameraResult]) -> Iterator[Check]:
    for name, sign, words in (("flipped", 1.0, "fewer flipped decisions"), ("auc", -1.0, "higher AUC")):
        better = []
        for row in BASELINES:
            common = [result for result in cameras if result.cell(row) is not None]
            if common and np.mean(sign * (_values(common, row, name) - _values(common, OURS, name))) <= 0:
                better.append(ROWS[row])
        yield Check(
            f"{words} than every baseline, on average", not better, _named(better, "as good or better")
        )


def _likeness(cameras: list[CameraResult]) -> Iterator[Check]:
    outside = [
        f"{kind} {ratio:.2f} on {result.camera.name}"
        for kind in GRADED_LESIONS
        for result in cameras
        if (found := result.figure(OURS, f"contrast_{kind}")) is not None
        and np.isfinite(ratio := found.value)
        and not CONTRAST[0] <= ratio <= CONTRAST[1]
    ]
    known = any(result.figure(OURS, f"contrast_{kind}") for kind in GRADED_LESIONS for result in cameras)
    yield Check(
        "lesion contrast within 0.9 to 1.15 of the unshifted photograph, every type and camera",
        not outside if known else None,
        _named(outside, "outside") if known else "no photographs with masks were given",
    )
    fresh, own = _values(cameras, OURS, "new_components"), _values(cameras, ORACLE, "components")
    if not (np.isfinite(fresh).any() and np.isfinite(own).any()):
        yield Check("no new lesion components beyond the oracle's rate", None, "no photograph of grade 0")
        return
    yield Check(
        "new lesion components in photographs of grade 0 no more than the oracle's own rate",
        bool(np.nanmean(fresh) <= np.nanmean(own)),
        f"{np.nanmean(fresh):.2f} new a photograph; the oracle itself marks {np.nanmean(own):.2f}",
    )


def _graded(cameras: list[CameraResult]) -> Check:
    graded = _values(cameras, OURS, "graded")
    low = [result.camera.name for result, share in zip(cameras, graded, strict=True) if share < GRADED]
    return Check("at least 95 % graded on every camera", not low, _named(low, "below it"))


def _cost(benchmark: Benchmark) -> Check:
    asked = "the adapter costs at most 0.35 of EfficientNet-B0"
    if OURS not in benchmark.ms:
        return Check(asked, None, "not timed")
    share = benchmark.ms[OURS] / benchmark.ms[YARDSTICK]
    return Check(
        asked, share <= COST, f"{benchmark.ms[OURS]:.0f} ms of {benchmark.ms[YARDSTICK]:.0f} ms, {share:.2f}"
    )


def _best_baseline(benchmark: Benchmark, cameras: list[CameraResult]) -> tuple[str, float] | None:
    """The baseline with the fewest flips among those measured on all of the cameras."""
    names = {result.camera.name for result in cameras}
    complete = [
        row
        for row in BASELINES
        if row != UNADAPTED and names <= {result.camera.name for result in benchmark.measured(row)}
    ]
    flips = {row: float(_values(cameras, row, "flipped").mean()) for row in complete}
    return min(flips.items(), key=lambda item: item[1]) if flips else None


def _values(
    cameras: Sequence[CameraResult], row: str, name: str
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    found = [result.figure(row, name) for result in cameras]
    return np.array([float("nan") if figure is None else figure.value for figure in found])


def _named(names: Sequence[str], fault: str) -> str:
    return f"{fault}: {', '.join(names)}" if names else "on all"
