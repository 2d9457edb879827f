from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, patch

import numpy as np
import pytest
from factories.bundle import write_tiny_bundle
from factories.dicom import as_jpeg, make_fundus, synthetic_fundus
from factories.runtime import (
    analyse_all,
    close_studies,
    execute,
    fundus_of_grade,
    make_runtime,
    offer,
    past,
    report_all,
    row,
    rows,
    run_to_report,
    value,
    woken,
)
from pydicom.encaps import encapsulate

from dicom_io.errors import RefusedPixelsError
from worker.analyse import analyse
from worker.dispatch import Job
from worker.errors import BatcherFullError
from worker.runtime import Runtime
from worker.store import images
from worker.store.images import ImageClaim


@pytest.fixture
def runtime(tmp_path: Path, database_url: str) -> Iterator[Runtime]:
    made = make_runtime(tmp_path, database_url=database_url)
    yield made
    made.close()


def _offered(runtime: Runtime, **options: Any) -> int:
    assert offer(runtime, fundus_of_grade(**{"grade": 2, **options})) == 0
    return int(value(runtime, "SELECT max(id) FROM instances"))


def _claim(runtime: Runtime, instance: int, owner: str = "somebody") -> ImageClaim:
    claimed = runtime.database.write(images.claim, instance, owner, 60.0)
    assert claimed is not None
    return claimed


def _state(runtime: Runtime) -> tuple[Any, ...]:
    return tuple(row(runtime, "SELECT state, reason_code FROM instances").values())


class TestFindings:
    @pytest.mark.parametrize("grade", [0, 1, 2, 3, 4])
    def test_a_grade_is_a_finding(self, tmp_path: Path, grade: int) -> None:
        runtime = make_runtime(tmp_path)
        _offered(runtime, grade=grade)
        analyse_all(runtime)
        found = row(runtime, "SELECT grade, referable, reason_code, laterality FROM findings")
        assert (found["grade"], bool(found["referable"])) == (grade, grade >= 2)
        assert (found["reason_code"], found["laterality"]) == (None, "R")
        runtime.close()

    def test_an_ungradable_picture_has_a_reason_and_no_grade(self, runtime: Runtime) -> None:
        _offered(runtime, grade=None)
        analyse_all(runtime)
        found = row(
            runtime, "SELECT grade, referable, referable_probability, certainty, reason_code FROM findings"
        )
        assert tuple(found.values()) == (None, None, None, None, "UNGRADABLE_QUALITY")
        assert _state(runtime) == ("ANALYSED", None)

    def test_each_frame_has_its_own(self, runtime: Runtime) -> None:
        stream = as_jpeg(synthetic_fundus(128))
        ds = fundus_of_grade(2, NumberOfFrames=3)
        ds.PixelData = encapsulate([stream] * 3)
        assert offer(runtime, ds) == 0
        analyse_all(runtime)
        assert [each["frame_number"] for each in rows(runtime, "SELECT frame_number FROM findings")] == [
            1,
            2,
            3,
        ]

    def test_the_report_is_woken_by_the_last_image_only(self, runtime: Runtime) -> None:
        first, second = (_offered(runtime, study_uid="1.2.3", sop_uid=f"1.2.3.{n}") for n in (1, 2))
        close_studies(runtime)
        analyse(runtime, first)
        assert woken(runtime, Job.REPORT) == []
        analyse(runtime, second)
        assert len(woken(runtime, Job.REPORT)) == 1

    def test_a_message_that_comes_twice_does_its_work_once(self, runtime: Runtime) -> None:
        instance = _offered(runtime)
        analyse(runtime, instance)
        before = row(runtime, "SELECT * FROM findings")
        analyse(runtime, instance)
        assert row(runtime, "SELECT * FROM findings") == before


class TestClaims:
    def test_of_many_workers_exactly_one_gets_it(self, runtime: Runtime) -> None:
        instance = _offered(runtime)
        start = threading.Barrier(8)

        def take(number: int) -> ImageClaim | None:
            start.wait(20)
            return runtime.database.write(images.claim, instance, f"worker-{number}", 60.0)

        with ThreadPoolExecutor(8) as pool:
            taken = [claimed for claimed in pool.map(take, range(8)) if claimed]
        assert len(taken) == 1
        assert value(runtime, "SELECT claims FROM instances") == 1

    def test_a_claim_that_ran_out_is_taken_over_and_the_old_worker_cannot_write(
        self, runtime: Runtime
    ) -> None:
        instance = _offered(runtime)
        stalled = _claim(runtime, instance)
        assert runtime.database.write(images.claim, instance, "other", 60.0) is None
        past(runtime, "instances", "claim_expires_at")
        taken_over = _claim(runtime, instance, "other")
        # Then nothing that the stalled worker does counts
        assert runtime.database.write(images.finish, stalled, runtime.bundle_pk, []) is False
        assert runtime.database.write(images.refuse, stalled, "INTERNAL_ERROR", None) is False
        assert runtime.database.write(images.retry, stalled, "late", 1.0) is False
        assert runtime.database.write(images.give_back, stalled) is False
        assert runtime.database.write(images.renew, [stalled.token], 60.0) == 0
        assert runtime.database.write(images.renew, [taken_over.token], 60.0) == 1
        found = row(runtime, "SELECT state, claim_token, attempts FROM instances")
        assert tuple(found.values()) == ("RECEIVED", taken_over.token, 0)

    def test_a_result_that_comes_too_late_is_dropped(self, runtime: Runtime) -> None:
        instance = _offered(runtime)

        def take_over(*_: Any) -> None:
            past(runtime, "instances", "claim_expires_at")
            _claim(runtime, instance, "other")

        real = runtime.batcher.announce

        def announce(count: int) -> Any:
            take_over()
            return real(count)

        with patch.object(runtime.batcher, "announce", announce):
            analyse(runtime, instance)
        assert rows(runtime, "SELECT * FROM findings") == []
        assert value(runtime, "SELECT claim_owner FROM instances") == "other"


class TestEndings:
    def test_a_picture_that_is_no_fundus_is_refused(self, runtime: Runtime) -> None:
        offer(runtime, make_fundus(as_jpeg(np.zeros((128, 128, 3), np.uint8))))
        analyse_all(runtime)
        assert _state(runtime) == ("REFUSED", "NOT_A_FUNDUS_PHOTOGRAPH")

    def test_what_the_header_calls_no_colour_photograph_is_refused(self, runtime: Runtime) -> None:
        offer(runtime, fundus_of_grade(2, PhotometricInterpretation="MONOCHROME2"))
        analyse_all(runtime)
        assert _state(runtime) == ("REFUSED", "NOT_COLOUR")

    def test_a_camera_that_the_policy_refuses_is_not_analysed(self, tmp_path: Path) -> None:
        runtime = make_runtime(tmp_path, camera={"unknown": "refuse"})
        _offered(runtime, manufacturer="Nobody", model="Nothing")
        analyse_all(runtime)
        assert _state(runtime) == ("REFUSED", "CAMERA_REFUSED")
        runtime.close()

    def test_a_lost_file_is_refused_and_the_rest_of_its_study_reported(self, runtime: Runtime) -> None:
        # Given a study of two eyes, and one file that is lost
        _offered(runtime, grade=3, laterality="R", study_uid="1.2.3", sop_uid="1.2.3.1")
        lost = _offered(runtime, grade=0, laterality="L", study_uid="1.2.3", sop_uid="1.2.3.2")
        path = value(runtime, "SELECT spool_path FROM instances WHERE id = :id", id=lost)
        runtime.spool.path(path).unlink()
        # When it is reported
        run_to_report(runtime)
        # Then the other eye has its result, and the lost one its reason
        found = rows(runtime, "SELECT laterality, grade, reason_code FROM v_eye_results ORDER BY laterality")
        assert [tuple(each.values()) for each in found] == [
            ("L", None, "SPOOL_FILE_DAMAGED"),
            ("R", 3, None),
        ]

    def test_a_decoder_that_fails_is_tried_again_later_and_refused_in_the_end(self, tmp_path: Path) -> None:
        runtime = make_runtime(tmp_path, jobs={"max_attempts": 3})
        instance = _offered(runtime)
        with patch("worker.analyse.frames", side_effect=RuntimeError("Doe^Jane is broken")):
            for attempt in (1, 2):
                analyse(runtime, instance)
                found = row(runtime, "SELECT state, attempts, reason_detail, claim_token FROM instances")
                assert tuple(found.values()) == ("RECEIVED", attempt, "RuntimeError", None)
                past(runtime, "instances", "due_at")
            analyse(runtime, instance)
        assert _state(runtime) == ("REFUSED", "INTERNAL_ERROR")
        assert "Doe" not in value(runtime, "SELECT reason_detail FROM instances")
        runtime.close()

    def test_a_retry_waits_for_its_time(self, runtime: Runtime) -> None:
        instance = _offered(runtime)
        with (
            patch("worker.analyse.frames", side_effect=OSError),
            patch("worker.analyse.backoff_s", return_value=3600.0),
        ):
            analyse(runtime, instance)
        analyse(runtime, instance)
        assert _state(runtime) == ("RECEIVED", None)
        assert runtime.database.read(images.due, 10) == []

    def test_pixels_that_cannot_be_read_are_refused_at_once(self, runtime: Runtime) -> None:
        instance = _offered(runtime)
        with patch("worker.analyse.frames", side_effect=RefusedPixelsError("IMAGE_TOO_LARGE", "9 GB")):
            analyse(runtime, instance)
        assert _state(runtime) == ("REFUSED", "IMAGE_TOO_LARGE")

    def test_an_object_without_a_frame_is_refused(self, runtime: Runtime) -> None:
        instance = _offered(runtime)
        with patch("worker.analyse.frames", return_value=iter(())):
            analyse(runtime, instance)
        assert _state(runtime) == ("REFUSED", "PIXELS_MISSING")

    def test_an_image_that_kills_its_workers_is_refused_in_the_end(self, runtime: Runtime) -> None:
        # Given an image that was taken again and again, and never came back
        instance = _offered(runtime)
        limit = runtime.settings.jobs.max_attempts * 4
        for _ in range(limit):
            _claim(runtime, instance)
            past(runtime, "instances", "claim_expires_at")
        analyse(runtime, instance)
        assert _state(runtime) == ("REFUSED", "INTERNAL_ERROR")
        assert f"taken {limit} times" in value(runtime, "SELECT reason_detail FROM instances")

    def test_a_full_queue_is_no_attempt_however_often(self, runtime: Runtime) -> None:
        instance = _offered(runtime)
        for _ in range(runtime.settings.jobs.max_attempts * 4 + 2):
            with patch.object(runtime.batcher, "announce", side_effect=BatcherFullError(1, 1.0)):
                analyse(runtime, instance)
            past(runtime, "instances", "due_at")
        found = row(runtime, "SELECT state, claims, attempts, claim_token FROM instances")
        assert tuple(found.values()) == ("RECEIVED", 0, 0, None)
        analyse(runtime, instance)
        assert _state(runtime) == ("ANALYSED", None)

    def test_a_full_queue_is_not_asked_again_at_once(self, runtime: Runtime) -> None:
        instance = _offered(runtime)
        with (
            patch.object(runtime.batcher, "announce", side_effect=BatcherFullError(1, 1.0)),
            patch("worker.analyse.backoff_s", return_value=60.0),
        ):
            analyse(runtime, instance)
        assert runtime.database.read(images.due, 10) == []

    def test_frames_already_handed_in_are_taken_back(self, runtime: Runtime) -> None:
        # Given a queue that has room for the first frame only
        instance = _offered(runtime)
        first: Future[Any] = Future()
        slot = MagicMock()
        slot.__enter__.return_value = slot
        slot.submit.side_effect = [first, BatcherFullError(1, 1.0)]
        frame = synthetic_fundus(128)
        with (
            patch.object(runtime.batcher, "announce", return_value=slot),
            patch("worker.analyse.frames", return_value=iter([frame, frame])),
        ):
            slot.__exit__.return_value = False
            analyse(runtime, instance)
        assert first.cancelled()
        assert _state(runtime) == ("RECEIVED", None)

    def test_an_engine_that_ends_its_thread_counts_as_an_attempt(self, runtime: Runtime) -> None:
        instance = _offered(runtime)
        with patch.object(runtime.batcher, "_predict", side_effect=SystemExit):
            for _ in range(runtime.settings.jobs.max_attempts):
                analyse(runtime, instance)
                past(runtime, "instances", "due_at")
        assert _state(runtime) == ("REFUSED", "INTERNAL_ERROR")
        assert "EngineEndedError" in value(runtime, "SELECT reason_detail FROM instances")

    def test_an_engine_that_is_gone_counts_as_an_attempt_while_nothing_stops(self, runtime: Runtime) -> None:
        instance = _offered(runtime)
        runtime.batcher.close()
        analyse(runtime, instance)
        found = row(runtime, "SELECT state, attempts FROM instances")
        assert tuple(found.values()) == ("RECEIVED", 1)

    def test_when_the_process_stops_it_is_given_back_as_if_never_taken(self, runtime: Runtime) -> None:
        instance = _offered(runtime)
        runtime.batcher.close()
        runtime.stopping.set()
        analyse(runtime, instance)
        found = row(runtime, "SELECT state, claims, attempts, claim_token FROM instances")
        assert tuple(found.values()) == ("RECEIVED", 0, 0, None)


class TestBundles:
    def test_an_image_goes_the_way_of_the_bundle_that_reads_it(
        self, tmp_path: Path, database_url: str
    ) -> None:
        # Given an image that came while the bundle had an adapter for its camera
        runtime = make_runtime(tmp_path, database_url=database_url)
        _offered(runtime, manufacturer="SIMULATED", model="blue")
        assert value(runtime, "SELECT route FROM instances") == "adapter"
        runtime.close()
        # When another bundle, without it, is active
        other = write_tiny_bundle(tmp_path / "other", adapters=("simulated-red",), version="2.0.0")
        swapped = make_runtime(tmp_path, database_url=database_url, bundle=other)
        analyse_all(swapped)
        # Then the image is one of a known camera
        found = row(swapped, "SELECT route, adapter, reason_code FROM findings")
        assert tuple(found.values()) == ("known", None, "CAMERA_NOT_VALIDATED")
        assert value(swapped, "SELECT route FROM instances") == "known"
        swapped.close()


def test_requeued_images_are_analysed_and_reported_again(runtime: Runtime) -> None:
    instance = _offered(runtime)
    with patch("worker.analyse.frames", side_effect=RefusedPixelsError("PIXELS_UNREADABLE", "odd")):
        run_to_report(runtime)
    assert value(runtime, "SELECT reason_code FROM v_eye_results") == "PIXELS_UNREADABLE"
    execute(runtime, "UPDATE studies SET report_deadline_at = closed_at")
    assert runtime.database.write(images.requeue, [instance], 3600.0) == 1
    assert runtime.database.write(images.requeue, [instance], 3600.0) == 0
    # Then no partial report comes in between
    report_all(runtime)
    assert value(runtime, "SELECT count(*) FROM reports") == 1
    analyse_all(runtime)
    report_all(runtime)
    assert value(runtime, "SELECT grade FROM v_eye_results") == 2
