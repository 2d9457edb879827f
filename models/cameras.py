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
from models.manifest import CAMERA_KEY
from models.preprocess import FieldOfView, Uint8Image, find_field

MANUFACTURER = "SIMULATED"
"""Manufacturer in the DICOM header of a simulated photograph; ManufacturerModelName is the camera's name."""
REFERENCE_DIAMETER = 814.0
"""Field diameter in px (a 1024 px wide photograph of the reference data) to which blur and noise refer."""

FloatImage = npt.NDArray[np.float32]
Row = tuple[float, float, float]
_IDENTITY: tuple[Row, Row, Row] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

_RANGES: dict[str, tuple[float, float]] = {
    "spectral_response": (-2.0, 2.0),
    "gains": (0.01, 10.0),
    "exposure_jitter": (0.0, 1.0),
    "tone_gamma": (0.1, 10.0),
    "vignetting": (-2.0, 0.99),
    "illumination_tilt": (-0.99, 0.99),
    "blur_px": (0.0, 50.0),
    "resolution_px": (0.0, 20000.0),
    "haze": (0.0, 1.0),
    "haze_colour": (0.0, 1.0),
    "rim_flare": (0.0, 1.0),
    "read_noise": (0.0, 1.0),
    "shot_noise": (0.0, 1.0),
    "jpeg_quality": (1, 100),
}
"""What a camera's parameters may be."""


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

    Raises:
        ValueError: A value is outside its range, or the name is not lower-case letters, digits and hyphens.
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

    def __post_init__(self) -> None:
        if CAMERA_KEY.fullmatch(self.name) is None:
            raise ValueError(f"name {self.name!r} must be lower-case letters and digits, joined by hyphens")
        for field, (low, high) in _RANGES.items():
            for value in np.ravel(getattr(self, field)):
                if not low <= value <= high:
                    raise ValueError(f"{field} holds {value:g}; it must lie between {low:g} and {high:g}")

    @property
    def key(self) -> str:
        """Camera key, as the camera rules and the bundle's adapters name it."""
        return f"simulated-{self.name}"


CAMERAS: dict[str, SimulatedCamera] = {
    camera.name: camera
    for camera in (
        SimulatedCamera(
            # Overlapping sensor dyes, much blue, lit from one side, a haze. Statistics as EyePACS code 1.
            "blue",
            spectral_response=((0.795, 0.122, 0.082), (0.238, 0.644, 0.118), (0.183, 0.274, 0.543)),
            gains=(1.109, 1.231, 1.342),
            tone_gamma=1.475,
            vignetting=0.049,
            illumination_tilt=0.4,
            haze=0.266,
            rim_flare=0.02,
            read_noise=0.004,
            jpeg_quality=92,
        ),
        SimulatedCamera(
            # A veil over everything, lit from one side: pale, half of the contrast. As EyePACS code 2.
            "pale",
            spectral_response=((0.694, 0.167, 0.139), (0.154, 0.707, 0.139), (0.270, 0.190, 0.540)),
            gains=(1.345, 1.18, 0.885),
            tone_gamma=1.245,
            vignetting=-0.178,
            illumination_tilt=0.52,
            haze=0.607,
            rim_flare=0.029,
            read_noise=0.002,
            jpeg_quality=95,
        ),
        SimulatedCamera(
            # Less of a veil, other dyes, a flatter tone curve. As EyePACS code 2 as well.
            "mist",
            spectral_response=((0.778, 0.103, 0.119), (0.157, 0.654, 0.189), (0.239, 0.189, 0.572)),
            gains=(1.265, 1.176, 0.882),
            tone_gamma=1.162,
            vignetting=-0.211,
            illumination_tilt=0.4,
            haze=0.514,
            rim_flare=0.027,
            shot_noise=0.003,
            jpeg_quality=95,
        ),
        SimulatedCamera(
            # A steep tone curve, high gains: much contrast, bright red is cut off. As EyePACS code 3.
            "crisp",
            spectral_response=((0.617, 0.178, 0.205), (0.038, 0.833, 0.129), (0.049, 0.382, 0.569)),
            gains=(1.507, 1.605, 1.626),
            tone_gamma=1.355,
            vignetting=0.019,
            illumination_tilt=0.25,
            haze=0.005,
            rim_flare=0.013,
            read_noise=0.003,
            jpeg_quality=94,
        ),
        SimulatedCamera(
            # Hand-held: dim, slightly defocused, a coarser and noisier sensor. As EyePACS code 4.
            "dusk",
            spectral_response=((0.585, 0.202, 0.214), (0.310, 0.531, 0.159), (0.063, 0.173, 0.764)),
            gains=(0.895, 0.75, 0.841),
            tone_gamma=1.238,
            vignetting=-0.28,
            illumination_tilt=0.3,
            haze=0.105,
            rim_flare=0.03,
            exposure_jitter=0.06,
            blur_px=0.6,
            resolution_px=740,
            read_noise=0.004,
            shot_noise=0.004,
            jpeg_quality=88,
        ),
        SimulatedCamera(
            # An older lens: scattered light, little contrast and slight blur. As the Canon CR5 of DRIVE.
            "soft",
            spectral_response=((0.563, 0.180, 0.257), (0.298, 0.634, 0.068), (0.237, 0.216, 0.547)),
            gains=(1.562, 1.113, 0.928),
            tone_gamma=1.405,
            vignetting=0.136,
            illumination_tilt=0.6,
            haze=0.549,
            rim_flare=0.018,
            blur_px=0.6,
            read_noise=0.002,
            jpeg_quality=95,
        ),
    )
}


def camera_named(name: str) -> SimulatedCamera:
    """A named camera, or for ``random-7`` the random one of seed 7.

    Raises:
        KeyError: No camera has that name.
    """
    kind, _, seed = name.partition("-")
    if kind == "random" and seed.isdecimal():
        return random_camera(int(seed))
    return CAMERAS[name]


def random_camera(seed: int) -> SimulatedCamera:
    """Draw a plausible camera: one that nobody has designed, to try adapters on."""
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
