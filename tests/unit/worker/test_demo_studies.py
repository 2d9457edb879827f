from __future__ import annotations

from pathlib import Path

import pytest
from factories.bundle import write_tiny_bundle
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from dicom_io.camera import CameraRules
from dicom_io.header import read_header
from dicom_io.pixels import frames
from models.bundle import Bundle
from models.manifest import Manifest
from models.preprocess import find_field
from worker.demo.studies import IMAGES, DemoStudy, cameras_for, make_studies, read_pairs
from worker.routing import Route, choose_route


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    adapters = ("simulated-blue", "simulated-dusk")
    return Bundle.load(write_tiny_bundle(tmp_path_factory.mktemp("bundle"), adapters=adapters)).manifest


@pytest.fixture(scope="module")
def studies(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> list[DemoStudy]:
    return make_studies(manifest, tmp_path_factory.mktemp("photographs"))


def routes_of(studies: list[DemoStudy], manifest: Manifest) -> list[Route]:
    rules = CameraRules.load()
    headers = [read_header(study.photographs[0].path) for study in studies]
    matches = [rules.match(header, "ANY") for header in headers]
    return [choose_route(match, manifest.training_camera, manifest.adapters)[0] for match in matches]


def test_there_are_at_least_six_studies_of_two_eyes(studies: list[DemoStudy]) -> None:
    assert len(studies) >= 6
    for study in studies:
        assert [each.laterality for each in study.photographs] == ["R", "L"]


def test_every_route_is_taken(studies: list[DemoStudy], manifest: Manifest) -> None:
    adapted = Route.ADAPTED
    assert routes_of(studies, manifest) == [
        Route.LABELLED,
        Route.LABELLED,
        adapted,
        adapted,
        adapted,
        Route.KNOWN,
        Route.UNKNOWN,
    ]


def test_labelled_and_adapted_cameras_see_healthy_and_diseased_eyes(studies: list[DemoStudy]) -> None:
    for some in (studies[:2], studies[2:5]):
        referable = {each.reference_grade >= 2 for study in some for each in study.photographs}

        assert referable == {False, True}


def test_photographs_are_sent_compressed_and_uncompressed(studies: list[DemoStudy]) -> None:
    syntaxes = [dcmread(study.photographs[0].path).file_meta.TransferSyntaxUID for study in studies]

    assert set(syntaxes) == {JPEGBaseline8Bit, ExplicitVRLittleEndian}


def test_an_unchanged_photograph_keeps_its_original_bytes(studies: list[DemoStudy]) -> None:
    original = (IMAGES / "idrid_292.jpg").read_bytes()

    assert original in studies[0].photographs[0].path.read_bytes()


def test_every_file_is_a_readable_photograph_of_its_study(studies: list[DemoStudy]) -> None:
    for study in studies:
        for photograph in study.photographs:
            header = read_header(photograph.path)
            (rgb,) = frames(photograph.path.read_bytes(), header)

            assert find_field(rgb).fraction > 0.3
            assert header.study_instance_uid == study.study_instance_uid
            assert header.sop_instance_uid == photograph.sop_instance_uid
            assert header.accession_number == study.accession_number
            assert header.laterality[0].value == photograph.laterality


def test_the_people_are_made_up_and_all_different(studies: list[DemoStudy]) -> None:
    names = [str(dcmread(study.photographs[0].path).PatientName) for study in studies]

    assert len(set(names)) == len(studies)
    assert all(name.startswith("DEMO^") for name in names)


def test_a_bundle_without_adapters_leaves_the_simulated_camera_without_one(tmp_path: Path) -> None:
    manifest = Bundle.load(write_tiny_bundle(tmp_path, adapters=())).manifest

    simulators = [camera.simulator for camera in cameras_for(manifest) if camera.simulator]

    assert len(simulators) == 3
    assert {simulator.name for simulator in simulators} == {"blue"}


def test_each_photograph_that_comes_with_the_program_is_used_once() -> None:
    used = [source.path for pair in read_pairs() for source in pair]

    assert sorted(used) == sorted(IMAGES.glob("*.jpg"))
