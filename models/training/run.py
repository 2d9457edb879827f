"""A run folder: configuration, environment, data fingerprint, checkpoints and metrics of one training."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.errors import ModelError


class RunConflictError(ModelError):
    """The run folder belongs to another configuration or other data; nothing in it was changed."""


def open_run(folder: Path, config: Any, fingerprint: str) -> None:
    """Start a run in ``folder``, or continue the one that is there.

    Writes ``config.json``, ``environment.json`` and ``data.json`` at the first call.

    Args:
        folder: The run folder.
        config: A dataclass; it must equal that of the run being continued.
        fingerprint: Fingerprint of the data, likewise.

    Raises:
        RunConflictError: The folder holds another run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {
        "config.json": json.loads(json.dumps(dataclasses.asdict(config))),
        "data.json": {"sha256": fingerprint},
    }
    for name, content in wanted.items():
        file = folder / name
        if file.exists() and json.loads(file.read_text()) != content:
            raise RunConflictError(f"{file} is of another run: choose another --out, or remove that folder")
        write_json(file, content)
    if not (folder / "environment.json").exists():
        write_json(folder / "environment.json", environment())


def environment() -> dict[str, str]:
    """Versions that results depend on."""
    packages = ("torch", "onnx", "onnxruntime", "numpy", "opencv-python-headless", "scikit-learn")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "commit": commit(),
        **versions,
    }


def commit() -> str:
    """Source revision of this code, or ``unknown`` outside a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]  # a fixed command
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no input of others
    except FileNotFoundError:  # git is not installed
        return "unknown"
    return done.stdout.strip() or "unknown"


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically, so that an interrupted run leaves no half file."""
    temporary = file.with_suffix(".partial")
    temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    temporary.replace(file)


def read_json(file: Path) -> dict[str, Any]:
    """Read what ``write_json`` wrote."""
    content: dict[str, Any] = json.loads(file.read_text())
    return content
