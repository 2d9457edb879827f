"""The photographs of a benchmark: held out from classifier and adapters, and what those were trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.training import data
from models.training.data import DataError, LesionPhotograph, Photograph
from models.training.run import read_json


@dataclass(frozen=True)
class Numbered:
    """A photograph and its number, which seeds exposure and noise of the simulated cameras."""

    photograph: Photograph
    number: int


@dataclass(frozen=True)
class HeldOut:
    """What a benchmark works on.

    Attributes:
        photographs: Graded; in neither the classifier's nor an adapter's training.
        lesions: Photographs with masks, for lesion contrast; the classifier's trunk was supervised with them,
            no adapter has seen them, and lesion contrast does not ask the classifier.
        first: Photographs that first-style training pictures are rendered from; empty without a run.
        second: Photographs of the labelled camera, of other people than ``first``: the second style.
    """

    photographs: list[Numbered]
    lesions: list[LesionPhotograph]
    first: list[Numbered]
    second: list[Numbered]

    @property
    def grades(self) -> npt.NDArray[np.int64]:
        """Grades int64 (N,)."""
        return np.array([item.photograph.grade for item in self.photographs], dtype=np.int64)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all files."""
        numbered = [*self.photographs, *self.first, *self.second]
        paths = {item.photograph.path for item in numbered}
        masks = {path for photo in self.lesions for path in (photo.path, *photo.masks.values())}
        return data.fingerprint(sorted(paths | masks))

    def limited(self, count: int) -> HeldOut:
        """At most ``count`` photographs of each kind, evenly over the grades; for a quick look."""
        by_grade = sorted(self.photographs, key=lambda item: (item.photograph.grade or 0, item.number))
        chosen = [by_grade[index] for index in _evenly(len(by_grade), count)]
        return replace(
            self,
            photographs=sorted(chosen, key=lambda item: item.number),
            lesions=[self.lesions[index] for index in _evenly(len(self.lesions), count)],
            second=[self.second[index] for index in _evenly(len(self.second), count)],
        )


def of_run(run: Path, images: Path, labels: Path, lesions: Path | None) -> HeldOut:
    """The test part of a run's ``split.json``, and the halves that its adapters are trained on.

    Raises:
        DataError: The run has no split, or its split is of other photographs.
    """
    if not (run / "split.json").exists():
        raise DataError(
            f"{run / 'split.json'} is missing: give a run folder of `fundus-train reproduce` or `classifier`"
        )
    content, config = read_json(run / "split.json"), read_json(run / "config.json")
    parts, groups = content["parts"], content["groups"]
    everything = _numbered(images, labels)
    strangers = [item.photograph.name for item in everything if item.photograph.name not in parts]
    if strangers:
        raise DataError(
            f"{run} knows nothing of {len(strangers)} photographs in {images}, first {strangers[0]}: "
            "give the folder that it was trained from, or --bundle instead of --run"
        )
    test = [item for item in everything if parts[item.photograph.name] == "test"]
    seen = [item for item in everything if parts[item.photograph.name] != "test"]
    names = [item.photograph.name for item in seen]
    firsts, _ = data.halves(names, [groups[name] for name in names], int(config["seed"]))
    wanted = set(firsts)
    return _checked(
        HeldOut(
            photographs=test,
            lesions=[] if lesions is None else data.read_lesions(lesions),
            first=[item for item in seen if item.photograph.name in wanted],
            second=[item for item in seen if item.photograph.name not in wanted],
        )
    )


def of_folders(images: Path, labels: Path, second_style: Path, lesions: Path | None) -> HeldOut:
    """All photographs of a folder; nobody but the caller knows that no training has seen them.

    Args:
        images: Folder of graded photographs of the labelled camera.
        labels: Their grades.
        second_style: Photographs of the labelled camera, of other people; no labels.
        lesions: Folder of photographs with masks.

    Raises:
        DataError: A photograph is in both folders, or a folder holds none.
    """
    graded, second = _numbered(images, labels), _numbered(second_style, None)
    paths = {item.photograph.path.resolve() for item in graded}
    both = [item.photograph.name for item in second if item.photograph.path.resolve() in paths]
    if both:
        raise DataError(f"{second_style} and {images} share {len(both)} photographs, first {both[0]}")
    masked = [] if lesions is None else data.read_lesions(lesions)
    return _checked(HeldOut(graded, masked, [], second))


def _numbered(images: Path, labels: Path | None) -> list[Numbered]:
    return [Numbered(photo, number) for number, photo in enumerate(data.read_folder(images, labels))]


def _checked(held: HeldOut) -> HeldOut:
    referable = held.grades >= 2
    if len(referable) == 0 or referable.all() or not referable.any():
        raise DataError("the held-out photographs must include referable and non-referable ones")
    if not held.second:
        raise DataError("there is no photograph for the second style")
    return held


def _evenly(available: int, count: int) -> Sequence[int]:
    """At most ``count`` of ``available`` positions, evenly spread, in order."""
    if available <= count:
        return range(available)
    return [round(place) for place in np.linspace(0, available - 1, count)]
