"""What the database says, asked through the views that are there for operations staff."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Engine, Float, text

from worker.database import reading
from worker.schema import UtcDateTime

_ENDED = text("SELECT COUNT(*) FROM v_results WHERE state <> 'RECEIVED'")
_RESULTS = text(
    """
    SELECT r.study_instance_uid, r.accession_number, r.sop_instance_uid, r.laterality, r.camera, r.route,
           r.adapter, r.state, r.received_at, r.analysed_at, e.report_sop_instance_uid,
           e.grade, e.grade_label, e.referable, e.referable_probability, e.certainty, e.quality,
           e.reason_code, r.reason_code AS image_reason_code
    FROM v_results r
    LEFT JOIN v_eye_results e
        ON e.study_instance_uid = r.study_instance_uid AND e.laterality = r.laterality
    ORDER BY r.accession_number, r.laterality DESC
    """
).columns(
    received_at=UtcDateTime(),
    analysed_at=UtcDateTime(),
    referable=Boolean(),
    referable_probability=Float(),
    certainty=Float(),
    quality=Float(),
)


@dataclass(frozen=True)
class Result:
    """A photograph, and what the report says of its eye (each eye has one photograph here).

    Attributes:
        state: RECEIVED, ANALYSED or REFUSED.
        report_sop_instance_uid: The current report; None when there is none.
        grade: Of the eye, as the report has it; None when it was withheld.
        reason_code: Why the eye's grade was withheld.
        image_reason_code: Why the photograph cannot be used.
    """

    study_instance_uid: str
    accession_number: str
    sop_instance_uid: str
    laterality: str
    camera: str | None
    route: str
    adapter: str | None
    state: str
    received_at: datetime
    analysed_at: datetime | None
    report_sop_instance_uid: str | None
    grade: int | None
    grade_label: str | None
    referable: bool | None
    referable_probability: float | None
    certainty: float | None
    quality: float | None
    reason_code: str | None
    image_reason_code: str | None

    @property
    def analysis_ms(self) -> float | None:
        """Milliseconds from its acknowledgement to its finding, the wait for its turn included."""
        if self.analysed_at is None:
            return None
        return (self.analysed_at - self.received_at).total_seconds() * 1000

    @property
    def verdict(self) -> str:
        """The grade in words, or why there is none."""
        if self.grade is not None:
            return f"{self.grade} {self.grade_label}"
        return f"withheld: {self.reason_code or self.image_reason_code or self.state}"


def count_ended(engine: Engine) -> int:
    """Photographs that have a finding or a refusal."""
    with reading(engine).connect() as connection:
        return int(connection.execute(_ENDED).scalar_one())


def read_results(engine: Engine) -> list[Result]:
    """All photographs, study by study, right eye first."""
    with reading(engine).connect() as connection:
        rows: list[dict[str, Any]] = [dict(row) for row in connection.execute(_RESULTS).mappings()]
    return [Result(**row) for row in rows]
