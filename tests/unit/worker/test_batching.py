"""Real threads, at any speed: where the order matters, the engine waits for the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.batching import BatchStatistics, Image, MicroBatcher
from worker.errors import BatchContractError, BatcherClosedError, BatcherFullError, EngineEndedError

LONG_MS = 600_000.0
SOON_S = 30.0


def image(number: int) -> Image:
    return np.full((2, 2, 4), number, dtype=np.uint8)


def value(picture: Image) -> int:
    return int(picture[0, 0, 0])


class Engine:
    """Returns each image's number, writes down its batches, and can be held."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.adapters: list[list[str | None]] = []
        self.threads: set[str] = set()
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, images: Sequence[Image], adapters: Sequence[str | None]) -> list[int]:
        self.entered.set()
        assert self.go_on.wait(SOON_S)
        self.threads.add(threading.current_thread().name)
        self.batches.append([value(each) for each in images])
        self.adapters.append(list(adapters))
        return [value(each) for each in images]


@contextmanager
def batcher(
    predict: Callable[[Sequence[Image], Sequence[str | None]], Sequence[int]],
    max_batch: int = 4,
    max_wait_ms: float = LONG_MS,
    capacity: int = 64,
) -> Iterator[MicroBatcher[int]]:
    made = MicroBatcher(predict, max_batch, max_wait_ms, capacity)
    try:
        yield made
    finally:
        made.close()


def hold(engine: Engine, running: MicroBatcher[int]) -> Future[int]:
    """Occupy the engine with image 99 until `engine.go_on` is set."""
    engine.go_on.clear()
    with running.announce() as slot:
        first = slot.submit(image(99), None)
    assert engine.entered.wait(SOON_S)
    return first


def submit(running: MicroBatcher[int], numbers: Sequence[int]) -> list[Future[int]]:
    """Announce all of them before the first is handed in, so that they go together."""
    with running.announce(len(numbers)) as slot:
        return [slot.submit(image(number), None) for number in numbers]


def test_a_lone_image_does_not_wait_for_company() -> None:
    engine = Engine()
    with batcher(engine) as running, running.announce() as slot:
        assert slot.submit(image(7), "camera-a").result(SOON_S) == 7
    assert engine.adapters == [["camera-a"]]


def test_announced_callers_are_waited_for_and_go_in_one_batch() -> None:
    engine = Engine()
    with batcher(engine) as running, ExitStack() as stack:
        slots = [stack.enter_context(running.announce()) for _ in range(3)]
        adapters = ["a", None, "b"]
        futures = [slot.submit(image(n), adapters[n]) for n, slot in enumerate(slots)]
        assert [future.result(SOON_S) for future in futures] == [0, 1, 2]
    assert engine.batches == [[0, 1, 2]]
    assert engine.adapters == [["a", None, "b"]]
    assert engine.threads == {"engine"}


def test_a_full_batch_starts_although_more_is_on_its_way() -> None:
    engine = Engine()
    with batcher(engine, max_batch=2) as running, running.announce(5) as slot:
        futures = [slot.submit(image(n), None) for n in range(2)]
        assert [future.result(SOON_S) for future in futures] == [0, 1]
    assert engine.batches == [[0, 1]]


def test_the_first_image_waits_no_longer_than_max_wait() -> None:
    engine = Engine()
    with batcher(engine, max_wait_ms=1) as running, running.announce(2) as slot:
        assert slot.submit(image(5), None).result(SOON_S) == 5  # the second never comes


def test_a_caller_that_gives_up_sets_the_others_free() -> None:
    engine = Engine()
    with batcher(engine) as running, running.announce() as slot:
        with running.announce():
            future = slot.submit(image(1), None)
            assert not engine.entered.is_set()
        assert future.result(SOON_S) == 1


def test_more_images_than_announced_are_taken() -> None:
    engine = Engine()
    with batcher(engine) as running, running.announce(1) as slot:
        futures = [slot.submit(image(n), None) for n in range(3)]
        assert [future.result(SOON_S) for future in futures] == [0, 1, 2]


def test_what_arrives_while_the_engine_is_busy_goes_together_in_order() -> None:
    engine = Engine()
    with batcher(engine, max_batch=4) as running:
        first = hold(engine, running)
        futures = submit(running, range(6))
        assert running.waiting == 6
        engine.go_on.set()
        assert [future.result(SOON_S) for future in futures] == list(range(6))
        assert first.result(SOON_S) == 99
    assert engine.batches == [[99], [0, 1, 2, 3], [4, 5]]


def test_a_bad_image_fails_alone_with_its_own_exception() -> None:
    class BadImageError(Exception):
        pass

    def predict(images: Sequence[Image], adapters: Sequence[str | None]) -> list[int]:
        bad = [value(each) for each in images if value(each) >= 100]
        if bad:
            raise BadImageError(bad)
        return [value(each) for each in images]

    with batcher(predict) as running:
        futures = submit(running, [1, 100, 3, 101])
        assert [futures[0].result(SOON_S), futures[2].result(SOON_S)] == [1, 3]
        assert [str(futures[n].exception(SOON_S)) for n in (1, 3)] == ["[100]", "[101]"]
        alone = submit(running, [102])[0]
        assert isinstance(alone.exception(SOON_S), BadImageError)


@pytest.mark.parametrize("returned", [0, 1, 3])
def test_a_wrong_number_of_results_fails_the_whole_batch(returned: int) -> None:
    calls: list[int] = []

    def predict(images: Sequence[Image], adapters: Sequence[str | None]) -> list[int]:
        calls.append(len(images))
        return [0] * returned

    with batcher(predict, max_batch=2) as running:
        errors = [future.exception(SOON_S) for future in submit(running, [1, 2])]
    assert all(isinstance(error, BatchContractError) for error in errors)
    assert errors[0] is not errors[1]
    assert str(errors[0]) == f"the engine was given 2 images and returned {returned} results"
    assert calls == [2], "no image is given a result that may be another's"


def test_a_full_queue_refuses_after_the_timeout_and_takes_again_later() -> None:
    engine = Engine()
    with batcher(engine, max_batch=1, capacity=2) as running:
        hold(engine, running)
        waiting = submit(running, [1, 2])
        with running.announce() as slot:
            with pytest.raises(BatcherFullError, match=r"2 images were waiting .* within 0 s") as caught:
                slot.submit(image(3), None, timeout_s=0)
            assert caught.value.retryable
            engine.go_on.set()
            assert slot.submit(image(3), None).result(SOON_S) == 3
        assert [future.result(SOON_S) for future in waiting] == [1, 2]


def test_a_blocked_caller_goes_on_when_there_is_room() -> None:
    engine = Engine()
    with batcher(engine, max_batch=1, capacity=1) as running, ThreadPoolExecutor(3) as pool:
        hold(engine, running)
        results = [pool.submit(lambda n: submit(running, [n])[0].result(SOON_S), n) for n in range(3)]
        engine.go_on.set()
        assert [result.result(SOON_S) for result in results] == [0, 1, 2]


def test_closing_finishes_what_is_queued_and_refuses_the_rest() -> None:
    engine = Engine()
    running = MicroBatcher(engine, 2, LONG_MS, 8)
    first = hold(engine, running)
    with running.announce(4) as slot:  # the fourth never comes; closing does not wait for it
        futures = [slot.submit(image(n), None) for n in range(3)]
        closing = threading.Thread(target=running.close)
        closing.start()
        engine.go_on.set()
        closing.join(SOON_S)
        assert not closing.is_alive()
        assert [future.result(0) for future in (first, *futures)] == [99, 0, 1, 2]
        with pytest.raises(BatcherClosedError):
            slot.submit(image(4), None)
    running.close()


def test_closing_sends_blocked_callers_away() -> None:
    engine = Engine()
    running = MicroBatcher(engine, 1, LONG_MS, 1)
    hold(engine, running)
    submit(running, [1])
    asked = threading.Event()

    def blocked() -> Future[int]:
        with running.announce() as slot:
            asked.set()
            return slot.submit(image(2), None)

    with ThreadPoolExecutor(2) as pool:
        attempt = pool.submit(blocked)
        assert asked.wait(SOON_S)
        closing = pool.submit(running.close)
        assert isinstance(attempt.exception(SOON_S), BatcherClosedError)
        engine.go_on.set()
        closing.result(SOON_S)


def test_a_cancelled_image_never_reaches_the_engine() -> None:
    engine = Engine()
    with batcher(engine) as running:
        hold(engine, running)
        futures = submit(running, [1, 2])
        assert futures[0].cancel()
        engine.go_on.set()
        assert futures[1].result(SOON_S) == 2
        with pytest.raises(CancelledError):
            futures[0].result(0)
        only = hold(engine, running)
        lone = submit(running, [3])[0]
        assert lone.cancel()
        engine.go_on.set()
        assert only.result(SOON_S) == 99
    assert engine.batches == [[99], [2], [99]]


def test_an_engine_that_wants_to_end_its_thread_fails_that_image_alone() -> None:
    def predict(images: Sequence[Image], adapters: Sequence[str | None]) -> list[int]:
        if any(value(each) >= 100 for each in images):
            raise SystemExit
        return [value(each) for each in images]

    with batcher(predict) as running:
        futures = submit(running, [1, 100, 3])
        assert [futures[0].result(SOON_S), futures[2].result(SOON_S)] == [1, 3]
        error = futures[1].exception(SOON_S)
        assert isinstance(error, EngineEndedError)
        assert error.retryable
        assert isinstance(submit(running, [101])[0].exception(SOON_S), EngineEndedError)
        assert running.running


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # that is the point
def test_nobody_waits_for_a_thread_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    running = MicroBatcher(engine, 1, LONG_MS, 4)
    first = hold(engine, running)
    queued = submit(running, [1, 2])
    queued[1].cancel()
    monkeypatch.setattr(running, "_next_batch", Mock(side_effect=SystemExit))
    engine.go_on.set()
    assert first.result(SOON_S) == 99
    assert isinstance(queued[0].exception(SOON_S), BatcherClosedError)
    assert running.close(SOON_S)
    assert not running.running
    with running.announce() as slot, pytest.raises(BatcherClosedError):
        slot.submit(image(3), None)


def test_closing_does_not_wait_for_ever_for_an_engine_that_hangs() -> None:
    engine = Engine()
    running = MicroBatcher(engine, 1, LONG_MS, 4)
    first = hold(engine, running)
    assert not running.close(timeout_s=0.01)
    engine.go_on.set()
    assert first.result(SOON_S) == 99
    assert running.close(SOON_S)


def test_statistics_count_batches_fill_and_waiting() -> None:
    engine = Engine()
    with batcher(engine, max_batch=4) as running:
        assert running.statistics == BatchStatistics(max_batch=4)
        assert running.statistics.fill == 0
        [future.result(SOON_S) for future in submit(running, [1, 2, 3])]
        [future.result(SOON_S) for future in submit(running, [4])]
        seen = running.statistics
    assert (seen.batches, seen.images, seen.failed_batches) == (2, 4, 0)
    assert seen.fill == 0.5
    assert seen.waited_s >= 0
    assert seen.engine_s >= 0


def test_failed_batches_are_counted_once() -> None:
    def predict(images: Sequence[Image], adapters: Sequence[str | None]) -> list[int]:
        raise RuntimeError

    with batcher(predict) as running:
        [future.exception(SOON_S) for future in submit(running, [1, 2])]
        assert (running.statistics.batches, running.statistics.failed_batches) == (1, 1)


@pytest.mark.parametrize(("max_batch", "capacity"), [(0, 4), (5, 4)])
def test_impossible_sizes_are_refused(max_batch: int, capacity: int) -> None:
    with pytest.raises(ValueError, match="max_batch"):
        MicroBatcher(Engine(), max_batch, 1, capacity)


@settings(max_examples=40, deadline=None)
@given(
    callers=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 4), st.booleans()), min_size=1, max_size=12
    ),  # announced, handed in, gives up before handing in
    max_batch=st.integers(1, 5),
    spare=st.integers(0, 3),
    max_wait_ms=st.sampled_from([0.0, 1.0, 5.0]),
)
def test_whatever_the_arrivals_each_caller_gets_its_own_results(
    callers: list[tuple[int, int, bool]], max_batch: int, spare: int, max_wait_ms: float
) -> None:
    engine = Engine()
    numbers = iter(range(255))
    plan = [(ann, [next(numbers) for _ in range(0 if gives_up else n)]) for ann, n, gives_up in callers]

    with batcher(engine, max_batch, max_wait_ms, max_batch + spare) as running, ThreadPoolExecutor(6) as pool:

        def call(announced: int, mine: list[int]) -> list[int]:
            with running.announce(announced) as slot:
                futures = [slot.submit(image(number), str(number)) for number in mine]
            return [future.result(SOON_S) for future in futures]

        results = list(pool.map(lambda caller: call(*caller), plan))
        done = running.statistics
    assert results == [mine for _, mine in plan]
    assert all(1 <= len(batch) <= max_batch for batch in engine.batches)
    assert [[str(n) for n in batch] for batch in engine.batches] == engine.adapters
    assert sorted(n for batch in engine.batches for n in batch) == sorted(n for _, mine in plan for n in mine)
    assert (done.batches, done.images) == (len(engine.batches), sum(map(len, engine.batches)))
