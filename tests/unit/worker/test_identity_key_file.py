from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker.identity import Identity


def test_a_new_key_is_durable_before_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a record of what is synced while the key has its final name
    key = tmp_path / "identity.key"
    synced: list[tuple[Path, bool]] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        fsync(descriptor)
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink(), key.exists()))

    monkeypatch.setattr(os, "fsync", record)
    Identity.from_file(key, create=True)
    # Then the file, and after it the folder with the name
    assert [(path.parent if path != tmp_path else path) for path, _ in synced] == [tmp_path, tmp_path]
    assert synced[-1] == (tmp_path, True)
    synced.clear()
    Identity.from_file(key, create=True)
    assert synced == []
