"""From a decoded photograph to the one tensor that every graph reads; training and serving share this file.

A fundus photograph is a lit disc on a dark frame. The disc may be cut by the frame, its rim may be dark, a
notch or a patient-side marker may interrupt it, and text may stand beside it. The disc is found as a circle
fitted to the rim of the lit region, so that none of these moves it. Nothing outside the disc reaches a model.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from models.errors import NoFieldOfViewError

Uint8Image = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]

_WORKING_SIDE = 384
"""Longest side, in px, of the reduced picture in which the circle is fitted."""
_RIM_LEVELS = (0.06, 0.12, 0.25)
"""Thresholds tried between background (0) and bright tissue (1); the best circle wins."""
_MINIMUM_SIGNAL = 16.0
"""Grey levels that bright tissue must stand above the background."""
_MAXIMUM_BACKGROUND = 64.0
"""Grey level above which the darkest part of the frame is no dark surround."""
_INLIER_TOLERANCE = 0.012
"""Distance from the circle, in radii, within which a rim point supports it."""
_VOTERS = 300
"""Rim points, evenly spread, that vote on the proposed circles; all of them refine the winner."""
_MINIMUM_INLIERS = 0.45
"""Share of the free rim (what the frame does not cut) that must lie on the circle."""
_MINIMUM_ARC = 0.22
"""Share of the circumference that must be supported; a disc cut on four sides keeps its corners only."""
_MINIMUM_OVERLAP = 0.80
"""Intersection over union of the lit region and the part of the disc that lies in the frame."""
_RIM_MARGIN = 0.988
"""The mask's radius in radii: a thin blurred edge belongs to the aperture, not to the retina."""
_TRIPLES = 300
"""Random triples of rim points from which circles are proposed."""


@dataclass(frozen=True)
class FieldOfView:
    """The disc of a fundus photograph.

    Attributes:
        centre_x: Column of the centre, in pixels of the source (may lie outside a cut frame).
        centre_y: Row of the centre, in pixels of the source.
        radius: Radius in pixels of the source.
        fraction: Share of the frame that the disc covers, 0 to 1.
    """

    centre_x: float
    centre_y: float
    radius: float
    fraction: float


@dataclass(frozen=True)
class Prepared:
    """A photograph in the form that the graphs read.

    Attributes:
        tensor: uint8 (S, S, 4): RGB, and alpha 255 inside the field, 0 outside; RGB is 0 where alpha is 0.
        field: Where the disc was in the source.
        mean_rgb: Mean R, G, B inside the field, 0 to 255.
    """

    tensor: Uint8Image
    field: FieldOfView
    mean_rgb: tuple[float, float, float]


@dataclass(frozen=True)
class _Circle:
    x: float
    y: float
    radius: float
    support: float


def find_field(rgb: Uint8Image) -> FieldOfView:
    """Find the disc of a fundus photograph.

    Args:
        rgb: uint8 (H, W, 3), 0 to 255.

    Returns:
        The disc, in pixels of ``rgb``.

    Raises:
        NoFieldOfViewError: No lit disc on a dark surround: blank, noise, a picture that fills its frame.
        ValueError: ``rgb`` is not uint8 (H, W, 3).
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"expected uint8 (H, W, 3), got {rgb.dtype} {rgb.shape}")
    height, width = rgb.shape[:2]
    scale = min(1.0, _WORKING_SIDE / max(height, width))
    signal = _signal(rgb, scale)
    background, bright = (float(level) for level in np.percentile(signal, (1.0, 90.0)))
    if bright - background < _MINIMUM_SIGNAL or background > _MAXIMUM_BACKGROUND:
        raise NoFieldOfViewError("no lit region on a dark surround")
    best = _best_circle(signal, background, bright)
    if best is None:
        raise NoFieldOfViewError("the lit region is not round")
    inside = _disc(signal.shape, best.x, best.y, best.radius)
    # The reduced picture's pixel (i + 0.5) / scale - 0.5 in the source: both count from pixel centres.
    return FieldOfView(
        centre_x=(best.x + 0.5) * width / signal.shape[1] - 0.5,
        centre_y=(best.y + 0.5) * height / signal.shape[0] - 0.5,
        radius=best.radius * max(height, width) / max(signal.shape),
        fraction=float(inside.mean()),
    )


def prepare(rgb: Uint8Image, size: int) -> Prepared:
    """Crop the square around the whole disc, reduce it, and put the field's mask into alpha.

    A disc that the frame cuts is padded with black, so that the disc always fills the square: lesions then
    have one scale whatever the camera's frame.

    Args:
        rgb: uint8 (H, W, 3), 0 to 255.
        size: Side S of the result in pixels.

    Returns:
        The tensor uint8 (S, S, 4) with the field it came from.

    Raises:
        NoFieldOfViewError: There is no disc, see ``find_field``.
    """
    field = find_field(rgb)
    square = _square(rgb, field)
    shrinking = square.shape[0] >= size
    small = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
    mask = _field_mask(rgb.shape[:2], field, size)
    alpha = mask.astype(np.uint8) * np.uint8(255)
    tensor = np.empty((size, size, 4), np.uint8)
    tensor[..., :3] = cv2.copyTo(small, alpha)
    tensor[..., 3] = alpha
    red, green, blue, _ = cv2.mean(small, alpha)
    return Prepared(tensor, field, (float(red), float(green), float(blue)))


def _signal(rgb: Uint8Image, scale: float) -> Uint8Image:
    """Brightest channel of the reduced picture, uint8 (h, w), speckles removed."""
    if scale < 1.0:
        size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return np.asarray(cv2.medianBlur(rgb.max(axis=2), 5), dtype=np.uint8)


def _best_circle(signal: Uint8Image, background: float, bright: float) -> _Circle | None:
    """The circle with the most support over the rim levels.

    All are tried: the darkest level gives a clean circle too, but one that takes in the glow around the disc.
    """
    best: _Circle | None = None
    for level in _RIM_LEVELS:
        circle = _fit(signal > background + level * (bright - background))
        if circle is not None and (best is None or circle.support > best.support):
            best = circle
    return best


def _fit(lit: npt.NDArray[np.bool_]) -> _Circle | None:
    """Fit a circle to the rim of the largest lit region; None when the region is not a disc."""
    region = _largest_region(lit)
    rim = _free_rim(region)
    if len(rim) < 16:
        return None
    circle = _consensus_circle(rim)
    if circle is None:
        return None
    longest, shortest = max(region.shape), min(region.shape)
    if not 0.2 * shortest <= circle.radius <= 0.9 * longest:
        return None
    if circle.support < _MINIMUM_INLIERS or _arc(rim, circle) < _MINIMUM_ARC:
        return None
    disc = _disc(region.shape, circle.x, circle.y, circle.radius)
    overlap = np.logical_and(disc, region).sum() / np.logical_or(disc, region).sum()
    return circle if overlap >= _MINIMUM_OVERLAP else None


def _largest_region(lit: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Largest connected lit region with its holes filled; text and reflections beside the disc drop out."""
    opened = cv2.morphologyEx(lit.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    contours, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(lit.shape, np.uint8)
    if contours:
        cv2.drawContours(filled, [max(contours, key=cv2.contourArea)], -1, 1, thickness=cv2.FILLED)
    return filled.astype(bool)


def _free_rim(region: npt.NDArray[np.bool_]) -> FloatArray:
    """Rim points (x, y) of a region, float64 (N, 2), without those where the frame cuts it."""
    contours, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return np.empty((0, 2))
    points = np.asarray(contours[0], dtype=np.float64).reshape(-1, 2)
    height, width = region.shape
    free = (points > 2).all(axis=1) & (points[:, 0] < width - 3) & (points[:, 1] < height - 3)
    rim: FloatArray = points[free]
    return rim


def _consensus_circle(rim: FloatArray) -> _Circle | None:
    """Circle that most rim points lie on: random triples, then least squares over the supporters."""
    rng = np.random.default_rng(0)
    triples = rim[rng.integers(0, len(rim), (_TRIPLES, 3))]
    centres, radii = _circles_through(triples)
    valid = np.isfinite(radii) & (radii > 4.0)
    if not valid.any():
        return None
    centres, radii = centres[valid], radii[valid]
    voters = rim[:: max(1, len(rim) // _VOTERS)]
    distance = np.hypot(voters[None, :, 0] - centres[:, :1], voters[None, :, 1] - centres[:, 1:])
    votes = (np.abs(distance - radii[:, None]) < np.maximum(1.0, _INLIER_TOLERANCE * radii)[:, None]).sum(
        axis=1
    )
    best = int(votes.argmax())
    x, y, radius = float(centres[best, 0]), float(centres[best, 1]), float(radii[best])
    for _ in range(3):
        near = _supporters(rim, x, y, radius)
        if near.sum() < 8:
            return None
        x, y, radius = _least_squares_circle(rim[near])
    return _Circle(x, y, radius, float(_supporters(rim, x, y, radius).mean()))


def _circles_through(triples: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Circles through triples of points, (N, 3, 2) to centres (N, 2) and radii (N,); collinear: nan."""
    origin = triples[:, 0]
    first, second = triples[:, 1] - origin, triples[:, 2] - origin
    cross = 2.0 * (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])
    safe = np.where(np.abs(cross) < 1e-6, np.nan, cross)
    a, b = (first**2).sum(axis=1), (second**2).sum(axis=1)
    offset = (
        np.stack([second[:, 1] * a - first[:, 1] * b, first[:, 0] * b - second[:, 0] * a], 1) / safe[:, None]
    )
    centres: FloatArray = origin + offset
    return centres, np.linalg.norm(offset, axis=1)


def _supporters(rim: FloatArray, x: float, y: float, radius: float) -> npt.NDArray[np.bool_]:
    distance = np.hypot(rim[:, 0] - x, rim[:, 1] - y)
    return np.asarray(np.abs(distance - radius) < max(1.0, _INLIER_TOLERANCE * radius), dtype=np.bool_)


def _least_squares_circle(points: FloatArray) -> tuple[float, float, float]:
    """Algebraic least squares (Kåsa 1976): x² + y² = 2·cx·x + 2·cy·y + c."""
    design = np.column_stack([2.0 * points, np.ones(len(points))])
    (x, y, c), *_ = np.linalg.lstsq(design, (points**2).sum(axis=1), rcond=None)
    return float(x), float(y), float(np.sqrt(max(c + x * x + y * y, 0.0)))


def _arc(rim: FloatArray, circle: _Circle) -> float:
    """Share of 72 sectors of the circumference that hold a supporting rim point."""
    near = rim[_supporters(rim, circle.x, circle.y, circle.radius)]
    angle = np.arctan2(near[:, 1] - circle.y, near[:, 0] - circle.x)
    sectors = np.unique(((angle + np.pi) / (2.0 * np.pi) * 72).astype(np.int64) % 72)
    return len(sectors) / 72.0


def _disc(shape: tuple[int, ...], x: float, y: float, radius: float) -> npt.NDArray[np.bool_]:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= radius * radius, dtype=np.bool_)


def _origin_and_side(field: FieldOfView) -> tuple[int, int, int]:
    side = max(2, round(2.0 * field.radius))
    return round(field.centre_x - (side - 1) / 2.0), round(field.centre_y - (side - 1) / 2.0), side


def _square(rgb: Uint8Image, field: FieldOfView) -> Uint8Image:
    """The square around the disc, uint8 (side, side, 3), black where it leaves the frame."""
    left, top, side = _origin_and_side(field)
    height, width = rgb.shape[:2]
    square = np.zeros((side, side, 3), np.uint8)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    square[y0 - top : y1 - top, x0 - left : x1 - left] = rgb[y0:y1, x0:x1]
    return square


def _field_mask(frame: tuple[int, ...], field: FieldOfView, size: int) -> npt.NDArray[np.bool_]:
    """Pixels of the S×S square that are inside the disc and wholly inside the source frame, bool (S, S)."""
    left, top, side = _origin_and_side(field)
    scale = side / size
    edges = np.arange(size + 1) * scale
    columns, rows = edges + left, edges + top
    in_x = (columns[:-1] >= 0) & (columns[1:] <= frame[1])
    in_y = (rows[:-1] >= 0) & (rows[1:] <= frame[0])
    x, y = (field.centre_x - left + 0.5) / scale - 0.5, (field.centre_y - top + 0.5) / scale - 0.5
    disc = _disc((size, size), x, y, _RIM_MARGIN * field.radius / scale)
    return np.asarray(disc & in_x[None, :] & in_y[:, None], dtype=np.bool_)
