"""EyePACS on disk: photographs, grades and camera codes joined, and divided by patient.

Layout of the Kaggle competition "Diabetic Retinopathy Detection": photographs ``<patient>_left.jpeg`` and
``<patient>_right.jpeg`` in any folders, grades in ``trainLabels.csv`` (``image,level``) and
``retinopathy_solution.csv`` (``image,level,Usage``). The authors of arXiv 2007.15874 published camera codes
(``image_name,camera``: 1 to 6, or UNKNOWN); they say that these differ from the labels that the paper used.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from models.training.data import DataError

CAMERA_CODES = ("1", "2", "3", "4", "5", "6")
UNKNOWN_CAMERA = "UNKNOWN"
_GRADES = ("0", "1", "2", "3", "4")
_SUFFIXES = (".jpeg", ".jpg", ".png")
_NAME = re.compile(r"(\d+)_(left|right)")
_SHOWN = 3
"""Names that a message lists before it only counts."""


@dataclass(frozen=True)
class EyepacsPhotograph:
    """One graded photograph of a known camera.

    Attributes:
        name: File name without its suffix, ``<patient>_left`` or ``<patient>_right``.
        path: Where it is.
        patient: The number before the underscore; both eyes of one person share it.
        camera: Camera code, ``1`` to ``6``.
        grade: ICDR grade, 0 to 4; None where it was taken away, see ``without_grades``.
    """

    name: str
    path: Path
    patient: str
    camera: str
    grade: int | None


@dataclass(frozen=True)
class EyepacsLayout:
    """What was found, and what was left out and why.

    Attributes:
        photographs: Usable photographs, in the order of their names.
        unknown_camera: Graded photographs whose camera code is UNKNOWN.
        without_camera: Graded photographs that the cameras file does not list.
        without_grade: Photographs of the cameras file that no labels file grades.
        mixed_patients: Patients photographed by more than one camera, all their photographs left out: one
            person in two styles would be a pair.
        mixed_photographs: Photographs of those patients.
        fingerprint: SHA-256 over the CSV files' contents and the photographs' names, grades, codes and sizes.
    """

    photographs: tuple[EyepacsPhotograph, ...]
    unknown_camera: int
    without_camera: int
    without_grade: int
    mixed_patients: int
    mixed_photographs: int
    fingerprint: str

    def counts(self) -> dict[str, int]:
        """Photographs of each camera, the most first."""
        return dict(Counter(photo.camera for photo in self.photographs).most_common())

    def left_out(self) -> dict[str, int]:
        """Photographs left out, by reason."""
        return {
            "camera unknown": self.unknown_camera,
            "not in the cameras file": self.without_camera,
            "without a grade": self.without_grade,
            "of patients photographed by two cameras": self.mixed_photographs,
        }


def read_layout(
    images: Sequence[Path], labels: Sequence[Path], cameras: Path, *, refuse_mixed_patients: bool = False
) -> EyepacsLayout:
    """Join photographs, grades and camera codes.

    Args:
        images: Folders, searched with their subfolders (``train``, ``test``).
        labels: CSV files ``image,level``; further columns are ignored.
        cameras: CSV file ``image_name,camera``; names with or without suffix.
        refuse_mixed_patients: Whether a patient photographed by two cameras is an error instead of left out.

    Returns:
        The usable photographs with what was left out.

    Raises:
        DataError: A file lacks its columns, holds a grade or camera code that does not exist or contradicts
            another; graded photographs are missing on disk; or nothing is left.
    """
    levels, codes = read_levels(labels), read_cameras(cameras)
    if not set(levels) & set(codes):
        raise DataError(f"{cameras} lists none of the {len(levels)} photographs that the labels files grade")
    known = {name: code for name, code in codes.items() if name in levels and code != UNKNOWN_CAMERA}
    files = find_photographs(images, set(known))
    found = [
        EyepacsPhotograph(name, files[name], patient_of(name), known[name], levels[name])
        for name in sorted(known)
    ]
    mixed = _mixed_patients(found)
    if mixed and refuse_mixed_patients:
        raise DataError(
            f"{cameras}: {len(mixed)} patients photographed by more than one camera, {_listed(mixed)}; "
            "correct it, or let them be left out (refuse_mixed_patients = false)"
        )
    usable = tuple(photo for photo in found if photo.patient not in mixed)
    if not usable:
        raise DataError(f"{cameras}: every patient was photographed by more than one camera; nothing is left")
    return EyepacsLayout(
        usable,
        unknown_camera=sum(codes.get(name) == UNKNOWN_CAMERA for name in levels),
        without_camera=len(set(levels) - set(codes)),
        without_grade=len(set(codes) - set(levels)),
        mixed_patients=len(mixed),
        mixed_photographs=len(found) - len(usable),
        fingerprint=_fingerprint(usable, (*labels, cameras)),
    )


def read_levels(files: Sequence[Path]) -> dict[str, int]:
    """Grades of all labels files, photograph's name to 0..4.

    Raises:
        DataError: A file has no ``image,level`` columns, a level is not 0 to 4, or two rows contradict.
    """
    levels: dict[str, int] = {}
    for file in files:
        for name, level in _rows(file, "image", "level"):
            if level not in _GRADES:
                raise DataError(f"{file}: {name} has level {level!r}; expected 0 to 4")
            if levels.setdefault(name, int(level)) != int(level):
                raise DataError(f"{file}: {name} has level {level}, but {levels[name]} in another row")
    return levels


def read_cameras(file: Path) -> dict[str, str]:
    """Camera codes, photograph's name to ``1``..``6`` or ``UNKNOWN``.

    Raises:
        DataError: No ``image_name,camera`` columns, a code that does not exist, or two rows contradict.
    """
    codes: dict[str, str] = {}
    for name, written in _rows(file, "image_name", "camera"):
        code = written.upper()
        if code not in (*CAMERA_CODES, UNKNOWN_CAMERA):
            raise DataError(
                f"{file}: {name} has camera code {written!r}; expected 1 to 6 or {UNKNOWN_CAMERA}"
            )
        if codes.setdefault(name, code) != code:
            raise DataError(f"{file}: {name} has camera code {code}, but {codes[name]} in another row")
    return codes


def find_photographs(folders: Sequence[Path], wanted: set[str]) -> dict[str, Path]:
    """Find photographs by name in folders and their subfolders.

    Args:
        folders: Where to search.
        wanted: Names without suffix.

    Raises:
        DataError: Some are missing, or one name is there twice.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for path in folder.rglob("*"):
            if path.suffix.lower() not in _SUFFIXES or path.stem not in wanted:
                continue
            if path.stem in found and found[path.stem] != path:
                raise DataError(
                    f"{path.stem} is there twice: {found[path.stem]} and {path}; remove one of them"
                )
            found[path.stem] = path
    missing = wanted - set(found)
    if missing:
        where = ", ".join(str(folder) for folder in folders)
        raise DataError(
            f"{len(missing)} of {len(wanted)} graded photographs are not in {where}: {_listed(missing)}. "
            "Unpack the missing parts of the archives, name their folder with a further --images, or leave "
            "out the --labels file of the part that you do not have"
        )
    return found


def patient_of(name: str) -> str:
    """The patient's number in a photograph's name.

    Raises:
        DataError: The name is not ``<number>_left`` or ``<number>_right``.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise DataError(f"photograph {name!r} is not named <patient>_left or <patient>_right")
    return match[1]


def divide(
    photographs: Iterable[EyepacsPhotograph], shares: Mapping[str, float], caps: Mapping[str, int], seed: int
) -> dict[str, list[EyepacsPhotograph]]:
    """Divide photographs of one camera into parts, whole patients at a time.

    A patient's place follows from SHA-256 of the seed and the number alone: more photographs move nobody.
    A part that is over its cap keeps the patients whose hashes are lowest.

    Args:
        photographs: Photographs of one camera.
        shares: Part to share; they sum to 1.
        caps: Part to the most photographs it may hold; a part without one is not limited.
        seed: Seed of the division.

    Returns:
        Part to photographs, in the order of the patients' hashes and then of the names.
    """
    patients: dict[str, list[EyepacsPhotograph]] = {}
    for photo in photographs:
        patients.setdefault(photo.patient, []).append(photo)
    parts: dict[str, list[EyepacsPhotograph]] = {part: [] for part in shares}
    full: set[str] = set()
    for patient in sorted(patients, key=lambda patient: _place(seed, patient)):
        part = _part(_place(seed, patient), shares)
        members = sorted(patients[patient], key=lambda photo: photo.name)
        if part in full or len(parts[part]) + len(members) > caps.get(part, len(members) + len(parts[part])):
            full.add(part)
            continue
        parts[part] += members
    return parts


def without_grades(photographs: Iterable[EyepacsPhotograph]) -> list[EyepacsPhotograph]:
    """The photographs without their grades: all that an adapter's training may be given."""
    return [replace(photo, grade=None) for photo in photographs]


def _part(place: float, shares: Mapping[str, float]) -> str:
    edge = 0.0
    for part, share in shares.items():
        edge += share
        if place < edge:
            return part
    return list(shares)[-1]


def _place(seed: int, patient: str) -> float:
    digest = hashlib.sha256(f"eyepacs:{seed}:{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64


def _rows(file: Path, *columns: str) -> list[tuple[str, str]]:
    """Name (without suffix) and value of every row of a CSV file with these two columns."""
    if not file.is_file():
        raise DataError(f"{file} is missing")
    with file.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines)
        if not set(columns).issubset(reader.fieldnames or ()):
            raise DataError(f"{file}: the first line must name the columns {','.join(columns)}")
        rows = [tuple((row[column] or "").strip() for column in columns) for row in reader]
    if not rows:
        raise DataError(f"{file} holds no row after its first line")
    return [(_bare(name), value) for name, value in rows]


def _bare(name: str) -> str:
    return Path(name).stem if name.lower().endswith(_SUFFIXES) else name


def _mixed_patients(photographs: Iterable[EyepacsPhotograph]) -> set[str]:
    cameras: dict[str, set[str]] = {}
    for photo in photographs:
        cameras.setdefault(photo.patient, set()).add(photo.camera)
    return {patient for patient, codes in cameras.items() if len(codes) > 1}


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:_SHOWN]) + (" …" if len(ordered) > _SHOWN else "")


def _fingerprint(photographs: Iterable[EyepacsPhotograph], files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    for photo in photographs:
        row = (photo.name, photo.camera, photo.grade, photo.path.stat().st_size)
        digest.update(repr(row).encode())
    return digest.hexdigest()
