"""What `[[caller]]` changes on an image's way: its priority, its camera, and who gets the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories.runtime import (
    CALLER,
    execute,
    fundus_of_grade,
    let_time_pass,
    make_runtime,
    offer,
    rows,
    run_to_report,
    value,
)

from worker.documents import make_documents
from worker.runtime import Runtime
from worker.sweep import sweep

PACS, EYES = (
    {"name": name, "ae_title": "PACS", "host": "127.0.0.1", "port": 11113} for name in ("pacs", "eyes")
)
CLINIC = {"ae_title": "CLINIC", "priority": "high", "destinations": ["eyes"]}
FROM_CLINIC = replace(CALLER, calling_ae="CLINIC")
SENT_TO = (
    "SELECT destination FROM deliveries d JOIN reports r ON r.id = d.report_id WHERE r.state = 'WRITTEN'"
)


def runtime_with(tmp_path: Path, *callers: dict[str, Any], **tables: Any) -> Runtime:
    return make_runtime(tmp_path, caller=list(callers), destination=[PACS, EYES], **tables)


def sent_to(runtime: Runtime) -> list[str]:
    return sorted(each["destination"] for each in rows(runtime, SENT_TO))


@pytest.mark.parametrize(
    ("attributes", "dimse", "priority"),
    [
        ({}, 0, 1),
        ({}, 2, 3),
        ({}, 1, 1),
        ({"RequestedProcedurePriority": "LOW"}, 1, 3),
        ({"RequestedProcedurePriority": "ODD"}, 0, 1),
    ],
)
def test_a_caller_has_a_priority_where_neither_image_nor_request_says_one(
    tmp_path: Path, attributes: dict[str, Any], dimse: int, priority: int
) -> None:
    runtime = runtime_with(tmp_path, CLINIC)

    offer(runtime, fundus_of_grade(0, **attributes), peer=FROM_CLINIC, priority=dimse)

    assert value(runtime, "SELECT priority FROM instances") == priority
    runtime.close()


def test_a_report_goes_where_its_caller_s_reports_go_and_the_sweep_adds_no_other(tmp_path: Path) -> None:
    runtime = runtime_with(tmp_path, CLINIC)
    offer(runtime, fundus_of_grade(0), peer=FROM_CLINIC)
    run_to_report(runtime)

    sweep(runtime)

    assert sent_to(runtime) == ["eyes"]
    runtime.close()


def test_what_goes_beside_a_report_goes_where_the_report_goes(tmp_path: Path) -> None:
    wanting = [{**PACS, "pdf": True}, {**EYES, "pdf": True}]
    runtime = make_runtime(tmp_path, caller=[CLINIC], destination=wanting)
    offer(runtime, fundus_of_grade(0), peer=FROM_CLINIC)
    run_to_report(runtime)

    make_documents(runtime, value(runtime, "SELECT id FROM studies"))
    sweep(runtime)

    sent = [tuple(each.values()) for each in rows(runtime, "SELECT destination, kind FROM v_deliveries")]
    assert sorted(sent) == [("eyes", "PDF"), ("eyes", "SR")]
    runtime.close()


def test_a_study_of_two_callers_goes_to_the_destinations_of_both(tmp_path: Path) -> None:
    runtime = runtime_with(tmp_path, CLINIC)
    for peer, laterality in ((FROM_CLINIC, "R"), (CALLER, "L")):
        offer(runtime, fundus_of_grade(0, study_uid="1.2", laterality=laterality), peer=peer)
    run_to_report(runtime)

    assert sent_to(runtime) == ["eyes", "pacs"]
    runtime.close()


def test_whoever_holds_an_earlier_revision_gets_the_one_that_replaces_it(tmp_path: Path) -> None:
    # Given a report that both destinations hold
    before = runtime_with(tmp_path)
    offer(before, fundus_of_grade(0, study_uid="1.2", laterality="R"), peer=FROM_CLINIC)
    run_to_report(before)
    before.close()
    # When another image comes in, under a policy by which one of them would get nothing
    runtime = runtime_with(tmp_path, CLINIC)
    offer(runtime, fundus_of_grade(2, study_uid="1.2", laterality="L"), peer=FROM_CLINIC)
    let_time_pass(runtime)
    run_to_report(runtime)
    # Then it is not left with what is no longer true
    assert value(runtime, "SELECT count(*) FROM reports") == 2
    assert sent_to(runtime) == ["eyes", "pacs"]
    runtime.close()


def test_a_camera_is_reported_for_the_caller_that_it_was_opted_in_for(tmp_path: Path) -> None:
    runtime = runtime_with(tmp_path, {"ae_title": "CLINIC", "camera_opt_in": ["topcon-nw400"]})
    for peer, study in ((FROM_CLINIC, "1.2"), (CALLER, "1.3")):
        ds = fundus_of_grade(2, study_uid=study, manufacturer="Topcon", model="NW400")
        offer(runtime, ds, peer=peer)
    execute(runtime, "UPDATE instances SET camera = 'topcon-nw400', route = 'known', adapter = NULL")
    run_to_report(runtime)

    found = rows(
        runtime,
        "SELECT s.study_instance_uid AS study, e.grade, e.reason_code FROM eye_results e "
        "JOIN reports r ON r.id = e.report_id JOIN studies s ON s.id = r.study_id ORDER BY 1",
    )
    assert [tuple(each.values()) for each in found] == [
        ("1.2", 2, None),
        ("1.3", None, "CAMERA_NOT_VALIDATED"),
    ]
    runtime.close()
