from __future__ import annotations

import json
from pathlib import Path

import pytest
from factories.commands import Installation, install

from worker.schema import Delivery, Instance, Quarantined, Study


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    """Two refused images of two studies; dead deliveries to both destinations and to one that is gone."""
    pacs = install(tmp_path)
    second = '[[destination]]\nname = "archive"\nae_title = "ARC"\nhost = "127.0.0.1"\nport = 1\n'
    pacs.config.write_text(pacs.config.read_text() + second)
    with pacs.rows() as rows:
        bundle = rows.bundle()
        first = rows.study(study_instance_uid="1.1", report_deadline_at=None)
        other = rows.study(study_instance_uid="1.2")
        rows.refused(first, sop_instance_uid="2.1", reason_code="INTERNAL_ERROR", attempts=5, claims=3)
        rows.refused(other, sop_instance_uid="2.2", reason_code="PIXELS_UNREADABLE")
        old = rows.report(first, bundle, state="SUPERSEDED")
        reports = rows.report(first, bundle, revision=2), rows.report(other, bundle)
        rows.delivery(old, state="DEAD")
        rows.delivery(reports[0], state="DEAD", attempts=5)
        rows.delivery(reports[1], "archive", state="DEAD")
        rows.delivery(reports[1], "gone", state="DEAD")
    return pacs


def test_refused_images_are_analysed_again_with_fresh_attempts(installed: Installation) -> None:
    # When
    answer = installed.run("requeue", "--refused", "--reason", "INTERNAL_ERROR")
    # Then
    assert (answer.status, answer.out) == (0, "1 refused image will be analysed again\n")
    assert installed.states("instances") == ["RECEIVED", "REFUSED"]
    with installed.rows() as rows:
        image = rows._session.get_one(Instance, 1)
        assert (image.attempts, image.claims, image.reason_code) == (0, 0, None)
    assert installed.states("deliveries") == ["DEAD"] * 4


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ([], ["RECEIVED", "RECEIVED"]),
        (["--study", "1.2"], ["REFUSED", "RECEIVED"]),
        (["--image", "2.1"], ["RECEIVED", "REFUSED"]),
        (["--image", "2.1", "--study", "1.2"], ["REFUSED", "REFUSED"]),
    ],
)
def test_refused_images_can_be_chosen(
    installed: Installation, choice: list[str], expected: list[str]
) -> None:
    assert installed.run("requeue", "--refused", *choice).status == 0
    assert installed.states("instances") == expected


def test_dead_deliveries_go_out_again_but_no_superseded_revision_and_none_that_nobody_sends(
    installed: Installation,
) -> None:
    # When
    answer = installed.run("requeue", "--dead")
    # Then
    assert answer.status == 0
    assert "2 dead deliveries will be sent again" in answer.words
    assert "1 dead delivery to 'gone' left alone: the configuration has no [[destination]]" in answer.words
    assert installed.states("deliveries") == ["DEAD", "PENDING", "PENDING", "DEAD"]
    with installed.rows() as rows:
        assert rows._session.get_one(Delivery, 2).attempts == 0


@pytest.mark.parametrize("choice", [("--destination", "archive"), ("--study", "1.2")])
def test_dead_deliveries_can_be_chosen(installed: Installation, choice: tuple[str, str]) -> None:
    assert installed.run("requeue", "--dead", *choice).status == 0
    assert installed.states("deliveries") == ["DEAD", "DEAD", "PENDING", "DEAD"]


def test_a_dry_run_changes_nothing(installed: Installation) -> None:
    answer = installed.run("requeue", "--dead", "--refused", "--dry-run")
    assert "2 refused images would be analysed again 2 dead deliveries would be sent again" in answer.words
    assert set(installed.states("instances")) == {"REFUSED"}
    assert set(installed.states("deliveries")) == {"DEAD"}


def test_json(installed: Installation) -> None:
    answer = installed.run("requeue", "--dead", "--refused", "--json")
    assert json.loads(answer.out) == {
        "refused": 2,
        "dead": 2,
        "left_without_destination": {"gone": 1},
        "left_without_file": 0,
        "dry_run": False,
    }


def test_when_nothing_matches_it_says_where_to_look(installed: Installation) -> None:
    answer = installed.run("requeue", "--dead", "--refused", "--study", "9.9")
    assert answer.status == 0
    assert "no refused image matches; `fundus-worker status`" in answer.words
    assert "no dead delivery matches; `fundus-worker status`" in answer.words


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ([], "say --refused, --dead, or both; or --conflict"),
        (["--conflict"], "say which with --image or --study"),
        (["--conflict", "--refused", "--image", "2.1"], "use it with --image or --study only"),
        (["--conflict", "--reason", "UID_CONFLICT", "--study", "1.1"], "with --image or --study only"),
        (["--dead", "--image", "2.1"], "use them with --refused only"),
        (["--refused", "--dead", "--reason", "INTERNAL_ERROR"], "use them with --refused only"),
        (["--refused", "--destination", "pacs"], "use it with --dead only"),
        (["--refused", "--reason", "internal_err"], "did you mean INTERNAL_ERROR?"),
        (["--refused", "--reason", "xyz"], "`fundus-worker status` shows those that occur"),
        (["--dead", "--destination", "pax"], "destination 'pax' is not in the configuration (pacs, archive)"),
    ],
)
def test_a_choice_that_means_nothing_is_refused(
    installed: Installation, choice: list[str], said: str
) -> None:
    answer = installed.run("requeue", *choice)
    assert answer.status == 2
    assert said in answer.words
    assert set(installed.states("instances")) == {"REFUSED"}
    assert set(installed.states("deliveries")) == {"DEAD"}


def test_a_destination_of_a_configuration_that_has_none(installed: Installation) -> None:
    installed.config.write_text(installed.config.read_text().partition("[[destination]]")[0])
    answer = installed.run("requeue", "--dead", "--destination", "pacs")
    assert (answer.status, "(which has none)" in answer.words) == (2, True)


def test_without_a_database(tmp_path: Path) -> None:
    answer = install(tmp_path).run("requeue", "--dead")
    assert (answer.status, "there is no database" in answer.err) == (2, True)


@pytest.fixture
def in_conflict(installed: Installation) -> Installation:
    """A third study, withheld because another file came under the UID of its image."""
    with installed.rows() as rows:
        study = rows.study(study_instance_uid="1.3", withheld_reason="UID_CONFLICT")
        rows.quarantined(rows.image(study, sop_instance_uid="2.3", uid_conflict=True))
    return installed


def _withheld(installed: Installation) -> tuple[bool, str | None, int, bool]:
    with installed.rows() as rows:
        image, study = rows._session.get_one(Instance, 3), rows._session.get_one(Study, 3)
        resolved = rows._session.get_one(Quarantined, 1).resolved_at is not None
        return image.uid_conflict, study.withheld_reason, study.content_version, resolved


@pytest.mark.parametrize("choice", [("--image", "2.3"), ("--study", "1.3")])
def test_a_person_decides_that_the_first_file_counts(
    in_conflict: Installation, choice: tuple[str, str]
) -> None:
    # When it is only asked for
    answer = in_conflict.run("requeue", "--conflict", *choice, "--dry-run")
    assert (answer.status, answer.out) == (0, "the first file of 1 image in conflict would count\n")
    assert _withheld(in_conflict) == (True, "UID_CONFLICT", 1, False)
    # When it is meant
    answer = in_conflict.run("requeue", "--conflict", *choice)
    # Then the study is to be reported, and the record stays
    assert (answer.status, answer.out) == (0, "the first file of 1 image in conflict will count\n")
    assert _withheld(in_conflict) == (False, None, 2, True)
    assert "no image in conflict matches" in in_conflict.run("requeue", "--conflict", *choice).words


def test_a_decision_leaves_other_studies_alone(in_conflict: Installation) -> None:
    answer = in_conflict.run("requeue", "--conflict", "--image", "2.1", "--json")
    assert json.loads(answer.out)["conflict"] == 0
    assert _withheld(in_conflict) == (True, "UID_CONFLICT", 1, False)
