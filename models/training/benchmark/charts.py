"""Charts as SVG text and pictures as data addresses: nothing to fetch, nothing to install."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

import cv2
import numpy as np
import numpy.typing as npt

Points = Sequence[tuple[float, float]]

COLOURS: dict[str, str] = {
    "oracle": "#111111",
    "none": "#c0392b",
    "none+local": "#e59866",
    "reinhard": "#b7950b",
    "histogram": "#7d3c98",
    "fourier": "#138d75",
    "plain": "#85929e",
    "ours": "#1f5fbf",
    "paired": "#5dade2",
}
"""Colour by row; rows without one have grey bars and no curves."""
RELIABILITY = ("oracle", "none", "plain", "ours", "paired")
"""Rows whose reliability is drawn: more lines than that cannot be told apart."""
_SIDE, _MARGIN = 240, 34
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def curves(lines: Mapping[str, Points], x_label: str, y_label: str, *, dots: bool = False) -> str:
    """A square chart from 0 to 1 with its diagonal: a line a row, with dots if asked.

    Args:
        lines: Points by row, in the order of drawing.
        x_label: Below.
        y_label: Beside.
        dots: Mark the points.
    """
    total = _SIDE + _MARGIN + 12
    parts = [f'<svg viewBox="0 0 {total} {total}" role="img" aria-label="{escape(y_label)}">', _frame()]
    for row, points in lines.items():
        if row not in COLOURS:
            continue
        path = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in points)
        width = 2.4 if row in ("ours", "oracle") else 1.3
        colour = COLOURS[row]
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        if dots:
            parts += [
                f'<circle cx="{_x(x):.1f}" cy="{_y(y):.1f}" r="2.6" fill="{colour}"/>' for x, y in points
            ]
    middle = _MARGIN + _SIDE / 2
    parts.append(f'<text x="{middle}" y="{total - 1}" text-anchor="middle">{escape(x_label)}</text>')
    turned = f'transform="rotate(-90 9 {6 + _SIDE / 2})"'
    parts.append(f'<text x="9" y="{6 + _SIDE / 2}" text-anchor="middle" {turned}>{escape(y_label)}</text>')
    return "".join(parts) + "</svg>"


def flips_chart(rows: Sequence[tuple[str, str, float, float, float]]) -> str:
    """Horizontal bars with intervals: key, label, value, low and high as shares.

    Drawn on a common scale that ends at the highest interval.
    """
    top = max([0.05, *(high for *_, high in rows if np.isfinite(high))])
    height, left, width = 22, 190, 430
    total = left + width + 70
    parts = [f'<svg viewBox="0 0 {total} {height * len(rows) + 6}" role="img" aria-label="flipped">']
    for place, (key, label, value, low, high) in enumerate(rows):
        y, colour = place * height + 4, COLOURS.get(key, "#aab7b8")
        end, middle = left + width * value / top, y + height / 2 - 2
        parts.append(f'<text x="{left - 8}" y="{middle + 4}" text-anchor="end">{escape(label)}</text>')
        parts.append(
            f'<rect x="{left}" y="{y}" width="{max(end - left, 1):.1f}" height="{height - 6}" '
            f'fill="{colour}"/>'
        )
        if np.isfinite([low, high]).all():
            first, last = left + width * low / top, left + width * high / top
            parts.append(
                f'<path d="M{first:.1f} {middle} H{last:.1f} M{first:.1f} {middle - 4} v8 '
                f'M{last:.1f} {middle - 4} v8" stroke="#222" stroke-width="1.2"/>'
            )
        after = max(end, left + width * high / top if np.isfinite(high) else end) + 6
        parts.append(f'<text x="{after:.1f}" y="{middle + 4}">{value:.1%}</text>')
    return "".join(parts) + "</svg>"


def legend(rows: Mapping[str, str]) -> str:
    """Coloured names of the rows that charts draw."""
    return "".join(
        f'<span class="key"><i style="background:{COLOURS[key]}"></i>{escape(label)}</span>'
        for key, label in rows.items()
        if key in COLOURS
    )


def thumbnail(picture: npt.NDArray[np.uint8], side: int) -> str:
    """A picture uint8 (S, S, 4), reduced to ``side`` px, as the address of a JPEG."""
    small = cv2.resize(picture[..., :3], (side, side), interpolation=cv2.INTER_AREA)
    return _address(np.asarray(small, np.uint8), 84)


def detail(picture: npt.NDArray[np.uint8], centre: tuple[int, int], side: int) -> str:
    """A crop at full resolution around (x, y), moved so that it lies within the picture."""
    size = picture.shape[0]
    reach = min(side, size)
    left, top = (min(max(place - reach // 2, 0), size - reach) for place in centre)
    return _address(picture[top : top + reach, left : left + reach, :3], 93)


def _address(rgb: npt.NDArray[np.uint8], quality: int) -> str:
    bgr = np.ascontiguousarray(rgb[:, :, ::-1])
    done, stream = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise RuntimeError("OpenCV could not compress the picture")
    return "data:image/jpeg;base64," + base64.b64encode(stream.tobytes()).decode("ascii")


def _frame() -> str:
    box = f'<rect x="{_MARGIN}" y="6" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#999"/>'
    parts = [box, f'<path d="M{_x(0)} {_y(0)} L{_x(1)} {_y(1)}" stroke="#ccc" stroke-dasharray="4 4"/>']
    for tick in _TICKS:
        parts.append(f'<text x="{_x(tick)}" y="{_y(0) + 12}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text x="{_MARGIN - 4}" y="{_y(tick) + 4}" text-anchor="end">{tick:g}</text>')
    return "".join(parts)


def _x(share: float) -> float:
    return _MARGIN + _SIDE * share


def _y(share: float) -> float:
    return 6 + _SIDE * (1.0 - share)
