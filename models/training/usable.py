"""Folders of photographs as people have them: what cannot train is left out, counted and named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.errors import NoFieldOfViewError
from models.preprocess import prepare
from models.training.data import DataError, look_alike_groups, read_folder, read_rgb, signature
from models.training.progress import Progress
from models.training.style_distance import spread

MINIMUM = 20
"""Usable photographs of each style under which no adapter is trained."""
RECOMMENDED = 200
"""Photographs of each style from which an adapter can be expected to know its camera."""
_NAMED = 10
"""Files that are named."""
_LOOKED_AT = 300
"""Photographs of each style that are searched for eyes that are in both folders."""
_COVERAGE = 0.04
"""Difference of the fields' median share of the square from which it is worth a word."""


@dataclass(frozen=True)
class Skipped:
    """A file that could not be used.

    Attributes:
        name: File name.
        reason: ``unreadable`` or ``no field of view``.
        detail: What was found.
    """

    name: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Style:
    """The usable photographs of one folder.

    Attributes:
        folder: Where they are.
        names: File names.
        pictures: uint8 (N, S, S, 4), as the graphs read them.
        diameters: Diameter of each disc in px of its source, float64 (N,).
        skipped: What was left out.
    """

    folder: Path
    names: tuple[str, ...]
    pictures: npt.NDArray[np.uint8]
    diameters: npt.NDArray[np.float64]
    skipped: tuple[Skipped, ...]

    @property
    def coverage(self) -> float:
        """Median share of the square that lies in the field; π/4 where the whole disc was photographed."""
        return float(np.median((self.pictures[..., 3] > 0).mean((1, 2))))


def read_style(folder: Path, size: int, *, stage: str, progress: Progress, minimum: int = MINIMUM) -> Style:
    """Prepare every usable photograph of a folder.

    Args:
        folder: Photographs.
        size: Side S of the graphs' input.
        stage: What progress calls it.
        progress: Told every photograph.
        minimum: Usable photographs that there must be.

    Raises:
        DataError: There are fewer; the message says how many and names what was left out.
    """
    paths = [photo.path for photo in read_folder(folder)]
    pictures = np.empty((len(paths), size, size, 4), np.uint8)
    names: list[str] = []
    diameters: list[float] = []
    skipped: list[Skipped] = []
    for done, path in enumerate(paths):
        try:
            prepared = prepare(read_rgb(path), size)
        except (DataError, NoFieldOfViewError) as error:
            reason = "no field of view" if isinstance(error, NoFieldOfViewError) else "unreadable"
            skipped.append(Skipped(path.name, reason, str(error)))
        else:
            pictures[len(names)] = prepared.tensor
            diameters.append(2.0 * prepared.field.radius)
            names.append(path.name)
        progress(stage, done + 1, len(paths), {})
    if len(names) < minimum:
        said = "".join(f"; {line}" for line in skipped_lines(skipped))
        raise DataError(
            f"{folder} holds {len(names)} usable photographs of {len(paths)} files; at least {minimum} are "
            f"needed, {RECOMMENDED} are recommended{said}"
        )
    return Style(folder, tuple(names), pictures[: len(names)], np.array(diameters), tuple(skipped))


def skipped_lines(skipped: Sequence[Skipped]) -> list[str]:
    """One line a reason: how many files, and the names of the first ones."""
    lines = []
    for reason in dict.fromkeys(each.reason for each in skipped):
        names = [each.name for each in skipped if each.reason == reason]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        lines.append(f"{reason} in {len(names)}: {', '.join(names[:_NAMED])}{more}")
    return lines


def style_warnings(first: Style, second: Style, size: int) -> list[str]:
    """What a person should know of two folders before trusting what was trained on them.

    Args:
        first: The new camera.
        second: The labelled camera.
        size: Side S of the graphs' input.
    """
    return [*_about_each(first, second, size), *_about_both(first, second)]


def _about_each(first: Style, second: Style, size: int) -> Iterator[str]:
    for whose, style in (("new camera", first), ("labelled camera", second)):
        if len(style.names) < RECOMMENDED:
            yield (
                f"Only {len(style.names)} photographs of the {whose}; {RECOMMENDED} are recommended. With "
                "few, the adapter learns these photographs rather than the camera."
            )
        for line in skipped_lines(style.skipped):
            yield f"Left out of the {whose}'s folder, {line}."
        small = int((style.diameters < size).sum())
        if small:
            yield (
                f"{_photographs(small)} of the {whose} with a disc of under {size} px, enlarged: less "
                "detail than the classifier was trained on."
            )


def _about_both(first: Style, second: Style) -> Iterator[str]:
    if abs(first.coverage - second.coverage) > _COVERAGE:
        yield (
            f"The fields differ: the field covers {first.coverage:.0%} of its square with the new camera and "
            f"{second.coverage:.0%} with the labelled one. One of them cuts its disc, or has another angle "
            "of view; an adapter changes colour and sharpness, never the size of lesions."
        )
    alike = shared_eyes(first, second)
    if alike:
        named = ", ".join(f"{ours} and {theirs}" for ours, theirs in alike[:_NAMED])
        more = f" and {len(alike) - _NAMED} more" if len(alike) > _NAMED else ""
        yield (
            f"{_photographs(len(alike))} of the new camera may show the same eye as one of the labelled "
            f"camera ({named}{more}): no eye may be in both folders. Remove these from one of them and train "
            "again."
        )


def _photographs(count: int) -> str:
    return "1 photograph" if count == 1 else f"{count} photographs"


def shared_eyes(first: Style, second: Style) -> list[tuple[str, str]]:
    """Names of first-style photographs, each with a second-style one that looks like it.

    Likeness is that of ``look_alike_groups``. Of either style 300 are looked at, evenly spread over the
    folder: the time grows with the square.
    """
    chosen = [spread(len(style.names), _LOOKED_AT) for style in (first, second)]
    ours, theirs = (
        [style.names[i] for i in each] for style, each in zip((first, second), chosen, strict=True)
    )
    pictures = [*first.pictures[chosen[0]], *second.pictures[chosen[1]]]
    groups = look_alike_groups(np.stack([signature(picture) for picture in pictures]))
    twins = dict(zip(groups[len(ours) :], theirs, strict=True))
    return [(name, twins[group]) for name, group in zip(ours, groups, strict=False) if group in twins]
