from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from factories.runtime import fundus_of_grade, make_runtime, offer, value

from worker.errors import DatabaseUnreachableError
from worker.runtime import Runtime
from worker.store import images
from worker.sweep import adopt_orphans


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    made = make_runtime(tmp_path)
    yield made
    made.close()


def _known(runtime: Runtime, number: int = 1) -> Path:
    """An image with its row, stored long ago; its folder."""
    assert offer(runtime, fundus_of_grade(0, study_uid="1.2.3", sop_uid=f"1.2.3.{number}")) == 0
    path = runtime.spool.path(value(runtime, "SELECT spool_path FROM instances ORDER BY id DESC LIMIT 1"))
    return _old(path)


def _orphan(runtime: Runtime, number: int) -> Path:
    """A file without a row, as old."""
    temporary = runtime.spool.incoming / "x.part"
    ds = fundus_of_grade(0, study_uid="1.2.3", sop_uid=f"1.2.3.{number}")
    ds.save_as(temporary, enforce_file_format=True)
    return _old(runtime.spool.path(runtime.spool.place(temporary).relative_path))


def _old(path: Path) -> Path:
    os.utime(path, (1, 1))
    os.utime(path.parent, (1, 1))
    return path


def test_a_folder_in_which_nothing_changed_is_looked_at_once(runtime: Runtime) -> None:
    known = _known(runtime)
    assert adopt_orphans(runtime) == 0
    with patch.object(runtime.spool, "objects", wraps=runtime.spool.objects) as looked:
        assert adopt_orphans(runtime) == 0
    assert known.parent.name not in [call.args[0] for call in looked.call_args_list]
    # Until a name comes or goes
    (known.parent / f"{'0' * 64}.dcm").write_bytes(b"no DICOM")
    os.utime(known.parent / f"{'0' * 64}.dcm", (1, 1))
    assert adopt_orphans(runtime) == 0
    assert [path.name for path in known.parent.iterdir()] == [known.name]


def test_a_folder_that_changed_lately_or_has_a_young_file_is_looked_at_again(runtime: Runtime) -> None:
    # Given a young file in a folder whose time does not show it
    known = _known(runtime)
    os.utime(known)
    adopt_orphans(runtime)
    assert runtime.settled_folders == {}
    # And an old one in a folder that changed just now
    _old(known)
    os.utime(known.parent)
    adopt_orphans(runtime)
    assert runtime.settled_folders == {}
    _old(known)
    adopt_orphans(runtime)
    assert list(runtime.settled_folders) == [known.parent.name]


def test_a_clock_that_jumped_adopts_nothing_early(runtime: Runtime) -> None:
    # Given a file that came just now, and a machine whose clock is a day ahead of the disk's
    path = _orphan(runtime, 1)
    os.utime(path)
    half = runtime.spool.incoming / "half.part"
    half.write_bytes(b"half")
    with patch("time.time", return_value=path.stat().st_mtime + 86_400):
        assert adopt_orphans(runtime) == 0
    assert value(runtime, "SELECT count(*) FROM instances") == 0
    assert half.exists()


def test_what_an_association_may_still_send_is_not_deleted(tmp_path: Path) -> None:
    # Given a listener that waits for two hours, and an object that has not grown for three
    runtime = make_runtime(tmp_path, listener={"network_timeout_s": 7200})
    half = runtime.spool.incoming / "half.part"
    half.write_bytes(b"half")
    three_hours_ago = half.stat().st_mtime - 3 * 3600
    os.utime(half, (three_hours_ago, three_hours_ago))
    adopt_orphans(runtime)
    assert half.exists()
    os.utime(half, (1, 1))
    adopt_orphans(runtime)
    assert not half.exists()
    runtime.close()


def test_one_bad_file_keeps_no_other_waiting_and_is_tried_again(runtime: Runtime) -> None:
    paths = [_orphan(runtime, number) for number in (1, 2)]
    real = runtime.spool.read_verified
    bad = sorted(paths)[0]

    def fail(path: str, sha256: str) -> bytes:
        if path.endswith(bad.name):
            raise RuntimeError
        return real(path, sha256)

    with patch.object(runtime.spool, "read_verified", fail):
        assert adopt_orphans(runtime) == 1
    assert adopt_orphans(runtime) == 1


def test_a_database_that_is_away_settles_nothing(runtime: Runtime) -> None:
    _orphan(runtime, 1)
    real = runtime.database.read

    def away(work: object, *arguments: object) -> object:
        if work is images.known_hashes:
            raise DatabaseUnreachableError("away")
        return real(work, *arguments)  # type: ignore[arg-type]  # passed on as it came

    with patch.object(runtime.database, "read", away), pytest.raises(DatabaseUnreachableError):
        adopt_orphans(runtime)
    assert adopt_orphans(runtime) == 1
