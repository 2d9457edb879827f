from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dicom_io.errors import SpoolDamagedError, SpoolFullError
from dicom_io.spool import Spool, SpooledFile

CONTENT = b"DICM" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "data" / "spool")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, spool: Spool, tmp_path: Path) -> list[str]:
    """Every sync and rename that happens from now on, in order, by path below the spool."""
    root = tmp_path / "data" / "spool"
    recorded: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def short(path: Path | str) -> str:
        name = str(Path(path).relative_to(root))
        return "temporary" if name.startswith("incoming/") else name

    def recording_fsync(descriptor: int) -> None:
        recorded.append(f"sync {short(opened(descriptor))}")
        fsync(descriptor)

    def recording_rename(self: Path, target: Path) -> Path:
        recorded.append(f"rename to {short(target)}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(Path, "rename", recording_rename)
    return recorded


def opened(descriptor: int) -> Path:
    """Path behind a file descriptor."""
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def arrive(spool: Spool, content: bytes = CONTENT, name: str = "a.dcm") -> Path:
    path = spool.incoming / name
    path.write_bytes(content)
    return path


def test_place_moves_the_file_under_its_digest(spool: Spool) -> None:
    temporary = arrive(spool)

    placed = spool.place(temporary)

    assert placed == SpooledFile(f"objects/{DIGEST[:2]}/{DIGEST}.dcm", DIGEST, len(CONTENT))
    assert spool.path(placed.relative_path).read_bytes() == CONTENT
    assert not temporary.exists()


def test_place_and_sync_make_content_then_name_durable(spool: Spool, steps: list[str]) -> None:
    spool.sync(spool.place(arrive(spool)))

    final = f"objects/{DIGEST[:2]}/{DIGEST}.dcm"
    assert steps == [f"rename to {final}", f"sync {final}", f"sync objects/{DIGEST[:2]}"]


def test_a_new_spool_syncs_its_folders_up_to_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(str(opened(fd))))

    Spool(tmp_path / "new" / "spool")

    assert {str(tmp_path), str(tmp_path / "new")} <= set(synced), "the names of the new folders are durable"
    assert synced[-2:] == [str(tmp_path / "new/spool/objects"), str(tmp_path / "new/spool")]
    assert len(list((tmp_path / "new/spool/objects").iterdir())) == 256


def test_identical_content_keeps_the_file_that_is_durable_already(spool: Spool) -> None:
    first = spool.place(arrive(spool))
    inode = spool.path(first.relative_path).stat().st_ino

    again = spool.place(arrive(spool, name="b.dcm"))

    assert again == first
    assert spool.path(first.relative_path).stat().st_ino == inode
    assert list(spool.incoming.iterdir()) == []


def test_a_damaged_file_is_replaced_by_synced_content(spool: Spool, steps: list[str]) -> None:
    placed = spool.place(arrive(spool))
    spool.path(placed.relative_path).write_bytes(b"rot")
    steps.clear()

    spool.place(arrive(spool))

    assert steps == ["sync temporary", f"rename to {placed.relative_path}"]
    assert spool.read_verified(placed.relative_path, DIGEST) == CONTENT


@pytest.mark.parametrize("number", range(12))
def test_a_fault_at_any_step_leaves_no_partial_file_under_a_final_name(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    # Given a device that fails at the n-th call that changes anything
    calls = {"left": number}

    def failing(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            calls["left"] -= 1
            if calls["left"] < 0:
                raise OSError(errno.EIO, "injected")
            return function(*arguments, **options)

        return wrapper

    temporary = arrive(spool)
    for owner, name in ((os, "fsync"), (Path, "rename"), (Path, "open"), (Path, "mkdir")):
        monkeypatch.setattr(owner, name, failing(getattr(owner, name)))

    # When an object and a report are stored
    failed = False
    try:
        spool.sync(spool.place(temporary))
        spool.write_durable("reports/2025/report.dcm", CONTENT)
    except OSError:
        failed = True
    monkeypatch.undo()

    # Then a final name holds the whole content or does not exist
    finals = [*spool.path("objects").rglob("*.dcm"), *spool.path("reports").rglob("*.dcm")]
    assert all(path.read_bytes() == CONTENT for path in finals)
    assert failed or len(finals) == 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_is_an_error_of_its_own(spool: Spool, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    temporary = arrive(spool)
    placed = spool.place(arrive(spool, b"other", "b.dcm"))

    def full(*arguments: Any) -> None:
        raise OSError(code, "no room")

    monkeypatch.setattr(Path, "rename", full)
    monkeypatch.setattr(os, "fsync", full)

    for action in (
        lambda: spool.place(temporary),
        lambda: spool.quarantine(placed),
        lambda: spool.sync(placed),
        lambda: spool.write_durable("reports/a.dcm", b""),
    ):
        with pytest.raises(SpoolFullError) as caught:
            action()
        assert caught.value.status == 0xA700
        assert caught.value.retryable
    assert temporary.exists(), "the object that has no room is still where it was"
    assert [path.name for path in spool.incoming.iterdir()] == ["a.dcm"], "no temporary report is left"


def test_other_errors_of_the_device_pass_through(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(Path, "rename", broken)

    with pytest.raises(OSError, match="broken"):
        spool.place(arrive(spool))


def test_read_verified_refuses_other_bytes_and_a_missing_file(spool: Spool) -> None:
    placed = spool.place(arrive(spool))
    assert spool.read_verified(placed.relative_path, DIGEST) == CONTENT

    spool.path(placed.relative_path).write_bytes(CONTENT[:-1] + b"X")
    with pytest.raises(SpoolDamagedError, match="does not have the bytes"):
        spool.read_verified(placed.relative_path, DIGEST)

    spool.discard(placed.relative_path)
    spool.discard(placed.relative_path)
    with pytest.raises(SpoolDamagedError, match="is not in the spool"):
        spool.read_verified(placed.relative_path, DIGEST)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_file_that_cannot_be_read_now_is_not_called_damaged(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    placed = spool.place(arrive(spool))

    def fails(self: Path) -> bytes:
        raise OSError(code, "not now")

    monkeypatch.setattr(Path, "read_bytes", fails)
    with pytest.raises(OSError, match="not now"):
        spool.read_verified(placed.relative_path, DIGEST)


def test_a_spool_that_is_not_mounted_has_no_damaged_files(spool: Spool) -> None:
    placed = spool.place(arrive(spool))
    shutil.rmtree(spool.path("objects"))

    with pytest.raises(OSError, match="is it mounted"):
        spool.read_verified(placed.relative_path, DIGEST)


def test_a_new_file_that_could_not_be_synced_is_written_anew_when_it_comes_again(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a device that fails once, and takes the content for written from then on
    placed = spool.place(arrive(spool))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
        with pytest.raises(OSError, match="broken"):
            spool.sync(placed)

    # Then the file is gone, and the next copy is a new one
    assert not spool.path(placed.relative_path).exists()
    assert spool.place(arrive(spool)).new


def test_a_file_that_was_durable_before_survives_a_failed_sync(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.sync(spool.place(arrive(spool)))
    again = spool.place(arrive(spool))
    assert not again.new
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))

    with pytest.raises(OSError, match="broken"):
        spool.sync(again)
    assert spool.path(again.relative_path).exists()


def test_an_object_that_was_placed_again_since_it_was_listed_is_not_discarded(spool: Spool) -> None:
    placed = spool.place(arrive(spool))
    os.utime(spool.path(placed.relative_path), (1, 1))
    (listed,) = spool.objects()
    spool.place(arrive(spool))

    assert not spool.discard_unchanged(listed)
    (listed,) = spool.objects()
    assert spool.discard_unchanged(listed)
    assert list(spool.objects()) == []


def test_a_file_that_is_gone_cannot_be_synced_or_quarantined(spool: Spool) -> None:
    gone = SpooledFile(f"objects/00/{'0' * 64}.dcm", "0" * 64, 1)

    for action in (spool.sync, spool.quarantine):
        with pytest.raises(SpoolDamagedError, match="is not in the spool"):
            action(gone)


def test_quarantine_moves_durably(spool: Spool, steps: list[str]) -> None:
    placed = spool.place(arrive(spool))
    steps.clear()

    kept = spool.quarantine(placed)

    assert kept == SpooledFile(f"quarantine/{DIGEST}.dcm", DIGEST, len(CONTENT))
    assert spool.read_verified(kept.relative_path, DIGEST) == CONTENT
    assert not spool.path(placed.relative_path).exists()
    assert steps == [
        f"sync {placed.relative_path}",
        f"rename to {kept.relative_path}",
        "sync quarantine",
        f"sync objects/{DIGEST[:2]}",
    ]


def test_write_durable_syncs_before_and_after_the_rename(spool: Spool, steps: list[str]) -> None:
    spool.write_durable("reports/2025/a.dcm", b"report")

    assert spool.path("reports/2025/a.dcm").read_bytes() == b"report"
    renamed = steps.index("rename to reports/2025/a.dcm")
    assert steps[renamed - 1] == "sync temporary"
    assert steps[renamed + 1 :] == ["sync reports/2025", "sync reports", "sync ."]
    assert list(spool.incoming.iterdir()) == []


def test_write_durable_replaces_the_whole_file(spool: Spool) -> None:
    spool.write_durable("reports/a.dcm", b"longer than the second")
    spool.write_durable("reports/a.dcm", b"second")

    assert spool.path("reports/a.dcm").read_bytes() == b"second"


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "objects/../../x", ""])
def test_no_path_leads_out_of_the_spool(spool: Spool, path: str) -> None:
    with pytest.raises(ValueError, match="inside the spool"):
        spool.path(path)


def test_stale_incoming_finds_what_a_dead_process_left(spool: Spool) -> None:
    old, fresh = arrive(spool, name="old"), arrive(spool, name="fresh")
    an_hour_ago = time.time() - 3600
    os.utime(old, (an_hour_ago, an_hour_ago))

    assert list(spool.stale_incoming(60)) == [old]
    assert set(spool.stale_incoming(0)) == {old, fresh}


def test_objects_lists_every_final_name(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    placed = {spool.place(arrive(spool, content)).relative_path for content in (b"a", b"bb", b"ccc")}

    found = list(spool.objects())

    assert {item.relative_path for item in found} == placed
    assert {item.sha256 for item in found} == {hashlib.sha256(c).hexdigest() for c in (b"a", b"bb", b"ccc")}
    assert sorted(item.size_bytes for item in found) == [1, 2, 3]
    assert all(abs(item.modified_at - time.time()) < 3600 for item in found)


def test_files_that_vanish_while_being_listed_are_left_out(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = spool.place(arrive(spool))
    arrive(spool)
    stat = Path.stat

    def vanished(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if self.suffix == ".dcm":
            raise FileNotFoundError
        return stat(self, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", vanished)

    assert list(spool.objects()) == []
    assert list(spool.stale_incoming(0)) == []
    monkeypatch.undo()
    assert spool.path(placed.relative_path).exists()


def test_free_bytes_is_what_the_file_system_has_left(spool: Spool) -> None:
    assert 0 < spool.free_bytes() < 1 << 60
