from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from factories.demo import study
from factories.reports import REPORT, SHAPES
from pydicom.uid import Comprehensive3DSRStorage
from pynetdicom import AE

from dicom_io.sender import Outcome, Parcel, Peer, echo, send
from worker.demo.errors import DemoError
from worker.demo.pacs import ReceivingPacs
from worker.demo.processes import free_port
from worker.demo.sending import send_studies


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[ReceivingPacs]:
    (tmp_path / "pacs").mkdir()
    with ReceivingPacs(tmp_path / "pacs", "DEMOPACS") as each:
        yield each


def peer_of(pacs: ReceivingPacs, ae_title: str = "DEMOPACS") -> Peer:
    return Peer(ae_title, "127.0.0.1", pacs.port, "FUNDUS", 10)


def send_report(pacs: ReceivingPacs, tmp_path: Path) -> Outcome:
    path = tmp_path / "report.dcm"
    path.write_bytes(SHAPES["two-eyes"]().file())
    (outcome,) = send(peer_of(pacs), [Parcel(1, path, Comprehensive3DSRStorage, REPORT)])
    return outcome


def test_a_report_arrives_as_it_was_sent(pacs: ReceivingPacs, tmp_path: Path) -> None:
    outcome = send_report(pacs, tmp_path)

    received = (tmp_path / "pacs" / f"{REPORT}.dcm").read_bytes()
    sent = (tmp_path / "report.dcm").read_bytes()
    data_set = sent[sent.index(b"\x08\x00\x05\x00CS") :]
    assert outcome.status == 0x0000
    assert received.endswith(data_set)
    assert pacs.received == 1


def test_a_report_that_is_sent_again_counts_once(pacs: ReceivingPacs, tmp_path: Path) -> None:
    send_report(pacs, tmp_path)
    again = send_report(pacs, tmp_path)

    assert again.accepted
    assert pacs.received == 1
    assert [path.name for path in (tmp_path / "pacs").iterdir()] == [f"{REPORT}.dcm"]


def test_it_answers_an_echo_to_its_own_name_only(pacs: ReceivingPacs) -> None:
    assert echo(peer_of(pacs)).ok
    assert "rejected" in echo(peer_of(pacs, "OTHER")).detail


def test_a_report_that_cannot_be_written_is_not_acknowledged(pacs: ReceivingPacs, tmp_path: Path) -> None:
    (tmp_path / "pacs").rmdir()

    outcome = send_report(pacs, tmp_path)

    assert (outcome.accepted, outcome.retryable, outcome.status) == (False, True, 0xA700)
    assert pacs.received == 0


def test_a_name_that_is_no_uid_never_becomes_a_file_name(pacs: ReceivingPacs, tmp_path: Path) -> None:
    report = SHAPES["two-eyes"]().build()
    report.SOPInstanceUID = "1.2.03"  # a component may not begin with a zero (PS3.5 section 9.1)
    entity = AE("FUNDUS")
    entity.add_requested_context(Comprehensive3DSRStorage)
    association = entity.associate("127.0.0.1", pacs.port, ae_title="DEMOPACS")

    status = association.send_c_store(report)
    association.release()

    assert status.Status == 0xC000
    assert list((tmp_path / "pacs").iterdir()) == []


def test_a_photograph_that_is_not_taken_is_an_error(tmp_path: Path) -> None:
    nobody = Peer("FUNDUS", "127.0.0.1", free_port(), "DEMOCAMERA", 5)

    with pytest.raises(DemoError, match=r"did not take 1\.dcm: SPOOL_FILE_DAMAGED"):
        send_studies(nobody, [study("R")], lambda: pytest.fail("nothing was accepted"))
