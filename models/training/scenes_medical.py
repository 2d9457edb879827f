"""Drawn medical pictures that show no retina, or the retina in another modality.

Shapes and value range as in ``models.training.scenes``.
"""

from __future__ import annotations

import cv2
import numpy as np

from models.training.scenes import (
    Colour,
    FloatImage,
    Scene,
    blend,
    colour,
    document,
    grid,
    surface,
    texture,
    warm,
)

_MUCOSA: Colour = (0.85, 0.42, 0.32)


def front_of_eye(size: int, rng: np.random.Generator) -> FloatImage:
    """A drawn anterior segment: skin, sclera, iris with spokes, pupil, reflex, often a slit beam."""
    picture = surface(size, rng)
    x, y = (int(value) for value in rng.integers(size * 3 // 8, size * 5 // 8 + 1, 2))
    reach = rng.uniform(0.6, 2.2)  # from the whole eye to one that fills the picture
    white = (int(size * reach * rng.uniform(0.38, 0.6)), int(size * reach * rng.uniform(0.22, 0.4)))
    sclera = sclera_vessels(size, rng)
    lids = np.zeros((size, size), np.uint8)
    cv2.ellipse(lids, (x, y), white, 0, 0, 360, 1, -1)
    picture = np.where(lids[..., None] > 0, sclera, picture)
    iris = max(2, int(size * reach * rng.uniform(0.13, 0.28)))
    cv2.circle(picture, (x, y), iris, colour(rng, 0.1, 0.55), -1)
    for angle in np.linspace(0, 2 * np.pi, 90):
        tip = (int(x + iris * np.cos(angle)), int(y + iris * np.sin(angle)))
        cv2.line(picture, (x, y), tip, colour(rng, 0.1, 0.5), 1)
    pupil: Colour = (0.55, 0.2, 0.05) if rng.random() < 0.3 else (0.03, 0.02, 0.02)  # red reflex, or none
    cv2.circle(picture, (x, y), int(iris * rng.uniform(0.3, 0.85)), pupil, -1)
    cv2.circle(picture, (x + iris // 4, y - iris // 4), max(2, iris // 8), (1.0, 1.0, 1.0), -1)
    if rng.random() < 0.5:
        picture = _slit(picture, rng)
    return np.asarray(
        cv2.GaussianBlur(picture, (0, 0), size / 512 * float(rng.uniform(0.6, 3.0))), np.float32
    )


def _slit(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """A slit lamp's beam: a bright, slightly curved band on a picture that is darkened beside it."""
    rows, columns = grid(picture.shape[0])
    bow = rng.uniform(-0.3, 0.3) * (rows - 0.5) ** 2 + rng.uniform(0.3, 0.7)
    beam = np.exp(-(((columns - bow) / rng.uniform(0.01, 0.06)) ** 2))[..., None]
    return np.asarray(picture * rng.uniform(0.2, 0.8) + 0.8 * beam * (0.3 + picture), dtype=np.float32)


def sclera_vessels(size: int, rng: np.random.Generator) -> FloatImage:
    """Conjunctiva: white to pink, with winding red vessels and no optic disc."""
    pale = (0.88, float(rng.uniform(0.6, 0.85)), float(rng.uniform(0.5, 0.82)))
    picture = blend(texture(size, rng), pale, (pale[0] * 0.85, pale[1] * 0.8, pale[2] * 0.8))
    for _ in range(int(rng.integers(3, 25))):
        steps = rng.normal(0, size * 0.02, (40, 2)) + rng.normal(0, size * 0.025, 2)
        points = (rng.uniform(0, size, 2) + np.cumsum(steps, axis=0)).astype(np.int32)
        width = max(1, int(size * rng.uniform(0.001, 0.008)))
        cv2.polylines(picture, [points], False, (0.75, 0.2, 0.18), width)
    return np.asarray(
        cv2.GaussianBlur(picture, (0, 0), size / 512 * float(rng.uniform(0.4, 1.5))), np.float32
    )


def endoscopy(size: int, rng: np.random.Generator) -> FloatImage:
    """Gut, airway or bladder: a dark lumen amid reddish ring folds, with wet highlights and some vessels."""
    rows, columns = grid(size)
    x, y = columns - rng.uniform(0.2, 0.8), rows - rng.uniform(0.2, 0.8)
    warp = 0.25 * (texture(size, rng)[..., 0] - 0.5)
    far = np.hypot(x, y * rng.uniform(0.6, 1.4)) + warp
    folds = 0.5 + 0.5 * np.sin(rng.uniform(8, 40) * np.log(np.maximum(far, 0.02)) + 4 * warp)
    depth = 1 - np.exp(-((np.maximum(far, 0) / rng.uniform(0.1, 0.4)) ** 2))
    tone = np.array(_MUCOSA) * rng.uniform((0.8, 0.6, 0.5), (1.15, 1.4, 1.3))
    light = depth * (0.55 + 0.45 * folds * rng.uniform(0.2, 1.0))
    picture = np.asarray(light[..., None] * tone * (0.8 + 0.3 * texture(size, rng)), np.float32)
    return _wet(picture, rng)


def _wet(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """Specular highlights of a moist surface: small white spots with hard edges."""
    size = picture.shape[0]
    for _ in range(int(rng.integers(2, 40))):
        axes = tuple(max(1, int(size * value)) for value in rng.uniform(0.002, 0.02, 2))
        centre = rng.integers(0, size, 2).tolist()
        cv2.ellipse(picture, centre, axes, float(rng.uniform(0, 180)), 0, 360, (1.0, 0.97, 0.95), -1)
    return picture


def otoscopy(size: int, rng: np.random.Generator) -> FloatImage:
    """An ear drum: a pearly or red membrane with the hammer's handle and a cone of light, in a canal."""
    canal = blend(texture(size, rng), *warm(rng))
    centre = rng.integers(size * 2 // 5, size * 3 // 5 + 1, 2).tolist()
    radius = int(size * rng.uniform(0.25, 0.45))
    drum = np.zeros((size, size), np.float32)
    cv2.circle(drum, centre, radius, 1.0, -1)
    share = cv2.GaussianBlur(drum, (0, 0), size * 0.01)[..., None]
    pearl = (float(rng.uniform(0.6, 0.9)), float(rng.uniform(0.35, 0.75)), float(rng.uniform(0.3, 0.65)))
    membrane = blend(texture(size, rng), pearl, (pearl[0] * 0.8, pearl[1] * 0.75, pearl[2] * 0.7))
    angle = rng.uniform(0, 2 * np.pi)
    umbo = np.array(centre) + radius * 0.1 * rng.normal(0, 1, 2)
    hilt = umbo + radius * 0.8 * np.array([np.cos(angle), np.sin(angle)])
    width = max(1, size // 40)
    cv2.line(membrane, umbo.astype(int).tolist(), hilt.astype(int).tolist(), (0.9, 0.75, 0.6), width)
    fan = umbo + radius * 0.8 * np.stack(
        [np.cos(angle + np.r_[2.4, 2.8]), np.sin(angle + np.r_[2.4, 2.8])], 1
    )
    cv2.fillPoly(membrane, [np.vstack([umbo, fan]).astype(np.int32)], (1.0, 0.95, 0.85))
    soft = cv2.GaussianBlur(membrane, (0, 0), size * 0.005)
    return np.asarray(share * soft + (1 - share) * canal * rng.uniform(0.3, 0.9), dtype=np.float32)


def skin_lesion(size: int, rng: np.random.Generator) -> FloatImage:
    """A mole through a dermatoscope: skin, one irregular pigmented patch with a network, some hairs."""
    picture = blend(texture(size, rng), *warm(rng))
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    wobble = 1 + 0.2 * rng.standard_normal(40).cumsum() / 6
    reach = size * rng.uniform(0.1, 0.35) * np.clip(wobble, 0.4, 1.6)
    centre = rng.uniform(0.35, 0.65, 2) * size
    outline = centre + np.stack([reach * np.cos(angles), reach * np.sin(angles)], 1)
    patch = np.zeros((size, size), np.float32)
    cv2.fillPoly(patch, [outline.astype(np.int32)], 1.0)
    share = cv2.GaussianBlur(patch, (0, 0), size * float(rng.uniform(0.004, 0.03)))[..., None]
    pigment = np.array([0.35, 0.2, 0.13]) * rng.uniform(0.4, 1.6, 3)
    picture = np.asarray(picture * (1 - share) + share * pigment * (0.5 + texture(size, rng)), np.float32)
    for _ in range(int(rng.integers(0, 15))):
        first, last = rng.integers(0, size, (2, 2)).tolist()
        cv2.line(picture, first, last, (0.1, 0.07, 0.05), max(1, size // 250))
    return picture


def histology(size: int, rng: np.random.Generator) -> FloatImage:
    """Stained tissue: pink ground, purple nuclei, white gaps."""
    pink, pale = (0.9, float(rng.uniform(0.5, 0.75)), float(rng.uniform(0.65, 0.85))), (0.95, 0.9, 0.93)
    picture = blend(texture(size, rng), pink, pale)
    nucleus = (float(rng.uniform(0.3, 0.5)), float(rng.uniform(0.15, 0.35)), float(rng.uniform(0.45, 0.65)))
    radius = size * rng.uniform(0.005, 0.03)
    for _ in range(int(rng.integers(60, 400))):
        axes = tuple(max(1, int(value)) for value in radius * rng.uniform(0.6, 1.5, 2))
        centre = rng.integers(0, size, 2).tolist()
        cv2.ellipse(picture, centre, axes, float(rng.uniform(0, 180)), 0, 360, nucleus, -1)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), size / 512 * 1.2), dtype=np.float32)


def tomogram(size: int, rng: np.random.Generator) -> FloatImage:
    """An OCT section, grey or in false colours: wavy bright layers with speckle on black."""
    rows, columns = grid(size)
    wave = 0.5 + 0.1 * np.sin(columns * rng.uniform(3, 9) + rng.uniform(0, 6)) * rng.uniform(0.2, 1.0)
    layers = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(3, 7))):
        depth, thickness = rng.uniform(-0.12, 0.15), rng.uniform(0.005, 0.03)
        layers += float(rng.uniform(0.3, 0.9)) * np.exp(-(((rows - wave - depth) / thickness) ** 2))
    speckled = layers * rng.rayleigh(0.8, layers.shape).astype(np.float32) + 0.05
    if rng.random() < 0.4:
        levels = np.clip(speckled * 255, 0, 255).astype(np.uint8)
        coloured = cv2.applyColorMap(levels, int(rng.choice([cv2.COLORMAP_JET, cv2.COLORMAP_HOT])))
        return np.asarray(coloured[..., ::-1] / np.float32(255), dtype=np.float32)
    return np.repeat(speckled[..., None], 3, axis=2).astype(np.float32)


def screenshot(size: int, rng: np.random.Generator) -> FloatImage:
    """A device's report: text, an OCT section in one pane, a thickness map in false colours in another."""
    page = document(size, rng)
    half = size // 2
    top, left = (int(value) for value in rng.integers(0, half, 2))
    page[top : top + half, left : left + half] = tomogram(half, rng)
    levels = (texture(half, rng)[..., 0] * 255).astype(np.uint8)
    thickness = cv2.applyColorMap(levels, cv2.COLORMAP_JET)[..., ::-1] / np.float32(255)
    place = (half - top) % half
    page[place : place + half // 2, left : left + half // 2] = thickness[: half // 2, : half // 2]
    return page


MEDICAL_SCENES: tuple[Scene, ...] = (
    front_of_eye,
    front_of_eye,
    sclera_vessels,
    endoscopy,
    endoscopy,
    otoscopy,
    skin_lesion,
    histology,
    tomogram,
    screenshot,
)
"""Medical pictures; those through round apertures twice."""
