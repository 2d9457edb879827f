from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

from factories.repository import ROOT, tracked_files

TOP_LEVEL_FILES = {
    "pyproject.toml",
    "README.md",
    "Makefile",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
}
TOP_LEVEL_FOLDERS = {"dicom_io", "models", "worker", "deploy", "tests"}
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "manager", "misc", "common"}

# Imports every serving module in a process in which the training half cannot be imported at all.
IMPORT_ALL_SERVING_MODULES = """
import importlib, pkgutil, sys

FORBIDDEN = ("torch", "onnx", "onnxscript", "sklearn", "scipy", "models.training", "models.networks")

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if any(name == each or name.startswith(each + ".") for each in FORBIDDEN):
            raise ModuleNotFoundError(f"serving tried to import {name}", name=name)
        return None

sys.meta_path.insert(0, Blocked())
imported = []
for package in ("dicom_io", "models", "worker"):
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, package + "."):
        outside = any(module.name == each or module.name.startswith(each + ".") for each in FORBIDDEN)
        if not outside and not module.name.startswith("worker.migrations."):  # Alembic runs those, not import
            imported.append(importlib.import_module(module.name).__name__)
assert not {name.partition(".")[0] for name in sys.modules} & {"torch", "onnxscript", "sklearn"}
print("\\n".join(imported))
"""


def test_the_import_contracts_hold() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")

    result = subprocess.run(
        [lint_imports, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stdout + result.stderr


def test_every_serving_module_can_be_imported_without_torch() -> None:
    program = "import importlib.abc\n" + IMPORT_ALL_SERVING_MODULES

    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stderr
    imported = set(result.stdout.split())
    assert {"worker.cli", "worker.schema", "dicom_io.spool", "models.preprocess"} <= imported
    assert not any(name.startswith(("models.training", "models.networks")) for name in imported)


def test_nothing_else_lies_at_the_top_level() -> None:
    for path in tracked_files():
        first = path.parts[0]
        if first.startswith("."):
            continue
        assert first in (TOP_LEVEL_FILES if len(path.parts) == 1 else TOP_LEVEL_FOLDERS), path


def test_tests_form_no_packages_that_would_shadow_the_products() -> None:
    assert not [path for path in tracked_files() if path.parts[0] == "tests" and path.name == "__init__.py"]


def test_no_two_test_files_share_a_name() -> None:
    names = Counter(path.name for path in tracked_files() if path.name.startswith("test_"))

    assert [name for name, count in names.items() if count > 1] == []


def test_every_module_says_in_its_name_what_it_is_for() -> None:
    assert [path for path in tracked_files() if path.suffix == ".py" and path.stem in VAGUE_NAMES] == []
