"""Conflicts of side and identity: what is sent step by step, and what has to come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from factories.runtime import fundus_of_grade
from pydicom.dataset import Dataset, FileDataset

_ROOT = "2.25.77"
PATIENT = ("P1", "Doe^Jane")
OTHER = ("P2", "Roe^Mary")


@dataclass(frozen=True)
class Expected:
    """What has to come of one study.

    Attributes:
        sides: The sides with a result group in each report at the PACS, in order of the revisions.
        rows: Side and reason of each image in `v_results`, by SOP Instance UID.
        said: Reason codes that the last report states, with their sentences.
        withheld: Why `status` and `v_failures` say that the study has no report, or a wrong one.
        patient: Patient ID and name in the last report.
    """

    sides: Sequence[str]
    rows: Sequence[tuple[str | None, str | None]]
    said: Sequence[str] = ()
    withheld: str | None = None
    patient: tuple[str, str] = PATIENT


@dataclass(frozen=True)
class Case:
    """One conflict.

    Attributes:
        number: Makes its UIDs.
        steps: What is sent in each step.
        studies: What comes of its studies, by their numbers.
        aborted: Steps whose association is aborted after the last answer.
        decided_after: Step after which a person lets the first file of a UID conflict count.
    """

    number: int
    steps: Sequence[Sequence[FileDataset]]
    studies: Mapping[int, Expected]
    aborted: Sequence[int] = field(default=())
    decided_after: int | None = None


def study_uid(case: Case, number: int = 1) -> str:
    """Study Instance UID of one of the case's studies."""
    return f"{_ROOT}.{case.number}.{number}"


def _image(case: int, number: int = 1, *, study: int = 1, **options: Any) -> FileDataset:
    """Image `number` of a case, of the same pixels each time unless another grade is asked for."""
    patient_id, name = options.pop("patient", PATIENT)
    uids = {"study_uid": f"{_ROOT}.{case}.{study}", "series_uid": f"{_ROOT}.{case}.9.{study}"}
    usual = {"sop_uid": f"{_ROOT}.{case}.8.{number}", "patient_id": patient_id, "patient_name": name}
    return fundus_of_grade(**{"grade": 2, **uids, **usual, **options})


def _modifier(value: str, meaning: str) -> list[Dataset]:
    """Anatomic Region Sequence that states a side in its modifier (PS3.3 table 10-5)."""
    side, region = Dataset(), Dataset()
    side.CodeValue, side.CodingSchemeDesignator, side.CodeMeaning = value, "SCT", meaning
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "81745001", "SCT", "Eye"
    region.AnatomicRegionModifierSequence = [side]
    return [region]


def _unclear(case: int, code: str, **options: Any) -> Case:
    """An image whose side is not known: analysed, listed, and in no eye's result."""
    expected = Expected(sides=[""], rows=[(None, code)], said=[code])
    return Case(case, [[_image(case, **options)]], {1: expected})


def _cases() -> Mapping[str, Case]:
    right: dict[str, Any] = {"laterality": "R"}
    left: dict[str, Any] = {"laterality": "L"}
    revised_left = Expected(sides=["R", "L"], rows=[("L", None)])
    return {
        "sides differ between image and series": _unclear(1, "LATERALITY_CONFLICT", Laterality="L"),
        "sides differ between image and anatomic region": _unclear(
            2, "LATERALITY_CONFLICT", AnatomicRegionSequence=_modifier("7771000", "Left")
        ),
        "no side": _unclear(3, "LATERALITY_UNKNOWN", laterality=None),
        "both sides": _unclear(4, "LATERALITY_UNKNOWN", laterality="B"),
        "side corrected": Case(5, [[_image(5, **right)], [_image(5, **left)]], {1: revised_left}),
        "correction taken back": Case(
            6,
            [[_image(6, **right)], [_image(6, **left)], [_image(6, **right)]],
            {1: Expected(sides=["R", "L", "R"], rows=[("R", None)])},
        ),
        "late retry of what was corrected": Case(
            7,
            [[_image(7, **right)], [_image(7, **left)], [_image(7, **right)]],
            {1: revised_left},
            aborted=(0,),
        ),
        "patient corrected": Case(
            8,
            [[_image(8)], [_image(8, patient=OTHER)]],
            {1: Expected(sides=["R", "R"], rows=[("R", None)], patient=OTHER)},
        ),
        "study corrected, image left": Case(
            9,
            [[_image(9), _image(9, 2, **left)], [_image(9, 2, study=2, **left)]],
            {
                1: Expected(sides=["RL", "R"], rows=[("R", None)]),
                2: Expected(sides=["L"], rows=[("L", None)]),
            },
        ),
        "study corrected, none left": Case(
            10,
            [[_image(10)], [_image(10, study=2)]],
            {
                1: Expected(sides=["R"], rows=[], withheld="STUDY_EMPTIED"),
                2: Expected(sides=["R"], rows=[("R", None)]),
            },
        ),
        "identical bytes": Case(
            11, [[_image(11)], [_image(11)]], {1: Expected(sides=["R"], rows=[("R", None)])}
        ),
        "late image": Case(
            12,
            [[_image(12)], [_image(12, 2, **left)]],
            {1: Expected(sides=["R", "RL"], rows=[("R", None), ("L", None)])},
        ),
        "other pixels under one UID": Case(
            13,
            [[_image(13), _image(13, grade=4)]],
            {1: Expected(sides=[], rows=[("R", "UID_CONFLICT")], withheld="UID_CONFLICT")},
        ),
        "other pixels after the report": Case(
            14,
            [[_image(14)], [_image(14, grade=4)]],
            {1: Expected(sides=["R"], rows=[("R", "UID_CONFLICT")], withheld="UID_CONFLICT")},
        ),
        "other pixels, a person decides": Case(
            15,
            [[_image(15), _image(15, grade=4)]],
            {1: Expected(sides=["R"], rows=[("R", None)])},
            decided_after=0,
        ),
        "other pixels that name another study": Case(
            16,
            [[_image(16), _image(16, 2, study=2, **left)], [_image(16, study=2, grade=4)]],
            {
                1: Expected(sides=["R"], rows=[("R", "UID_CONFLICT")], withheld="UID_CONFLICT"),
                2: Expected(sides=["L"], rows=[("L", "UID_CONFLICT")], withheld="UID_CONFLICT"),
            },
        ),
        "two patients": Case(
            17,
            [[_image(17), _image(17, 2, patient=OTHER, **left)]],
            {
                1: Expected(
                    sides=[],
                    rows=[("R", "PATIENT_CONFLICT"), ("L", "PATIENT_CONFLICT")],
                    withheld="PATIENT_CONFLICT",
                )
            },
        ),
        "two patients, one corrected": Case(
            18,
            [[_image(18), _image(18, 2, patient=OTHER, **left)], [_image(18, 2, **left)]],
            {1: Expected(sides=["RL"], rows=[("R", None), ("L", None)])},
        ),
        "two patients without an identifier": Case(
            19,
            [[_image(19, patient=("", "Doe^Jane")), _image(19, 2, patient=("", "Roe^Mary"), **left)]],
            {
                1: Expected(
                    sides=[],
                    rows=[("R", "PATIENT_CONFLICT"), ("L", "PATIENT_CONFLICT")],
                    withheld="PATIENT_CONFLICT",
                )
            },
        ),
        "one identifier, two names": Case(
            20,
            [[_image(20), _image(20, 2, patient=("P1", "Roe^Mary"), **left)]],
            {1: Expected(sides=["RL"], rows=[("R", None), ("L", None)], patient=("P1", ""))},
        ),
    }


CASES: Mapping[str, Case] = MappingProxyType(_cases())
"""Every conflict by name."""
