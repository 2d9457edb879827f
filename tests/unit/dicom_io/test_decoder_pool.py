from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from factories.encodings import FUNDUS, LOSSLESS, as_j2k, compressed, encoded
from factories.hostile_decoder import LAYOUT, PROGRAM, hostile_pool, lying_pool
from pydicom.uid import JPEG2000Lossless

from dicom_io.codecs import RgbFrame
from dicom_io.decoder_pool import DecoderLimits, DecoderPool
from dicom_io.errors import DecoderLostError, DecoderPoolClosedError, RefusedPixelsError
from dicom_io.pixels import frames


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    """One for all tests that leave it in order: a process takes a quarter of a second to start."""
    with hostile_pool() as made:
        yield made


def told(pool: DecoderPool, what: str) -> RgbFrame:
    return pool.decode(what.encode(), LAYOUT)


def refusal(pool: DecoderPool, what: str) -> RefusedPixelsError:
    with pytest.raises(RefusedPixelsError) as caught:
        told(pool, what)
    return caught.value


def pid_of(frame: RgbFrame) -> int:
    return int.from_bytes(frame.reshape(-1)[:4].tobytes(), "little")


def eventually(holds: Callable[[], bool]) -> bool:
    """Wait, at most half a minute, for what other processes bring about."""
    moment = threading.Event()
    return any(holds() or moment.wait(0.02) for _ in range(1500))


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_nothing_starts_before_it_is_needed() -> None:
    with hostile_pool() as pool:
        assert pool.process_ids == []


def test_a_frame_comes_back_whole_writable_and_untouched_by_the_next(pool: DecoderPool) -> None:
    large = replace(LAYOUT, rows=700, columns=900)

    first = pool.decode(b"ramp", large)
    told(pool, "pid")

    assert first.shape == (700, 900, 3)
    assert first.dtype == np.uint8
    assert first.flags.c_contiguous
    np.testing.assert_array_equal(first.reshape(-1), np.arange(first.size) % 251)
    first[0, 0] = 7
    assert len(pool.process_ids) == 1


def test_pixels_are_the_same_as_without_a_pool() -> None:
    with DecoderPool(DecoderLimits(1)) as pool:
        for syntax, encode in LOSSLESS.items():
            [frame] = frames(
                encoded(compressed(encode(FUNDUS), syntax, photometric="RGB")), decode=pool.decode
            )
            np.testing.assert_array_equal(frame, FUNDUS)
        before = pool.process_ids

        damaged = as_j2k(FUNDUS)[:2000]
        with pytest.raises(RefusedPixelsError, match="PIXELS_UNREADABLE"):
            list(frames(encoded(compressed(damaged, JPEG2000Lossless)), decode=pool.decode))

        assert pool.process_ids == before  # what the decoder refuses itself costs no process


@pytest.mark.parametrize(
    ("act", "detail"),
    [
        ("crash", "the decoder crashed (SIGSEGV)"),
        ("abort", "the decoder crashed (SIGABRT)"),
        ("leave 3", "the decoder ended with status 3"),
        ("fail", "the decoder ended with status 1"),
        ("swell", "the decoder needed more than 300 MB of memory"),
    ],
)
def test_a_death_costs_one_frame_and_the_pool_heals(pool: DecoderPool, act: str, detail: str) -> None:
    [before] = [pid_of(told(pool, "pid"))]

    error = refusal(pool, act)

    assert (error.reason_code, error.detail) == ("DECODER_FAILED", detail)
    after = pid_of(told(pool, "pid"))
    assert after not in (before, os.getpid())
    assert pool.process_ids == [after]
    assert gone(before)


def test_an_allocation_that_fails_is_told_from_a_damaged_stream(pool: DecoderPool) -> None:
    large = replace(LAYOUT, rows=2000, columns=2000)

    with pytest.raises(RefusedPixelsError, match=r"DECODER_FAILED.*more than 300 MB"):
        pool.decode(b"allocate", large)


def test_a_decoder_that_hangs_is_ended_in_time() -> None:
    with hostile_pool(timeout_s=1) as pool:
        error = refusal(pool, "hang")

        assert (error.reason_code, error.detail) == ("DECODER_FAILED", "the decoder had not ended after 1 s")
        assert told(pool, "ramp").shape == (4, 5, 3)


def test_a_crash_that_an_earlier_frame_may_have_caused_is_tried_in_a_new_process(pool: DecoderPool) -> None:
    first, second = pid_of(told(pool, "second")), pid_of(told(pool, "second"))

    assert first != second


def test_a_process_that_somebody_kills_leaves_the_image_for_later(pool: DecoderPool, tmp_path: Path) -> None:
    started = tmp_path / "pid"
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(told, pool, f"hang {started}")
        assert eventually(lambda: started.exists() and bool(started.read_text()))
        os.kill(int(started.read_text()), signal.SIGKILL)

        with pytest.raises(DecoderLostError) as caught:
            waiting.result()

    assert caught.value.retryable
    assert told(pool, "ramp").shape == (4, 5, 3)


def test_a_process_that_died_while_it_had_nothing_to_do_is_replaced(pool: DecoderPool) -> None:
    before = pid_of(told(pool, "pid"))
    os.kill(before, signal.SIGKILL)
    assert eventually(lambda: pool.process_ids == [])

    assert pid_of(told(pool, "pid")) != before


def test_each_frame_goes_to_the_thread_that_asked_whatever_its_neighbours_do() -> None:
    acts = ["ramp", "crash", "refuse grey", "ramp", "leave 2", "ramp"]
    with hostile_pool(processes=2) as pool, ThreadPoolExecutor(6) as threads:
        asked = [threads.submit(told, pool, act) for act in acts * 2]
        outcomes = [each.exception() or "frame" for each in asked]
        assert len(pool.process_ids) <= 2

    expected = ["frame", "DECODER_FAILED", "NOT_COLOUR", "frame", "DECODER_FAILED", "frame"] * 2
    assert [getattr(each, "reason_code", each) for each in outcomes] == expected


@pytest.mark.parametrize(
    "answer",
    [
        "b'nonsense'",
        "b'{}'",
        "it.size(4, 5), b'x' * 59",
        "it.size(-4, -5), b'x' * 60",
        "it.size(10**6, 10**6), b'x'",
    ],
)
def test_an_answer_that_cannot_be_true_is_not_believed(answer: str) -> None:
    with lying_pool(answer) as pool:
        assert refusal(pool, "ramp").detail.startswith("the decoder gave no valid answer")


def test_a_process_that_does_not_start_is_the_machines_fault_not_the_images() -> None:
    with DecoderPool(DecoderLimits(1), "raise SystemExit('no such library')") as pool:
        with pytest.raises(OSError, match="decoder_not_started"):
            told(pool, "ramp")
        assert pool.process_ids == []


def test_close_ends_what_is_idle_at_work_and_waiting(tmp_path: Path) -> None:
    started = tmp_path / "pid"
    pool = hostile_pool()
    with ThreadPoolExecutor(2) as threads:
        hanging = threads.submit(told, pool, f"hang {started}")
        assert eventually(lambda: started.exists() and bool(started.read_text()))
        waiting = threads.submit(told, pool, "ramp")

        pool.close()

        for each in (hanging, waiting):
            with pytest.raises(DecoderPoolClosedError):
                each.result()
    assert gone(int(started.read_text()))
    with pytest.raises(DecoderPoolClosedError):
        told(pool, "ramp")
    pool.close()


def test_a_killed_parent_leaves_no_process_behind_not_even_one_in_a_native_loop(tmp_path: Path) -> None:
    started, idle = tmp_path / "hanging", tmp_path / "idle"
    program = PROGRAM + (
        "import threading, pathlib\n"
        "pool = it.hostile_pool(processes=2)\n"
        "print(1); pool.decode(b'ramp', it.LAYOUT)\n"
        f"pathlib.Path({str(idle)!r}).write_text(str(pool.process_ids[0]))\n"
        f"hang = lambda: pool.decode(b'hang {started}', it.LAYOUT)\n"
        "threads = [threading.Thread(target=hang) for _ in range(2)]\n"
        "[each.start() for each in threads]"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL)
    try:
        assert eventually(lambda: started.exists() and bool(started.read_text()))
        children = [child.pid for child in psutil.Process(parent.pid).children(recursive=True)]
        assert int(started.read_text()) in children
    finally:
        parent.kill()
        parent.wait()

    assert children
    assert eventually(lambda: all(gone(child) for child in children))


def test_a_stop_of_the_whole_service_leaves_the_decision_to_it(pool: DecoderPool) -> None:
    before = pid_of(told(pool, "pid"))
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(before, number)

    assert pid_of(told(pool, "pid")) == before


def test_daemonic_processes_that_were_forked_have_decoders_of_their_own() -> None:
    # As Celery's prefork workers are: they may have no children by way of multiprocessing.
    program = PROGRAM + (
        "import multiprocessing, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "pool = it.hostile_pool()\n"
        "ours = bytes(pool.decode(b'pid', it.LAYOUT))\n"
        "def work(answers):\n"
        "    answers.put(bytes(pool.decode(b'pid', it.LAYOUT)) != ours)\n"
        "    pool.close()\n"
        "context = multiprocessing.get_context('fork')\n"
        "answers = context.Queue()\n"
        "process = context.Process(target=work, args=(answers,), daemon=True)\n"
        "process.start(); print(answers.get(timeout=60), bytes(pool.decode(b'pid', it.LAYOUT)) == ours)\n"
        "process.join(); pool.close()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.stdout.strip(), done.stderr.strip(), done.returncode) == ("True True", "", 0)


def test_the_memory_of_many_frames_is_given_back(pool: DecoderPool) -> None:
    large = replace(LAYOUT, rows=1000, columns=1000)
    pool.decode(b"ramp", large)
    this = psutil.Process()
    memory, files = this.memory_info().rss, this.num_fds()

    for _ in range(30):
        pool.decode(b"ramp", large)

    assert this.memory_info().rss - memory < 30_000_000
    assert this.num_fds() == files


def test_time_spent_waiting_for_a_free_decoder_does_not_count(tmp_path: Path) -> None:
    started = tmp_path / "pid"
    with hostile_pool(timeout_s=1) as pool, ThreadPoolExecutor(2) as threads:
        hanging = threads.submit(told, pool, f"hang {started}")
        assert eventually(started.exists)
        waiting = threads.submit(told, pool, "ramp")

        assert isinstance(hanging.exception(), RefusedPixelsError)
        assert waiting.result().shape == (4, 5, 3)
