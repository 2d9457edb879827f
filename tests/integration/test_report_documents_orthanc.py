from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from factories.orthanc import Orthanc, orthanc_process
from factories.runtime import deliver_all, fundus_of_grade, make_runtime, offer, rows, run_to_report
from pydicom import dcmread

from worker.documents import make_documents

pytestmark = pytest.mark.orthanc


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc_process(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


def test_orthanc_holds_report_page_and_map_in_one_study_and_shows_them(
    orthanc: Orthanc, tmp_path: Path
) -> None:
    destination: dict[str, Any] = {
        "name": "pacs",
        "ae_title": orthanc.ae_title,
        "host": "127.0.0.1",
        "port": orthanc.port,
        "pdf": True,
        "overlay": True,
    }
    runtime = make_runtime(tmp_path, destination=[destination])
    offer(runtime, fundus_of_grade(3, study_uid="1.2.3", sop_uid="1.2.3.1", laterality="R"))
    run_to_report(runtime)
    make_documents(runtime, 1)
    deliver_all(runtime)
    assert {each["state"] for each in rows(runtime, "SELECT state FROM deliveries")} == {"ACCEPTED"}
    stored = {
        orthanc.get(f"/instances/{each}/tags?simplify")["Modality"]: each for each in orthanc.instances()
    }
    assert set(stored) == {"SR", "DOC", "OP"}
    (study,) = orthanc.get("/studies")
    assert len(orthanc.get(f"/studies/{study}")["Series"]) == 3
    # The page comes out as the file that was put in
    assert orthanc.get_bytes(f"/instances/{stored['DOC']}/pdf").startswith(b"%PDF-1")
    # Both of Orthanc's pictures show the map as it is
    path = rows(runtime, "SELECT spool_path FROM documents WHERE kind = 'OVERLAY'")[0]["spool_path"]
    expected = dcmread(runtime.spool.path(path)).pixel_array
    for view in ("preview", "rendered"):
        png = np.frombuffer(orthanc.get_bytes(f"/instances/{stored['OP']}/{view}"), np.uint8)
        shown = cv2.imdecode(png, cv2.IMREAD_COLOR)
        assert shown is not None
        assert np.array_equal(shown[..., ::-1], expected), view
    runtime.close()
