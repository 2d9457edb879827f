"""What the commands say of pages, lesion maps and forms of the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from factories.commands import Installation, install
from factories.runtime import receiving_pacs
from pydicom.uid import BasicTextSRStorage, Comprehensive3DSRStorage, EncapsulatedPDFStorage
from pydicom.uid import EnhancedSRStorage as Enhanced

from dicom_io.sender import Echo, Peer
from worker.commands.destinations import what_it_takes
from worker.settings import Destination


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    """A page that could not be made, of a report that the PACS has as Enhanced SR."""
    made = install(tmp_path)
    with made.rows() as rows:
        report = rows.report(rows.study(study_instance_uid="1.1"), rows.bundle())
        rows.accepted(report, "pacs", 200, sop_class_uid=str(Enhanced), sop_instance_uid="1.2.9")
        overlay = rows.document(report, kind="OVERLAY", state="WRITTEN")
        rows.accepted(report, "pacs", 210, document_id=overlay.id)
        rows.document(report, state="FAILED", attempts=5, reason_code="DOCUMENT_FAILED")
    return made


def taken(classes: tuple[str, ...], **options: Any) -> Echo:
    with receiving_pacs(classes=classes) as pacs:
        destination = Destination.model_validate(pacs.destination(**options))
        return what_it_takes(Peer("PACS", "127.0.0.1", pacs.port, "FUNDUS", 10), destination)


def test_check_says_in_which_form_reports_will_go() -> None:
    assert taken((BasicTextSRStorage, Enhanced)) == Echo(
        True, "The peer answered the echo; it gets reports as Enhanced SR Storage."
    )
    both = taken((Comprehensive3DSRStorage, EncapsulatedPDFStorage), pdf=True)
    assert both.ok
    assert "Comprehensive 3D SR Storage and Encapsulated PDF Storage" in both.detail


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sr_classes": ["basic-text"]}, "none of sr_classes (basic-text)"),
        ({"pdf": True}, "pdf = true and no Encapsulated PDF Storage"),
        ({"overlay": True}, "overlay = true and no Secondary Capture Image Storage"),
    ],
)
def test_check_is_red_when_a_destination_takes_less_than_it_is_to_get(
    options: dict[str, Any], said: str
) -> None:
    answer = taken((Comprehensive3DSRStorage,), **options)
    assert not answer.ok
    assert answer.detail.startswith("CONTEXT_NOT_ACCEPTED: ")
    assert said in answer.detail


def test_status_says_which_form_a_destination_holds_and_what_failed(installed: Installation) -> None:
    answer = installed.run("status")
    assert "current reports: 1 as Enhanced SR Storage; 1 page or picture beside them" in answer.words
    assert "pages and lesion maps that could not be made: 1, DOCUMENT_FAILED" in answer.words
    assert "fundus-worker requeue --documents" in answer.words
    found = json.loads(installed.run("status", "--json").out)["destinations"][0]
    assert (found["delivered"], found["documents_delivered"]) == (1, 1)
    assert found["forms"] == {"Enhanced SR Storage": 1}


def test_failed_documents_are_made_again_when_a_person_asks(installed: Installation) -> None:
    assert installed.run("requeue", "--documents", "--dry-run").words.startswith("1 page or lesion map would")
    assert installed.states("documents") == ["WRITTEN", "FAILED"]
    assert installed.run("requeue", "--documents", "--study", "9.9").words.startswith("0 pages")
    assert json.loads(installed.run("requeue", "--documents", "--json").out)["documents"] == 1
    assert installed.states("documents") == ["WRITTEN", "PENDING"]


def test_a_form_is_named_once() -> None:
    values = {"name": "pacs", "ae_title": "PACS", "host": "h", "port": 1}
    with pytest.raises(ValueError, match="twice"):
        Destination.model_validate({**values, "sr_classes": ["enhanced", "enhanced"]})
    with pytest.raises(ValueError, match="sr_classes"):
        Destination.model_validate({**values, "sr_classes": []})
    plain = Destination.model_validate(values)
    assert plain.document_kinds == ()
    assert plain.sr_classes[0] == "comprehensive-3d"
