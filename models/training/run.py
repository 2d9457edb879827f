"""A run folder: configuration, environment, data fingerprint, checkpoints, samples and metrics of a training.

=================== =======================================================================================
``config.json``     Every setting, for programs
``config.toml``     The same for people, each setting explained; ``--config`` reads it back
``data.json``       Fingerprint of the data
``environment.json`` Versions, commit, processor, threads, precision; ``environment-2.json`` and so on where
                    the run was continued under others
``log.jsonl``       A line of measurements for every step; ``tensorboard/`` has the same as curves
``samples/``        Sample sheets of adapters
``metrics.json``    What was measured at the end
=================== =======================================================================================
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from models.errors import ModelError
from models.training.config import to_toml
from models.training.engine import Engine, EngineConfig

_NAMED = 8
"""Differing keys that a message names."""


class RunConflictError(ModelError):
    """The run folder belongs to another configuration or other data; nothing in it was changed."""


def open_run(
    folder: Path,
    config: Any,
    fingerprint: str,
    engine: Engine | None = None,
    cameras: Mapping[str, Any] | None = None,
) -> None:
    """Start a run in ``folder``, or continue the one that is there.

    Args:
        folder: The run folder.
        config: A dataclass; it must equal that of the run being continued.
        fingerprint: Fingerprint of the data, likewise.
        engine: What the run calculates with. Only its process of rank 0 writes; every one checks.
        cameras: Parameters of the simulated cameras that the run uses, by name, likewise: with others,
            adapters that are there already would be for cameras that are no more.

    Raises:
        RunConflictError: The folder holds another run; the message names the settings that differ.
    """
    wanted = {
        "config.json": json.loads(json.dumps(dataclasses.asdict(config))),
        "data.json": {"sha256": fingerprint},
        **({} if cameras is None else {"cameras.json": json.loads(json.dumps(cameras))}),
    }
    for name, content in wanted.items():
        file = folder / name
        if file.exists():
            _require_same(file, read_json(file), content)
    if engine is not None and not engine.writes:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in wanted.items():
        write_json(folder / name, content)
    _keep_environment(folder, environment(engine.config if engine is not None else None))
    settings = engine.config if engine is not None else EngineConfig()
    text = f"{to_toml(config)}\n[engine]\n{to_toml(settings)}"
    _write_text(folder / "config.toml", text)


def differences(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Settings that differ, each as ``key: old, now new``."""
    for name in dict.fromkeys((*before, *now)):
        old, new = before.get(name, "absent"), now.get(name, "absent")
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{path}{name}.")
        elif old != new:
            yield f"{path}{name}: {old}, now {new}"


def _require_same(file: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    found = list(differences(before, now))
    if not found:
        return
    named = "; ".join(found[:_NAMED]) + (f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else "")
    what = {"data.json": "other data", "cameras.json": "other cameras"}.get(file.name, "other settings")
    raise RunConflictError(
        f"{file} is of a run with {what} ({named}): choose another --out, or remove that folder"
    )


def _keep_environment(folder: Path, found: Mapping[str, str]) -> None:
    """Write the environment where it is not the one that the run had last."""
    number, last = 1, folder / "environment.json"
    while (after := folder / f"environment-{number + 1}.json").exists():
        number, last = number + 1, after
    if not last.exists():
        write_json(last, found)
    elif read_json(last) != found:
        write_json(folder / f"environment-{number + 1}.json", found)


def environment(engine: EngineConfig | None = None) -> dict[str, str]:
    """Versions, machine and settings that results depend on."""
    packages = ("torch", "lightning-fabric", "onnx", "onnxruntime", "numpy", "opencv-python-headless")
    versions = {name: importlib.metadata.version(name) for name in (*packages, "scikit-learn")}
    settings = engine or EngineConfig()
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": _processor(),
        "gpu": ", ".join(gpus) or "none",
        "accelerator": settings.accelerator,
        "devices": str(settings.devices),
        "precision": settings.precision,
        "threads": str(torch.get_num_threads()),
        "commit": commit(),
        **versions,
    }


def _processor() -> str:
    """The processor's name where Linux tells it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor() or "unknown"


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
    _write_text(file, json.dumps(content, indent=2, sort_keys=True) + "\n")


def _write_text(file: Path, text: str) -> None:
    temporary = file.with_suffix(".partial")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)


def read_json(file: Path) -> dict[str, Any]:
    """Read what ``write_json`` wrote."""
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content
