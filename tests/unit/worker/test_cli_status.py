from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from factories.commands import Installation, ago, install
from factories.rows import Rows

from worker.schema import Process


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    return install(tmp_path)


def running(rows: Rows, **values: Any) -> None:
    seen = {"seen_at": ago(seconds=1), "started_at": ago(hours=2), **values}
    rows._add(Process(**{"id": "p-1", "role": "serve", "host": "far-away", "pid": 77, **seen}))


def report(installed: Installation, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(installed.run("status", "--json", *options).out)
    return found


def test_before_the_first_start_it_says_so_and_makes_nothing(installed: Installation) -> None:
    # When
    answer = installed.run("status")
    # Then
    assert answer.status == 2
    assert "there is no database" in answer.err
    assert "start `fundus-worker serve`" in answer.err
    assert not installed.data.exists()


def test_all_is_well(installed: Installation) -> None:
    # Given a worker with nothing to do
    with installed.rows() as rows:
        running(rows)
        bundle = rows.bundle("reference")
        rows.finding(rows.image(rows.study(), received_at=ago(hours=1), size_bytes=5_000_000), bundle)
    # When
    answer = installed.run("status")
    # Then
    assert answer.status == 0
    assert "all is well" in answer.out
    assert "bundle reference 1 on onnx, digest 0000" in answer.words
    assert "serve far-away 77 2 h 1 s ago" in answer.words
    assert "images 1 analysed" in answer.words
    assert "Waiting: nothing" in answer.words
    assert (
        f"pacs (PACS at 127.0.0.1:{installed.pacs_port}): 0 delivered, 0 waiting, 0 given up" in answer.words
    )
    assert "Failures: none" in answer.words


def test_without_a_process_nothing_is_received(installed: Installation) -> None:
    with installed.rows() as rows:
        rows.bundle()
    answer = installed.run("status")
    assert answer.status == 1
    assert "no process runs, so nothing is received or delivered: start `fundus-worker serve`" in answer.words
    assert "Processes: none runs" in answer.words


def test_a_process_that_was_killed_counts_as_none(installed: Installation) -> None:
    with installed.rows() as rows:
        running(rows, seen_at=ago(minutes=5))
    answer = installed.run("status")
    assert answer.status == 1
    assert "5 min ago, dead?" in answer.words
    assert report(installed)["processes"][0]["silent"] is True


@pytest.mark.parametrize(
    ("outcome", "status"), [(None, 0), (ProcessLookupError(), 1), (PermissionError(), 0)], ids=str
)
def test_a_process_on_this_machine_is_looked_for(
    installed: Installation, monkeypatch: pytest.MonkeyPatch, outcome: OSError | None, status: int
) -> None:
    # Given one that was seen a second ago
    asked: list[tuple[int, int]] = []

    def kill(pid: int, number: int) -> None:
        asked.append((pid, number))
        if outcome is not None:
            raise outcome

    with installed.rows() as rows:
        running(rows, host=socket.gethostname()[:64])
    monkeypatch.setattr(os, "kill", kill)
    # When, Then
    assert installed.run("status").status == status
    assert asked == [(77, 0)]


def test_before_the_first_image_there_is_no_bundle_to_show(installed: Installation) -> None:
    with installed.rows() as rows:
        running(rows)
    assert "bundle none yet: no process has started" in installed.run("status").words


def test_a_refused_image_is_shown_with_what_to_do(installed: Installation) -> None:
    # Given
    with installed.rows() as rows:
        running(rows)
        study = rows.study(accession_number="A77")
        rows.refused(study, analysed_at=ago(minutes=3), reason_detail="the stream ends early")
    # When
    answer = installed.run("status")
    # Then
    assert answer.status == 1
    assert "! 1 failure to look into, listed below" in answer.words
    assert "images refused: 1, PIXELS_UNREADABLE Send the image again" in answer.words
    assert "(3 min ago), accession number A77 study 1.2.3.1." in answer.words
    assert "the stream ends early" in answer.words


def test_a_refusal_that_nothing_can_be_done_about_leaves_it_green(installed: Installation) -> None:
    with installed.rows() as rows:
        running(rows)
        rows.refused(rows.study(), analysed_at=ago(minutes=3), reason_code="NOT_COLOUR")
    answer = installed.run("status")
    assert answer.status == 0
    assert "images refused: 1, NOT_COLOUR (nothing to do)" in answer.words


def test_a_refusal_of_long_ago_leaves_it_green_unless_asked_for(installed: Installation) -> None:
    # Given
    with installed.rows() as rows:
        running(rows)
        rows.refused(rows.study(), analysed_at=ago(days=30))
    # When, Then
    answer = installed.run("status")
    assert (answer.status, "PIXELS_UNREADABLE (long ago)" in answer.words) == (0, True)
    assert installed.run("status", "--days", "60").status == 1
    # And when a recent one comes
    with installed.rows() as rows:
        study = rows.study(study_instance_uid="1.2.3.77")
        rows.refused(study, sop_instance_uid="1.2.3.78", analysed_at=ago(days=1))
    answer = installed.run("status")
    assert (answer.status, "PIXELS_UNREADABLE (1 recent one)" in answer.words) == (1, True)


def test_many_of_a_kind_are_counted_and_a_few_shown(installed: Installation) -> None:
    with installed.rows() as rows:
        running(rows)
        study = rows.study()
        for _ in range(5):
            rows.refused(study, analysed_at=ago(minutes=3))
    answer = installed.run("status")
    assert answer.out.count("      image") == 3
    assert "… 5 in all: see the view v_failures" in answer.words


def test_a_dead_delivery_names_the_command_that_sends_it_again(installed: Installation) -> None:
    # Given
    with installed.rows() as rows:
        running(rows)
        written = rows.report(rows.study(), rows.bundle())
        rows.delivery(written, state="DEAD", reason_code="STORE_REFUSED", due_at=ago(hours=1))
    # When
    answer = installed.run("status")
    # Then
    assert answer.status == 1
    assert "0 delivered, 0 waiting, 1 given up" in answer.words
    assert "reports given up on to pacs: 1, STORE_REFUSED" in answer.words
    assert "fundus-worker requeue --dead --destination pacs" in answer.words
    assert f"report {written_uid(installed)}" in answer.words


def written_uid(installed: Installation) -> str:
    return str(report(installed)["failures"][0]["sop_instance_uid"])


@pytest.mark.parametrize(("days", "status"), [(6, 1), (8, 0)])
def test_a_study_that_was_emptied_needs_a_person_for_a_week(
    installed: Installation, days: int, status: int
) -> None:
    with installed.rows() as rows:
        running(rows)
        rows.study(withheld_reason="STUDY_EMPTIED", last_image_at=ago(hours=24 * days))
    answer = installed.run("status")
    assert answer.status == status
    assert "studies withheld: 1, STUDY_EMPTIED" in answer.words
    assert "remove the report at the destination" in answer.words


def test_a_delivery_that_is_overdue_and_a_report_that_fails_are_named(installed: Installation) -> None:
    with installed.rows() as rows:
        running(rows)
        bundle = rows.bundle()
        refused: dict[str, Any] = {"created_at": ago(hours=1), "reason_code": "PEER_REJECTED_ASSOCIATION"}
        rows.delivery(rows.report(rows.study(), bundle), **refused)
        rows.study(attempts=4, reported_version=0, closed_at=ago(minutes=2), last_error="ValueError")
    answer = installed.run("status")
    assert answer.status == 1
    assert "reports overdue to pacs: 1, PEER_REJECTED_ASSOCIATION" in answer.words
    assert "Enter our AE title at the destination" in answer.words
    assert "studies whose report fails again and again: 1" in answer.words


def test_a_superseded_revision_that_died_is_no_concern(installed: Installation) -> None:
    with installed.rows() as rows:
        running(rows)
        old = rows.report(rows.study(), rows.bundle(), state="SUPERSEDED")
        rows.delivery(old, state="DEAD", reason_code="STORE_REFUSED")
    answer = installed.run("status")
    assert (answer.status, "0 given up" in answer.words) == (0, True)


@pytest.mark.parametrize(
    ("due", "shown"), [({"seconds": -90}, "again in 1 min"), ({"seconds": 5}, "due now")]
)
def test_a_destination_that_is_down(installed: Installation, due: Mapping[str, float], shown: str) -> None:
    # Given a report that has waited for two minutes, beside one that arrived
    with installed.rows() as rows:
        running(rows)
        bundle = rows.bundle()
        rows.accepted(rows.report(rows.study(), bundle), "pacs", 200)
        rows.delivery(
            rows.report(rows.study(), bundle),
            reason_code="PEER_UNREACHABLE",
            created_at=ago(minutes=2),
            due_at=ago(**due),
        )
    # When
    answer = installed.run("status")
    # Then it is said, but nobody needs to do anything yet
    assert answer.status == 0
    assert "1 delivered, 1 waiting, 0 given up last accepted 2026-03-01 10:03:20Z" in answer.words
    assert "PEER_UNREACHABLE, oldest since" in answer.words
    assert shown in answer.words
    assert "Check address, port, network" in answer.words
    assert "reports to deliver to pacs 1 2 min" in answer.words


def test_what_waits_too_long_needs_a_person(installed: Installation) -> None:
    # Given an open study, which waits by design, and an image that should have been analysed
    with installed.rows() as rows:
        running(rows)
        study = rows.study(state="OPEN", opened_at=ago(hours=3), reported_version=0)
        rows.waiting(study, received_at=ago(minutes=20))
    # When
    answer = installed.run("status")
    # Then
    assert answer.status == 1
    assert "! images to analyse: 1, the oldest for 20 min" in answer.words
    assert "studies that may get more images 1 3 h" in answer.words
    assert len(report(installed)["attention"]) == 1


def test_reports_for_a_destination_that_was_taken_out_of_the_configuration(installed: Installation) -> None:
    with installed.rows() as rows:
        running(rows)
        rows.delivery(rows.report(rows.study(), rows.bundle()), "old", created_at=ago(seconds=5))
    answer = installed.run("status")
    assert answer.status == 1
    assert (
        "1 report for 'old', which is not in the configuration: add its [[destination]] again" in answer.words
    )
    assert "old (not in the configuration): 0 delivered, 1 waiting" in answer.words


def test_without_destinations_reports_stay(installed: Installation) -> None:
    text = installed.config.read_text()
    installed.config.write_text(text.partition("[[destination]]")[0])
    with installed.rows() as rows:
        running(rows)
    assert "Destinations: none configured, reports stay in the data folder" in installed.run("status").words


def test_what_was_turned_away_is_counted_by_reason(installed: Installation) -> None:
    # Given four callers with a wrong AE title, one of them twice as often, and an old one
    with installed.rows() as rows:
        running(rows)
        for number in range(4):
            last = ago(minutes=number + 1)
            rows.rejection(calling_ae=f"CAM{number}", count=2, first_at=last, last_at=last)
        rows.rejection(calling_ae="", kind="CONNECTION", reason_code="CONNECTION_PROBE", last_at=ago(hours=1))
        rows.rejection(calling_ae="OLD", last_at=ago(hours=25))
    # When
    answer = installed.run("status")
    # Then
    assert answer.status == 0
    assert "8 x CALLED_AE_UNKNOWN, last" in answer.words
    assert "and 1 more Correct the called AE title at the sender" in answer.words
    assert "(no AE title) at 127.0.0.1" in answer.words
    assert "OLD" not in answer.out


def full_disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    class Usage(NamedTuple):
        total: int
        used: int
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12 - free, free))


def test_the_disk_reserve_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given less free space than the reserve
    installed = install(tmp_path, spool={"reserve_mb": 512})
    full_disk(monkeypatch, 400_000_000)
    with installed.rows() as rows:
        running(rows)
    # When
    answer = installed.run("status")
    # Then
    assert answer.status == 1
    assert "the disk reserve of 512 MB is reached, senders are refused: free space" in answer.words
    assert "disk 400 MB free: below the reserve of 512 MB, senders are refused" in answer.words


@pytest.mark.parametrize(
    ("received", "shown"), [(2_000_000_000, ", in 5 d at this pace"), (1_000_000, "below 0 MB images")]
)
def test_when_the_disk_reserve_will_be_reached(
    installed: Installation, monkeypatch: pytest.MonkeyPatch, received: int, shown: str
) -> None:
    full_disk(monkeypatch, 10_000_000_000)
    with installed.rows() as rows:
        running(rows)
        rows.image(rows.study(), received_at=ago(hours=1), size_bytes=received)
        rows.image(rows.study(), received_at=ago(hours=48), size_bytes=received)
    assert shown in installed.run("status").words
    assert report(installed)["disk"]["received_24h_bytes"] == received


def test_the_forecast_is_unknown_without_a_day_of_history(
    installed: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_disk(monkeypatch, 10_000_000_000)
    with installed.rows() as rows:
        running(rows)
        rows.image(rows.study(), received_at=ago(hours=23), size_bytes=2_000_000_000)
    assert "growth unknown: less than a day of history" in installed.run("status").words
    found = report(installed)["disk"]
    assert (found["growth_bytes_per_day"], found["days_until_reserve"]) == (None, None)
    assert found["used_bytes"] > 0


@pytest.mark.parametrize(
    ("images_days", "growth", "shown"),
    [("0", 2_000_000_000, "2.0 GB more a day over the last 7 d"), ("30", 0, "not growing over the last 7 d")],
)
def test_what_the_retention_removes_counts_only_while_it_is_on(
    installed: Installation, monkeypatch: pytest.MonkeyPatch, images_days: str, growth: int, shown: str
) -> None:
    full_disk(monkeypatch, 10_000_000_000)
    with installed.rows() as rows:
        running(rows)
        study = rows.study()
        rows.image(study, received_at=ago(days=3), size_bytes=14_000_000_000)
        rows.image(study, received_at=ago(days=40), size_bytes=14_000_000_000)
        rows.removal(study, size_bytes=14_000_000_000, ended_at=ago(days=2))
    monkeypatch.setenv("FUNDUS_RETENTION__IMAGES_DAYS", images_days)
    assert report(installed)["disk"]["growth_bytes_per_day"] == growth
    assert shown in installed.run("status").words


def test_json_has_moments_a_machine_can_read(installed: Installation) -> None:
    with installed.rows() as rows:
        running(rows)
        rows.refused(rows.study(), analysed_at=ago(minutes=3))
    found = report(installed)
    for text in (found["at"], found["failures"][0]["since"], found["processes"][0]["seen_at"]):
        assert datetime.fromisoformat(text).utcoffset() is not None
    assert found["failure_groups"][0]["remedy"].startswith("Send the image again")
    assert found["failures"][0]["remedy"] == found["failure_groups"][0]["remedy"]


def test_text_fits_eighty_columns_but_for_identifiers(installed: Installation) -> None:
    # Given identifiers as long as the Standard lets them be
    with installed.rows() as rows:
        running(rows)
        study = rows.study(study_instance_uid="1." + "2" * 62, accession_number="A" * 16)
        rows.refused(study, sop_instance_uid="1." + "3" * 62, analysed_at=ago(minutes=3))
        rows.rejection(last_at=ago(minutes=1))
    # When
    lines = installed.run("status").out.splitlines()
    # Then
    folder = str(installed.data)
    assert [line for line in lines if len(line) > 80 and folder not in line] == []
    assert any(line.endswith("study  1." + "2" * 62) for line in lines)


def test_an_outdated_schema_is_left_alone(installed: Installation) -> None:
    # Given tables of an older release
    engine = installed.engine()
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    engine.dispose()
    # When
    answer = installed.run("status")
    # Then
    assert answer.status == 2
    assert "run `fundus-worker db upgrade`" in answer.words
