"""Counting what was turned away: nothing is lost, however much of it there is and however slow its owner."""

from __future__ import annotations

import threading

from factories.listening import wait_until

from dicom_io.listener_events import Caller, TurnedAway
from dicom_io.tally import Tally


def rejection(number: int, ae_title: str = "A", host: str = "10.0.0.1") -> TurnedAway:
    caller = Caller(str(number), ae_title, "FUNDUS", host, number)
    return TurnedAway("ASSOCIATION", "ASSOCIATION_LIMIT", caller, 0x020302, detail="full")


def test_what_is_equal_but_for_the_connection_is_told_together() -> None:
    told: list[TurnedAway] = []
    tally = Tally(told.append)

    for number in range(100):
        tally.add(rejection(number, ae_title="AB"[number % 2]))
    tally.stop(1)

    assert sorted((each.caller.calling_ae, each.count) for each in told) == [("A", 50), ("B", 50)]


def test_any_number_of_hosts_takes_bounded_memory_and_is_counted() -> None:
    told: list[TurnedAway] = []
    lock = threading.Lock()

    def tell(each: TurnedAway) -> None:
        with lock:
            told.append(each)

    tally = Tally(tell)

    for number in range(1500):
        tally.add(rejection(number, host=f"10.0.{number // 250}.{number % 250}"))
    tally.stop(1)

    assert len(told) == 1001
    assert sum(each.count for each in told) == 1500
    (others,) = (each for each in told if each.caller.host == "(others)")
    assert (others.caller.calling_ae, others.count) == ("", 500)


def test_what_comes_while_its_owner_is_slow_is_told_later() -> None:
    told: list[TurnedAway] = []
    proceed = threading.Event()

    def tell(each: TurnedAway) -> None:
        proceed.wait(20)
        told.append(each)

    tally = Tally(tell)
    tally.start()
    tally.add(rejection(1))
    tally.add(rejection(2))
    proceed.set()
    wait_until(lambda: sum(each.count for each in told) == 2)
    tally.add(rejection(3))
    tally.stop(20)

    assert sum(each.count for each in told) == 3
