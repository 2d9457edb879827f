"""The repository as a whole: its files and its project table."""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_NOT_IN_AN_EXPORT = {".venv", ".git", "build", "dist", "htmlcov", "demo-output", "fundus-data", "runs"}


def tracked_files() -> Sequence[Path]:
    """Paths relative to the root: what git tracks, or in an export without git, what was not built."""
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "ls-files", "-z"]
    if (ROOT / ".git").exists():
        listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return [Path(name) for name in listing.split("\0") if name and (ROOT / name).is_file()]
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return [path for path in found if not _was_made(path)]


def _was_made(path: Path) -> bool:
    cached = any(part.endswith(("cache", "cache__", ".egg-info")) for part in path.parts)
    return cached or path.parts[0] in _NOT_IN_AN_EXPORT or path.name.startswith(".coverage")


def project() -> dict[str, Any]:
    """The `[project]` table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table
