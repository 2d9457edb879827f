from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from factories.dcmtk import StoreScp, storescp_process
from factories.dicom import ImplicitVRLittleEndian, JPEGBaseline8Bit, write_fundus
from factories.reports import SHAPES
from factories.servers import free_port
from pydicom.filereader import read_file_meta_info
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt

from dicom_io.sender import Echo, Outcome, Parcel, Peer, echo, send

SR_UID = "2.25.3001"


def data_set(file: Path) -> bytes:
    """The bytes after the file meta information: what goes over the wire."""
    content = file.read_bytes()
    length = int.from_bytes(content[140:144], "little")  # (0002,0000) UL
    return content[144 + length :]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sent") / "report.dcm"
    path.write_bytes(SHAPES["two-eyes"]().file())
    return path


def parcels(report: Path, count: int) -> list[Parcel]:
    return [Parcel(key, report, Comprehensive3DSRStorage, SR_UID) for key in range(10, 10 + count)]


def peer(port: int, ae_title: str = "PACS", timeout_s: float = 5) -> Peer:
    return Peer(ae_title, "127.0.0.1", port, "FUNDUS", timeout_s)


@pytest.fixture(scope="module")
def storescp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreScp]:
    with storescp_process(tmp_path_factory.mktemp("storescp") / "received") as running:
        yield running


@contextmanager
def serving(entity: AE, *handlers: Any) -> Iterator[int]:
    """Run a pynetdicom server for the entity; yields its port."""
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=list(handlers))
    assert server is not None
    assert server.socket is not None
    try:
        yield int(server.socket.getsockname()[1])
    finally:
        server.shutdown()


@contextmanager
def scp(
    answer: int = 0x0000,
    *,
    accepts: tuple[str, ...] = (ExplicitVRLittleEndian,),
    abort_after: int | None = None,
    silent: bool = False,
    called_ae: str | None = None,
    maximum_associations: int = 10,
) -> Iterator[int]:
    """A pynetdicom PACS that answers as told; yields its port."""
    done = threading.Event()
    seen = 0

    def on_store(event: evt.Event) -> int:
        nonlocal seen
        seen += 1
        if abort_after is not None and seen > abort_after:
            event.assoc.abort()
        if silent:
            done.wait(30)
        return answer

    entity = AE(ae_title="PACS")
    entity.maximum_associations = maximum_associations
    entity.require_called_aet = called_ae is not None
    for transfer_syntax in accepts:
        entity.add_supported_context(Comprehensive3DSRStorage, transfer_syntax)
    entity.add_supported_context("1.2.840.10008.1.1")
    with serving(entity, (evt.EVT_C_STORE, on_store)) as port:
        try:
            yield port
        finally:
            done.set()


@contextmanager
def raw_server(reply: bytes | None) -> Iterator[int]:
    """A TCP server that answers a request with `reply` and hangs up; None keeps it mute. Yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                if reply is None:
                    connection.recv(65536)
                else:
                    connection.sendall(reply)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(10)


def reasons(outcomes: list[Outcome]) -> list[tuple[int, str | None, bool]]:
    return [(outcome.key, outcome.reason_code, outcome.retryable) for outcome in outcomes]


@pytest.mark.dcmtk
def test_dcmtk_receives_the_bytes_that_are_stored(storescp: StoreScp, report: Path) -> None:
    before = set(storescp.files())
    (outcome,) = send(peer(storescp.port), parcels(report, 1))
    (received,) = set(storescp.files()) - before
    assert outcome == Outcome(10, True, False, 0x0000, None, "The peer answered 0x0000 (Success).")
    assert data_set(received) == data_set(report)


@pytest.mark.dcmtk
def test_one_association_takes_files_of_several_classes_and_transfer_syntaxes(
    storescp_with_everything: StoreScp, report: Path, tmp_path: Path
) -> None:
    files = {SR_UID: report}
    sent = parcels(report, 1)
    for key, transfer_syntax in enumerate((JPEGBaseline8Bit, ImplicitVRLittleEndian, ExplicitVRLittleEndian)):
        path = tmp_path / f"{key}.dcm"
        ds = write_fundus(path, transfer_syntax=transfer_syntax, size=64)
        files[str(ds.SOPInstanceUID)] = path
        sent.append(Parcel(key, path, str(ds.SOPClassUID), str(ds.SOPInstanceUID)))
    outcomes = list(send(peer(storescp_with_everything.port), sent))
    assert [outcome.key for outcome in outcomes] == [10, 0, 1, 2]
    assert all(outcome.accepted for outcome in outcomes)
    for received in storescp_with_everything.files():
        meta = read_file_meta_info(received)
        stored = files.pop(str(meta.MediaStorageSOPInstanceUID))
        assert meta.TransferSyntaxUID == read_file_meta_info(stored).TransferSyntaxUID
        assert data_set(received) == data_set(stored)
    assert not files


@pytest.fixture
def storescp_with_everything(tmp_path: Path) -> Iterator[StoreScp]:
    with storescp_process(tmp_path / "received", options=["--accept-all"]) as running:
        yield running


@pytest.mark.dcmtk
def test_echo_is_answered(storescp: StoreScp) -> None:
    assert echo(peer(storescp.port)) == Echo(True, "The peer answered the echo.")


@pytest.mark.dcmtk
def test_a_refusal_by_dcmtk_is_told_with_its_words(report: Path, tmp_path: Path) -> None:
    with storescp_process(tmp_path / "received", options=["--refuse"]) as refusing:
        (outcome,) = send(peer(refusing.port), parcels(report, 1))
        answer = echo(peer(refusing.port))
    assert outcome.reason_code == "PEER_REJECTED_ASSOCIATION"
    assert "reject" in outcome.detail
    assert not answer.ok
    assert answer.detail.startswith("PEER_REJECTED_ASSOCIATION: ")


def test_a_wrong_ae_title_is_not_retried(report: Path) -> None:
    with scp(called_ae="PACS") as port:
        outcomes = list(send(peer(port, ae_title="OTHER"), parcels(report, 2)))
    rejected = ("PEER_REJECTED_ASSOCIATION", False)
    assert reasons(outcomes) == [(10, *rejected), (11, *rejected)]
    assert "Called AE title not recognised" in outcomes[0].detail


def test_a_busy_peer_is_tried_again(report: Path) -> None:
    rejection = bytes([3, 0, 0, 0, 0, 4, 0, 2, 3, 1])  # transient, presentation: temporary congestion
    with raw_server(rejection) as port:
        (outcome,) = send(peer(port), parcels(report, 1))
    assert (outcome.reason_code, outcome.retryable) == ("PEER_REJECTED_ASSOCIATION", True)


def test_nobody_at_the_port_is_unreachable(report: Path) -> None:
    port = free_port()
    outcomes = list(send(peer(port), parcels(report, 2)))
    unreachable = ("PEER_UNREACHABLE", True)
    assert reasons(outcomes) == [(10, *unreachable), (11, *unreachable)]
    assert not echo(peer(port)).ok


@pytest.mark.parametrize(
    "nowhere",
    [
        Peer("PACS", "no-such-host.invalid", 104, "FUNDUS", 5),
        Peer("PACS", "127.0.0.1", 104, "A TITLE THAT IS TOO LONG", 5),
    ],
)
def test_a_peer_that_cannot_even_be_called_is_unreachable(nowhere: Peer, report: Path) -> None:
    (outcome,) = send(nowhere, parcels(report, 1))
    assert (outcome.reason_code, outcome.accepted) == ("PEER_UNREACHABLE", False)


@pytest.mark.parametrize(
    "reply", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", None], ids=["http", "hang-up", "mute"]
)
def test_a_peer_that_does_not_answer_the_request_is_tried_again(reply: bytes | None, report: Path) -> None:
    with raw_server(reply) as port:
        (outcome,) = send(peer(port, timeout_s=1), parcels(report, 1))
    assert (outcome.reason_code, outcome.retryable) == ("CONNECTION_LOST", True)


def test_a_peer_without_our_transfer_syntax_does_not_accept_the_context(report: Path) -> None:
    with scp(accepts=(ImplicitVRLittleEndian,)) as port:
        outcomes = list(send(peer(port), parcels(report, 2)))
    refused = ("CONTEXT_NOT_ACCEPTED", False)
    assert reasons(outcomes) == [(10, *refused), (11, *refused)]


def test_one_context_of_two_accepted_sends_one_of_two(report: Path, tmp_path: Path) -> None:
    path = tmp_path / "image.dcm"
    ds = write_fundus(path, size=64)
    image = Parcel(1, path, str(ds.SOPClassUID), str(ds.SOPInstanceUID))
    with scp() as port:
        outcomes = list(send(peer(port), [image, *parcels(report, 1)]))
    assert reasons(outcomes) == [(1, "CONTEXT_NOT_ACCEPTED", False), (10, None, False)]
    assert "Ophthalmic Photography 8 Bit" in outcomes[0].detail


@pytest.mark.parametrize(
    ("status", "accepted", "retryable", "reason_code"),
    [
        (0x0000, True, False, None),
        (0xB000, True, False, None),
        (0xB007, True, False, None),
        (0x0107, True, False, None),
        (0x0111, True, False, None),
        (0xA700, False, True, "STORE_FAILED"),
        (0xA7FF, False, True, "STORE_FAILED"),
        (0x0110, False, True, "STORE_FAILED"),
        (0x0213, False, True, "STORE_FAILED"),
        (0xA900, False, False, "STORE_REFUSED"),
        (0xC000, False, False, "STORE_REFUSED"),
        (0xC210, False, False, "STORE_REFUSED"),
        (0x0122, False, False, "STORE_REFUSED"),
        (0x0124, False, False, "STORE_REFUSED"),
    ],
)
def test_a_status_decides(
    status: int, accepted: bool, retryable: bool, reason_code: str | None, report: Path
) -> None:
    with scp(status) as port:
        (outcome,) = send(peer(port), parcels(report, 1))
    assert (outcome.accepted, outcome.retryable, outcome.reason_code) == (accepted, retryable, reason_code)
    assert outcome.status == status
    assert f"0x{status:04X}" in outcome.detail


def test_an_association_that_is_cut_midway_fails_the_rest(report: Path) -> None:
    with scp(abort_after=2) as port:
        outcomes = list(send(peer(port), parcels(report, 5)))
    lost = ("CONNECTION_LOST", True)
    assert reasons(outcomes) == [(10, None, False), (11, None, False), (12, *lost), (13, *lost), (14, *lost)]


def test_a_peer_that_stops_answering_is_given_up_after_the_timeout(report: Path) -> None:
    with scp(silent=True) as port:
        outcomes = list(send(peer(port, timeout_s=1), parcels(report, 2)))
    assert [outcome.reason_code for outcome in outcomes] == ["CONNECTION_LOST", "CONNECTION_LOST"]


@pytest.mark.parametrize("peer_is", ["mute", "established"])
def test_a_hanging_peer_is_cut_off_when_we_are_stopping(
    peer_is: str, report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_io.calling.STOP_GRACE_S", 0.1)
    stopping = threading.Event()
    hanging = raw_server(None) if peer_is == "mute" else scp(silent=True)
    with hanging as port:
        threading.Timer(0.5, stopping.set).start()
        outcomes = list(send(peer(port, timeout_s=120), parcels(report, 2), stopping=stopping))
    assert reasons(outcomes) == [(10, "CONNECTION_LOST", True), (11, "CONNECTION_LOST", True)]


def test_stopping_leaves_a_peer_that_answers_its_time(storescp: StoreScp, report: Path) -> None:
    stopping = threading.Event()
    stopping.set()
    outcomes = list(send(peer(storescp.port), parcels(report, 2), stopping=stopping))
    assert [outcome.accepted for outcome in outcomes] == [True, True]


def test_a_damaged_file_does_not_stop_the_others(report: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.dcm"
    text.write_text("not DICOM")
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(report.read_bytes()[:150])
    bad = [
        Parcel(1, tmp_path / "missing.dcm", Comprehensive3DSRStorage, SR_UID),
        Parcel(2, text, Comprehensive3DSRStorage, SR_UID),
        Parcel(3, report, Comprehensive3DSRStorage, "2.25.404"),
        Parcel(4, cut, Comprehensive3DSRStorage, SR_UID),
    ]
    with scp() as port:
        outcomes = list(send(peer(port), [*bad, *parcels(report, 1)]))
    damaged = ("SPOOL_FILE_DAMAGED", False)
    assert reasons(outcomes) == [
        (1, *damaged),
        (2, *damaged),
        (3, *damaged),
        (4, *damaged),
        (10, None, False),
    ]


def test_what_is_not_wanted_any_more_when_its_turn_comes_is_left_out(report: Path) -> None:
    asked: list[int] = []

    def wanted(key: int) -> bool:
        asked.append(key)
        return key != 11

    with scp() as port:
        outcomes = list(send(peer(port), parcels(report, 3), wanted=wanted))
    assert reasons(outcomes) == [(10, None, False), (12, None, False)]
    assert asked == [10, 11, 12]


def test_nothing_sound_to_send_calls_nobody(tmp_path: Path) -> None:
    missing = Parcel(1, tmp_path / "missing.dcm", Comprehensive3DSRStorage, SR_UID)
    assert [outcome.key for outcome in send(peer(free_port()), [missing])] == [1]
    assert list(send(peer(free_port()), [])) == []


def test_a_file_that_vanishes_on_the_way_fails_it_and_the_rest(report: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{key}.dcm" for key in range(3)]
    for path in files:
        path.write_bytes(report.read_bytes())
    sent = [Parcel(key, path, Comprehensive3DSRStorage, SR_UID) for key, path in enumerate(files)]
    with scp() as port:
        outcomes = send(peer(port), sent)
        first = next(outcomes)
        files[1].unlink()
        rest = list(outcomes)
    assert first.accepted
    assert reasons(rest) == [(1, "CONNECTION_LOST", True), (2, "CONNECTION_LOST", True)]


def test_a_caller_that_stops_listening_releases_the_association(report: Path) -> None:
    released = threading.Event()
    entity = AE(ae_title="PACS")
    entity.add_supported_context(Comprehensive3DSRStorage)
    stored = (evt.EVT_C_STORE, lambda event: 0x0000)
    with serving(entity, stored, (evt.EVT_RELEASED, lambda event: released.set())) as port:
        outcomes = send(peer(port), parcels(report, 3))
        assert next(outcomes).accepted
        outcomes.close()  # type: ignore[attr-defined]  # the iterator is a generator
        assert released.wait(10)


@pytest.mark.parametrize("status", [0x0122, 0x0211])
def test_an_echo_that_is_refused_is_not_ok(status: int) -> None:
    entity = AE(ae_title="PACS")
    entity.add_supported_context("1.2.840.10008.1.1")
    with serving(entity, (evt.EVT_C_ECHO, lambda event: status)) as port:
        answer = echo(peer(port))
    assert answer == Echo(False, f"The peer answered the echo with status 0x{status:04X}.")


def test_an_echo_that_is_cut_off_is_not_ok() -> None:
    entity = AE(ae_title="PACS")
    entity.add_supported_context("1.2.840.10008.1.1")

    def on_echo(event: evt.Event) -> int:
        event.assoc.abort()
        return 0

    with serving(entity, (evt.EVT_C_ECHO, on_echo)) as port:
        answer = echo(peer(port))
    assert not answer.ok
    assert answer.detail.startswith("CONNECTION_LOST")
