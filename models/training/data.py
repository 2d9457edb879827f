"""Photographs, grades and lesion masks from folders and CSV files, and a split by look-alikes."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from models.errors import ModelError
from models.preprocess import FieldOfView, Uint8Image, prepare

LESIONS = ("MA", "HE", "EX", "SE", "OD")
"""Mask suffixes: microaneurysms, haemorrhages, hard exudates, soft exudates, optic disc."""
PARTS = ("train", "validation", "test")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")


class DataError(ModelError):
    """A folder or CSV file does not hold what training needs; the message names it and says what to do."""


@dataclass(frozen=True)
class Photograph:
    """One photograph on disk.

    Attributes:
        name: File name without its suffix; the key of the CSV file and of the split.
        path: Where it is.
        grade: ICDR grade 0 to 4, or None where no label was read (first-style images never have one).
        oedema: Risk of macular oedema 0 to 2, or None where the CSV file says nothing of it.
    """

    name: str
    path: Path
    grade: int | None = None
    oedema: int | None = None


@dataclass(frozen=True)
class LesionPhotograph:
    """A photograph with pixel masks; a kind without a file has none of that lesion."""

    name: str
    path: Path
    masks: Mapping[str, Path] = field(default_factory=dict)


def read_rgb(path: Path) -> Uint8Image:
    """Read a picture as uint8 (H, W, 3) RGB.

    Raises:
        DataError: The file is no picture that OpenCV reads.
    """
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise DataError(f"{path} cannot be read as a picture")
    return np.ascontiguousarray(bgr[:, :, ::-1], dtype=np.uint8)


@dataclass(frozen=True)
class Labels:
    """What a CSV file says of photographs: ICDR grade, and risk of macular oedema where it says so."""

    grades: Mapping[str, int]
    oedema: Mapping[str, int]


def read_labels(file: Path) -> Labels:
    """Read ``name, grade`` and, where it is there, macular oedema from a CSV file with a header line.

    The third column counts where its heading names macular oedema (or edema); any other is ignored.

    Raises:
        DataError: A grade is not 0 to 4, a risk not 0 to 2, or the file holds no row.
    """
    with file.open(newline="", encoding="utf-8-sig") as lines:
        heading, *rows = list(csv.reader(lines)) or [[]]
    third = heading[2].lower() if len(heading) > 2 else ""
    told = "oedema" in third or "edema" in third
    grades: dict[str, int] = {}
    oedema: dict[str, int] = {}
    for row in (row for row in rows if len(row) >= 2 and row[0].strip()):
        name = Path(row[0].strip()).stem
        grades[name] = _level(file, row, 1, "grade", 4)
        if told and len(row) > 2 and row[2].strip():
            oedema[name] = _level(file, row, 2, "macular oedema", 2)
    if not grades:
        raise DataError(f"{file} holds no labelled row; expected a header line, then name,grade")
    return Labels(grades, oedema)


def _level(file: Path, row: Sequence[str], column: int, what: str, highest: int) -> int:
    text = row[column].strip()
    if text not in {str(level) for level in range(highest + 1)}:
        raise DataError(
            f"{file}: {row[0]!r} has {what} {text!r}; expected 0 to {highest} in column {column + 1}"
        )
    return int(text)


def read_folder(images: Path, labels: Path | None = None) -> list[Photograph]:
    """List a folder's photographs by name; with ``labels``, only those that the CSV file grades.

    Raises:
        DataError: The folder holds no picture, or none that is graded.
    """
    told = None if labels is None else read_labels(labels)
    files = sorted(path for path in images.glob("*") if path.suffix.lower() in _SUFFIXES)
    found = [
        Photograph(path.stem, path)
        if told is None
        else Photograph(path.stem, path, told.grades[path.stem], told.oedema.get(path.stem))
        for path in files
        if told is None or path.stem in told.grades
    ]
    if not found:
        raise DataError(f"{images} holds no picture{'' if labels is None else f' that {labels} grades'}")
    return found


def read_lesions(folder: Path) -> list[LesionPhotograph]:
    """List photographs with masks: ``NAME.jpg`` beside ``NAME_MA.png``, ``_HE``, ``_EX``, ``_SE``, ``_OD``.

    Raises:
        DataError: The folder holds no photograph with a mask.
    """
    found: list[LesionPhotograph] = []
    for path in sorted(folder.glob("*")):
        if path.suffix.lower() in _SUFFIXES and path.stem.rsplit("_", 1)[-1] not in LESIONS:
            masks = {kind: folder / f"{path.stem}_{kind}.png" for kind in LESIONS}
            present = {kind: mask for kind, mask in masks.items() if mask.exists()}
            if present:
                found.append(LesionPhotograph(path.stem, path, present))
    if not found:
        raise DataError(f"{folder} holds no photograph with masks (NAME.jpg beside NAME_MA.png and so on)")
    return found


def lesion_masks(
    photograph: LesionPhotograph, field_of_view: FieldOfView, size: int
) -> npt.NDArray[np.float32]:
    """Masks in the geometry of ``models.preprocess.prepare``.

    Returns:
        float32 (5, S, S) in 0..1 in the order of ``LESIONS``: the share of each pixel that the lesion covers.
    """
    # The crop of prepare(): same integer square, same INTER_AREA reduction.
    side = max(2, round(2.0 * field_of_view.radius))
    left = round(field_of_view.centre_x - (side - 1) / 2.0)
    top = round(field_of_view.centre_y - (side - 1) / 2.0)
    result = np.zeros((len(LESIONS), size, size), np.float32)
    for index, kind in enumerate(LESIONS):
        if kind not in photograph.masks:
            continue
        drawn = read_rgb(photograph.masks[kind]).max(axis=2) > 127
        shift = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top]])
        square = cv2.warpAffine(drawn.astype(np.float32), shift, (side, side), flags=cv2.INTER_NEAREST)
        result[index] = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)
    return result


def signature(tensor: Uint8Image, side: int = 64) -> npt.NDArray[np.float32]:
    """Perceptual signature of a prepared photograph: vessels and lesions, whatever the colour and exposure.

    Returns:
        float32 (side, side), zero mean and unit norm: local contrast of the green channel inside the field.
    """
    inside = cv2.resize((tensor[..., 3] > 0).astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    green = cv2.resize(tensor[..., 1].astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(green, (0, 0), side / 12.0)
    weight = cv2.GaussianBlur(inside, (0, 0), side / 12.0)
    core = cv2.erode((inside > 0.99).astype(np.float32), np.ones((3, 3), np.uint8))
    local = np.clip(green - blurred / np.maximum(weight, 1e-3), -24.0, 24.0) * core
    local -= core * local.sum() / max(float(core.sum()), 1.0)
    return np.asarray(local / max(float(np.linalg.norm(local)), 1e-6), dtype=np.float32)


def look_alike_groups(signatures: npt.NDArray[np.float32], threshold: float = 0.7) -> list[int]:
    """Group photographs that probably show one eye.

    Two photographs belong together when the correlation of their signatures, at the best shift of up to an
    eighth of the field, is at least ``threshold``; groups are closed under that relation.

    Args:
        signatures: float32 (N, s, s) of ``signature``.
        threshold: Correlation, 0 to 1.

    Returns:
        For each photograph, the index of the first one of its group.
    """
    count, side = len(signatures), signatures.shape[-1]
    spectra = np.fft.rfft2(signatures).astype(np.complex64)
    reach = np.r_[0 : side // 8 + 1, -(side // 8) : 0]
    leader = list(range(count))
    for index in range(count - 1):
        cross = np.fft.irfft2(spectra[index + 1 :] * np.conj(spectra[index]), s=(side, side))
        best = cross[:, reach][:, :, reach].max(axis=(1, 2))
        for other in np.flatnonzero(best >= threshold) + index + 1:
            first, second = sorted((_root(leader, index), _root(leader, int(other))))
            leader[second] = first
    return [_root(leader, index) for index in range(count)]


def _root(leader: list[int], index: int) -> int:
    while leader[index] != index:
        index = leader[index]
    return index


def split(
    names: Sequence[str],
    groups: Sequence[int],
    seed: int,
    shares: tuple[float, float, float] = (0.6, 0.15, 0.25),
    pinned: Iterable[str] = (),
) -> dict[str, str]:
    """Assign each photograph to train, validation or test, whole groups at a time.

    A group's place follows from SHA-256 of the seed and its first name alone, so that adding photographs
    moves none of the others.

    Args:
        names: Names of the photographs.
        groups: Group of each photograph, see ``look_alike_groups``.
        seed: Seed of the split.
        shares: Shares of train, validation and test; they sum to 1.
        pinned: Names (lesion photographs) that must train; their whole groups do.

    Returns:
        Name to one of ``PARTS``.
    """
    members: dict[int, list[str]] = {}
    for name, group in zip(names, groups, strict=True):
        members.setdefault(group, []).append(name)
    forced = set(pinned)
    parts: dict[str, str] = {}
    for group_names in members.values():
        digest = hashlib.sha256(f"{seed}:{min(group_names)}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2.0**64
        part = PARTS[int(place >= shares[0]) + int(place >= shares[0] + shares[1])]
        part = "train" if forced.intersection(group_names) else part
        parts.update(dict.fromkeys(group_names, part))
    return parts


def fingerprint(paths: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda path: path.name):
        digest.update(path.name.encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def prepare_all(paths: Sequence[Path], size: int) -> npt.NDArray[np.uint8]:
    """Prepare photographs for the graphs, uint8 (N, S, S, 4)."""
    tensors = np.empty((len(paths), size, size, 4), np.uint8)
    for index, path in enumerate(paths):
        tensors[index] = prepare(read_rgb(path), size).tensor
    return tensors


def halves(names: Sequence[str], groups: Sequence[int], seed: int) -> tuple[list[str], list[str]]:
    """Divide photographs into first-style and second-style ones, whole groups at a time.

    An adapter must never see one eye in both styles: it would be a pair. As in ``split``, the place of
    a group follows from a hash of its first name.

    Returns:
        Names of the first and of the second half, about equally many.
    """
    first_name = {
        group: min(n for n, g in zip(names, groups, strict=True) if g == group) for group in set(groups)
    }
    sides: tuple[list[str], list[str]] = ([], [])
    for name, group in zip(names, groups, strict=True):
        digest = hashlib.sha256(f"style:{seed}:{first_name[group]}".encode()).digest()
        sides[digest[0] % 2].append(name)
    return sides
