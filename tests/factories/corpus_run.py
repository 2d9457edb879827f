"""The corpus sent to a running worker, and what became of each case."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from corpus.case import NOT_OFFERED, Case, Outcome
from corpus.storescu import PROFILE, configuration, contexts
from factories.process import Worker
from factories.received_reports import ReceivedReport, received_reports
from factories.servers import require_binary
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID
from pynetdicom import AE, _config, build_context
from pynetdicom.association import Association

_SENDING = re.compile(r"^I: Sending file: (.+)$")
_ANSWER = re.compile(r"^I: Received Store Response \((.+)\)$")
_NUMBER = re.compile(r"0x([0-9a-fA-F]{4})")
_STATUSES = {
    "Success": 0x0000,
    "Error: DataSetDoesNotMatchSOPClass": 0xA900,
    "Error: CannotUnderstand": 0xC210,  # its name of all 0xCxxx
}
_CURRENT = (
    "SELECT r.sop_instance_uid, s.study_instance_uid FROM reports r JOIN studies s ON s.id = r.study_id "
    "WHERE r.state = 'WRITTEN' AND s.withheld_reason IS NULL"
)

Statuses = dict[str, int]
"""Answer for each file, by name; a file that was not sent is not in it."""


def write_corpus(cases: Sequence[Case], folder: Path) -> list[Path]:
    """The files of the cases, and storescu's configuration for them."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: content for case in cases for name, content in case.files().items()}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    paths = [folder / name for name in files]
    (folder / "storescu.cfg").write_text(configuration(paths))
    return paths


def send_with_pynetdicom(port: int, files: Sequence[Path]) -> Statuses:
    """Every file byte by byte over one association, begun anew when the listener ends it.

    What has no presentation context there is offered once more by itself.
    """
    statuses: Statuses = {}
    waiting = list(files)
    while waiting:
        association = _associate(port, waiting)
        assert association.is_established
        while waiting and association.is_established:
            path = waiting.pop(0)
            if _pair(path) in _accepted(association):
                answer = _store(association, path)
                if answer is not None:
                    statuses[path.name] = answer
            elif not _accepted(_associate(port, [path])):
                statuses[path.name] = NOT_OFFERED
        if association.is_established:
            association.release()
    return statuses


def _pair(path: Path) -> tuple[str, str]:
    """SOP class and transfer syntax of a file."""
    return contexts([path])[0]


def _associate(port: int, files: Sequence[Path]) -> Association:
    ae = AE("CAMERA")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 60
    offered = [build_context(UID(sop_class), UID(syntax)) for sop_class, syntax in contexts(files)]
    return ae.associate("127.0.0.1", port, offered, ae_title="FUNDUS")


def _accepted(association: Association) -> set[tuple[str, str]]:
    return {(str(each.abstract_syntax), each.transfer_syntax[0]) for each in association.accepted_contexts}


def _store(association: Association, path: Path) -> int | None:
    """Send a file's bytes as they are; the status, None when the association ended instead."""
    chunked, _config.STORE_SEND_CHUNKED_DATASET = _config.STORE_SEND_CHUNKED_DATASET, True
    try:
        answer = association.send_c_store(path)
    finally:
        _config.STORE_SEND_CHUNKED_DATASET = chunked
    return int(answer.Status) if "Status" in answer else None


def send_with_storescu(port: int, files: Sequence[Path]) -> Statuses:
    """Every file by DCMTK, each in its own transfer syntax."""
    command: list[str | Path] = [require_binary("storescu"), "--verbose", "--no-halt", "-aec", "FUNDUS"]
    command += ["-xf", files[0].parent / "storescu.cfg", PROFILE, "127.0.0.1", str(port), *files]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240, check=False)
    statuses: Statuses = {}
    current = ""
    for line in done.stdout.decode(errors="replace").splitlines():
        if sending := _SENDING.match(line):
            current = Path(sending[1]).name
        elif "No presentation context for" in line and current:
            statuses[current] = NOT_OFFERED
        elif answer := _ANSWER.match(line):
            statuses[current] = _status(answer[1])
    return statuses


def _status(said: str) -> int:
    """The number behind DCMTK's name of a status."""
    number = _NUMBER.search(said)
    return int(number[1], 16) if number else _STATUSES[said]


@dataclass(frozen=True)
class CorpusRun:
    """A worker that has received the corpus, and everything that came of it.

    Attributes:
        worker: Still running, nothing waits.
        statuses: What the sender was answered.
        files: What was sent, by name.
        pacs: What the receiving PACS has.
    """

    worker: Worker
    statuses: Statuses
    files: Mapping[str, Path]
    pacs: Sequence[Path]

    @cached_property
    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """`v_results` by SOP Instance UID."""
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in self.worker.query("SELECT * FROM v_results ORDER BY instance_id, frame_number"):
            rows.setdefault(row["sop_instance_uid"], []).append(row)
        return rows

    @cached_property
    def reports(self) -> dict[str, ReceivedReport]:
        """Reports at the PACS by SOP Instance UID."""
        return {report.sop_instance_uid: report for report in received_reports(self.pacs)}

    @cached_property
    def _current(self) -> dict[str, str]:
        return {row["study_instance_uid"]: row["sop_instance_uid"] for row in self.worker.query(_CURRENT)}

    @cached_property
    def _rejections(self) -> list[dict[str, Any]]:
        return self.worker.query("SELECT * FROM v_rejections")

    def instances(self, case: Case) -> list[str]:
        """SOP Instance UIDs that the requests of a case announced, in order, each once."""
        paths = [path for name, path in self.files.items() if _is_of(name, case)]
        return list(
            dict.fromkeys(str(read_file_meta_info(path).MediaStorageSOPInstanceUID) for path in paths)
        )

    def problems(self, case: Case, expected: Outcome) -> list[str]:
        """What became of a case otherwise than expected, in words."""
        names = [name for name in self.files if _is_of(name, case)]
        wanted = dict(zip(names, _spread(expected.statuses, len(names)), strict=True))
        answers = {name: self.statuses.get(name) for name in names}
        found = [] if answers == wanted else [f"answered {answers}, expected {wanted}"]
        uids = self.instances(case)
        found += self._result_problems(uids, expected)
        if expected.report or expected.results:
            found += self._report_problems(uids, expected)
        if expected.rejection is not None:
            found += self._rejection_problems(uids, names, expected)
        return [f"{case.name}: {each}" for each in found]

    def _result_problems(self, uids: Sequence[str], expected: Outcome) -> list[str]:
        results = [
            tuple(dict.fromkeys((row["state"], row["reason_code"]) for row in self.rows.get(uid, ())))
            for uid in uids
        ]
        if not expected.results:
            return [f"stored as {results}"] if any(results) else []
        wanted = _spread(expected.results, len(uids))
        # Of several frames at least one must say it; the others may be of another side, say.
        fits = all(each in said for each, said in zip(wanted, results, strict=True))
        return [] if fits else [f"ended as {results}, expected {wanted}"]

    def _report_problems(self, uids: Sequence[str], expected: Outcome) -> list[str]:
        studies = {row["study_instance_uid"] for uid in uids for row in self.rows.get(uid, ())}
        if len(studies) != 1:
            return [f"in {len(studies)} studies"]
        current = self._current.get(studies.pop())
        if current is None or not expected.report:
            return [] if (current is None) == (not expected.report) else [f"report {current}"]
        report = self.reports.get(current)
        if report is None:
            return ["its report is not at the PACS"]
        stated = {side: eye.reason_code for side, eye in report.eyes.items()}
        graded = {side: eye.grade is not None for side, eye in report.eyes.items()}
        wanted = dict(expected.eyes)
        if stated != wanted or graded != {side: code is None for side, code in wanted.items()}:
            return [f"the report says {stated}, expected {wanted}"]
        return []

    def _rejection_problems(self, uids: Sequence[str], names: Sequence[str], expected: Outcome) -> list[str]:
        if NOT_OFFERED in expected.statuses:
            pairs = {_pair(self.files[name]) for name in names}
            rows = [
                row
                for row in self._rejections
                if row["kind"] == "CONTEXT"
                and (
                    row["sop_class_uid"] is None
                    or (row["sop_class_uid"], row["transfer_syntax_uid"]) in pairs
                )
            ]
        else:
            rows = [row for row in self._rejections if row["sop_instance_uid"] in uids]
        reasons = {row["reason_code"] for row in rows}
        return [] if reasons == {expected.rejection} else [f"turned away for {reasons}"]


def _is_of(name: str, case: Case) -> bool:
    return re.fullmatch(re.escape(case.name) + r"(\.\d+)?\.dcm", name) is not None


def _spread(values: Sequence[Any], number: int) -> list[Any]:
    return list(values) * number if len(values) == 1 else list(values)
