from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.grading import EyePolicy, EyeResult, ImageResult, blocking_reason, grade_eyes
from worker.reason import Scope
from worker.reasons import REASONS

IMAGE_REASONS = sorted(r.code for r in REASONS.values() if r.scope in {Scope.IMAGE, Scope.OBJECT})


def graded(side: str | None, grade: int, *, probability: float = 0.5, quality: float = 0.9) -> ImageResult:
    return ImageResult(side, True, grade, grade >= 2, probability, 0.7, quality, None)


def unusable(side: str | None, code: str, grade: int | None = None) -> ImageResult:
    referable = None if grade is None else grade >= 2
    return ImageResult(side, True, grade, referable, 0.5, 0.7, 0.2, code)


def unfinished(side: str | None) -> ImageResult:
    return ImageResult(side, False, None, None, None, None, None, None)


def unseen(side: str | None) -> ImageResult:
    """Finished, but with neither grade nor reason: analysed before the bundle was changed."""
    return replace(unfinished(side), finished=True)


def stray(grade: int, code: str | None = "LATERALITY_UNKNOWN") -> ImageResult:
    """An image whose side is not known, but whose content was read."""
    return replace(unusable(None, "LATERALITY_UNKNOWN", grade), reason_code=code)


BAD = "UNGRADABLE_QUALITY"
CAMERA = "CAMERA_NOT_VALIDATED"
UNKNOWN = "LATERALITY_UNKNOWN"
CONFLICT = "LATERALITY_CONFLICT"
LATE = "IMAGE_UNFINISHED"
NEWER = "NOT_YET_KNOWN"
BROKEN = "INTERNAL_ERROR"

# images; under "standard": the right eye's grade or the reason why there is none; the same under "strict"
TABLE: list[tuple[str, list[ImageResult], int | str, int | str]] = [
    ("one negative image", [graded("R", 1)], 1, 1),
    ("one positive image", [graded("R", 3)], 3, 3),
    ("the highest grade counts", [graded("R", 0), graded("R", 4), graded("R", 2)], 4, 4),
    ("the other eye does not matter", [graded("R", 0), graded("L", 4), unusable("L", BAD)], 0, 0),
    ("a bad image withholds a negative", [graded("R", 0), unusable("R", BAD)], BAD, BAD),
    ("a bad image does not hide a positive", [graded("R", 2), unusable("R", BAD)], 2, "EYE_POLICY"),
    ("an infrared image hides nothing", [graded("R", 0), unusable("R", "NOT_COLOUR")], 0, 0),
    ("an infrared image beside a positive", [graded("R", 2), unusable("R", "NOT_COLOUR")], 2, 2),
    ("nothing but infrared", [unusable("R", "NOT_COLOUR")], "NO_GRADABLE_IMAGE", "NO_GRADABLE_IMAGE"),
    ("nothing but a bad image", [unusable("R", BAD)], BAD, BAD),
    ("unfinished withholds a negative", [graded("R", 0), unfinished("R")], LATE, LATE),
    ("unfinished beside a positive", [graded("R", 2), unfinished("R")], 2, "EYE_POLICY"),
    ("unfinished is said first", [graded("R", 0), unusable("R", BAD), unfinished("R")], LATE, LATE),
    ("an image that this bundle has not seen", [graded("R", 0), unseen("R")], LATE, LATE),
    ("a stray image that this bundle has not seen", [graded("R", 0), unseen(None)], LATE, LATE),
    ("no validated camera, though graded", [unusable("R", CAMERA, 0)], CAMERA, CAMERA),
    ("no validated camera, though positive", [unusable("R", CAMERA, 4)], CAMERA, CAMERA),
    ("no validated camera beside a negative", [graded("R", 0), unusable("R", CAMERA, 0)], CAMERA, CAMERA),
    ("a stray negative contradicts nothing", [graded("R", 0), stray(1)], 0, 0),
    ("a stray positive may be of this eye", [graded("R", 0), stray(2)], UNKNOWN, UNKNOWN),
    ("a stray positive with two sides", [graded("R", 0), stray(2, CONFLICT)], CONFLICT, CONFLICT),
    ("a stray positive without a reason", [graded("R", 0), stray(2, None)], UNKNOWN, UNKNOWN),
    ("a stray positive changes no positive", [graded("R", 2), stray(4)], 2, 2),
    ("a stray image nobody read", [graded("R", 0), unusable(None, UNKNOWN)], UNKNOWN, UNKNOWN),
    ("a stray image of a bad camera", [graded("R", 0), unusable(None, CAMERA, 0)], CAMERA, CAMERA),
    ("a stray infrared image", [graded("R", 0), unusable(None, "NOT_COLOUR")], 0, 0),
    ("a stray unfinished image", [graded("R", 0), unfinished(None)], LATE, LATE),
    ("a stray unreadable image beside a positive", [graded("R", 3), unusable(None, BAD)], 3, 3),
    ("a code of a newer release blocks", [graded("R", 0), unusable("R", NEWER)], NEWER, NEWER),
    ("an image that broke the program", [graded("R", 0), unusable("R", BROKEN)], BROKEN, BROKEN),
]


def right_eye(images: list[ImageResult], policy: EyePolicy) -> EyeResult:
    return next(eye for eye in grade_eyes(images, policy) if eye.laterality == "R")


@pytest.mark.parametrize(
    ("images", "policy", "expected"),
    [
        pytest.param(images, policy, outcome, id=f"{policy}: {name}")
        for name, images, standard, strict in TABLE
        for policy, outcome in (("standard", standard), ("strict", strict))
    ],
)
def test_the_rule(images: list[ImageResult], policy: EyePolicy, expected: int | str) -> None:
    eye = right_eye(images, policy)
    if isinstance(expected, int):
        assert (eye.grade, eye.referable, eye.reason_code) == (expected, expected >= 2, None)
    else:
        assert (eye.grade, eye.referable, eye.reason_code) == (None, None, expected)
        assert (eye.referable_probability, eye.certainty) == (None, None)


def test_the_numbers_are_those_of_the_image_that_decided() -> None:
    images = [
        graded("R", 3, probability=0.8, quality=0.6),
        graded("R", 3, probability=0.9, quality=0.7),
        graded("R", 1, probability=0.95),
        graded("L", 4, probability=0.99, quality=0.1),
    ]
    assert right_eye(images, "standard") == EyeResult(
        laterality="R", grade=3, referable=True, referable_probability=0.9, certainty=0.7,
        quality=0.6, reason_code=None, images=3, images_used=3,
    )  # fmt: skip


def test_quality_is_that_of_the_worst_image_that_the_result_rests_on() -> None:
    images = [graded("R", 2, quality=0.8), graded("R", 2, quality=0.7), unusable("R", BAD), unfinished("R")]
    eye = right_eye(images, "standard")
    assert (eye.quality, eye.images, eye.images_used) == (0.7, 4, 2)


def test_quality_of_a_withheld_eye_is_that_of_its_worst_image() -> None:
    eye = right_eye([graded("R", 0, quality=0.8), unusable("R", BAD)], "standard")
    assert (eye.reason_code, eye.quality, eye.images, eye.images_used) == (BAD, 0.2, 2, 1)


def test_eyes_are_those_with_images_the_right_one_first() -> None:
    both = grade_eyes([graded("L", 0), graded("R", 1), graded(None, 2)], "standard")
    assert [eye.laterality for eye in both] == ["R", "L"]
    assert [eye.laterality for eye in grade_eyes([unfinished("L")], "standard")] == ["L"]
    assert grade_eyes([stray(4)], "standard") == ()
    assert grade_eyes([], "strict") == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"laterality": "B"},
        {"grade": None},
        {"referable": None},
    ],
)
def test_impossible_images_cannot_be_made(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"laterality|grade"):
        replace(graded("R", 1), **wrong)  # type: ignore[arg-type]  # wrong on purpose


probabilities = st.floats(0, 1)
codes = st.sampled_from([*IMAGE_REASONS, "NOT_YET_KNOWN"])


@st.composite
def any_image(draw: st.DrawFn, sides: tuple[str | None, ...] = ("R", "L", None)) -> ImageResult:
    side = draw(st.sampled_from(sides))
    if not draw(st.booleans()):
        return unfinished(side)
    grade = draw(st.none() | st.integers(0, 4))
    code = draw(st.none() | codes)
    referable = None if grade is None else grade >= 2
    return ImageResult(
        side, True, grade, referable, draw(probabilities), draw(probabilities), draw(probabilities), code
    )


studies = st.lists(any_image(), max_size=6)
policies: st.SearchStrategy[EyePolicy] = st.sampled_from(["standard", "strict"])


def by_side(images: list[ImageResult], policy: EyePolicy) -> dict[str, EyeResult]:
    return {eye.laterality: eye for eye in grade_eyes(images, policy)}


@given(studies, policies)
def test_no_negative_while_an_image_blocks_it(images: list[ImageResult], policy: EyePolicy) -> None:
    for side, eye in by_side(images, policy).items():
        if any(image.laterality == side and blocking_reason(image) for image in images):
            assert eye.referable is not False


@given(studies, any_image(), policies)
def test_a_blocking_image_never_makes_a_negative(
    images: list[ImageResult], more: ImageResult, policy: EyePolicy
) -> None:
    if blocking_reason(more) is None:
        more = replace(more, reason_code="PIXELS_UNREADABLE")
    before, after = by_side(images, policy), by_side([*images, more], policy)
    for side, eye in after.items():
        if side not in before or before[side].referable is not False:
            assert eye.referable is not False


@given(studies, any_image())
def test_another_image_never_takes_a_referable_result_back(
    images: list[ImageResult], more: ImageResult
) -> None:
    before, after = by_side(images, "standard"), by_side([*images, more], "standard")
    for side, eye in before.items():
        if eye.referable:
            assert after[side].referable
            assert (after[side].grade or 0) >= (eye.grade or 0)


@given(studies.flatmap(lambda images: st.tuples(st.just(images), st.permutations(images))), policies)
def test_the_order_of_images_does_not_matter(
    pair: tuple[list[ImageResult], list[ImageResult]], policy: EyePolicy
) -> None:
    assert grade_eyes(pair[0], policy) == grade_eyes(pair[1], policy)


@given(studies, st.lists(any_image((None,)), min_size=1, max_size=3), policies)
def test_images_of_unknown_side_never_contribute_a_grade(
    images: list[ImageResult], strays: list[ImageResult], policy: EyePolicy
) -> None:
    without, with_them = by_side(images, policy), by_side([*images, *strays], policy)
    assert without.keys() == with_them.keys()
    for side, eye in with_them.items():
        assert eye.grade in (None, without[side].grade)


@given(studies)
def test_strict_never_says_more_than_standard(images: list[ImageResult]) -> None:
    standard = by_side(images, "standard")
    for side, eye in by_side(images, "strict").items():
        assert eye == standard[side] or eye.reason_code is not None


@given(studies, policies)
def test_a_result_has_a_grade_or_a_reason(images: list[ImageResult], policy: EyePolicy) -> None:
    for eye in grade_eyes(images, policy):
        assert (eye.grade is None) == (eye.referable is None) == (eye.reason_code is not None)
