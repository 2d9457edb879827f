"""The listener against pynetdicom as sender: objects, refusals and associations that end badly."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from factories.dicom import ExplicitVRLittleEndian, JPEGBaseline8Bit, make_fundus
from factories.listening import Recorder, listening, wait_until
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import CTImageStorage, OphthalmicPhotography8BitImageStorage, Verification  # type: ignore[attr-defined]

from dicom_io import incoming
from dicom_io.errors import SpoolFullError, UnreadableObjectError
from dicom_io.header import read_header
from dicom_io.limits import PDU_BYTES, Limits
from dicom_io.listener import Listener, ReceivedObject
from dicom_io.sop_classes import IMAGE_SOP_CLASSES, IMAGE_TRANSFER_SYNTAXES

Service = tuple[Listener, Recorder]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with listening(tmp_path) as running:
        yield running


CONNECTIONS: list[socket.socket] = []


@pytest.fixture(autouse=True)
def _closed_connections() -> Iterator[None]:
    """Close the senders' sockets; pynetdicom leaves one open whose peer went first."""
    yield
    while CONNECTIONS:
        CONNECTIONS.pop().close()


def remember_connection(event: Any) -> None:
    CONNECTIONS.append(event.assoc.dul.socket.socket)


def associate(
    listener: Listener, *contexts: tuple[str, str], ae_title: str = "CAMERA", called: str = "FUNDUS"
) -> Association:
    ae = AE(ae_title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    for sop_class, syntax in contexts or ((OphthalmicPhotography8BitImageStorage, JPEGBaseline8Bit),):
        ae.add_requested_context(sop_class, syntax)
    handlers: list[Any] = [(evt.EVT_CONN_OPEN, remember_connection)]
    return ae.associate("127.0.0.1", listener.port, ae_title=called, evt_handlers=handlers)


def no_temporary_file(recorder: Recorder) -> bool:
    return not list(recorder.spool.incoming.iterdir())


def data_set_bytes(ds: FileDataset) -> bytes:
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    meta_length = 144 + int.from_bytes(buffer.getvalue()[140:144], "little")
    return buffer.getvalue()[meta_length:]


def test_an_object_arrives_as_it_was_sent(service: Service) -> None:
    listener, recorder = service
    ds = make_fundus(sop_uid="1.2.3.4")

    assoc = associate(listener)
    status = assoc.send_c_store(ds, priority=1)
    assoc.release()
    wait_until(lambda: recorder.closed)

    assert status.Status == 0x0000
    stored = recorder.spool.path(recorder.stored[0].relative_path)
    assert stored.read_bytes().endswith(data_set_bytes(ds))
    assert dcmread(stored).file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    assert read_header(stored).sop_instance_uid == "1.2.3.4"
    received = recorder.received[0]
    assert (received.sop_instance_uid, received.dimse_priority) == ("1.2.3.4", 1)
    assert received.sop_class_uid == OphthalmicPhotography8BitImageStorage
    assert received.transfer_syntax_uid == JPEGBaseline8Bit
    assert (received.caller.calling_ae, received.caller.called_ae) == ("CAMERA", "FUNDUS")
    assert received.caller == recorder.opened[0] == recorder.closed[0][0]
    assert recorder.closed[0][1] == "RELEASED"
    assert recorder.rejections == []
    assert no_temporary_file(recorder)
    assert listener.open_associations == 0


def test_equal_objects_from_two_senders_make_equal_files(service: Service) -> None:
    listener, recorder = service
    ds = make_fundus()

    for name in ("ONE", "TWO"):
        assoc = associate(listener, ae_title=name)
        assoc.send_c_store(ds)
        assoc.release()

    assert recorder.stored[0] == recorder.stored[1]


def test_every_class_and_transfer_syntax_is_accepted(service: Service) -> None:
    listener, _ = service
    for sop_class in IMAGE_SOP_CLASSES:
        assoc = associate(listener, *((sop_class, syntax) for syntax in IMAGE_TRANSFER_SYNTAXES))
        assert {cx.transfer_syntax[0] for cx in assoc.accepted_contexts} == set(IMAGE_TRANSFER_SYNTAXES)
        assoc.release()


def test_echo(service: Service) -> None:
    listener, recorder = service

    assoc = associate(listener, (Verification, ExplicitVRLittleEndian))
    status = assoc.send_c_echo()
    assoc.release()

    assert status.Status == 0x0000
    assert recorder.rejections == []


def test_our_own_implementation_is_named(service: Service) -> None:
    listener, _ = service
    assoc = associate(listener)

    assert assoc.acceptor.implementation_class_uid == incoming.IMPLEMENTATION_CLASS_UID
    assert assoc.acceptor.implementation_version_name == "FUNDUS_WORKER"
    assert assoc.acceptor.maximum_length == PDU_BYTES
    assoc.release()


def test_parallel_associations_keep_their_objects_apart(service: Service) -> None:
    listener, recorder = service

    def send(number: int) -> None:
        assoc = associate(listener, ae_title=f"CAMERA{number}")
        for index in range(5):
            ds = make_fundus(size=64, seed=number * 10 + index, sop_uid=f"1.2.{number}.{index}")
            assert assoc.send_c_store(ds).Status == 0
        assoc.release()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: len(recorder.closed) == 4)

    assert {received.sop_instance_uid for received in recorder.received} == {
        f"1.2.{number}.{index}" for number in range(1, 5) for index in range(5)
    }
    for received in recorder.received:
        assert received.caller.calling_ae == f"CAMERA{received.sop_instance_uid.split('.')[2]}"
    for stored in recorder.stored:
        recorder.spool.read_verified(stored.relative_path, stored.sha256)


@pytest.mark.parametrize(
    ("options", "called", "reason", "status"),
    [
        ({}, "OTHER", "CALLED_AE_UNKNOWN", 0x010107),
        ({"allowed_callers": ("CAM1", "CAM2")}, "FUNDUS", "CALLING_AE_UNKNOWN", 0x010103),
        ({"limits": Limits(associations=0)}, "FUNDUS", "ASSOCIATION_LIMIT", 0x020302),
    ],
)
def test_an_association_that_is_not_wanted_is_rejected(
    tmp_path: Path, options: dict[str, Any], called: str, reason: str, status: int
) -> None:
    with listening(tmp_path, **options) as (listener, recorder):
        assoc = associate(listener, called=called)
        wait_until(lambda: recorder.rejections)

    assert assoc.is_rejected
    answer = assoc.acceptor.primitive
    assert answer is not None
    told = (answer.result, answer.result_source, answer.diagnostic)
    assert told == (status >> 16, status >> 8 & 255, status & 255)
    [rejection] = recorder.rejections
    assert (rejection.kind, rejection.reason_code, rejection.status) == ("ASSOCIATION", reason, status)
    assert (rejection.caller.calling_ae, rejection.caller.called_ae) == ("CAMERA", called)
    assert rejection.caller.host == "127.0.0.1"
    assert not recorder.opened
    assert not recorder.closed


def test_an_allowed_caller_is_served(tmp_path: Path) -> None:
    with listening(tmp_path, allowed_callers=("CAMERA",)) as (listener, recorder):
        assoc = associate(listener)
        assert assoc.is_established
        assoc.release()
    assert recorder.rejections == []


def test_the_limit_counts_open_associations_only(tmp_path: Path) -> None:
    with listening(tmp_path, limits=Limits(associations=1)) as (listener, recorder):
        first = associate(listener)
        probe = socket.create_connection(("127.0.0.1", listener.port))
        assert associate(listener).is_rejected
        first.release()
        wait_until(lambda: listener.open_associations == 0)
        again = associate(listener)
        assert again.is_established
        again.release()
        probe.close()
        wait_until(lambda: recorder.of_kind("CONNECTION"))


def test_each_abstract_syntax_that_is_not_accepted_is_told_once(service: Service) -> None:
    listener, recorder = service

    assoc = associate(
        listener,
        (OphthalmicPhotography8BitImageStorage, JPEGBaseline8Bit),
        (CTImageStorage, ExplicitVRLittleEndian),
        (CTImageStorage, JPEGBaseline8Bit),
        (OphthalmicPhotography8BitImageStorage, "1.2.840.10008.1.2.4.100"),
    )
    assoc.release()
    wait_until(lambda: recorder.closed)

    ct, video = sorted(recorder.rejections, key=lambda rejection: rejection.sop_class_uid or "")
    assert (ct.kind, ct.reason_code, ct.status) == ("CONTEXT", "CONTEXT_NOT_ACCEPTED", 3)
    assert (ct.sop_class_uid, ct.transfer_syntax_uid) == (CTImageStorage, ExplicitVRLittleEndian)
    assert "CT Image Storage" in ct.detail
    assert (video.status, video.transfer_syntax_uid) == (4, "1.2.840.10008.1.2.4.100")


def test_a_refused_object_is_told_and_removed(service: Service) -> None:
    listener, recorder = service
    recorder.answer = lambda received: 0xA900

    assoc = associate(listener)
    status = assoc.send_c_store(make_fundus(sop_uid="1.2.3"))
    assoc.release()
    wait_until(lambda: recorder.closed)

    assert status.Status == 0xA900
    [rejection] = recorder.rejections
    assert (rejection.kind, rejection.reason_code, rejection.status) == (
        "STORE",
        "IDENTIFIER_MISSING",
        0xA900,
    )
    assert rejection.sop_instance_uid == "1.2.3"
    assert rejection.transfer_syntax_uid == JPEGBaseline8Bit
    assert no_temporary_file(recorder)


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (SpoolFullError("full"), 0xA700, "OUT_OF_RESOURCES"),
        (UnreadableObjectError("odd"), 0xC210, "UNREADABLE_OBJECT"),
        (RuntimeError("a bug that quotes Doe^Jane"), 0xC211, "INTERNAL_ERROR"),
    ],
)
def test_an_error_while_storing_is_answered_and_told(
    service: Service, error: Exception, status: int, reason: str
) -> None:
    listener, recorder = service

    def fail(received: ReceivedObject) -> int:
        raise error

    recorder.answer = fail
    assoc = associate(listener)
    answered = assoc.send_c_store(make_fundus())
    recorder.answer = recorder.store
    later = assoc.send_c_store(make_fundus())
    assoc.release()

    assert (answered.Status, later.Status) == (status, 0x0000)
    [rejection] = recorder.rejections
    assert (rejection.status, rejection.reason_code) == (status, reason)
    assert "Doe" not in rejection.detail


def test_an_owner_that_fails_to_note_an_event_loses_no_object(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener, recorder = service

    def fail(*arguments: object) -> None:
        raise RuntimeError("no database")

    monkeypatch.setattr(recorder, "association_opened", fail)
    assoc = associate(listener)

    assert assoc.send_c_store(make_fundus()).Status == 0
    assoc.release()


def test_no_room_for_the_temporary_file_is_out_of_resources(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener, recorder = service
    write = os.write

    def full(descriptor: int, data: Any) -> int:
        if Path(f"/proc/self/fd/{descriptor}").readlink().parent == recorder.spool.incoming:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    assoc = associate(listener)
    refused = assoc.send_c_store(make_fundus())
    monkeypatch.undo()
    accepted = assoc.send_c_store(make_fundus())
    assoc.release()

    assert (refused.Status, accepted.Status) == (0xA700, 0x0000)
    assert [rejection.reason_code for rejection in recorder.rejections] == ["OUT_OF_RESOURCES"]
    assert no_temporary_file(recorder)


def test_a_folder_that_is_gone_is_out_of_resources(service: Service) -> None:
    listener, recorder = service
    recorder.spool.incoming.rmdir()

    assoc = associate(listener)
    status = assoc.send_c_store(make_fundus())
    assoc.release()

    assert status.Status == 0xA700


def test_an_object_of_another_class_than_its_context_is_refused(service: Service) -> None:
    listener, recorder = service
    assoc = associate(listener)
    ds = make_fundus(sop_class=CTImageStorage)

    answer = send_as_is(assoc, ds)
    assoc.release()

    assert answer == 0x0122
    assert recorder.received == []
    assert recorder.rejections[0].sop_class_uid == CTImageStorage


def send_as_is(assoc: Association, ds: FileDataset | None) -> int:
    """Send a C-STORE request without the sender's own checks."""
    request = C_STORE()
    request.MessageID = 7
    request.AffectedSOPClassUID = OphthalmicPhotography8BitImageStorage if ds is None else ds.SOPClassUID
    request.AffectedSOPInstanceUID = "1.2.3" if ds is None else ds.SOPInstanceUID
    request.Priority = 0
    if ds is not None:
        request.DataSet = BytesIO(data_set_bytes(ds))
    assoc._reactor_checkpoint.clear()
    assoc.dimse.send_msg(request, assoc.accepted_contexts[0].context_id or 1)
    _, response = assoc.dimse.get_msg(block=True)
    assoc._reactor_checkpoint.set()
    assert isinstance(response, C_STORE)
    return int(response.Status or 0)


def test_a_request_without_data_set_is_refused(service: Service) -> None:
    listener, recorder = service
    assoc = associate(listener)

    assert send_as_is(assoc, None) == 0xC210
    assoc.release()
    assert recorder.rejections[0].reason_code == "UNREADABLE_OBJECT"


def half_an_object(assoc: Association, recorder: Recorder) -> None:
    """Put the command and half a data set of a C-STORE on the wire."""
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = OphthalmicPhotography8BitImageStorage
    request.AffectedSOPInstanceUID = "1.2.3.9"
    request.Priority = 0
    request.DataSet = BytesIO(bytes(4000))
    from pynetdicom.dimse_messages import C_STORE_RQ

    message = C_STORE_RQ()
    message.primitive_to_message(request)
    context = assoc.accepted_contexts[0].context_id or 1
    fragments = list(message.encode_msg(context, 1000))
    for fragment in fragments[:-2]:
        assoc.dul.send_pdu(fragment)
    wait_until(lambda: any(path.stat().st_size > 2000 for path in recorder.spool.incoming.iterdir()))


def test_an_association_aborted_in_the_middle_of_an_object(service: Service) -> None:
    listener, recorder = service
    assoc = associate(listener)
    half_an_object(assoc, recorder)

    assoc.abort()
    wait_until(lambda: recorder.closed)

    [rejection] = recorder.rejections
    assert (rejection.kind, rejection.reason_code) == ("STORE", "ASSOCIATION_ABORTED")
    assert (rejection.sop_instance_uid, rejection.status) == ("1.2.3.9", None)
    assert recorder.closed[0][1] == "ABORTED"
    assert recorder.received == []
    assert no_temporary_file(recorder)


def test_a_connection_lost_in_the_middle_of_an_object(service: Service) -> None:
    listener, recorder = service
    assoc = associate(listener)
    half_an_object(assoc, recorder)

    # When the connection breaks inside a PDU
    connection = assoc.dul.socket
    assert connection is not None
    assert connection.socket is not None
    connection.socket.sendall(b"\x04\x00" + struct.pack(">L", 500) + b"\x00" * 100)
    connection.socket.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: recorder.closed)

    assert recorder.closed[0][1] == "CONNECTION_LOST"
    [rejection] = recorder.rejections
    assert (rejection.kind, rejection.reason_code) == ("STORE", "CONNECTION_LOST")
    assert no_temporary_file(recorder)


def test_a_message_that_is_none_ends_its_association_only(service: Service) -> None:
    listener, recorder = service
    assoc = associate(listener)
    connection = assoc.dul.socket
    assert connection is not None
    assert connection.socket is not None

    # When a "last command fragment" holds no command set
    body = b"\x01\x03" + b"not a command set"
    pdv = struct.pack(">L", len(body)) + body
    connection.socket.sendall(b"\x04\x00" + struct.pack(">L", len(pdv)) + pdv)
    wait_until(lambda: recorder.closed)

    assert recorder.closed[0][1] == "ABORTED"
    again = associate(listener)
    assert again.is_established
    again.release()


@pytest.mark.parametrize(
    "sent", [b"", b"\x01\x00", b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00\x00\x00\x00\x20abc"]
)
def test_a_connection_without_an_association_is_a_probe(service: Service, sent: bytes) -> None:
    listener, recorder = service

    with socket.create_connection(("127.0.0.1", listener.port)) as probe:
        probe.sendall(sent)
    wait_until(lambda: recorder.rejections)

    [rejection] = recorder.rejections
    assert (rejection.kind, rejection.reason_code) == ("CONNECTION", "CONNECTION_PROBE")
    assert (rejection.caller.calling_ae, rejection.caller.host) == ("", "127.0.0.1")
    assert not recorder.opened
    assert not recorder.closed


def test_silence_after_connecting_ends_after_the_time_limit(tmp_path: Path) -> None:
    with listening(tmp_path, acse_timeout_s=0.2) as (listener, recorder):
        with socket.create_connection(("127.0.0.1", listener.port)) as silent:
            silent.settimeout(20)
            assert silent.recv(1) == b"", "the listener closes the connection"
        wait_until(lambda: recorder.rejections)
    assert recorder.rejections[0].kind == "CONNECTION"


def test_an_idle_association_is_aborted(tmp_path: Path) -> None:
    with listening(tmp_path, network_timeout_s=0.3) as (listener, recorder):
        associate(listener)
        wait_until(lambda: recorder.closed)
    assert recorder.closed[0][1] == "ABORTED"


def test_probes_leave_neither_threads_nor_memory(service: Service) -> None:
    listener, recorder = service

    def probe(times: int) -> None:
        before = recorder.turned_away_count
        for _ in range(times):
            socket.create_connection(("127.0.0.1", listener.port)).close()
        wait_until(lambda: recorder.turned_away_count == before + times)

    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    probe(100)
    threads, memory = threading.active_count(), resident_bytes()
    probe(300)

    wait_until(lambda: threading.active_count() <= threads + 2)
    assert resident_bytes() - memory < 16 << 20
    assert {rejection.kind for rejection in recorder.rejections} == {"CONNECTION"}


def test_stop_waits_for_a_running_store(tmp_path: Path) -> None:
    # Given a store that takes a while
    began, proceed = threading.Event(), threading.Event()
    answers: list[int] = []
    with listening(tmp_path) as (listener, recorder):

        def slow(received: ReceivedObject) -> int:
            began.set()
            proceed.wait(20)
            return recorder.store(received)

        recorder.answer = slow
        assoc = associate(listener)
        sender = threading.Thread(target=lambda: answers.append(assoc.send_c_store(make_fundus()).Status))
        sender.start()
        assert began.wait(20)

        # When the listener stops
        stopper = threading.Thread(target=listener.stop, args=(20,))
        stopper.start()
        wait_until(lambda: refuses_connections(listener.port))
        proceed.set()
        stopper.join()
        sender.join()

    # Then the object was acknowledged, and the association ended afterwards
    assert answers == [0x0000]
    assert [outcome for _, outcome in recorder.closed] == ["ABORTED"]
    # The connections by which this test found the door closed may have come before it was.
    assert [each for each in recorder.rejections if each.kind != "CONNECTION"] == []


def refuses_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionError:
        return True
    return False


def test_stop_does_not_wait_for_ever(tmp_path: Path) -> None:
    proceed = threading.Event()
    with listening(tmp_path) as (listener, recorder):
        assoc = associate(listener)
        half_an_object(assoc, recorder)
        probe = socket.create_connection(("127.0.0.1", listener.port))
        wait_until(lambda: listener.open_connections == 2)

        listener.stop(0.1)

        assert [rejection.kind for rejection in recorder.of_kind("STORE")] == ["STORE"]
        assert recorder.of_kind("STORE")[0].reason_code == "ASSOCIATION_ABORTED"
        assert [outcome for _, outcome in recorder.closed] == ["ABORTED"]
        probe.close()
        proceed.set()
    assert no_temporary_file(recorder)


def test_a_listener_that_never_started_can_be_stopped(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    listener = Listener(
        recorder,
        ae_title="FUNDUS",
        host="127.0.0.1",
        port=0,
        allowed_callers=("*",),
        incoming=recorder.spool.incoming,
    )
    listener.stop(0)
    assert refuses_connections(listener.port)


def test_a_port_that_is_taken_is_an_error(service: Service) -> None:
    listener, recorder = service
    with pytest.raises(OSError, match="in use"):
        Listener(
            recorder,
            ae_title="FUNDUS",
            host="127.0.0.1",
            port=listener.port,
            allowed_callers=("*",),
            incoming=recorder.spool.incoming,
        )
