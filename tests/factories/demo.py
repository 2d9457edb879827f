"""Results and studies of a demonstration, made up for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from factories.dicom import OPHTHALMIC_PHOTOGRAPHY_8_BIT

from worker.demo.results import Result
from worker.demo.studies import DemoStudy, Photograph

RECEIVED_AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def result(number: int = 1, laterality: str = "R", **changes: Any) -> Result:
    """Photograph `2.25.<number>` of study `2.25.1001`: moderate, through an adapter."""
    usual: dict[str, Any] = {
        "study_instance_uid": "2.25.1001",
        "accession_number": "DEMO-0001",
        "sop_instance_uid": f"2.25.{number}",
        "laterality": laterality,
        "camera": "simulated-blue",
        "route": "adapter",
        "adapter": "simulated-blue",
        "state": "ANALYSED",
        "received_at": RECEIVED_AT,
        "analysed_at": RECEIVED_AT + timedelta(seconds=0.25),
        "report_sop_instance_uid": "2.25.3001",
        "grade": 2,
        "grade_label": "Moderate",
        "referable": True,
        "referable_probability": 0.9371823668479919,
        "certainty": 0.61,
        "quality": 0.97,
        "reason_code": None,
        "image_reason_code": None,
    }
    return Result(**usual | changes)


def withheld_result(number: int = 2, laterality: str = "L", **changes: Any) -> Result:
    """A photograph whose eye has no grade."""
    nothing = dict.fromkeys(("grade", "grade_label", "referable", "referable_probability", "certainty"))
    reason = "UNGRADABLE_QUALITY"
    reasons = {"quality": 0.2, "reason_code": reason, "image_reason_code": reason}
    return result(number, laterality, **nothing | reasons | changes)


def study(*lateralities: str, uid: str = "2.25.1001") -> DemoStudy:
    """A study with one photograph an eye, `2.25.1` and on; its files do not exist."""
    photographs = tuple(
        Photograph(Path(f"{number}.dcm"), OPHTHALMIC_PHOTOGRAPHY_8_BIT, f"2.25.{number}", side, 2)
        for number, side in enumerate(lateralities, start=1)
    )
    return DemoStudy(uid, "DEMO-0001", photographs)
