"""Senders that take too much of the door, over the wire."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import pytest
from factories.dicom import JPEGBaseline8Bit, make_fundus, write_fundus
from factories.listening import listening, wait_until
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import OphthalmicPhotography8BitImageStorage  # type: ignore[attr-defined]

from dicom_io.errors import BacklogError, DicomIoError
from dicom_io.limits import Limits
from dicom_io.sender import Parcel, Peer, send

SLOW_S = 2.0


def associated(port: int, ae_title: str = "CAMERA") -> Association:
    ae = AE(ae_title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
    ae.add_requested_context(OphthalmicPhotography8BitImageStorage, JPEGBaseline8Bit)
    return ae.associate("127.0.0.1", port, ae_title="FUNDUS")


def close(assoc: Association) -> None:
    """End an association from its sender's side, with the socket that pynetdicom may leave open."""
    connection = None if assoc.dul.socket is None else assoc.dul.socket.socket
    if assoc.is_established:
        assoc.abort()
    if connection is not None:
        connection.close()


def store_pdus(data: bytes, piece: int) -> Iterator[bytes]:
    """The P-DATA-TF PDUs of a C-STORE request, on presentation context 1."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 0
    request.AffectedSOPClassUID = OphthalmicPhotography8BitImageStorage
    request.AffectedSOPInstanceUID = "1.2.3"
    request.DataSet = BytesIO(data)
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    for primitive in message.encode_msg(1, piece):
        for context, value in primitive.presentation_data_value_list:
            item = struct.pack(">IB", len(value) + 1, context) + value
            yield b"\x04\x00" + struct.pack(">I", len(item)) + item


def wire(assoc: Association) -> socket.socket:
    transport = assoc.dul.socket
    assert transport is not None
    assert transport.socket is not None
    return transport.socket


def trickle(connection: socket.socket, data: bytes, stop: threading.Event) -> None:
    """Send 20 bytes a second until the other side has had enough."""
    try:
        for byte in data:
            if stop.wait(0.05):
                return
            connection.sendall(bytes([byte]))
    except OSError:
        return  # cut off, as it should be


def pour(connection: socket.socket, pdus: Iterator[bytes]) -> int:
    """Send as fast as it goes until the other side has had enough; return the bytes that went out."""
    sent = 0
    try:
        for pdu in pdus:
            connection.sendall(pdu)
            sent += len(pdu)
    except OSError:
        return sent
    return sent


def parcel(path: Path) -> Parcel:
    ds = write_fundus(path, transfer_syntax=JPEGBaseline8Bit)
    return Parcel(1, path, str(ds.SOPClassUID), str(ds.SOPInstanceUID))


def test_as_many_associations_as_allowed_are_accepted(tmp_path: Path) -> None:
    with listening(tmp_path, limits=Limits(associations=15)) as (listener, recorder), ExitStack() as ending:
        for _ in range(15):
            assoc = associated(listener.port)
            ending.callback(close, assoc)
            assert assoc.is_established
        one_more = associated(listener.port)
        ending.callback(close, one_more)
        assert one_more.is_rejected
        wait_until(lambda: recorder.rejections)

        assert [each.reason_code for each in recorder.rejections] == ["ASSOCIATION_LIMIT"]


def test_slow_senders_do_not_keep_honest_ones_out(tmp_path: Path) -> None:
    limits = Limits(associations=8, bytes_per_s=1000)
    stop = threading.Event()
    with (
        listening(tmp_path, limits=limits, network_timeout_s=30) as (listener, recorder),
        ExitStack() as ending,
    ):
        for number in range(8):
            assoc = associated(listener.port, f"SLOW{number}")
            ending.callback(close, assoc)
            first, *_ = store_pdus(bytes(100_000), 16_000)
            thread = threading.Thread(target=trickle, args=(wire(assoc), first, stop), daemon=True)
            thread.start()
            ending.callback(thread.join, 10)
        ending.callback(stop.set)
        time.sleep(5.5)

        outcomes = [
            outcome
            for number in range(4)
            for outcome in send(
                Peer("FUNDUS", "127.0.0.1", listener.port, f"HONEST{number}", 20),
                [parcel(tmp_path / f"{number}.dcm")],
            )
        ]

        assert [outcome.accepted for outcome in outcomes] == [True] * 4
        wait_until(lambda: recorder.rejections)
        assert {each.reason_code for each in recorder.rejections} == {"GAVE_WAY"}


@pytest.mark.parametrize("piece", [64, 60_000], ids=["many small PDUs", "one large PDU"])
def test_a_slow_object_is_cut_off(tmp_path: Path, piece: int) -> None:
    stop = threading.Event()
    with listening(tmp_path, network_timeout_s=SLOW_S) as (listener, recorder):
        assoc = associated(listener.port)
        command, *data = store_pdus(bytes(50_000), piece)
        wire(assoc).sendall(command)
        trickle(wire(assoc), b"".join(data), stop)
        close(assoc)
        wait_until(lambda: recorder.closed)

    assert "TOO_SLOW" in {each.reason_code for each in recorder.rejections}
    assert recorder.closed[0][1] == "ABORTED"
    assert not list(recorder.spool.incoming.iterdir())


def test_an_idle_association_is_ended_after_its_time(tmp_path: Path) -> None:
    with listening(tmp_path, limits=Limits(association_s=0.5)) as (listener, recorder):
        assoc = associated(listener.port)
        wait_until(lambda: recorder.closed)
        wait_until(lambda: assoc.is_aborted)
        close(assoc)

    assert [each.reason_code for each in recorder.rejections] == ["ASSOCIATION_TOO_LONG"]


def test_an_object_beyond_the_limit_is_refused_and_not_written(tmp_path: Path) -> None:
    ds = make_fundus()
    size = len(ds.PixelData)
    with listening(tmp_path, limits=Limits(object_bytes=size // 2 + 2000)) as (listener, recorder):
        assoc = associated(listener.port)
        answer = assoc.send_c_store(ds)
        assoc.release()
        wait_until(lambda: recorder.closed)

    assert answer.Status == 0xC212
    assert recorder.received == []
    assert [(each.kind, each.reason_code) for each in recorder.rejections] == [("STORE", "OBJECT_TOO_LARGE")]


def test_an_object_without_end_is_cut_off(tmp_path: Path) -> None:
    with listening(tmp_path, limits=Limits(object_bytes=100_000)) as (listener, recorder):
        assoc = associated(listener.port)
        accepted = pour(wire(assoc), store_pdus(bytes(100_000_000), 16_000))
        close(assoc)
        wait_until(lambda: recorder.closed)

    assert recorder.rejections[0].reason_code == "OBJECT_TOO_LARGE"
    assert "cut off" in recorder.rejections[0].detail
    assert accepted < 100_000_000


def test_a_pdu_of_four_gigabytes_is_not_read(tmp_path: Path) -> None:
    with (
        listening(tmp_path) as (listener, recorder),
        socket.create_connection(("127.0.0.1", listener.port), timeout=20) as connection,
    ):
        connection.sendall(b"\x01\x00\xff\xff\xff\xff" + bytes(100))
        wait_until(lambda: recorder.rejections)

    (rejection,) = recorder.rejections
    assert (rejection.kind, rejection.reason_code) == ("CONNECTION", "PDU_TOO_LARGE")


def test_connections_beyond_the_limit_are_closed_at_once(tmp_path: Path) -> None:
    with listening(tmp_path, limits=Limits(connections=1)) as (listener, recorder):
        assoc = associated(listener.port)
        with socket.create_connection(("127.0.0.1", listener.port), timeout=20) as second:
            assert second.recv(1) == b""
        wait_until(lambda: recorder.rejections)
        close(assoc)

    assert [(each.kind, each.reason_code) for each in recorder.rejections] == [
        ("CONNECTION", "CONNECTION_LIMIT")
    ]


def test_connections_that_say_nothing_do_not_keep_a_sender_out(tmp_path: Path) -> None:
    with (
        listening(tmp_path, limits=Limits(connections=3)) as (listener, recorder),
        ExitStack() as ending,
    ):
        silent = [
            ending.enter_context(socket.create_connection(("127.0.0.1", listener.port), timeout=20))
            for _ in range(3)
        ]
        wait_until(lambda: listener.open_connections == 3)

        (outcome,) = send(
            Peer("FUNDUS", "127.0.0.1", listener.port, "CAMERA", 20), [parcel(tmp_path / "a.dcm")]
        )

        assert outcome.accepted
        assert silent[0].recv(1) == b"", "the one that waited longest made room"
        wait_until(lambda: recorder.rejections)
        assert recorder.rejections[0].reason_code == "CONNECTION_LIMIT"


def test_under_pressure_an_object_is_refused_for_now_and_taken_later(tmp_path: Path) -> None:
    problems: list[DicomIoError] = [BacklogError("too many wait")]
    with listening(tmp_path, pressure=lambda: problems[0] if problems else None) as (listener, recorder):
        peer = Peer("FUNDUS", "127.0.0.1", listener.port, "CAMERA", 20)
        (first,) = send(peer, [parcel(tmp_path / "a.dcm")])
        problems.clear()
        (second,) = send(peer, [parcel(tmp_path / "a.dcm")])

    assert (first.status, first.retryable, second.accepted) == (0xA700, True, True)
    assert [each.reason_code for each in recorder.rejections] == ["BACKLOG_LIMIT"]


def test_a_caller_that_asks_too_often_is_rejected_for_now(tmp_path: Path) -> None:
    with listening(tmp_path, limits=Limits(requests_per_minute=1)) as (listener, recorder):
        first, second = associated(listener.port), associated(listener.port)
        assert (first.is_established, second.is_rejected) == (True, True)
        close(first)
        close(second)
        wait_until(lambda: recorder.rejections)

    assert (recorder.rejections[0].reason_code, recorder.rejections[0].status) == (
        "ASSOCIATION_RATE",
        0x020301,
    )
