"""Two processes with different models at once, as when machines are updated one after the other."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import structlog
from factories.bundle import write_tiny_bundle
from factories.runtime import (
    analyse_all,
    close_studies,
    execute,
    fundus_of_grade,
    make_runtime,
    make_settings,
    offer,
    report_all,
    row,
    rows,
    value,
)

from worker.commands.status import collect
from worker.dispatch import Job
from worker.runtime import Runtime, build_runtime
from worker.service import Role, Service, run_job
from worker.store import reports


def _two(tmp_path: Path) -> tuple[Runtime, Runtime]:
    """An older process, and one with a newer bundle that started later."""
    first = make_runtime(tmp_path)
    other = write_tiny_bundle(tmp_path / "other", version="2.0.0")
    return first, make_runtime(tmp_path, bundle=other)


def _processes(runtime: Runtime) -> dict[str, Any]:
    from worker.store import overview

    return {each["id"]: each["superseded"] for each in runtime.database.read(overview.processes)}


def test_only_the_one_that_started_last_analyses_and_reports(tmp_path: Path) -> None:
    first, second = _two(tmp_path)
    assert offer(first, fundus_of_grade(2, study_uid="1.2.3")) == 0
    instance = value(first, "SELECT id FROM instances")
    run_first, run_second = run_job(first), run_job(second)
    # When the older one is asked, it says why it does nothing, once
    with structlog.testing.capture_logs() as logs:
        run_first(Job.ANALYSE, instance)
        run_first(Job.REPORT, value(first, "SELECT id FROM studies"))
    assert [each["event"] for each in logs] == ["bundle_not_active"]
    assert value(first, "SELECT state FROM instances") == "RECEIVED"
    assert _processes(first) == {first.process_id: True, second.process_id: False}
    # And the newer one does it
    run_second(Job.ANALYSE, instance)
    close_studies(second)
    run_second(Job.REPORT, value(first, "SELECT id FROM studies"))
    assert value(second, "SELECT count(*) FROM reports") == 1
    for runtime in (first, second):
        runtime.close()


def test_what_the_older_one_had_analysed_is_analysed_anew_once(tmp_path: Path) -> None:
    first = make_runtime(tmp_path)
    assert offer(first, fundus_of_grade(2, study_uid="1.2.3")) == 0
    run_job(first)(Job.ANALYSE, value(first, "SELECT id FROM instances"))
    second = make_runtime(tmp_path, bundle=write_tiny_bundle(tmp_path / "other", version="2.0.0"))
    close_studies(second)
    # When both go on working at whatever is due
    for _ in range(3):
        for run in (run_job(second), run_job(first)):
            run(Job.REPORT, value(second, "SELECT id FROM studies"))
            run(Job.ANALYSE, value(second, "SELECT id FROM instances"))
    # Then there is one finding of each, and one report of the active bundle
    assert len(rows(second, "SELECT id FROM findings")) == 2
    found = row(second, "SELECT b.active, r.state FROM reports r JOIN bundles b ON b.id = r.bundle_pk")
    assert (bool(found["active"]), found["state"]) == (True, "WRITTEN")
    for runtime in (first, second):
        runtime.close()


def test_status_names_the_process_that_takes_no_images(tmp_path: Path) -> None:
    first, second = _two(tmp_path)
    told = [each for each in collect(first.settings, 7)["attention"] if "takes no images" in each]
    assert len(told) == 1
    assert "started later; stop it, or start it anew" in told[0]
    second.close()
    first.close()


def test_a_process_that_analyses_nothing_does_not_change_the_active_bundle(tmp_path: Path) -> None:
    first = make_runtime(tmp_path)
    other = write_tiny_bundle(tmp_path / "other", version="2.0.0")
    listening = build_runtime(make_settings(tmp_path, bundle=other), "listen")
    assert value(first, "SELECT version FROM bundles WHERE active") == "1.0.0"
    assert _processes(first) == {first.process_id: False, listening.process_id: False}
    listening.close()
    first.close()


def test_a_start_that_fails_leaves_the_active_bundle_to_those_who_run(tmp_path: Path) -> None:
    # Given a process that analyses, and the port of another one taken
    first = make_runtime(tmp_path)
    other = write_tiny_bundle(tmp_path / "other", version="2.0.0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listener = {"port": taken.getsockname()[1]}
        settings = make_settings(tmp_path, bundle=other, listener=listener)
        # When that one starts with a newer bundle
        with pytest.raises(OSError, match="in use"):
            Service(settings, Role.SERVE).start()
    # Then the first one goes on
    assert value(first, "SELECT version FROM bundles WHERE active") == "1.0.0"
    first.close()


def test_a_worker_that_only_delivers_does_not_change_the_active_bundle(tmp_path: Path) -> None:
    first = make_runtime(tmp_path)
    other = write_tiny_bundle(tmp_path / "other", version="2.0.0")
    delivering = Service(make_settings(tmp_path, bundle=other), Role.WORK, frozenset({Job.DELIVER}))
    delivering.start()
    assert value(first, "SELECT version FROM bundles WHERE active") == "1.0.0"
    assert delivering.stop()
    first.close()


def test_a_study_is_reported_after_the_bundle_was_rolled_back(tmp_path: Path) -> None:
    # Given a report of the old bundle that was cut off, and one of the new bundle that was written
    first = make_runtime(tmp_path)
    offer(first, fundus_of_grade(0, study_uid="1.2.3", sop_uid="1.2.3.1", laterality="R"))
    analyse_all(first)
    close_studies(first)
    with patch.object(reports, "finish", side_effect=RuntimeError("killed")):
        report_all(first)
    first.close()
    second = make_runtime(tmp_path, bundle=write_tiny_bundle(tmp_path / "other", version="2.0.0"))
    _work_off(second)
    second.close()
    # When the old one comes back, and two more images come one after the other
    first = make_runtime(tmp_path)
    for number, grade in ((2, 0), (3, 4)):
        offer(first, fundus_of_grade(grade, study_uid="1.2.3", sop_uid=f"1.2.3.{number}", laterality="L"))
        _work_off(first)
    # Then the worst of them is in the one current report
    current = (
        "SELECT e.grade FROM eye_results e JOIN reports r ON r.id = e.report_id WHERE r.state = 'WRITTEN'"
    )
    assert [each["grade"] for each in rows(first, current + " ORDER BY e.laterality")] == [4, 0]
    assert value(first, "SELECT count(*) FROM reports WHERE state = 'WRITTEN'") == 1
    first.close()


def _work_off(runtime: Runtime) -> None:
    for _ in range(3):
        analyse_all(runtime)
        close_studies(runtime)
        execute(runtime, "UPDATE studies SET due_at = NULL")
        report_all(runtime)


def test_the_first_process_of_all_makes_its_bundle_the_active_one(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    listening = build_runtime(settings, "listen")
    assert value(listening, "SELECT count(*) FROM bundles WHERE active") == 1
    listening.close()
