"""What others' software says about a Structured Report: dicom3tools, PixelMed, DCMTK."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from factories.servers import require_binary

PIXELMED = Path("/usr/share/java/pixelmed.jar")
# The SR rules need more XPath operations than the JDK allows by default; the rest makes a short run short.
_JAVA_OPTIONS = [
    "-Djdk.xml.xpathTotalOpLimit=0",
    "-Djdk.xml.xpathExprOpLimit=0",
    "-Djdk.xml.xpathExprGrpLimit=0",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
]
_VALIDATE_ALL = """
import com.pixelmed.validate.DicomSRValidator;

public class ValidateAll {
    public static void main(String[] files) throws Exception {
        DicomSRValidator validator = new DicomSRValidator();
        for (String file : files) {
            System.out.println("FILE " + file);
            System.out.println(validator.validate(file));
        }
    }
}
"""


def dciodvfy(file: Path, iod: str = "Comprehensive3DSR") -> list[str]:
    """Lines of dicom3tools' `dciodvfy` that report an error; `iod` is what it has to take the object for."""
    done = subprocess.run(
        [require_binary("dciodvfy"), file], capture_output=True, text=True, timeout=60, check=False
    )
    output = (done.stderr + done.stdout).splitlines()
    assert iod in output, "dciodvfy did not recognise the object"
    return [line for line in output if line.startswith("Error")]


def pixelmed(files: Sequence[Path], folder: Path) -> dict[Path, list[str]]:
    """Output of PixelMed's DicomSRValidator for each file, of one Java process if there is a compiler."""
    java = require_binary("java")
    if not PIXELMED.exists():
        message = f"PixelMed's validator is not installed: {PIXELMED}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    command: list[str | Path] = [java, *_JAVA_OPTIONS, "-cp", PIXELMED]
    if shutil.which("javac") is None:
        validator = [*command, "com.pixelmed.validate.DicomSRValidator"]
        return {file: _run([*validator, file]).splitlines() for file in files}
    source = folder / "ValidateAll.java"
    source.write_text(_VALIDATE_ALL, encoding="ascii")
    parts = _run([*command, source, *files]).split("FILE ")[1:]
    answers = [part.splitlines() for part in parts]
    return {Path(lines[0]): lines[1:] for lines in answers}


def dsrdump(file: Path) -> str:
    """DCMTK's rendering of the report, long values in full, codes with their names; fails when it cannot."""
    return _run([require_binary("dsrdump"), "+Pl", "+Pc", file])


def _run(command: Sequence[str | Path]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
