"""The rule from what was found in each image to what is said about each eye. Pure: no clock, no database.

Two sentences carry it. An eye is referable as soon as one usable image of it is. An eye is called not
referable only when nothing that could contradict it is left unread: no image that is unfinished, could not be
graded or was refused for a clinical reason, and no image of unknown side that may belong to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from worker.reasons import REASONS

EyePolicy = Literal["standard", "strict"]

_SIDES = ("R", "L")
_SIDE_REASONS = frozenset({"LATERALITY_UNKNOWN", "LATERALITY_CONFLICT"})
UNFINISHED = "IMAGE_UNFINISHED"
# What a reader needs to hear first, when several images of an eye each have a reason of their own.
_PRECEDENCE = (
    UNFINISHED,
    "INTERNAL_ERROR",
    "UNGRADABLE_QUALITY",
    "NOT_A_FUNDUS_PHOTOGRAPH",
    "CAMERA_NOT_VALIDATED",
    "WIDE_FIELD_NOT_VALIDATED",
    "TEXT_IN_FIELD",
    "CAMERA_REFUSED",
)


@dataclass(frozen=True)
class ImageResult:
    """What is known about one image, or one frame of a multi-frame image.

    Attributes:
        laterality: "R", "L", or None when unknown or contradictory.
        finished: False while it waits for its analysis. An image with neither grade nor reason counts as
            unfinished too, for instance one that only an earlier bundle has seen.
        grade: ICDR grade 0 to 4, None when there is none.
        referable: Whether the grade is referable (2 and above), None when there is no grade.
        referable_probability: Calibrated probability of a referable grade, 0 to 1.
        certainty: Calibrated probability of the stated grade, 0 to 1.
        quality: Probability that the image can be graded, 0 to 1.
        reason_code: Why it is not used for the report; None when it is. Where several reasons hold, one
            that is not about the side: a finding of a camera that nobody validated cannot clear an eye.
    """

    laterality: str | None
    finished: bool
    grade: int | None
    referable: bool | None
    referable_probability: float | None
    certainty: float | None
    quality: float | None
    reason_code: str | None

    def __post_init__(self) -> None:
        if self.laterality not in (None, *_SIDES):
            raise ValueError('laterality is "R", "L" or None')
        if (self.grade is None) != (self.referable is None):
            raise ValueError("grade and referable come together")

    @property
    def usable(self) -> bool:
        """True when it has a side and a grade, and nothing speaks against reporting it."""
        graded = self.finished and self.reason_code is None and self.grade is not None
        return graded and self.laterality is not None


@dataclass(frozen=True)
class EyeResult:
    """What the report says about one eye.

    Attributes:
        laterality: "R" or "L".
        grade: The highest usable grade; None when withheld.
        referable: None when withheld.
        referable_probability: Of the image that decided.
        certainty: Of the image that decided.
        quality: Of the worst image that the result rests on; of the worst of the eye when it is withheld.
        reason_code: Why the result is withheld; None when it is stated.
        images: Images of this eye.
        images_used: Those that were usable.
    """

    laterality: str
    grade: int | None
    referable: bool | None
    referable_probability: float | None
    certainty: float | None
    quality: float | None
    reason_code: str | None
    images: int
    images_used: int


def grade_eyes(images: Sequence[ImageResult], policy: EyePolicy) -> tuple[EyeResult, ...]:
    """The results of the eyes of one study.

    Args:
        images: All images of the study, whatever became of them; their order does not matter.
        policy: "standard", or "strict": an image that blocks a negative of its eye also blocks a positive.

    Returns:
        One result for each eye that has an image, the right one first.
    """
    return tuple(
        _grade_eye(side, images, policy) for side in _SIDES if any(i.laterality == side for i in images)
    )


def _grade_eye(side: str, images: Sequence[ImageResult], policy: EyePolicy) -> EyeResult:
    own = [image for image in images if image.laterality == side]
    usable = [image for image in own if image.usable]
    decisive = max(usable, key=_severity, default=None)
    blocking = _first(blocking_reason(image) for image in own)
    withheld = _withheld(decisive, blocking, images, policy)
    stated = None if withheld else decisive
    looked_at = usable if stated else own
    return EyeResult(
        laterality=side,
        grade=stated.grade if stated else None,
        referable=stated.referable if stated else None,
        referable_probability=stated.referable_probability if stated else None,
        certainty=stated.certainty if stated else None,
        quality=min((image.quality for image in looked_at if image.quality is not None), default=None),
        reason_code=withheld,
        images=len(own),
        images_used=len(usable),
    )


def _severity(image: ImageResult) -> tuple[bool, int, float, float]:
    """Order of usable images; equal ones say the same, so that the order of the images cannot matter."""
    grade = -1 if image.grade is None else image.grade
    return bool(image.referable), grade, image.referable_probability or 0.0, image.certainty or 0.0


def _withheld(
    decisive: ImageResult | None, blocking: str | None, images: Sequence[ImageResult], policy: EyePolicy
) -> str | None:
    """Why nothing is stated about an eye; None when the decisive image's result is."""
    if decisive is None:
        return blocking or "NO_GRADABLE_IMAGE"
    if decisive.referable:
        return "EYE_POLICY" if blocking and policy == "strict" else None
    strays = _first(_contradiction(image) for image in images if image.laterality is None)
    return _first((blocking, strays))


def blocking_reason(image: ImageResult) -> str | None:
    """Why an image keeps its eye from being called not referable; None when it does not."""
    if not image.finished:
        return UNFINISHED
    if image.reason_code is None:
        return UNFINISHED if image.grade is None else None
    known = REASONS.get(image.reason_code)  # a newer release's code is not known here: it blocks
    return image.reason_code if known is None or known.blocks_negative else None


def _contradiction(image: ImageResult) -> str | None:
    """Why an image of unknown side keeps both eyes from being called not referable; None when it does not.

    Where only its side is missing, what was read decides: a finding may belong to either eye.
    """
    only_side_missing = image.reason_code is None or image.reason_code in _SIDE_REASONS
    if image.finished and only_side_missing and image.grade is not None:
        return (image.reason_code or "LATERALITY_UNKNOWN") if image.referable else None
    return blocking_reason(image)


def _first(codes: Iterable[str | None]) -> str | None:
    """The reason that a reader needs to hear first."""
    return min((code for code in codes if code), key=_rank, default=None)


def _rank(code: str) -> tuple[int, str]:
    return (_PRECEDENCE.index(code) if code in _PRECEDENCE else len(_PRECEDENCE)), code
