from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

from worker.commands.disk import used_bytes


def test_a_folder_that_may_not_be_read_is_left_out(tmp_path: Path) -> None:
    # Given a data folder that is the root of a file system: `lost+found` is the superuser's alone
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "image.dcm").write_bytes(b"x" * 4096)
    scan = os.scandir

    def guarded(folder: str) -> Any:
        if folder.endswith("lost+found"):
            raise PermissionError(13, "Permission denied", folder)
        return scan(folder)

    with patch.object(os, "scandir", guarded):
        assert used_bytes(tmp_path) == (tmp_path / "spool" / "image.dcm").stat().st_blocks * 512 > 0
