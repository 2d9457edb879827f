"""Simulated fundus cameras: fixed physical transformations of real photographs (numpy and OpenCV only).

A camera is one *fixed* transformation with a little exposure jitter per image. A simulator that pushed each
image to target statistics would erase its exposure, and no adapter could give that back. Stages, in the order
of the light's path, on encoded values 0..1 (the tone curve absorbs the source camera's own encoding):

1. illumination field: vignetting, uneven flash        x ← x · (1 − v·ρ²) · (1 + t·ξ), ρ, ξ in field radii
2. optics: Gaussian blur, then the sensor's resolution x ← g_σ * x
3. haze of the ocular media and rim flare              x ← (1 − h − f·ρ⁸)·x + (h + f·ρ⁸)·veil
4. spectral response, white balance, exposure          x ← e · gains · (M·x),  ln e ~ N(0, jitter²)
5. tone curve                                          x ← x^γ
6. sensor noise (read and shot)                        x ← x + N(0, read² + shot²·x)
7. JPEG compression

Nothing here is a model of a real product, and an adapter trained on one of them is for it alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from models.errors import NoFieldOfViewError
from models.preprocess import FieldOfView, Uint8Image, find_field

MANUFACTURER = "SIMULATED"
"""Manufacturer in the DICOM header of a simulated photograph; ManufacturerModelName is the camera's name."""
REFERENCE_DIAMETER = 814.0
"""Field diameter in px (a 1024 px wide photograph of the reference data) to which blur and noise refer."""

FloatImage = npt.NDArray[np.float32]
Row = tuple[float, float, float]
_IDENTITY: tuple[Row, Row, Row] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True)
class SimulatedCamera:
    """Physical parameters of a simulated camera; the defaults change nothing but the compression.

    Attributes:
        name: Name of the simulator; the camera key is ``simulated-<name>``.
        spectral_response: 3×3, row per output channel: how much source R, G, B each sensor channel sees.
        gains: White balance, factor per output channel R, G, B.
        exposure_jitter: Standard deviation of the logarithm of the exposure, per image.
        tone_gamma: Exponent of the tone curve; below 1 lifts the shadows.
        vignetting: Loss of light at the rim of the field, relative to the source camera's own, below 1;
            negative where the field is lit more evenly than the source camera lights it.
        illumination_tilt: Relative light gradient across one field radius, left to right.
        blur_px: Standard deviation of the optical blur, px at ``REFERENCE_DIAMETER``.
        resolution_px: Sensor pixels across the field; 0 keeps the source's. Finer detail is lost.
        haze: Share of the light replaced by a veil (cataract, scattered light), 0 to 1.
        haze_colour: Colour of the veil, R, G, B in 0..1.
        rim_flare: Additional veil at the rim (corneal reflex), 0 to 1.
        read_noise: Standard deviation of the noise that does not depend on light, in full scale.
        shot_noise: Standard deviation of the noise of a full-scale pixel; grows with √light.
        jpeg_quality: Quality of the stored JPEG (libjpeg scale), 1 to 100.
    """

    name: str
    spectral_response: tuple[Row, Row, Row] = _IDENTITY
    gains: Row = (1.0, 1.0, 1.0)
    exposure_jitter: float = 0.04
    tone_gamma: float = 1.0
    vignetting: float = 0.0
    illumination_tilt: float = 0.0
    blur_px: float = 0.0
    resolution_px: int = 0
    haze: float = 0.0
    haze_colour: Row = (0.55, 0.50, 0.45)
    rim_flare: float = 0.0
    read_noise: float = 0.0
    shot_noise: float = 0.0
    jpeg_quality: int = 92

    @property
    def key(self) -> str:
        """Camera key, as the camera rules and the bundle's adapters name it."""
        return f"simulated-{self.name}"


CAMERAS: dict[str, SimulatedCamera] = {
    camera.name: camera
    for camera in (
        SimulatedCamera(
            # Overlapping sensor dyes, much blue, lit from one side, veiled. Statistics as EyePACS code 1.
            "blue",
            spectral_response=((0.706, 0.138, 0.156), (0.211, 0.752, 0.037), (0.322, 0.296, 0.382)),
            gains=(1.379, 1.385, 1.309),
            tone_gamma=2.147,
            vignetting=0.143,
            illumination_tilt=0.55,
            haze=0.554,
            rim_flare=0.013,
            read_noise=0.005,
            jpeg_quality=88,
        ),
        SimulatedCamera(
            # A veil over everything, lit from one side: pale, a third of the contrast. As EyePACS code 2.
            "pale",
            spectral_response=((0.739, 0.099, 0.162), (0.076, 0.853, 0.071), (0.276, 0.174, 0.550)),
            gains=(1.385, 1.260, 0.968),
            tone_gamma=1.391,
            vignetting=-0.162,
            illumination_tilt=0.527,
            haze=0.644,
            rim_flare=0.045,
            shot_noise=0.005,
            jpeg_quality=92,
        ),
        SimulatedCamera(
            # A steep tone curve and a strong blue gain: hard contrast, dark vessels. As EyePACS code 3.
            "crisp",
            spectral_response=((0.830, 0.086, 0.084), (0.174, 0.729, 0.097), (0.030, 0.084, 0.886)),
            gains=(1.366, 1.559, 2.938),
            tone_gamma=1.638,
            vignetting=-0.009,
            illumination_tilt=0.205,
            haze=0.03,
            rim_flare=0.04,
            read_noise=0.004,
            jpeg_quality=90,
        ),
        SimulatedCamera(
            # Hand-held: dim, uneven light, defocused, a coarse and noisy sensor. As EyePACS code 4.
            "dusk",
            spectral_response=((0.879, 0.081, 0.040), (0.249, 0.504, 0.247), (0.046, 0.111, 0.843)),
            gains=(0.673, 0.747, 0.756),
            tone_gamma=1.15,
            vignetting=-0.248,
            illumination_tilt=0.424,
            haze=0.169,
            rim_flare=0.056,
            exposure_jitter=0.06,
            blur_px=0.7,
            resolution_px=700,
            read_noise=0.005,
            shot_noise=0.006,
            jpeg_quality=82,
        ),
        SimulatedCamera(
            # An older lens: scattered light, little contrast and slight blur. As the Canon CR5 of DRIVE.
            "soft",
            spectral_response=((0.514, 0.193, 0.293), (0.161, 0.799, 0.040), (0.248, 0.202, 0.550)),
            gains=(1.691, 1.310, 1.107),
            tone_gamma=1.764,
            vignetting=0.138,
            illumination_tilt=0.55,
            haze=0.598,
            rim_flare=0.029,
            blur_px=0.5,
            read_noise=0.005,
            jpeg_quality=88,
        ),
        SimulatedCamera(
            # Red, dark towards the rim, hardly any green light. As the Nidek NM-200D of CHASE.
            "ember",
            spectral_response=((0.898, 0.048, 0.054), (0.026, 0.917, 0.057), (0.024, 0.042, 0.934)),
            gains=(1.647, 1.226, 0.593),
            tone_gamma=1.479,
            vignetting=0.616,
            illumination_tilt=0.0,
            haze=0.006,
            rim_flare=0.059,
            shot_noise=0.006,
            jpeg_quality=88,
        ),
    )
}


def random_camera(seed: int) -> SimulatedCamera:
    """Draw a plausible camera, for training what must not depend on the camera."""
    rng = np.random.default_rng(seed)
    leak = rng.uniform(0.0, 0.3, (3, 3)) * (1.0 - np.eye(3))
    response = leak + np.diag(1.0 - leak.sum(axis=1))
    rows = [(float(row[0]), float(row[1]), float(row[2])) for row in response]
    gains = rng.uniform((0.6, 0.65, 0.7), (1.1, 1.35, 1.8))
    return SimulatedCamera(
        name=f"random-{seed}",
        spectral_response=(rows[0], rows[1], rows[2]),
        gains=(float(gains[0]), float(gains[1]), float(gains[2])),
        tone_gamma=float(rng.uniform(0.8, 1.2)),
        vignetting=float(rng.uniform(0.0, 0.45)),
        illumination_tilt=float(rng.uniform(-0.15, 0.15)),
        blur_px=float(rng.uniform(0.0, 1.2)),
        haze=float(rng.uniform(0.0, 0.15)),
        rim_flare=float(rng.uniform(0.0, 0.08)),
        read_noise=float(rng.uniform(0.0, 0.015)),
        shot_noise=float(rng.uniform(0.0, 0.015)),
        jpeg_quality=int(rng.integers(72, 96)),
    )


def simulate(rgb: Uint8Image, camera: SimulatedCamera, seed: int) -> Uint8Image:
    """Render a photograph as ``camera`` would have taken it.

    Args:
        rgb: uint8 (H, W, 3), a photograph of the reference camera.
        camera: The camera.
        seed: Seed of exposure and noise; the same arguments give the same bytes.

    Returns:
        uint8 (H, W, 3). What lies outside the field stays as dark as it was, but for noise and compression.
    """
    rng = np.random.default_rng(seed)
    field = _field_or_frame(rgb)
    reach_squared, across = _field_coordinates(rgb.shape, field)
    inside = np.clip((1.0 - np.sqrt(reach_squared)) * field.radius + 0.5, 0.0, 1.0)[..., None]
    radius_squared = np.minimum(reach_squared, np.float32(1.0))
    light = rgb.astype(np.float32) / np.float32(255.0)
    light *= ((1.0 - camera.vignetting * radius_squared) * (1.0 + camera.illumination_tilt * across))[
        ..., None
    ]
    light = _optics(light, camera, 2.0 * field.radius)
    veil = inside * (camera.haze + camera.rim_flare * radius_squared[..., None] ** 4)
    light = light * (1.0 - veil) + veil * np.asarray(camera.haze_colour, np.float32)
    exposure = float(np.exp(rng.normal(0.0, camera.exposure_jitter)))
    mixed = light @ np.asarray(camera.spectral_response, np.float32).T
    signal = np.clip(mixed * (np.asarray(camera.gains, np.float32) * np.float32(exposure)), 0.0, 1.0)
    signal = signal**camera.tone_gamma
    return _compress(_add_noise(signal.astype(np.float32), camera, rng), camera.jpeg_quality)


def _field_or_frame(rgb: Uint8Image) -> FieldOfView:
    """The field of view, or the circle around the frame where there is none."""
    try:
        return find_field(rgb)
    except NoFieldOfViewError:
        height, width = rgb.shape[:2]
        return FieldOfView((width - 1) / 2.0, (height - 1) / 2.0, float(np.hypot(width, height)) / 2.0, 1.0)


def _field_coordinates(shape: tuple[int, ...], field: FieldOfView) -> tuple[FloatImage, FloatImage]:
    """Squared distance from the centre and horizontal position (−1..1), in field radii."""
    x = ((np.arange(shape[1]) - field.centre_x) / field.radius).astype(np.float32)
    y = ((np.arange(shape[0]) - field.centre_y) / field.radius).astype(np.float32)
    squared = x[None] ** 2 + y[:, None] ** 2
    return squared, np.broadcast_to(np.clip(x, -1.0, 1.0)[None], squared.shape)


def _optics(light: FloatImage, camera: SimulatedCamera, diameter: float) -> FloatImage:
    """Blur of the lens, then of a sensor with fewer pixels across the field than the source has."""
    if camera.blur_px > 0.0:
        sigma = camera.blur_px * diameter / REFERENCE_DIAMETER
        light = np.asarray(cv2.GaussianBlur(light, (0, 0), sigma), dtype=np.float32)
    if 0 < camera.resolution_px < diameter:
        height, width = light.shape[:2]
        scale = camera.resolution_px / diameter
        coarse = cv2.resize(
            light, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA
        )
        light = np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    return light


def _add_noise(signal: FloatImage, camera: SimulatedCamera, rng: np.random.Generator) -> Uint8Image:
    deviation = np.sqrt(camera.read_noise**2 + camera.shot_noise**2 * signal)
    noisy = signal + deviation * rng.standard_normal(signal.shape, dtype=np.float32)
    return np.asarray(np.clip(np.round(noisy * 255.0), 0.0, 255.0), dtype=np.uint8)


def _compress(rgb: Uint8Image, quality: int) -> Uint8Image:
    done, stream = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise RuntimeError("OpenCV could not compress the picture")
    decoded = cv2.imdecode(stream, cv2.IMREAD_COLOR)
    if decoded is None:
        raise RuntimeError("OpenCV could not read back what it compressed")
    return np.ascontiguousarray(decoded[:, :, ::-1], dtype=np.uint8)
