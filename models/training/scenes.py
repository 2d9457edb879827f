"""Drawn pictures of everyday things that show no retina: natural textures, rooms, people, papers, screens.

Each takes a side S in pixels and a generator, and returns float32 (S, S, 3), about 0 to 1; callers clip.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

FloatImage = npt.NDArray[np.float32]
Scene = Callable[[int, np.random.Generator], FloatImage]
Colour = tuple[float, float, float]


def grid(size: int) -> tuple[FloatImage, FloatImage]:
    """Rows and columns of pixel centres in 0..1, two float32 (size, size)."""
    rows, columns = np.mgrid[:size, :size].astype(np.float32) / np.float32(size)
    return rows, columns


def colour(rng: np.random.Generator, low: float = 0.0, high: float = 1.0) -> Colour:
    """A random colour R, G, B, each between ``low`` and ``high``."""
    red, green, blue = rng.uniform(low, high, 3)
    return float(red), float(green), float(blue)


def texture(size: int, rng: np.random.Generator) -> FloatImage:
    """Fractal noise in one colour direction, float32 (size, size, 1), 0 to 1.

    Octaves from the whole picture to single pixels; the weight falls by 0.4 to 0.9 an octave, which covers
    the spectra of clouds, skin, stone and grass (1/f² to nearly white).
    """
    total = np.zeros((size, size), np.float32)
    weight, fall, cells = 1.0, float(rng.uniform(0.4, 0.9)), 2
    while cells <= size // 2:
        points = rng.standard_normal((cells, cells), dtype=np.float32)
        total += weight * cv2.resize(points, (size, size), interpolation=cv2.INTER_CUBIC)
        weight, cells = weight * fall, cells * 2
    scaled: FloatImage = ((total - total.min()) / max(float(np.ptp(total)), 1e-6))[..., None]
    return scaled


def blend(share: FloatImage, first: Colour, second: Colour) -> FloatImage:
    """Two colours mixed by ``share`` (S, S, 1), 1 being all of the first."""
    mixed = share * np.array(first, np.float32) + (1 - share) * np.array(second, np.float32)
    return np.asarray(mixed, dtype=np.float32)


def warm(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """Two tones of skin, mucosa, wood or sand: what is likeliest to be taken for retina."""
    base = np.array([0.9, 0.6, 0.45]) * rng.uniform(0.4, 1.1) * rng.uniform((0.9, 0.6, 0.4), 1.1)
    other = base * rng.uniform(0.5, 0.95, 3)
    return (float(base[0]), float(base[1]), float(base[2])), (
        float(other[0]),
        float(other[1]),
        float(other[2]),
    )


def surface(size: int, rng: np.random.Generator) -> FloatImage:
    """Skin, wall, cloth, sky, leaf: a texture between two colours, warm half of the time."""
    tones = warm(rng) if rng.random() < 0.5 else (colour(rng), colour(rng))
    return blend(texture(size, rng), *tones)


def gradient(size: int, rng: np.random.Generator) -> FloatImage:
    """A smooth ramp between two colours (sky, blurred room), round half of the time: an empty lit disc."""
    rows, columns = grid(size)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = columns * np.cos(angle) + rows * np.sin(angle)
    if rng.random() < 0.5:
        ramp = np.hypot(columns - rng.uniform(0.3, 0.7), rows - rng.uniform(0.3, 0.7))
    share = np.asarray((ramp - ramp.min()) / np.ptp(ramp), dtype=np.float32)[..., None]
    tones = warm(rng) if rng.random() < 0.5 else (colour(rng), colour(rng))
    return blend(share, *tones) + np.float32(0.01) * rng.standard_normal((size, size, 3), dtype=np.float32)


def noise(size: int, rng: np.random.Generator) -> FloatImage:
    """White noise of any mean and strength, coloured or grey."""
    channels = 3 if rng.random() < 0.7 else 1
    field = rng.standard_normal((size, size, channels), dtype=np.float32) * np.float32(rng.uniform(0.05, 0.5))
    tint = rng.uniform(0.4, 1.0, 3).astype(np.float32)
    return np.asarray((np.repeat(field, 3 // channels, axis=2) + rng.uniform(0.2, 0.7)) * tint, np.float32)


def dead_leaves(size: int, rng: np.random.Generator) -> FloatImage:
    """Occluding textured shapes, radii by r⁻³: the statistics of natural pictures (Lee 2001)."""
    labels = np.zeros((size, size), np.float32)
    count = int(rng.integers(20, 400))
    smallest, largest = size * rng.uniform(0.01, 0.05), size * rng.uniform(0.2, 0.5)
    spread = rng.random(count) * (smallest**-2 - largest**-2) + largest**-2
    corners = int(rng.choice([0, 3, 4, 5, 8]))
    for label, radius in enumerate(spread**-0.5, start=1):
        _leaf(labels, float(radius), corners, label, rng)
    chosen = labels.astype(np.int32)
    warm_share = rng.random()
    tones = [warm(rng)[0] if rng.random() < warm_share else colour(rng) for _ in range(count + 1)]
    palette = np.array(tones, np.float32)
    grain = rng.uniform(0, 0.4, count + 1).astype(np.float32)[chosen][..., None] * (texture(size, rng) - 0.5)
    slope = rng.normal(0, 0.3, (2, count + 1)).astype(np.float32)
    rows, columns = grid(size)
    shade = (slope[0][chosen] * (rows - 0.5) + slope[1][chosen] * (columns - 0.5))[..., None]
    return np.asarray(palette[chosen] * (1 + grain + shade), dtype=np.float32)


def _leaf(labels: FloatImage, radius: float, corners: int, label: int, rng: np.random.Generator) -> None:
    centre = rng.uniform(0, labels.shape[0], 2)
    if corners == 0:
        cv2.circle(labels, (int(centre[0]), int(centre[1])), max(1, int(radius)), float(label), -1)
        return
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    reach = radius * rng.uniform(0.5, 1.3, corners)
    points = centre + np.stack([reach * np.cos(angles), reach * np.sin(angles)], 1)
    cv2.fillPoly(labels, [points.astype(np.int32)], float(label))


def document(size: int, rng: np.random.Generator) -> FloatImage:
    """A page or a dark screen with lines of text, some in colour, some beside a box or a picture."""
    page = np.full((size, size, 3), rng.integers(180, 256, 3), np.uint8)
    step, scale = max(4, size // int(rng.integers(12, 40))), size / 512 * float(rng.uniform(0.35, 1.1))
    ink = rng.integers(0, 128, 3).tolist()
    for row in range(step, size, step):
        letters = rng.integers(97, 123, int(rng.integers(10, 60)))
        words = "".join(" " if letter % 6 == 0 else chr(letter) for letter in letters)
        place = (int(rng.integers(0, size // 3)), row)
        cv2.putText(page, words, place, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, int(rng.integers(1, 3)))
        if rng.random() < 0.1:
            low, high = np.sort(rng.integers(0, size, (2, 2)), axis=0)
            cv2.rectangle(page, low.tolist(), high.tolist(), rng.integers(0, 256, 3).tolist(), -1)
    light = page.astype(np.float32) / np.float32(255)
    return np.float32(1.0) - light if rng.random() < 0.4 else light


def icon(size: int, rng: np.random.Generator) -> FloatImage:
    """A sign, a logo, a chart: a few flat or shaded shapes with hard edges on an even ground."""
    picture = np.full((size, size, 3), colour(rng, 0.0, 1.0), np.float32)
    for _ in range(int(rng.integers(1, 9))):
        low, high = np.sort(rng.integers(0, size, (2, 2)), axis=0)
        shape, width = int(rng.integers(4)), int(rng.choice([-1, -1, max(1, size // 60)]))
        if shape == 0:
            cv2.rectangle(picture, low.tolist(), high.tolist(), colour(rng), width)
        elif shape == 1:
            centre = (low + high) // 2
            cv2.circle(picture, centre.tolist(), max(2, int(high[0] - low[0]) // 2), colour(rng), width)
        elif shape == 2:
            corners = rng.integers(0, size, (int(rng.integers(3, 6)), 2)).astype(np.int32)
            cv2.fillPoly(picture, [corners], colour(rng))
        else:
            cv2.line(picture, low.tolist(), high.tolist(), colour(rng), max(1, size // 40))
    ramp = np.linspace(1.0, rng.uniform(0.6, 1.0), size, dtype=np.float32)
    return np.asarray(picture * ramp[:, None, None], dtype=np.float32)


def pattern(size: int, rng: np.random.Generator) -> FloatImage:
    """Stripes, tiles, bricks, cloth, rings: periodic, in two colours, at any angle."""
    rows, columns = grid(size)
    angle, waves = rng.uniform(0, np.pi), rng.uniform(3, 40)
    first = np.sin(2 * np.pi * waves * (columns * np.cos(angle) + rows * np.sin(angle)))
    second = np.sin(2 * np.pi * waves * (rows * np.cos(angle) - columns * np.sin(angle)))
    rings = np.sin(2 * np.pi * waves * np.hypot(rows - 0.5, columns - 0.5))
    wave = (first, first * second, rings)[int(rng.integers(3))]
    wave = np.tanh(wave * rng.uniform(0.5, 6)) * 0.5 + 0.5
    tones = warm(rng) if rng.random() < 0.5 else (colour(rng), colour(rng))
    return blend(wave[..., None].astype(np.float32), *tones) * (0.8 + 0.2 * texture(size, rng))


def face(size: int, rng: np.random.Generator) -> FloatImage:
    """A drawn face: hair, skin, brows, eyes, nose, mouth, soft light from one side."""
    picture = surface(size, rng)
    tone = np.array(warm(rng)[0])
    skin: Colour = (float(tone[0]), float(tone[1]), float(tone[2]))
    x, y, unit = size * rng.uniform(0.4, 0.6), size * rng.uniform(0.4, 0.6), size * rng.uniform(0.2, 0.45)
    hair = colour(rng, 0.02, 0.5)

    def oval(dx: float, dy: float, w: float, h: float, paint: Colour) -> None:
        centre = (int(x + dx * unit), int(y + dy * unit))
        cv2.ellipse(picture, centre, (max(1, int(w * unit)), max(1, int(h * unit))), 0, 0, 360, paint, -1)

    oval(0, -0.2, 0.95, 1.15, hair)
    oval(0, 0, 0.75, 1.0, skin)
    for side in (-0.3, 0.3):
        oval(side, -0.35, 0.2, 0.04, hair)
        oval(side, -0.2, 0.16, 0.08, (0.9, 0.88, 0.86))
        oval(side, -0.2, 0.07, 0.07, colour(rng, 0.05, 0.45))
        oval(side, -0.2, 0.03, 0.03, (0.02, 0.02, 0.02))
    oval(0, 0.12, 0.09, 0.2, (skin[0] * 0.9, skin[1] * 0.85, skin[2] * 0.85))
    oval(0, 0.5, 0.28, 0.09, (0.7, 0.25, 0.25))
    light = 1 - 0.5 * np.abs(grid(size)[1] - rng.uniform(0, 1))[..., None]
    soft = cv2.GaussianBlur(picture, (0, 0), size / 512 * float(rng.uniform(0.6, 4.0)))
    return np.asarray(soft * light * (0.9 + 0.2 * texture(size, rng)), dtype=np.float32)


def room(size: int, rng: np.random.Generator) -> FloatImage:
    """A room or a street: sky or wall, floor, boxes with windows, each shaded and textured."""
    horizon = int(size * rng.uniform(0.3, 0.7))
    picture = np.full((size, size, 3), colour(rng, 0.3, 1.0), np.float32)
    picture[horizon:] = colour(rng, 0.1, 0.8)
    for _ in range(int(rng.integers(3, 16))):
        left, width = int(rng.integers(0, size)), int(size * rng.uniform(0.05, 0.35))
        top, bottom = int(horizon * rng.uniform(0.1, 1.0)), int(horizon + (size - horizon) * rng.random())
        paint = colour(rng)
        cv2.rectangle(picture, (left, top), (left + width, bottom), paint, -1)
        for row in range(top, bottom, max(4, size // int(rng.integers(8, 40)))):
            cv2.line(picture, (left, row), (left + width, row), colour(rng), max(1, size // 200))
    return np.asarray(picture * (0.6 + 0.6 * texture(size, rng)), dtype=np.float32)


def planet(size: int, rng: np.random.Generator) -> FloatImage:
    """A moon or planet: one shaded ball with craters or bands."""
    rows, columns = grid(size)
    x, y = columns * 2 - 1, rows * 2 - 1
    light = rng.normal(0, 1, 3)
    light[2] = abs(light[2])
    light /= np.linalg.norm(light)
    height = np.sqrt(np.clip(1 - x * x - y * y, 0, 1))
    shade = np.clip(x * light[0] + y * light[1] + height * light[2], 0, 1)[..., None]
    bands = np.sin(y * rng.uniform(5, 30) + 3 * texture(size, rng)[..., 0])[..., None] * 0.5 + 0.5
    skin = texture(size, rng) if rng.random() < 0.5 else bands.astype(np.float32)
    tones = warm(rng) if rng.random() < 0.5 else (colour(rng, 0.2), colour(rng, 0.2))
    ball = blend(skin, *tones)
    for _ in range(int(rng.integers(0, 40))):
        spot, radius = rng.integers(0, size, 2).tolist(), max(1, int(size * rng.uniform(0.005, 0.05)))
        cv2.circle(ball, spot, radius, colour(rng, 0.1, 0.6), -1 if rng.random() < 0.5 else 1)
    return np.asarray(ball * shade, dtype=np.float32)


def lights(size: int, rng: np.random.Generator) -> FloatImage:
    """Out-of-focus lamps and reflections on a dark or coloured ground."""
    picture = surface(size, rng) * np.float32(rng.uniform(0.1, 0.7))
    for _ in range(int(rng.integers(3, 60))):
        layer = np.zeros_like(picture)
        radius = max(1, int(size * rng.uniform(0.01, 0.12)))
        cv2.circle(layer, rng.integers(0, size, 2).tolist(), radius, colour(rng, 0.1, 1.0), -1)
        picture += layer * np.float32(rng.uniform(0.2, 0.9))
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), size * float(rng.uniform(0.001, 0.01))), np.float32)


def branches(size: int, rng: np.random.Generator) -> FloatImage:
    """Trees, roots, rivers, cracks, cables: branching lines, dark on bright or the reverse, no optic disc."""
    picture = surface(size, rng) if rng.random() < 0.5 else gradient(size, rng)
    paint = colour(rng)
    start, heading = rng.uniform(0, size, 2), rng.uniform(0, 2 * np.pi)
    twigs = [(start, heading, size * rng.uniform(0.01, 0.05))]
    bend, drawn = rng.uniform(0.05, 0.5), 0
    while twigs and drawn < 600:
        point, heading, width = twigs.pop()
        tip = point + size * 0.04 * np.array([np.cos(heading), np.sin(heading)])
        cv2.line(picture, point.astype(int).tolist(), tip.astype(int).tolist(), paint, max(1, int(width)))
        drawn += 1
        if (tip > 0).all() and (tip < size).all() and width > size / 700:
            forks = 2 if rng.random() < 0.25 else 1
            twigs += [(tip, heading + rng.normal(0, bend * forks), width * 0.93) for _ in range(forks)]
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), size / 512 * float(rng.uniform(0.5, 2))), np.float32)


SCENES: tuple[Scene, ...] = (
    surface,
    gradient,
    noise,
    dead_leaves,
    dead_leaves,
    document,
    icon,
    pattern,
    face,
    room,
    planet,
    lights,
    branches,
)
"""Everyday pictures; dead leaves twice, they stand for all photographs of things."""
