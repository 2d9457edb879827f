"""Two processes with different models at once, as when machines are updated one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import structlog
from factories.bundle import write_tiny_bundle
from factories.runtime import (
    close_studies,
    fundus_of_grade,
    make_runtime,
    make_settings,
    offer,
    row,
    rows,
    value,
)

from worker.commands.status import collect
from worker.dispatch import Job
from worker.runtime import Runtime, build_runtime
from worker.service import run_job


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


def test_the_first_process_of_all_makes_its_bundle_the_active_one(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    listening = build_runtime(settings, "listen")
    assert value(listening, "SELECT count(*) FROM bundles WHERE active") == 1
    listening.close()
