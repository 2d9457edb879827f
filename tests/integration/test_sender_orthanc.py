from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories.orthanc import Orthanc, orthanc_process
from factories.reports import SHAPES, Shape
from pydicom.uid import Comprehensive3DSRStorage

from dicom_io.sender import Outcome, Parcel, Peer, echo, send

pytestmark = pytest.mark.orthanc


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc_process(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


def deliver(orthanc: Orthanc, shape: Shape, path: Path) -> Outcome:
    path.write_bytes(shape.file())
    peer = Peer(orthanc.ae_title, "127.0.0.1", orthanc.port, "FUNDUS", 10)
    parcel = Parcel(1, path, Comprehensive3DSRStorage, shape.content.sop_instance_uid)
    (outcome,) = send(peer, [parcel])
    return outcome


def tags(orthanc: Orthanc, instance: str) -> dict[str, Any]:
    found: dict[str, Any] = orthanc.get(f"/instances/{instance}/simplified-tags")
    return found


def test_orthanc_stores_the_report_beside_its_study_and_again_without_harm(
    orthanc: Orthanc, tmp_path: Path
) -> None:
    shape = SHAPES["other-alphabets"]()
    assert deliver(orthanc, shape, tmp_path / "report.dcm").accepted
    assert deliver(orthanc, shape, tmp_path / "report.dcm").accepted
    (instance,) = orthanc.instances()
    stored = tags(orthanc, instance)
    assert stored["SOPClassUID"] == Comprehensive3DSRStorage
    assert stored["SOPInstanceUID"] == shape.content.sop_instance_uid
    assert stored["StudyInstanceUID"] == shape.evidence[0].StudyInstanceUID
    assert stored["AccessionNumber"] == "ÄÖ-眼底-7"
    assert stored["PatientName"] == "Yamada^Tarou=山田^太郎=やまだ^たろう"
    assert (stored["Modality"], stored["VerificationFlag"]) == ("SR", "UNVERIFIED")
    (file,) = [orthanc.get_bytes(f"/instances/{instance}/file")]
    assert shape.file()[-2000:] == file[-2000:]


def test_orthanc_answers_the_echo_and_rejects_another_title(orthanc: Orthanc) -> None:
    assert echo(Peer(orthanc.ae_title, "127.0.0.1", orthanc.port, "FUNDUS", 10)).ok
    refused = echo(Peer("SOMEBODY", "127.0.0.1", orthanc.port, "FUNDUS", 10))
    assert not refused.ok
    assert refused.detail.startswith("PEER_REJECTED_ASSOCIATION")
