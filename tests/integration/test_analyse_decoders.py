"""What becomes of an image whose decoder dies: the processes are real, the picture tells them what to do."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from factories.decoders import shared_decoders
from factories.hostile_decoder import pool_that_dies_of
from factories.runtime import analyse_all, fundus_of_grade, make_runtime, offer, row, rows, value

from dicom_io.decoder_pool import DecoderLimits, DecoderPool
from worker.analyse import analyse
from worker.runtime import Runtime

ROWS = 128
"""Of every picture here."""


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    made = make_runtime(tmp_path)
    yield made
    made.close()


def test_a_decoder_that_dies_costs_its_image_and_no_other(runtime: Runtime) -> None:
    for number in (1, 2):
        assert offer(runtime, fundus_of_grade(2, sop_uid=f"1.2.3.{number}")) == 0
    with pool_that_dies_of("crash", ROWS) as dying:
        runtime.decoders = dying
        analyse(runtime, 1)
    runtime.decoders = shared_decoders()
    analyse_all(runtime)

    found = rows(runtime, "SELECT state, reason_code, reason_detail FROM instances ORDER BY id")
    assert [each["state"] for each in found] == ["REFUSED", "ANALYSED"]
    assert found[0]["reason_code"] == "DECODER_FAILED"
    assert "crashed (SIGSEGV)" in found[0]["reason_detail"]


def test_a_decoder_that_somebody_killed_is_tried_again_later(runtime: Runtime, tmp_path: Path) -> None:
    assert offer(runtime, fundus_of_grade(2)) == 0
    with pool_that_dies_of("hang", ROWS) as hanging:
        runtime.decoders = hanging
        working = threading.Thread(target=analyse, args=(runtime, 1))
        working.start()
        moment = threading.Event()
        assert any(hanging.process_ids or moment.wait(0.05) for _ in range(600))
        os.kill(hanging.process_ids[0], signal.SIGKILL)
        working.join(60)

    found = row(runtime, "SELECT state, attempts, reason_detail FROM instances")
    assert tuple(found.values()) == ("RECEIVED", 1, "DecoderLostError")


def test_when_the_service_stops_the_image_is_given_back_as_if_never_taken(runtime: Runtime) -> None:
    assert offer(runtime, fundus_of_grade(2)) == 0
    runtime.decoders = DecoderPool(DecoderLimits(1))
    runtime.decoders.close()
    runtime.stopping.set()
    analyse(runtime, 1)

    found = row(runtime, "SELECT state, claims, attempts, claim_token FROM instances")
    assert tuple(found.values()) == ("RECEIVED", 0, 0, None)


def test_a_machine_that_starts_no_process_is_no_attempt(runtime: Runtime) -> None:
    assert offer(runtime, fundus_of_grade(2)) == 0
    with DecoderPool(DecoderLimits(1), "raise SystemExit('no memory')") as broken:
        runtime.decoders = broken
        analyse(runtime, 1)

    assert value(runtime, "SELECT attempts FROM instances") == 0
    assert value(runtime, "SELECT state FROM instances") == "RECEIVED"
