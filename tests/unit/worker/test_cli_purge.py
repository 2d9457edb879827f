from __future__ import annotations

import json
import uuid
from pathlib import Path
from unittest.mock import patch

import pytest
from factories.commands import Installation, ago, install
from factories.rows import Rows

from dicom_io.spool import Spool
from worker.spool_files import SpoolFiles
from worker.spool_marker import mark

NAMESPACE = uuid.UUID("12345678-1234-4234-8234-123456789abc")


def study(rows: Rows, spool: Spool, number: int, delivery: str | None, image: str = "ANALYSED") -> None:
    """A study of one image and one report, both with files of 100 and 10 bytes, 40 days old."""
    made = rows.study()
    path = f"objects/{number:02x}/{number:064x}.dcm"
    spool.write_durable(path, b"x" * 100)
    stored = rows.image(made, spool_path=path, sha256=f"{number:064x}", state=image)
    rows.header_version(stored, received_at=ago(days=40))
    report = rows.report(made, rows.bundle(active=False), written_at=ago(days=40), sha256="0" * 64)
    report.spool_path = f"reports/{report.sop_instance_uid}.dcm"
    spool.write_durable(report.spool_path, b"y" * 10)
    if delivery is not None:
        rows.delivery(report, state=delivery)


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    """Five studies: two delivered (one refused image), a dead letter, one pending, one never sent."""
    made = install(tmp_path)
    made.data.mkdir()
    spool = Spool(made.data / "spool")
    mark(spool, NAMESPACE)
    with made.rows() as rows:
        rows.installation()
        study(rows, spool, 1, "ACCEPTED")
        study(rows, spool, 2, "COMMITTED", "REFUSED")
        study(rows, spool, 3, "DEAD")
        study(rows, spool, 4, "PENDING")
        study(rows, spool, 5, None)
        rows.rejection(last_at=ago(days=40))
        rows.rejection(last_at=ago(days=1))
    return made


def files(installed: Installation) -> int:
    return len(list((installed.data / "spool").rglob("*.dcm")))


def test_a_dry_run_says_what_would_go_and_changes_nothing(installed: Installation) -> None:
    options = ("purge", "--images", "--reports", "--door", "--older-than", "30d", "--dry-run")
    answer = installed.run(*options)
    assert answer.status == 0
    assert "1 image ANALYSED, report DELIVERED: 0 MB, " in answer.out
    assert "1 image REFUSED, report DELIVERED" in answer.out
    assert "2 reports WRITTEN, report DELIVERED" in answer.out
    assert "1 row of what was turned away" in answer.out
    assert "would remove 4 files, 0 MB; nothing was changed" in answer.out
    found = json.loads(installed.run(*options, "--json").out)
    assert [each["size_bytes"] for each in found["files"]] == [100, 100, 20]
    assert found["rows"] == {"associations": 0, "rejections": 1}
    assert files(installed) == 10


def test_it_removes_what_was_delivered_and_says_so(installed: Installation) -> None:
    answer = installed.run("purge", "--images", "--older-than", "30d")
    assert (answer.status, answer.out) == (0, "2 images removed: 0 MB\n")
    assert files(installed) == 8
    again = installed.run("purge", "--images", "--older-than", "720h", "--json")
    assert json.loads(again.out) == {"dry_run": False, "files": {}, "rows": {}, "stuck": 0}
    assert "nothing is old enough" in installed.run("purge", "--images", "--older-than", "30d").out


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["REFUSED"], {"IMAGE": 1}),
        (["DEAD"], {"IMAGE": 1, "REPORT": 1}),
        (["dead", "unsent", "DELIVERED"], {"IMAGE": 4, "REPORT": 4}),
        (["SUPERSEDED"], {}),
    ],
)
def test_states_choose(installed: Installation, states: list[str], expected: dict[str, int]) -> None:
    chosen = [word for each in states for word in ("--state", each)]
    answer = installed.run("purge", "--images", "--reports", "--older-than", "30d", *chosen, "--json")
    found = json.loads(answer.out)["files"]
    assert {kind: each["files"] for kind, each in found.items()} == expected


def test_a_dead_letter_whose_file_went_is_left_alone_and_said_to_be(installed: Installation) -> None:
    installed.run("purge", "--reports", "--older-than", "30d", "--state", "DEAD")
    answer = installed.run("requeue", "--dead", "--dry-run")
    assert "1 dead delivery left alone: its report's file was removed" in answer.words
    assert "no dead delivery matches" not in answer.words
    assert json.loads(installed.run("requeue", "--dead", "--json").out)["left_without_file"] == 1


def test_what_cannot_be_removed_is_said_and_the_rest_goes(installed: Installation) -> None:
    remove = SpoolFiles.remove

    def stuck(files: SpoolFiles, path: str) -> None:
        if path.startswith("objects/01"):
            raise PermissionError(1, "Operation not permitted", path)
        remove(files, path)

    with patch.object(SpoolFiles, "remove", stuck):
        answer = installed.run("purge", "--images", "--older-than", "30d")
        assert answer.status == 1
        assert "1 image removed" in answer.words
        assert "files of 1 study could not be removed" in answer.words
        assert (
            json.loads(installed.run("purge", "--images", "--older-than", "30d", "--json").out)["stuck"] == 1
        )
    assert files(installed) == 9


def test_old_rows_of_the_door_go_when_asked_for(installed: Installation) -> None:
    answer = installed.run("purge", "--door", "--older-than", "30d")
    assert answer.out == "0 rows of ended associations deleted\n1 row of what was turned away deleted\n"
    assert files(installed) == 10


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--older-than", "30d"), "say what: --images, --reports, --quarantine, --door"),
        (("--images", "--older-than", "30"), "'30' is no age: write days or hours, such as 90d or 36h"),
        (("--images", "--older-than", "0d"), "is no age"),
        (("--images", "--older-than", "36501d"), "is more than 100 years"),
        (
            ("--images", "--older-than", "1d", "--state", "RECEIVED"),
            "RECEIVED is no state whose files can go",
        ),
        (
            ("--images", "--older-than", "1d", "--state", "WRITTEN"),
            "no file of these kinds is in such a state",
        ),
    ],
)
def test_a_choice_that_is_none_is_refused(
    installed: Installation, arguments: tuple[str, ...], problem: str
) -> None:
    answer = installed.run("purge", *arguments)
    assert answer.status == 2
    assert problem in answer.words


def test_a_spool_that_is_not_there_is_refused(installed: Installation) -> None:
    (installed.data / "spool" / "installation").unlink()
    answer = installed.run("purge", "--images", "--older-than", "30d")
    assert answer.status == 2
    assert "is not theirs" in answer.words
    assert files(installed) == 10


def test_without_a_database_it_says_so(tmp_path: Path) -> None:
    answer = install(tmp_path).run("purge", "--images", "--older-than", "30d")
    assert answer.status == 2
    assert "there is no database" in answer.words
