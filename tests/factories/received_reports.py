"""What has arrived at the receiving PACS: reports read from their files, and held against the database."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from factories.process import Worker
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_io import codes

GRADE_OF_CODE = {code.value: grade for grade, code in enumerate(codes.SEVERITY)}
SIDE_OF_CODE = {code.value: str(side) for side, code in codes.LATERALITY.items()}
_FAILURES = "SELECT * FROM v_failures WHERE kind <> 'image_refused'"


@dataclass(frozen=True)
class StatedEye:
    """What a report says of one eye; None is what it does not say."""

    grade: int | None
    referable: bool | None
    referable_probability: float | None
    certainty: float | None
    quality: float | None
    reason_code: str | None


@dataclass(frozen=True)
class ReceivedReport:
    """A report as the PACS stored it."""

    path: Path

    @cached_property
    def dataset(self) -> Dataset:
        """Its content."""
        return dcmread(self.path)

    @property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID."""
        return str(self.dataset.SOPInstanceUID)

    @property
    def study_instance_uid(self) -> str:
        """Study Instance UID."""
        return str(self.dataset.StudyInstanceUID)

    @property
    def predecessors(self) -> set[str]:
        """SOP instance UIDs of the reports that this one replaces (PS3.3 C.17.2)."""
        studies = self.dataset.get("PredecessorDocumentsSequence", [])
        series = [each for study in studies for each in study.ReferencedSeriesSequence]
        return {str(sop.ReferencedSOPInstanceUID) for each in series for sop in each.ReferencedSOPSequence}

    @cached_property
    def eyes(self) -> dict[str, StatedEye]:
        """What it states, by side: "R", "L"."""
        groups = [each for each in items_of(self.dataset) if _is_eye(each)]
        return {_side(group): _stated(group) for group in groups}


def received_reports(files: Sequence[Path]) -> list[ReceivedReport]:
    """One for each file of the PACS; an object that arrived twice is there twice."""
    return [ReceivedReport(path) for path in files]


def items_of(item: Dataset) -> Iterator[Dataset]:
    """Content items below an item, at every depth."""
    for child in item.get("ContentSequence", []):
        yield child
        yield from items_of(child)


def _children(item: Dataset, concept: str) -> list[Dataset]:
    return [child for child in item.ContentSequence if name_of(child) == concept]


def name_of(item: Dataset) -> str:
    """Code value of an item's concept name, empty without one."""
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeValue) if names else ""


def _is_eye(item: Dataset) -> bool:
    """A measurement group, 125007 DCM (PS3.16 TID 1501)."""
    return item.ValueType == "CONTAINER" and name_of(item) == "125007"


def _side(group: Dataset) -> str:
    """Laterality modifies the finding site, 363698007 SCT (PS3.16 TID 1501)."""
    (site,) = _children(group, "363698007")
    (laterality,) = _children(site, "272741003")
    return SIDE_OF_CODE[laterality.ConceptCodeSequence[0].CodeValue]


def _stated(group: Dataset) -> StatedEye:
    side = _side(group)
    names = {str(each): code.value for each, code in codes.SEVERITY_NAME.items()}
    severity = _code(group, names[side])
    referable = _code(group, codes.REFERABLE.value)
    withheld = [str(each.TextValue) for each in _children(group, codes.WITHHELD.value)]
    return StatedEye(
        grade=None if severity is None else GRADE_OF_CODE[severity],
        referable=None if referable is None else referable == codes.YES.value,
        referable_probability=_number(group, codes.PROBABILITY.value),
        certainty=_number(group, codes.CERTAINTY.value),
        quality=_number(group, codes.GRADABILITY.value),
        reason_code=withheld[0].rpartition("[")[2].rstrip("]") if withheld else None,
    )


def _code(group: Dataset, concept: str) -> str | None:
    found = _children(group, concept)
    return str(found[0].ConceptCodeSequence[0].CodeValue) if found else None


def _number(group: Dataset, concept: str) -> float | None:
    found = _children(group, concept)
    return float(found[0].MeasuredValueSequence[0].FloatingPointValue) if found else None


def stated_in_database(worker: Worker) -> dict[str, dict[str, StatedEye]]:
    """`v_eye_results` in the same terms, by report and side."""
    stated: dict[str, dict[str, StatedEye]] = defaultdict(dict)
    for row in worker.query("SELECT * FROM v_eye_results"):
        stated[row["report_sop_instance_uid"]][row["laterality"]] = StatedEye(
            grade=row["grade"],
            referable=None if row["referable"] is None else bool(row["referable"]),
            referable_probability=row["referable_probability"],
            certainty=row["certainty"],
            quality=row["quality"],
            reason_code=row["reason_code"],
        )
    return dict(stated)


@dataclass(frozen=True)
class Account:
    """Every object of a run accounted for: what was sent, what became of it, what the PACS has.

    Attributes:
        acknowledged: Distinct SOP instances answered with 0x0000.
        findings: Instances that are ANALYSED with one finding a frame.
        refusals: Instances that are REFUSED with a reason.
        studies: Studies with an acknowledged object.
        reports_received: Files at the PACS.
        copies: Files at the PACS beyond one for each report: sent again because its answer was lost.
        superseded: Reports at the PACS that another one there, or a chain of them, replaces.
        problems: What is lost, doubled or stuck, in words; empty is what is wanted.
    """

    acknowledged: int
    findings: int
    refusals: int
    studies: int
    reports_received: int
    copies: int
    superseded: int
    problems: tuple[str, ...]

    def __str__(self) -> str:
        """One line for the person who runs it."""
        figures = ", ".join(f"{name} {value}" for name, value in vars(self).items() if name != "problems")
        return f"{figures}, problems {len(self.problems)}"


def account(worker: Worker, acknowledged: Sequence[str], files: Sequence[Path]) -> Account:
    """Hold what senders were told, what the database says and what the PACS has against each other."""
    rows = worker.query("SELECT * FROM v_results")
    reports = received_reports(files)
    problems = [
        *_object_problems(worker, set(acknowledged), rows),
        *_report_problems(worker, reports, {row["study_instance_uid"] for row in rows}),
        *(f"still waiting: {kind} {items}" for kind, items in worker.backlog().items()),
        *(
            f"failure: {row}"
            for row in worker.query("SELECT * FROM v_failures WHERE kind <> 'image_refused'")
        ),
    ]
    distinct = {report.sop_instance_uid for report in reports}
    current = {row["report_sop_instance_uid"] for row in worker.query("SELECT * FROM v_eye_results")}
    return Account(
        acknowledged=len(set(acknowledged)),
        findings=sum(row["state"] == "ANALYSED" for row in rows),
        refusals=sum(row["state"] == "REFUSED" for row in rows),
        studies=len({row["study_instance_uid"] for row in rows}),
        reports_received=len(reports),
        copies=len(reports) - len(distinct),
        superseded=len(distinct - current),
        problems=tuple(problems),
    )


def _object_problems(worker: Worker, acknowledged: set[str], rows: list[dict[str, Any]]) -> Iterator[str]:
    """Exactly one finding or one refusal for what was acknowledged, and nothing that was never sent."""
    times = Counter(row["sop_instance_uid"] for row in rows)
    for uid in sorted(acknowledged - set(times)):
        yield f"lost: {uid} was acknowledged and has no row"
    yield from (f"doubled: {uid} has {count} rows" for uid, count in times.items() if count > 1)
    for row in rows:
        ended = row["state"] == "ANALYSED" or (row["state"] == "REFUSED" and row["reason_code"])
        if not ended:
            yield f"stuck: {row['sop_instance_uid']} is {row['state']}, reason {row['reason_code']}"
        elif row["state"] == "ANALYSED" and row["bundle_id"] is None:
            yield f"lost: {row['sop_instance_uid']} is ANALYSED without a finding"
    several = "SELECT instance_id, count(*) AS n FROM findings GROUP BY instance_id, frame_number, bundle_pk"
    for row in worker.query(f"SELECT * FROM ({several}) WHERE n > 1"):  # noqa: S608 - nothing of it is input
        yield f"doubled: instance {row['instance_id']} has {row['n']} findings"


def _report_problems(worker: Worker, reports: list[ReceivedReport], studies: set[str]) -> Iterator[str]:
    """One current report a study at the PACS; what else is there is what it replaces, directly or not."""
    revisions = worker.query(
        "SELECT r.sop_instance_uid, r.state, s.study_instance_uid, p.sop_instance_uid AS replaces "
        "FROM reports r JOIN studies s ON s.id = r.study_id LEFT JOIN reports p ON p.id = r.predecessor_id"
    )
    written = [row for row in revisions if row["state"] == "WRITTEN"]
    for study, count in Counter(row["study_instance_uid"] for row in written).items():
        if count > 1:
            yield f"doubled: study {study} has {count} current reports"
    arrived = {report.sop_instance_uid: report for report in reports}
    for report in reports:
        if report.path.read_bytes() != arrived[report.sop_instance_uid].path.read_bytes():
            yield f"doubled: report {report.sop_instance_uid} arrived with different bytes"
    replaces = {row["sop_instance_uid"]: row["replaces"] for row in revisions}
    for study in sorted(studies):
        current = [row["sop_instance_uid"] for row in written if row["study_instance_uid"] == study]
        here = {uid for uid, report in arrived.items() if report.study_instance_uid == study}
        yield from _study_problems(study, current, here, replaces, arrived)
    unknown = set(arrived) - set(replaces)
    yield from (f"doubled: report {uid} is at the PACS and not in the database" for uid in sorted(unknown))


def _study_problems(
    study: str,
    current: list[str],
    here: set[str],
    replaces: dict[str, str | None],
    arrived: dict[str, ReceivedReport],
) -> Iterator[str]:
    if not current:
        yield f"stuck: study {study} has no current report"
        return
    if current[0] not in here:
        yield f"lost: the current report of study {study} is not at the PACS"
        return
    chain: set[str] = set()
    uid: str | None = current[0]
    while uid is not None:
        chain.add(uid)
        replaced = replaces.get(uid)
        if uid in arrived and arrived[uid].predecessors != ({replaced} if replaced else set()):
            yield f"report {uid} does not name what it replaces"
        uid = replaced
    yield from (f"doubled: report {uid} of study {study} is replaced by none" for uid in sorted(here - chain))
