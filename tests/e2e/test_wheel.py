from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import pydicom
import pytest
from factories.repository import ROOT
from pydicom.uid import Comprehensive3DSRStorage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("wheel")]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
LEAST_STUDIES = 6


@dataclass(frozen=True)
class Installed:
    """The program as a user has it: a wheel in an environment of its own, and no clone in sight."""

    wheel: Path
    bin: Path
    folder: Path

    def run(self, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        of_the_tests = ("PYTHON", "COV", "FUNDUS_")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(of_the_tests)}
        return subprocess.run(
            [self.bin / program, *arguments],
            cwd=self.folder,
            env=inherited | {"COLUMNS": "250"},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )


def run(*command: str | Path) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    root = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", root / "dist", ROOT)
    (wheel,) = (root / "dist").glob("fundus_worker-*.whl")
    venv.create(root / "venv", with_pip=True, symlinks=True)
    pip = root / "venv" / "bin" / "pip"
    run(pip, "install", "--quiet", "-c", ROOT / "deploy" / "constraints.txt", wheel)
    (root / "elsewhere").mkdir()
    return Installed(wheel, root / "venv" / "bin", root / "elsewhere")


def test_the_wheel_holds_the_program_and_its_data_and_nothing_else(installed: Installed) -> None:
    with ZipFile(installed.wheel) as archive:
        names = set(archive.namelist())

    assert {
        "dicom_io/camera_rules.yaml",
        "models/bundles/reference/manifest.json",
        "models/bundles/reference/MODEL_CARD.md",
        "models/bundles/reference/classifier.onnx",
        "worker/demo/images/images.csv",
        "worker/demo/images/LICENSE.txt",
        "worker/py.typed",
    } <= names
    assert any(name.startswith("worker/migrations/versions/") for name in names)
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"dicom_io", "models", "worker"}


def test_the_serving_install_has_no_torch(installed: Installed) -> None:
    result = installed.run("python", "-c", "import torch")

    assert result.returncode == 1
    assert "No module named 'torch'" in result.stderr


def test_the_program_comes_from_the_wheel_and_not_from_the_clone(installed: Installed) -> None:
    result = installed.run("python", "-c", "import worker; print(worker.__file__)")

    assert Path(result.stdout.strip()).is_relative_to(installed.bin.parent)


def test_the_demonstration_runs_outside_the_clone(installed: Installed) -> None:
    output = installed.folder / "demonstration"

    result = installed.run("fundus-worker", "demo", "--output", output)

    assert result.returncode == 0, result.stdout + result.stderr
    for heading in ("study", "eye", "camera", "route", "adapter"):
        assert heading in result.stdout.casefold()
    assert "CAMERA_NOT_VALIDATED" in result.stdout  # the unknown camera's
    assert (output / "contact-sheet.png").read_bytes().startswith(PNG_SIGNATURE)
    reports = [pydicom.dcmread(path) for path in sorted((output / "pacs").glob("*.dcm"))]
    assert len({each.StudyInstanceUID for each in reports}) >= LEAST_STUDIES
    assert {each.SOPClassUID for each in reports} == {Comprehensive3DSRStorage}
