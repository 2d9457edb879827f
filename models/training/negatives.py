"""Pictures that must not be graded: ruined photographs, and pictures that show no retina at all.

All are prepared tensors, uint8 (S, S, 4), so that the quality head learns content and not the crop's shape.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from models.preprocess import Uint8Image

FloatImage = npt.NDArray[np.float32]
Ruin = Callable[[FloatImage, np.random.Generator], FloatImage]
Scene = Callable[[int, np.random.Generator], FloatImage]


def blurred(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """Defocused beyond grading: σ of 1.8 to 5 % of the field; vessels of the second order are gone."""
    sigma = picture.shape[0] * rng.uniform(0.018, 0.05)
    inside = (picture.max(axis=2, keepdims=True) > 0).astype(np.float32)
    spread = cv2.GaussianBlur(picture, (0, 0), sigma)
    weight = cv2.GaussianBlur(inside, (0, 0), sigma)[..., None]
    return np.asarray(spread / np.maximum(weight, np.float32(1e-3)), dtype=np.float32)


def dark(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """Flash failed: 2 to 8 % of the light, and read noise."""
    dim = picture * np.float32(rng.uniform(0.02, 0.08))
    return dim + rng.normal(0.0, 0.01, picture.shape).astype(np.float32)


def saturated(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """Overexposed: four to ten times the light, channels clipped."""
    return picture * np.float32(rng.uniform(4.0, 10.0)) + np.float32(rng.uniform(0.1, 0.4))


def occluded(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """A lid, lashes or the iris in front of well over half of the field."""
    size = picture.shape[0]
    angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(-0.6, -0.15)
    rows, columns = np.mgrid[:size, :size].astype(np.float32) / size * 2 - 1
    edge = columns * np.cos(angle) + rows * np.sin(angle) - reach
    cover = (1 / (1 + np.exp(-edge / rng.uniform(0.01, 0.15)))).astype(np.float32)[..., None]
    colour = rng.uniform(0.0, 1.0) * np.array([0.8, 0.55, 0.45], np.float32)
    hidden: FloatImage = picture * (1 - cover) + cover * (colour + 0.1 * texture(size, rng))
    return hidden


def monochrome(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """Red-free, infrared or angiography: one channel in grey, stretched, inverted half of the time."""
    grey = picture[..., int(rng.integers(3))]
    grey = (grey - grey.min()) / max(float(np.ptp(grey)), 1e-3)
    grey = 1.0 - grey if rng.random() < 0.5 else grey
    return np.asarray(np.repeat(grey[..., None], 3, axis=2) * rng.uniform(0.6, 1.0), dtype=np.float32)


def texture(size: int, rng: np.random.Generator) -> FloatImage:
    """Fractal noise in one colour direction, float32 (size, size, 1), about 0 to 1."""
    total = np.zeros((size, size), np.float32)
    weight = 1.0
    for cells in (2, 4, 8, 16, 32, 64, 128):
        grid = rng.standard_normal((cells, cells), dtype=np.float32)
        total += weight * cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
        weight *= float(rng.uniform(0.4, 0.9))
    scaled: FloatImage = ((total - total.min()) / max(float(np.ptp(total)), 1e-6))[..., None]
    return scaled


def surface(size: int, rng: np.random.Generator) -> FloatImage:
    """Skin, wall, cloth, sky, leaf: a texture between two random colours."""
    first, second = rng.uniform(0, 1, 3), rng.uniform(0, 1, 3)
    if rng.random() < 0.5:  # skin and other warm tones, the likely confusions
        first = np.array([0.9, 0.6, 0.45]) * rng.uniform(0.4, 1.1)
        second = first * rng.uniform(0.5, 0.95, 3)
    share = texture(size, rng)
    return np.asarray(first * share + second * (1 - share), dtype=np.float32)


def gradient(size: int, rng: np.random.Generator) -> FloatImage:
    """A smooth ramp between two colours (sky, out-of-focus room), sometimes round like a lit empty field."""
    rows, columns = np.mgrid[:size, :size].astype(np.float32) / size
    angle = rng.uniform(0, 2 * np.pi)
    ramp = columns * np.cos(angle) + rows * np.sin(angle)
    if rng.random() < 0.5:
        ramp = np.hypot(columns - rng.uniform(0.3, 0.7), rows - rng.uniform(0.3, 0.7))
    ramp = ((ramp - ramp.min()) / np.ptp(ramp))[..., None]
    first, second = rng.uniform(0, 1, 3), rng.uniform(0, 1, 3)
    if rng.random() < 0.5:
        first, second = np.array([0.8, 0.42, 0.15]) * rng.uniform(0.6, 1.2), np.array([0.5, 0.2, 0.06])
    grain = rng.normal(0, 0.01, (size, size, 3))
    return np.asarray(first * ramp + second * (1 - ramp) + grain, dtype=np.float32)


def noise(size: int, rng: np.random.Generator) -> FloatImage:
    """White noise of any mean and strength, coloured or grey."""
    channels = 3 if rng.random() < 0.7 else 1
    field = rng.normal(rng.uniform(0.2, 0.7), rng.uniform(0.05, 0.5), (size, size, channels))
    tint = rng.uniform(0.4, 1.0, 3)
    return np.asarray(np.repeat(field, 3 // channels, axis=2) * tint, dtype=np.float32)


def document(size: int, rng: np.random.Generator) -> FloatImage:
    """A page or a screen with lines of text."""
    page = np.empty((size, size, 3), np.uint8)
    page[:] = rng.integers(180, 256, 3)
    ink = tuple(int(value) for value in rng.integers(0, 90, 3))
    step, scale = int(rng.integers(14, 40)), float(rng.uniform(0.35, 1.1))
    for row in range(step, size, step):
        letters = rng.integers(97, 123, int(rng.integers(10, 60)))
        words = "".join(" " if letter % 6 == 0 else chr(letter) for letter in letters)
        place = (int(rng.integers(0, size // 3)), row)
        cv2.putText(page, words, place, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, int(rng.integers(1, 3)))
    light = page.astype(np.float32) / np.float32(255.0)
    return np.float32(1.0) - light if rng.random() < 0.4 else light


def front_of_eye(size: int, rng: np.random.Generator) -> FloatImage:
    """A drawn anterior segment: skin, sclera, iris with spokes, pupil, corneal reflex."""
    picture = surface(size, rng)
    centre = tuple(int(value) for value in rng.integers(size * 3 // 8, size * 5 // 8, 2))
    white = (size * int(rng.integers(38, 60)) // 100, size * int(rng.integers(22, 40)) // 100)
    cv2.ellipse(picture, centre, white, 0, 0, 360, (0.86, 0.80, 0.77), -1)
    iris = int(size * rng.uniform(0.13, 0.28))
    cv2.circle(picture, centre, iris, tuple(float(v) for v in rng.uniform(0.1, 0.55, 3)), -1)
    for angle in np.linspace(0, 2 * np.pi, 90):
        tip = (int(centre[0] + iris * np.cos(angle)), int(centre[1] + iris * np.sin(angle)))
        cv2.line(picture, centre, tip, tuple(float(v) for v in rng.uniform(0.1, 0.5, 3)), 1)
    cv2.circle(picture, centre, int(iris * rng.uniform(0.3, 0.6)), (0.03, 0.02, 0.02), -1)
    cv2.circle(
        picture, (centre[0] + iris // 4, centre[1] - iris // 4), max(2, iris // 8), (1.0, 1.0, 1.0), -1
    )
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.6, 3.0))), dtype=np.float32)


def tomogram(size: int, rng: np.random.Generator) -> FloatImage:
    """A drawn OCT section: wavy bright layers with speckle on black."""
    rows, columns = np.mgrid[:size, :size].astype(np.float32) / size
    wave = 0.5 + 0.1 * np.sin(columns * rng.uniform(3, 9) + rng.uniform(0, 6)) * rng.uniform(0.2, 1.0)
    layers = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(3, 7))):
        depth, thickness = rng.uniform(-0.12, 0.15), rng.uniform(0.005, 0.03)
        layers += float(rng.uniform(0.3, 0.9)) * np.exp(-(((rows - wave - depth) / thickness) ** 2))
    speckled = layers * rng.rayleigh(0.8, layers.shape).astype(np.float32) + 0.05
    return np.repeat(speckled[..., None], 3, axis=2).astype(np.float32)


RUINS: tuple[Ruin, ...] = (blurred, blurred, dark, saturated, occluded, monochrome)
"""What ruins a real photograph; blur twice, it is the commonest and the hardest."""
SCENES: tuple[Scene, ...] = (surface, gradient, noise, document, front_of_eye, tomogram)
"""What is no retina."""


def negative(photograph: Uint8Image, rng: np.random.Generator) -> Uint8Image:
    """A picture that must not be graded, in the field of a real photograph.

    Args:
        photograph: A prepared photograph, uint8 (S, S, 4); it lends the mask, or is ruined.
        rng: Source of all choices.

    Returns:
        uint8 (S, S, 4), RGB 0 outside the field.
    """
    if rng.random() < 0.5:
        ruin = RUINS[int(rng.integers(len(RUINS)))]
        picture = ruin(photograph[..., :3].astype(np.float32) / np.float32(255.0), rng)
    else:
        scene = SCENES[int(rng.integers(len(SCENES)))]
        picture = scene(photograph.shape[0], rng)
    colours = np.clip(np.round(picture * 255.0), 0, 255).astype(np.uint8)
    return np.dstack([colours * (photograph[..., 3:] > 0), photograph[..., 3]])
