"""Many at the door at once: nobody waits for somebody else's row, and each gets what he is due."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from factories.dicom import make_fundus
from factories.door import Wire, associate_rq, store_pdus
from factories.listening import listening, wait_until

from dicom_io.acceptor import Acceptor
from dicom_io.callers import CallerRule
from dicom_io.limits import Limits
from dicom_io.listener import ReceivedObject, TurnedAway
from dicom_io.sender import Peer, echo

LOOPBACK, ELSEWHERE = ip_network("127.0.0.0/8"), ip_network("10.1.0.0/16")


@contextmanager
def wire(port: int, ae_title: str = "CAMERA") -> Iterator[Wire]:
    with Wire(("127.0.0.1", port), ae_title) as opened:
        yield opened


def answers(port: int) -> bool:
    return echo(Peer("FUNDUS", "127.0.0.1", port, "CAMERA", 20)).ok


def test_nobody_waits_while_what_was_turned_away_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proceed = threading.Event()
    with listening(tmp_path) as (listener, recorder):
        written: list[TurnedAway] = []

        def slow(rejection: TurnedAway) -> None:
            proceed.wait(20)
            written.append(rejection)

        monkeypatch.setattr(recorder, "turned_away", slow)
        for _ in range(50):
            socket.create_connection(("127.0.0.1", listener.port), timeout=20).close()

        assert answers(listener.port)
        assert written == []
        proceed.set()
        wait_until(lambda: sum(each.count for each in written) == 50)


def test_a_connection_that_cannot_be_served_leaves_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(acceptor: Acceptor) -> None:
        raise RuntimeError("can't start new thread")

    with listening(tmp_path, limits=Limits(associations=1)) as (listener, recorder):
        with monkeypatch.context() as patched:
            patched.setattr(Acceptor, "start", no_thread)
            assert not answers(listener.port)
        wait_until(lambda: recorder.rejections)

        assert [each.reason_code for each in recorder.rejections] == ["CONNECTION_LOST"]
        assert answers(listener.port)


def test_it_is_left_to_a_rejected_peer_to_close(tmp_path: Path) -> None:
    request = associate_rq("CAMERA", called="ELSEWHERE")
    with listening(tmp_path) as (listener, _):
        with socket.create_connection(("127.0.0.1", listener.port), timeout=20) as peer:
            # Given a request that comes in pieces, and is rejected at the first one
            peer.sendall(request[:60])
            assert peer.recv(10)[0] == 0x03
            # When the rest comes
            peer.sendall(request[60:100])
            peer.settimeout(0.2)
            # Then the connection was not reset, which could have taken the answer away
            with pytest.raises(TimeoutError):
                peer.recv(1)
            peer.sendall(request[100:])
        assert answers(listener.port)


def test_connections_that_say_nothing_have_no_thread(tmp_path: Path) -> None:
    with listening(tmp_path) as (listener, _), ExitStack() as ending:
        before = threading.active_count()
        for _ in range(100):
            ending.enter_context(socket.create_connection(("127.0.0.1", listener.port), timeout=20))
        wait_until(lambda: listener.open_connections == 100)

        assert threading.active_count() == before


def test_requests_beyond_the_one_that_is_answered_wait_at_the_sender(tmp_path: Path) -> None:
    proceed = threading.Event()
    with listening(tmp_path) as (listener, recorder):
        incoming = recorder.spool.incoming

        def slow(received: ReceivedObject) -> int:
            proceed.wait(20)
            return recorder.store(received)

        recorder.answer = slow
        with wire(listener.port) as opened:
            assert opened.associate()
            data = [make_fundus(size=64, sop_uid=f"1.2.{number}") for number in range(20)]
            everything = b"".join(pdu for each in data for pdu in store_pdus(each))
            pushing = threading.Thread(target=opened.socket.sendall, args=(everything,), daemon=True)
            pushing.start()
            wait_until(lambda: len(list(incoming.iterdir())) == 2)
            pushing.join(0.5)
            assert len(list(incoming.iterdir())) == 2

            proceed.set()
            assert [opened.answer() for _ in data] == [0] * 20
            opened.release()
        pushing.join(20)

    assert recorder.rejections == []
    assert len(recorder.stored) == 20


def test_a_request_that_never_ends_keeps_nobody_out(tmp_path: Path) -> None:
    with (
        listening(tmp_path, limits=Limits(associations=1)) as (listener, recorder),
        wire(listener.port, "HALF") as half,
        wire(listener.port) as whole,
    ):
        half.socket.sendall(associate_rq("HALF")[:80])
        wait_until(lambda: any(each.lags for each in listener._server.acceptors()))

        assert whole.associate()
        wait_until(lambda: recorder.rejections)
        assert (recorder.rejections[0].kind, recorder.rejections[0].reason_code) == ("CONNECTION", "GAVE_WAY")


def test_who_is_rejected_takes_no_thread_and_counts_in_one_row(tmp_path: Path) -> None:
    with listening(tmp_path, allowed_callers=("OTHER",)) as (listener, recorder):
        before = threading.active_count()
        for _ in range(100):
            with wire(listener.port) as opened:
                assert not opened.associate()
        wait_until(lambda: recorder.turned_away_count == 100)

        assert threading.active_count() == before
        assert len(recorder.rejections) < 100
        assert {each.status for each in recorder.rejections} == {0x010103}


def test_two_that_ask_at_once_are_both_made_room_for(tmp_path: Path) -> None:
    with listening(tmp_path, limits=Limits(associations=2)) as (listener, recorder), ExitStack() as ending:
        for number in range(2):
            idle = ending.enter_context(wire(listener.port, f"IDLE{number}"))
            assert idle.associate()
        wait_until(lambda: all(each.lags for each in listener._server.acceptors()))

        newcomers = [ending.enter_context(wire(listener.port, f"NEW{number}")) for number in range(2)]
        accepted = [each.associate() for each in newcomers]

        assert accepted == [True, True]
        wait_until(lambda: len(recorder.rejections) == 2)
        assert {each.reason_code for each in recorder.rejections} == {"GAVE_WAY"}


def test_who_held_a_place_and_sent_nothing_is_not_made_room_for(tmp_path: Path) -> None:
    with (
        listening(tmp_path, limits=Limits(associations=1)) as (listener, recorder),
        wire(listener.port, "IDLE") as idle,
        wire(listener.port, "NEXT") as following,
        wire(listener.port, "IDLE") as again,
    ):
        assert idle.associate()
        wait_until(lambda: any(each.lags for each in listener._server.acceptors()))
        assert following.associate()
        wait_until(lambda: any(each.lags for each in listener._server.acceptors()))

        assert not again.associate()
        wait_until(lambda: len(recorder.rejections) == 2)
        assert [each.reason_code for each in recorder.rejections] == ["GAVE_WAY", "ASSOCIATION_LIMIT"]


@pytest.mark.parametrize(
    "sent",
    [
        b"\x09\x00\x00\x00\x00\x04abcd",
        b"\x04\x00" + struct.pack(">LL", 21, 17) + b"\x01\x03not a command s",
    ],
    ids=["no PDU", "no message"],
)
def test_what_is_no_dicom_within_an_association_has_a_row(tmp_path: Path, sent: bytes) -> None:
    with listening(tmp_path) as (listener, recorder), wire(listener.port) as opened:
        assert opened.associate()
        opened.socket.sendall(sent)
        wait_until(lambda: recorder.closed)

    assert [(each.kind, each.reason_code) for each in recorder.rejections] == [
        ("ASSOCIATION", "PROTOCOL_ERROR")
    ]


def test_a_disk_that_is_gone_is_said_to_the_sender(tmp_path: Path) -> None:
    def pressure() -> None:
        raise FileNotFoundError(2, "No such file or directory")

    with listening(tmp_path, pressure=pressure) as (listener, recorder), wire(listener.port) as opened:
        assert opened.associate()
        opened.push(make_fundus(size=64))
        assert opened.answer() == 0xA700
        opened.release()

    assert [each.reason_code for each in recorder.rejections] == ["OUT_OF_RESOURCES"]


@pytest.mark.parametrize(
    ("allowed", "rule", "reason"),
    [
        ((), CallerRule("CAMERA"), None),
        ((), CallerRule("OTHER"), "CALLING_AE_UNKNOWN"),
        (("*",), CallerRule("CAMERA", allowed=False), "CALLING_AE_UNKNOWN"),
        (("CAMERA",), CallerRule("CAMERA", networks=(ELSEWHERE,)), "CALLER_ADDRESS_UNKNOWN"),
        ((), CallerRule("CAMERA", networks=(ELSEWHERE, LOOPBACK)), None),
    ],
)
def test_a_rule_decides_who_may_call_from_where(
    tmp_path: Path, allowed: tuple[str, ...], rule: CallerRule, reason: str | None
) -> None:
    with (
        listening(tmp_path, allowed_callers=allowed, rules=[rule]) as (listener, recorder),
        wire(listener.port) as opened,
    ):
        assert opened.associate() == (reason is None)
        if reason is not None:
            wait_until(lambda: recorder.rejections)
            assert (recorder.rejections[0].reason_code, recorder.rejections[0].status) == (reason, 0x010103)


def test_a_caller_has_limits_of_its_own(tmp_path: Path) -> None:
    ds = make_fundus(size=64)
    own = Limits(associations_per_caller=1, object_bytes=len(b"".join(store_pdus(ds))) - 1000)
    options: dict[str, Any] = {"allowed_callers": ("*",), "rules": [CallerRule("CAMERA", limits=own)]}
    with (
        listening(tmp_path, **options) as (listener, recorder),
        wire(listener.port) as limited,
        wire(listener.port) as second,
        wire(listener.port, "OTHER") as other,
    ):
        assert [limited.associate(), second.associate(), other.associate()] == [True, False, True]
        for each in (limited, other):
            each.push(ds)
        assert [limited.answer(), other.answer()] == [0xC212, 0]

    reasons = {each.reason_code for each in recorder.of_kind("ASSOCIATION") + recorder.of_kind("STORE")}
    assert reasons >= {"CALLER_LIMIT", "OBJECT_TOO_LARGE"}
