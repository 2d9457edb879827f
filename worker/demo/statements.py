"""What a Structured Report says of each eye, read back from the object that the PACS received."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicom_io import codes

_REASON = re.compile(r"\[([A-Z0-9_]+)\]$")
_NO_CODE = Code("", "", "")
_FINDING_SITE = Code("363698007", "SCT", "Finding Site")


@dataclass(frozen=True)
class EyeStatement:
    """One eye's result as the report states it; None where it states nothing."""

    grade: int | None
    referable: bool | None
    referable_probability: float | None
    certainty: float | None
    quality: float | None
    reason_code: str | None


def read_statements(report: Dataset) -> dict[str, EyeStatement]:
    """The eyes of a report (TID 1500, one TID 1501 group each), by laterality "R" or "L"."""
    statements = {}
    for container in _children(report, codes.IMAGING_MEASUREMENTS):
        for group in container.get("ContentSequence") or ():
            statements[_side(group)] = _statement(group)
    return statements


def _statement(group: Dataset) -> EyeStatement:
    severities = [
        _place_of(_concept(item), codes.SEVERITY)
        for name in codes.SEVERITY_NAME.values()
        for item in _children(group, name)
    ]
    referable = [_concept(item) == codes.YES for item in _children(group, codes.REFERABLE)]
    reasons = [_REASON.search(str(item.TextValue)) for item in _children(group, codes.WITHHELD)]
    return EyeStatement(
        grade=severities[0] if severities else None,
        referable=referable[0] if referable else None,
        referable_probability=_number(group, codes.PROBABILITY),
        certainty=_number(group, codes.CERTAINTY),
        quality=_number(group, codes.GRADABILITY),
        reason_code=next((found[1] for found in reasons if found), None),
    )


def _side(group: Dataset) -> str:
    """Laterality of the group's finding site; "" when it has none."""
    for site in _children(group, _FINDING_SITE):
        for modifier in site.get("ContentSequence") or ():
            for side, code in codes.LATERALITY.items():
                if _concept(modifier) == code:
                    return str(side)
    return ""


def _children(item: Dataset, name: Code) -> Iterator[Dataset]:
    for child in item.get("ContentSequence") or ():
        if _code(child, "ConceptNameCodeSequence") == name:
            yield child


def _number(group: Dataset, name: Code) -> float | None:
    """The exact value (PS3.3 C.18.1), where the item has one."""
    for item in _children(group, name):
        measured = item.MeasuredValueSequence[0]
        return float(measured.get("FloatingPointValue", measured.NumericValue))
    return None


def _concept(item: Dataset) -> Code:
    return _code(item, "ConceptCodeSequence")


def _code(item: Dataset, keyword: str) -> Code:
    sequence = item.get(keyword)
    if not sequence:
        return _NO_CODE
    return Code(
        str(sequence[0].CodeValue), str(sequence[0].CodingSchemeDesignator), str(sequence[0].CodeMeaning)
    )


def _place_of(code: Code, choices: tuple[Code, ...]) -> int | None:
    """Position of a code among several; a code that is none of them is no grade."""
    return next((number for number, choice in enumerate(choices) if code == choice), None)
