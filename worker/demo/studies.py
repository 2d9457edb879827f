"""The studies that the demonstration sends: real photographs, made-up people, cameras of every route."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg
from pydicom import dcmwrite
from pydicom.uid import generate_uid

from dicom_io.wrap import wrap_photograph
from models.cameras import CAMERAS, MANUFACTURER, SimulatedCamera, simulate
from models.manifest import Manifest

IMAGES = Path(__file__).with_name("images")
_NUMBERS = ("ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN")
_JPEG_QUALITY = 95
"""Of what is sent; a simulated camera's own compression is already in its pixels."""


@dataclass(frozen=True)
class Source:
    """A photograph that comes with the program.

    Attributes:
        path: JPEG file.
        laterality: "R" or "L".
        grade: Reference grade (ICDR 0 to 4) by the data set's authors.
    """

    path: Path
    laterality: str
    grade: int


@dataclass(frozen=True)
class Camera:
    """Who takes a study's photographs, and how they are encoded.

    Attributes:
        manufacturer: Manufacturer (0008,0070).
        model: Manufacturer's Model Name (0008,1090).
        jpeg: JPEG Baseline when true, else uncompressed RGB.
        simulator: Renders the photographs; None leaves them as they are.
    """

    manufacturer: str
    model: str
    jpeg: bool
    simulator: SimulatedCamera | None = None


@dataclass(frozen=True)
class Photograph:
    """One DICOM file to send.

    Attributes:
        path: The file.
        sop_class_uid: Its SOP Class UID.
        sop_instance_uid: Its SOP Instance UID.
        laterality: "R" or "L".
        reference_grade: Grade by the data set's authors.
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    laterality: str
    reference_grade: int


@dataclass(frozen=True)
class DemoStudy:
    """One study: the two eyes of a made-up person."""

    study_instance_uid: str
    accession_number: str
    photographs: tuple[Photograph, ...]


def cameras_for(manifest: Manifest) -> tuple[Camera, ...]:
    """The cameras of the studies, in order: labelled, with adapter, known without one, unknown.

    Args:
        manifest: Of the bundle that will grade; its adapters decide which simulated cameras appear. Without
            any, the first simulator stands for a camera that lacks its adapter.
    """
    adapted = [each for each in CAMERAS.values() if each.key in manifest.adapters]
    simulators = adapted or list(CAMERAS.values())[:1]
    return (
        Camera("Kowa", "VX-10", jpeg=True),
        Camera("KOWA", "VX-10i", jpeg=False),
        *(
            Camera(MANUFACTURER, simulator.name, jpeg=number != 1, simulator=simulator)
            for number, simulator in enumerate((simulators * 3)[:3])
        ),
        Camera("Topcon", "Maestro2", jpeg=True),
        Camera("Example Optics", "RetinaBox 1", jpeg=False),
    )


def read_pairs() -> list[tuple[Source, Source]]:
    """The photographs in pairs of a right and a left eye, healthy and diseased on each route."""
    with (IMAGES / "images.csv").open(encoding="utf-8", newline="") as file:
        rows = [
            Source(IMAGES / row["file"], row["laterality"], int(row["grade"])) for row in csv.DictReader(file)
        ]
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    return [pairs[number] for number in (0, 4, 1, 3, 6, 2, 5)]


def make_studies(manifest: Manifest, folder: Path) -> list[DemoStudy]:
    """Write the DICOM files of all studies.

    Args:
        manifest: Of the bundle that will grade.
        folder: Gets a folder for each study.
    """
    pairs = read_pairs()

    def make(number: int, camera: Camera) -> DemoStudy:
        return _make_study(number, pairs[number - 1], camera, folder)

    cameras = cameras_for(manifest)
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(make, range(1, len(cameras) + 1), cameras))


def _make_study(number: int, pair: Sequence[Source], camera: Camera, folder: Path) -> DemoStudy:
    accession_number = f"DEMO-{number:04}"
    study, series = generate_uid(prefix=None), generate_uid(prefix=None)
    photographs = []
    for instance_number, source in enumerate(pair, start=1):
        ds = wrap_photograph(
            _picture(source.path, camera, seed=2 * number + instance_number),
            patient_id=f"DEMO-P{number:02}",
            patient_name=f"DEMO^{_NUMBERS[number - 1]}",
            manufacturer=camera.manufacturer,
            model_name=camera.model,
            laterality=source.laterality,
            accession_number=accession_number,
            study_instance_uid=study,
            series_instance_uid=series,
            instance_number=instance_number,
        )
        path = folder / accession_number / f"{'right' if source.laterality == 'R' else 'left'}.dcm"
        path.parent.mkdir(exist_ok=True)
        dcmwrite(path, ds, enforce_file_format=True)
        photographs.append(
            Photograph(path, ds.SOPClassUID, ds.SOPInstanceUID, source.laterality, source.grade)
        )
    return DemoStudy(study, accession_number, tuple(photographs))


def _picture(path: Path, camera: Camera, seed: int) -> bytes | npt.NDArray[np.uint8]:
    """A JPEG stream, or RGB pixels uint8 (H, W, 3), as the camera would give it."""
    stream = path.read_bytes()
    if camera.simulator is None and camera.jpeg:
        return stream
    rgb = np.asarray(simplejpeg.decode_jpeg(stream, "RGB"), dtype=np.uint8)
    if camera.simulator is not None:
        rgb = simulate(rgb, camera.simulator, seed)
    return bytes(simplejpeg.encode_jpeg(rgb, _JPEG_QUALITY)) if camera.jpeg else rgb
