"""`fundus-worker export-training-set` as a program of its own, beside a running `serve`."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from factories.commands import install, program
from factories.dicom import make_fundus
from factories.process import Worker
from factories.repository import ROOT
from factories.runtime import receiving_pacs, send
from pydicom.uid import ExplicitVRLittleEndian

from models.training.data import read_rgb

DEMO = ROOT / "worker" / "demo" / "images"
pytestmark = pytest.mark.slow


def test_from_the_wire_to_a_training_set(tmp_path: Path) -> None:
    """A person's path: serve, receive, export with the program itself while `serve` runs."""
    # Given a photograph with a name beside the disc, received by a running worker
    rgb = read_rgb(sorted(DEMO.glob("*.jpg"))[0])
    cv2.putText(rgb, "DOE", (70, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 2)
    with receiving_pacs() as pacs:
        installed = install(tmp_path, pacs_port=pacs.port)
        worker = Worker(installed.config, installed.port)
        try:
            worker.start()
            ds = make_fundus(
                rgb, manufacturer="Acme", model="EyeCam 3000", transfer_syntax=ExplicitVRLittleEndian
            )
            assert send(installed.port, [ds]) == [0]
            worker.wait_drained()
            # When
            done = program(
                *("export-training-set", "--config", installed.config, "--camera", "Acme EyeCam 3000"),
                *("--out", "set", "--include-ungradable"),
                cwd=tmp_path,
            )
        finally:
            worker.close()
    # Then the name is not in the picture
    assert done.status == 0, done.err
    (picture,) = (tmp_path / "set" / "images").iterdir()
    exported = read_rgb(picture)
    assert rgb[:40, 70:130].max() == 255
    assert exported.shape[1] < 830  # cut to the disc's square, of whose corner this is the upper left
    assert not exported[:40, :60].any()
    assert not {tag for tag in (b"tEXt", b"iTXt", b"eXIf", b"tIME", b"pHYs") if tag in picture.read_bytes()}
