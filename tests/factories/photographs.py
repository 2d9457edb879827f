"""Studies of real photographs as four kinds of camera would send them, for runs through the whole program.

The photographs are those of the demonstration, or of the folder that the environment variable
`FUNDUS_TEST_IMAGES` names.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import simplejpeg
from factories.dicom import as_jpeg
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

from dicom_io.wrap import Picture, wrap_photograph
from models.bundle import Bundle
from models.cameras import CAMERAS as SIMULATORS
from models.cameras import simulate

IMAGES_VARIABLE = "FUNDUS_TEST_IMAGES"
_DEMO = Path(__file__).parents[2] / "worker" / "demo" / "images"
_JPEG_QUALITY = 92


@dataclass(frozen=True)
class CameraString:
    """What a camera writes into the header, and what the program makes of it.

    Attributes:
        manufacturer: Manufacturer (0008,0070).
        model_name: Manufacturer's Model Name (0008,1090).
        camera: Camera key; None when no rule knows it.
        route: Route of its images.
        simulator: Simulation that the photographs are rendered with; None leaves them as they are.
    """

    manufacturer: str
    model_name: str
    camera: str | None
    route: str
    simulator: str | None = None

    @property
    def reported(self) -> bool:
        """Whether its grades may be stated in a report under the default policies."""
        return self.route in ("labelled", "adapter")


@dataclass(frozen=True)
class Photograph:
    """One DICOM file of a study."""

    path: Path
    sop_instance_uid: str
    laterality: str


@dataclass(frozen=True)
class SentStudy:
    """A study of one camera, as files to be sent.

    Attributes:
        number: Its place in the list that it came from.
        raw: Whether its pixels are uncompressed.
    """

    number: int
    study_instance_uid: str
    accession_number: str
    camera: CameraString
    raw: bool
    photographs: tuple[Photograph, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """Its files, right before left."""
        return tuple(photograph.path for photograph in self.photographs)

    @property
    def transfer_syntax_uid(self) -> UID:
        """That of its files."""
        return ExplicitVRLittleEndian if self.raw else JPEGBaseline8Bit


def source_photographs() -> list[Path]:
    """The photographs to use, in the order of their names.

    Raises:
        FileNotFoundError: The folder that the environment names has none.
    """
    folder = Path(os.environ.get(IMAGES_VARIABLE) or _DEMO)
    found = sorted(folder.glob("*.jpg"))
    if not found:
        raise FileNotFoundError(f"no *.jpg in {folder}: unset or correct {IMAGES_VARIABLE}")
    return found


def camera_strings(bundle: Path | str) -> tuple[CameraString, ...]:
    """One camera of each route: labelled, with an adapter of this bundle, known without one, unknown."""
    manifest = Bundle.load(str(bundle)).manifest
    adapted = next(name for name in sorted(SIMULATORS) if SIMULATORS[name].key in manifest.adapters)
    return (
        CameraString("Kowa", "VX-10", "kowa-vx-10", "labelled"),
        CameraString("SIMULATED", adapted, f"simulated-{adapted}", "adapter", simulator=adapted),
        CameraString("Topcon", "3DOCT-1Maestro2", "topcon-maestro2", "known"),
        CameraString("Acme", "EyeCam 3000", None, "unknown"),
    )


def write_studies(
    folder: Path, count: int, cameras: tuple[CameraString, ...], *, images: int = 2, raw: bool | None = None
) -> list[SentStudy]:
    """Write studies of photographs; every camera sends JPEG and, the next time, uncompressed pixels.

    Args:
        folder: Gets a folder for each study.
        count: Studies.
        cameras: Taken in turn.
        images: Photographs of a study, alternately right and left.
        raw: All uncompressed, or none; None for both in turn.
    """
    sources = cycle(source_photographs())
    studies = []
    for number in range(count):
        encoding = bool(number // len(cameras) % 2) if raw is None else raw
        chosen = list(islice(sources, images))
        camera = cameras[number % len(cameras)]
        studies.append(_write_study(folder / f"study{number:04d}", number, chosen, camera, encoding))
    return studies


def _write_study(
    folder: Path, number: int, sources: list[Path], camera: CameraString, raw: bool
) -> SentStudy:
    folder.mkdir(parents=True)
    study, series = generate_uid(prefix=None), generate_uid(prefix=None)
    photographs = []
    for index, source in enumerate(sources):
        laterality = "RL"[index % 2]
        ds = wrap_photograph(
            _picture(source, camera, raw),
            patient_id=f"TEST{number:05d}",
            patient_name=f"PHOTOGRAPH^{number}",
            manufacturer=camera.manufacturer,
            model_name=camera.model_name,
            laterality=laterality,
            accession_number=f"T{number:05d}",
            study_instance_uid=study,
            series_instance_uid=series,
            instance_number=index + 1,
        )
        path = folder / f"{index + 1}-{laterality}.dcm"
        ds.save_as(path, enforce_file_format=True)
        photographs.append(Photograph(path, str(ds.SOPInstanceUID), laterality))
    return SentStudy(number, study, f"T{number:05d}", camera, raw, tuple(photographs))


def _picture(source: Path, camera: CameraString, raw: bool) -> Picture:
    """The photograph as the camera would deliver it: a JPEG stream, or RGB pixels uint8 (H, W, 3)."""
    stream = source.read_bytes()
    if camera.simulator is None and not raw:
        return stream
    rgb = np.asarray(simplejpeg.decode_jpeg(stream, colorspace="RGB"))
    if camera.simulator is not None:
        rgb = simulate(rgb, SIMULATORS[camera.simulator], zlib.crc32(source.name.encode()))
    return rgb if raw else as_jpeg(rgb, quality=_JPEG_QUALITY)
