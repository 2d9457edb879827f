from __future__ import annotations

import subprocess
import sys

from factories.repository import ROOT

from worker.reasons import REASONS


def test_the_reference_tables_say_what_the_program_says() -> None:
    command = [sys.executable, "deploy/scripts/reference.py", "--check"]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}

    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr


def test_each_reason_and_key_is_documented() -> None:
    documents = {
        name: (ROOT / "deploy" / "docs" / name).read_text() for name in ("operations.md", "reasons.md")
    }

    assert all(f"| `{code}` |" in documents["reasons.md"] for code in REASONS)
    for key in ("data_dir", "listener.ae_title", "study.quiet_s", "destination.port"):
        assert f"| `{key}` |" in documents["operations.md"]
