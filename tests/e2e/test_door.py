"""What knocks at the door and is not let in: each gets a clear answer and a row, and leaves no trace."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from factories.photographs import SentStudy, camera_strings, write_studies
from factories.process import Footprint, Worker, bundle_to_test, worker
from factories.servers import free_port
from factories.storescu import CALLING_AE, echoscu, send_study, storescu
from pydicom import dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

from dicom_io.sender import Outcome, Parcel, Peer, send
from dicom_io.wrap import OPHTHALMIC_PHOTOGRAPHY_8_BIT

PROBES = int(os.environ.get("FUNDUS_TEST_PROBES", "200"))
ROW_TIMEOUT_S = 60
THREADS_TO_SPARE = 2
MEMORY_TO_SPARE = 16 * 1024 * 1024
"""Allocators keep a little; a leak of one association's threads and buffers for each probe is far more."""
pytestmark = [pytest.mark.slow, pytest.mark.dcmtk, pytest.mark.timeout(600), pytest.mark.xdist_group("door")]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[SentStudy]:
    """Studies that the door takes; each test sends its own."""
    folder = tmp_path_factory.mktemp("studies")
    bundle = bundle_to_test(folder / "bundle")
    return write_studies(folder / "studies", 8, camera_strings(bundle)[:1])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker that lets one caller in; its PACS is away, which is none of its door's business."""
    folder = tmp_path_factory.mktemp("door")
    bundle = bundle_to_test(folder / "bundle")
    listener = {"allowed_callers": [CALLING_AE, "PROBE"], "acse_timeout_s": 3, "network_timeout_s": 5}
    with worker(folder, bundle=bundle, pacs_port=free_port(), listener=listener) as installed:
        yield installed


@pytest.fixture(autouse=True)
def service_is_up_afterwards(served: Worker) -> Iterator[None]:
    """Whatever was at the door: the process is the same one, and answers DCMTK's C-ECHO."""
    process = served.process.pid
    yield
    assert echoscu(served.port)
    assert served.process.pid == process
    assert served.process.poll() is None


def rejections(served: Worker, reason_code: str) -> int:
    """How often that was turned away, repetitions counted."""
    return served.count("SELECT sum(count) FROM v_rejections WHERE reason_code = ?", reason_code)


def wait_for_rejections(served: Worker, reason_code: str, count: int) -> None:
    served.wait_for(
        lambda: rejections(served, reason_code) >= count,
        lambda: f"{count} rejections {reason_code}, not {rejections(served, reason_code)}",
        ROW_TIMEOUT_S,
    )
    assert rejections(served, reason_code) == count


def test_a_wrong_called_ae_title_is_rejected_by_that_name(served: Worker, studies: list[SentStudy]) -> None:
    sending = storescu(served.port, studies[0].files, jpeg=True, called_ae="SOMEBODY")

    assert sending.status != 0
    assert "Called AE Title Not Recognized" in sending.output
    wait_for_rejections(served, "CALLED_AE_UNKNOWN", 1)
    (row,) = served.query("SELECT * FROM v_rejections WHERE reason_code = 'CALLED_AE_UNKNOWN'")
    assert (row["kind"], row["called_ae"], row["calling_ae"]) == ("ASSOCIATION", "SOMEBODY", CALLING_AE)


def test_a_caller_that_is_not_allowed_is_rejected_by_that_name(
    served: Worker, studies: list[SentStudy]
) -> None:
    sending = storescu(served.port, studies[0].files, jpeg=True, calling_ae="STRANGER")

    assert sending.status != 0
    assert "Calling AE Title Not Recognized" in sending.output
    wait_for_rejections(served, "CALLING_AE_UNKNOWN", 1)


def test_a_ct_image_has_no_presentation_context_and_a_row(served: Worker, tmp_path: Path) -> None:
    before = rejections(served, "CONTEXT_NOT_ACCEPTED")

    sending = storescu(served.port, [written_ct(tmp_path / "ct.dcm")])

    assert sending.status != 0
    assert "No Acceptable Presentation Contexts" in sending.output
    wait_for_rejections(served, "CONTEXT_NOT_ACCEPTED", before + 1)
    (row,) = served.query("SELECT * FROM v_rejections ORDER BY last_at DESC, id DESC LIMIT 1")
    assert (row["kind"], row["sop_class_uid"]) == ("CONTEXT", CTImageStorage)


def test_a_photograph_beside_a_ct_image_is_taken(
    served: Worker, studies: list[SentStudy], tmp_path: Path
) -> None:
    before = rejections(served, "CONTEXT_NOT_ACCEPTED")
    files = [written_ct(tmp_path / "ct.dcm"), *studies[1].files]

    sending = storescu(served.port, files, jpeg=True, options=("-R", "--no-halt"))

    assert sending.acknowledged == list(studies[1].files)
    wait_for_rejections(served, "CONTEXT_NOT_ACCEPTED", before + 1)


def test_storescu_itself_refuses_a_text_file_and_the_service_does_not_mind(
    served: Worker, tmp_path: Path
) -> None:
    text = tmp_path / "letter.txt"
    text.write_text("Dear colleague, please find enclosed\n" * 100)

    sending = storescu(served.port, [text], options=())

    assert sending.status != 0
    assert "Bad DICOM file" in sending.output
    assert sending.answers == {}


def test_text_sent_as_a_photograph_is_answered_with_what_is_wrong(served: Worker, tmp_path: Path) -> None:
    path = tmp_path / "letter.dcm"
    uid = generate_uid(prefix=None)
    written_with_meta(
        path, OPHTHALMIC_PHOTOGRAPHY_8_BIT, uid, b"Dear colleague, please find enclosed\n" * 100
    )

    outcome = offered(served, path, uid)

    assert (outcome.accepted, outcome.reason_code) == (False, "STORE_REFUSED")
    assert outcome.status in (0xA900, 0xC210)  # data set does not match SOP class, cannot understand
    (row,) = served.query("SELECT * FROM v_rejections WHERE sop_instance_uid = ?", uid)
    assert (row["kind"], row["status"]) == ("STORE", f"0x{outcome.status:04X}")
    assert row["reason_code"] in ("IDENTIFIER_MISSING", "UNREADABLE_OBJECT")


def test_text_instead_of_an_association_request_is_a_probe(served: Worker) -> None:
    before = turned_away(served)

    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: fundus\r\n\r\n")
        drain(connection)

    served.wait_for(lambda: turned_away(served) == before + 1, "one more rejection", ROW_TIMEOUT_S)


@pytest.mark.parametrize("bytes_sent", [1, 6, 100])
def test_a_truncated_association_request_has_a_row(
    served: Worker, studies: list[SentStudy], bytes_sent: int
) -> None:
    before = turned_away(served)

    with cut_after(served.port, bytes_sent) as port:
        sending = send_study(port, studies[2])

    assert sending.status != 0
    served.wait_for(lambda: turned_away(served) == before + 1, "one more rejection", ROW_TIMEOUT_S)


def test_an_association_request_that_never_ends_is_given_up(served: Worker) -> None:
    before = turned_away(served)
    threads = served.footprint().threads

    with socket.create_connection(("127.0.0.1", served.port), timeout=ROW_TIMEOUT_S) as connection:
        connection.sendall(b"\x01\x00\x00\x00\x00\xce\x00\x01")
        drain(connection)  # until the listener hangs up

    served.wait_for(lambda: turned_away(served) == before + 1, "one more rejection", ROW_TIMEOUT_S)
    wait_for_threads(served, threads)


def test_an_object_cut_off_on_the_wire_has_a_row_and_is_taken_when_it_comes_again(
    served: Worker, studies: list[SentStudy]
) -> None:
    study = studies[3]
    first = study.photographs[0]

    with cut_after(served.port, first.path.stat().st_size // 2) as port:
        cut = send_study(port, study)
    found = "SELECT count(*) FROM v_rejections WHERE sop_instance_uid = ? AND kind = 'STORE'"
    served.wait_for(lambda: served.count(found, first.sop_instance_uid) == 1, "the row", ROW_TIMEOUT_S)
    again = send_study(served.port, study)

    assert cut.acknowledged == []
    assert again.acknowledged == list(study.files)
    assert list((served.data / "spool" / "incoming").iterdir()) == []


def test_connect_and_close_probes_leave_no_thread_no_descriptor_and_no_memory(served: Worker) -> None:
    before = turned_away(served)
    knock(served.port, 50)  # what is made once is made now
    served.wait_for(lambda: turned_away(served) == before + 50, "50 rejections", ROW_TIMEOUT_S)
    start = settled(served)

    knock(served.port, PROBES)

    served.wait_for(
        lambda: turned_away(served) == before + 50 + PROBES,
        lambda: f"{PROBES} rejections, not {turned_away(served) - before - 50}",
        ROW_TIMEOUT_S + PROBES,
    )
    wait_for_threads(served, start.threads)
    end = settled(served)
    sys.stdout.write(f"\nbefore {PROBES} probes {start}, after {end}")
    assert end.descriptors <= start.descriptors + THREADS_TO_SPARE
    assert end.resident_bytes <= start.resident_bytes + MEMORY_TO_SPARE
    rows = served.count("SELECT count(*) FROM v_rejections WHERE reason_code = 'CONNECTION_PROBE'")
    assert rows < PROBES / 4, "equal rejections share a row"


def test_a_study_is_still_taken_after_all_that(served: Worker, studies: list[SentStudy]) -> None:
    sending = send_study(served.port, studies[4])

    assert sending.acknowledged == list(studies[4].files)


def turned_away(served: Worker) -> int:
    """All rejections, repetitions counted."""
    return served.count("SELECT sum(count) FROM v_rejections")


def knock(port: int, times: int) -> None:
    for _ in range(times):
        socket.create_connection(("127.0.0.1", port), timeout=30).close()


def drain(connection: socket.socket) -> None:
    """Read until the other side hangs up."""
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        pass  # hung up all the same


def settled(served: Worker) -> Footprint:
    """The footprint once two looks in a row agree on it: threads end a moment after their connection."""
    last, current = None, served.footprint()
    deadline = time.monotonic() + ROW_TIMEOUT_S
    while last != current and time.monotonic() < deadline:
        time.sleep(0.3)
        last, current = current, served.footprint()
    return current


def wait_for_threads(served: Worker, threads: int) -> None:
    served.wait_for(
        lambda: served.footprint().threads <= threads + THREADS_TO_SPARE,
        lambda: f"{threads} threads, not {served.footprint().threads}",
        ROW_TIMEOUT_S,
    )


def written_ct(path: Path) -> Path:
    """A CT image, small and as empty as storescu lets it be."""
    uid = generate_uid(prefix=None)
    written_with_meta(path, CTImageStorage, uid, b"")
    ds = dcmread(path)
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = CTImageStorage, UID(uid), "CT"
    ds.StudyInstanceUID = ds.SeriesInstanceUID = generate_uid(prefix=None)
    ds.save_as(path, enforce_file_format=True)
    return path


def written_with_meta(path: Path, sop_class_uid: str, sop_instance_uid: str, content: bytes) -> None:
    """Write file meta information of an object, and any bytes in place of its data set."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class_uid), UID(sop_instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128)).save_as(path, enforce_file_format=True)
    with path.open("ab") as file:
        file.write(content)


def offered(served: Worker, path: Path, uid: str) -> Outcome:
    """Offer a file's bytes as they are: storescu would not send what it cannot read."""
    peer = Peer("FUNDUS", "127.0.0.1", served.port, CALLING_AE, timeout_s=60)
    (outcome,) = send(peer, [Parcel(1, path, OPHTHALMIC_PHOTOGRAPHY_8_BIT, uid)])
    return outcome


@contextmanager
def cut_after(port: int, bytes_sent: int) -> Iterator[int]:
    """A port that passes one connection on to `port`, and cuts it after so many bytes from the caller."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(ROW_TIMEOUT_S)
        thread = threading.Thread(target=_pass_on, args=(server, port, bytes_sent), daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
        thread.join(ROW_TIMEOUT_S)


def _pass_on(server: socket.socket, port: int, allowance: int) -> None:
    caller, _ = server.accept()
    with caller, socket.create_connection(("127.0.0.1", port), timeout=ROW_TIMEOUT_S) as listener:
        back = threading.Thread(target=_copy, args=(listener.recv, caller.sendall), daemon=True)
        back.start()
        caller.settimeout(ROW_TIMEOUT_S)
        while allowance > 0 and (data := caller.recv(min(allowance, 65536))):
            listener.sendall(data)
            allowance -= len(data)
        for connection in (listener, caller):
            connection.shutdown(socket.SHUT_RDWR)
        back.join(ROW_TIMEOUT_S)


def _copy(read: Callable[[int], bytes], write: Callable[[bytes], object]) -> None:
    try:
        while data := read(65536):
            write(data)
    except OSError:
        return  # cut, as it was meant to be
