"""Counting at the door, and measuring a peer's pace, on a clock that the test moves."""

from __future__ import annotations

import pytest

from dicom_io.limits import PDU_BYTES, Breach, Gate, Limits, Pace, require_pdu_length
from dicom_io.refusals import CALLER_LIMIT, LIMIT, RATE

A, B = ("10.0.0.1", "A"), ("10.0.0.1", "B")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_one_caller_cannot_take_every_place() -> None:
    gate = Gate(Limits(associations=3, associations_per_caller=2))

    outcomes = [gate.admit("1", A), gate.admit("2", A), gate.admit("3", A), gate.admit("4", B)]

    assert outcomes == [None, None, CALLER_LIMIT, None]
    assert gate.admit("5", ("10.0.0.2", "A")) is LIMIT
    gate.leave("1")
    gate.leave("1")
    assert gate.open_associations == 2
    assert gate.admit("6", A) is None


def test_requests_of_one_caller_are_counted_by_the_minute() -> None:
    clock = Clock()
    gate = Gate(Limits(requests_per_minute=60), clock)

    first = [gate.may_ask(A) for _ in range(61)]
    clock.now += 1

    assert first == [None] * 60 + [RATE]
    assert gate.may_ask(B) is None
    assert [gate.may_ask(A), gate.may_ask(A)] == [None, RATE]


def test_who_asks_too_often_still_gets_its_share() -> None:
    clock = Clock()
    gate = Gate(Limits(requests_per_minute=60), clock)
    for _ in range(60):
        gate.may_ask(A)

    granted = 0
    for _ in range(100):  # ten times a second, for ten seconds
        clock.now += 0.1
        granted += gate.may_ask(A) is None

    assert granted in (9, 10)


def test_a_caller_may_have_limits_of_its_own() -> None:
    gate = Gate(Limits(associations=10, associations_per_caller=1, requests_per_minute=1))
    own = Limits(associations_per_caller=2, requests_per_minute=2)

    assert [gate.may_ask(A, own) for _ in range(3)] == [None, None, RATE]
    assert [gate.admit(name, A, own) for name in "123"] == [None, None, CALLER_LIMIT]


def test_any_number_of_ae_titles_takes_bounded_memory() -> None:
    gate = Gate(Limits(), Clock())

    for number in range(10_500):
        gate.may_ask(("10.0.0.1", str(number)))

    assert len(gate._buckets) == 10_000


def test_callers_that_stay_away_are_forgotten() -> None:
    clock = Clock()
    gate = Gate(Limits(), clock)
    for number in range(10_000):
        gate.may_ask(("10.0.0.1", str(number)))
    clock.now += 61

    gate.may_ask(B)

    assert len(gate._buckets) == 1


def test_a_byte_a_second_is_too_slow_whatever_the_pdu_length() -> None:
    clock = Clock()
    pace = Pace(Limits(bytes_per_s=1000), 60, clock)

    def second() -> None:
        pace.began(inside_message=True)
        clock.now += 1
        pace.took(1)

    for _ in range(59):
        second()
    with pytest.raises(Breach) as caught:
        second()

    assert caught.value.reason_code == "TOO_SLOW"
    assert clock.now == 1060


def test_the_time_between_messages_is_not_the_senders_slowness() -> None:
    clock = Clock()
    pace = Pace(Limits(bytes_per_s=1000, association_s=100_000), 60, clock)

    for _ in range(100):
        pace.waits()
        clock.now += 50
        pace.began(inside_message=False)
        pace.took(200)

    assert pace.lags()


def test_who_sends_fast_or_has_just_come_does_not_lag() -> None:
    clock = Clock()
    pace = Pace(Limits(bytes_per_s=1000), 60, clock)
    new = pace.lags()
    for _ in range(12):
        clock.now += 1
        pace.began(inside_message=True)
        pace.took(100_000)
    fast = pace.lags()
    clock.now += 5

    assert (new, fast) == (False, False)
    clock.now += 1
    pace.began(inside_message=False)
    pace.took(1)
    clock.now += 6
    assert pace.lags()


def test_what_this_machine_takes_for_itself_is_not_the_peers_slowness() -> None:
    clock = Clock()
    pace = Pace(Limits(bytes_per_s=1000), 60, clock)

    for _ in range(100):  # a slow disk here, and a peer that has the next PDU ready each time
        pace.began(inside_message=True)
        pace.took(10)
        pace.pauses()
        clock.now += 5

    assert not pace.lags()


def test_who_has_sent_a_message_may_pause_longer() -> None:
    clock = Clock()
    new, used = Pace(Limits(), 60, clock), Pace(Limits(), 60, clock)
    used.used()
    for pace in (new, used):
        pace.waits()
    clock.now += 3

    assert (new.lags(), used.lags()) == (True, False)
    clock.now += 3
    assert used.lags()


def test_who_sends_after_a_pause_does_not_lag() -> None:
    clock = Clock()
    pace = Pace(Limits(bytes_per_s=1000), 60, clock)
    pace.waits()
    clock.now += 20

    pace.began(inside_message=False)
    pace.took(200)
    pace.took(60_000)
    pace.pauses()

    assert not pace.lags()


def test_an_idle_peer_lags_also_where_no_pace_is_asked_for() -> None:
    clock = Clock()
    pace = Pace(Limits(bytes_per_s=0), 60, clock)
    pace.waits()
    clock.now += 6

    assert pace.lags()


def test_an_association_ends_after_its_time() -> None:
    clock = Clock()
    pace = Pace(Limits(association_s=10), 60, clock)
    clock.now += 9.9
    pace.require_time()
    clock.now += 0.1

    with pytest.raises(Breach, match="more than 10 s"):
        pace.require_time()


def test_a_pdu_that_claims_four_gigabytes_is_not_read() -> None:
    require_pdu_length(PDU_BYTES + 6, established=True)

    with pytest.raises(Breach) as caught:
        require_pdu_length(0xFFFFFFFF, established=True)

    assert caught.value.reason_code == "PDU_TOO_LARGE"


def test_a_request_for_an_association_is_not_as_long_as_an_image() -> None:
    require_pdu_length(200_000, established=False)

    with pytest.raises(Breach) as caught:
        require_pdu_length(PDU_BYTES, established=False)

    assert caught.value.reason_code == "PDU_TOO_LARGE"
