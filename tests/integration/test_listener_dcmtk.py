"""The listener against DCMTK's senders, which hospitals' routers resemble more than pynetdicom does."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from factories.dicom import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    write_fundus,
)
from factories.listening import Recorder, listening, wait_until
from pydicom.uid import UID, CTImageStorage

from dicom_io.header import read_header
from dicom_io.listener import Listener

# The scripts of the same names that pynetdicom installs would hide DCMTK's in a virtual environment.
STORESCU, ECHOSCU = Path("/usr/bin/storescu"), Path("/usr/bin/echoscu")

pytestmark = [
    pytest.mark.dcmtk,
    pytest.mark.skipif(
        not STORESCU.exists() and "CI" not in os.environ, reason="DCMTK is not installed (apt install dcmtk)"
    ),
]
PROPOSAL = {JPEGBaseline8Bit: "-xy", ExplicitVRLittleEndian: "-xe", ImplicitVRLittleEndian: "-xi"}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[Listener, Recorder]]:
    with listening(tmp_path, allowed_callers=("ROUTER",)) as running:
        yield running


def call(program: Path, listener: Listener, *arguments: str | Path, aet: str = "ROUTER") -> tuple[int, str]:
    done = subprocess.run(
        [program, "-v", "-aet", aet, "-aec", "FUNDUS", "127.0.0.1", str(listener.port), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_echoscu(service: tuple[Listener, Recorder]) -> None:
    code, output = call(ECHOSCU, service[0])

    assert (code, "Success" in output) == (0, True), output


@pytest.mark.parametrize("transfer_syntax", list(PROPOSAL))
def test_storescu_sends_each_encoding(
    service: tuple[Listener, Recorder], tmp_path: Path, transfer_syntax: UID
) -> None:
    listener, recorder = service
    sent = [
        write_fundus(tmp_path / f"{seed}.dcm", seed=seed, size=400, transfer_syntax=transfer_syntax)
        for seed in range(3)
    ]

    # -R proposes only what the files need
    code, output = call(STORESCU, listener, "-R", PROPOSAL[transfer_syntax], *sorted(tmp_path.glob("*.dcm")))
    wait_until(lambda: recorder.closed)

    assert code == 0, output
    assert recorder.rejections == []
    headers = [read_header(recorder.spool.path(stored.relative_path)) for stored in recorder.stored]
    assert [header.sop_instance_uid for header in headers] == [ds.SOPInstanceUID for ds in sent]
    assert {header.transfer_syntax_uid for header in headers} == {transfer_syntax}


def test_a_ct_image_is_turned_away_at_the_context(service: tuple[Listener, Recorder], tmp_path: Path) -> None:
    listener, recorder = service
    write_fundus(tmp_path / "ct.dcm", sop_class=CTImageStorage, transfer_syntax=ExplicitVRLittleEndian)

    code, output = call(STORESCU, listener, "-R", tmp_path / "ct.dcm")
    wait_until(lambda: recorder.closed)

    assert code != 0
    assert "No Acceptable Presentation Contexts" in output
    assert {rejection.sop_class_uid for rejection in recorder.of_kind("CONTEXT")} == {CTImageStorage}
    assert recorder.received == []


def test_a_stranger_is_rejected(service: tuple[Listener, Recorder], tmp_path: Path) -> None:
    listener, recorder = service

    code, output = call(ECHOSCU, listener, aet="STRANGER")
    wait_until(lambda: recorder.rejections)

    assert code != 0
    assert "Calling AE Title Not Recognized" in output
    assert recorder.rejections[0].reason_code == "CALLING_AE_UNKNOWN"


def test_a_sender_that_aborts_instead_of_releasing(
    service: tuple[Listener, Recorder], tmp_path: Path
) -> None:
    listener, recorder = service

    call(ECHOSCU, listener, "--abort")
    wait_until(lambda: recorder.closed)

    assert [outcome for _, outcome in recorder.closed] == ["ABORTED"]


def test_a_refusal_reaches_the_sender_with_its_status(
    service: tuple[Listener, Recorder], tmp_path: Path
) -> None:
    listener, recorder = service
    recorder.answer = lambda received: 0xA700
    write_fundus(tmp_path / "a.dcm")

    _, output = call(STORESCU, listener, "-R", "-xy", tmp_path / "a.dcm")
    wait_until(lambda: recorder.closed)

    assert "Out of Resources" in output or "OutOfResources" in output, output
    assert recorder.rejections[0].status == 0xA700
