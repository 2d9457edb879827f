"""`fundus-worker export-training-set` on spools that the intake filled."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from factories.bundle import GREEN_FOR_GRADE
from factories.commands import Answer, Installation, install, run
from factories.dicom import make_fundus, synthetic_fundus
from factories.extractor import lived_trunk, write_bundle_with_extractor
from factories.repository import ROOT
from factories.runtime import (
    BLUE,
    RED,
    analyse_all,
    execute,
    fundus_of_grade,
    make_runtime,
    offer,
    row,
)
from pydicom.dataset import FileDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    WideFieldOphthalmicPhotographyStereographicProjectionImageStorage,
)
from typer.testing import CliRunner

from dicom_io.pixels import frames
from models.bundle import Bundle
from models.preprocess import Prepared, prepare
from models.training.cli import app as training
from models.training.data import DataError, read_folder, read_labels, read_rgb
from worker import training_set
from worker.runtime import Runtime

MODELS = ROOT / "deploy" / "docs" / "models.md"
DEMO = ROOT / "worker" / "demo" / "images"
NEW_CAMERA: dict[str, Any] = {"manufacturer": "Acme", "model": "EyeCam 3000"}


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    return install(tmp_path)


@pytest.fixture
def runtime(installed: Installation) -> Iterator[Runtime]:
    made = make_runtime(installed.folder, identity_key_file=None)
    yield made
    made.close()


def export(installed: Installation, *arguments: str | Path) -> Answer:
    return installed.run("export-training-set", *arguments)


def figures(installed: Installation, *arguments: str | Path, status: int = 0) -> dict[str, Any]:
    answer = export(installed, *arguments, "--json")
    assert answer.status == status, answer.err
    found: dict[str, Any] = json.loads(answer.out)
    return found


def listed(folder: Path) -> list[dict[str, str]]:
    with (folder / "images.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def photograph(**options: Any) -> FileDataset:
    """A gradable one, whatever the bundle thinks of it."""
    return fundus_of_grade(1, **options)


def test_a_folder_of_pictures_and_pseudonyms(installed: Installation, runtime: Runtime) -> None:
    # Given two patients, one with both eyes, and another camera
    secrets = {"accession": "ACC77", "patient_name": "Doe^Jane"}
    for study, patient, sides in (("1.2.3.41", "PID41", "RL"), ("1.2.3.42", "PID42", "R")):
        for side in sides:
            sent = photograph(study_uid=study, patient_id=patient, laterality=side, **secrets)
            assert offer(runtime, sent) == 0
    offer(runtime, photograph(**NEW_CAMERA))
    analyse_all(runtime)
    # When
    found = figures(installed, "--camera", "kowa-vx-10", "--out", installed.folder / "set")
    # Then
    assert (found["pictures"], found["patients"], found["skipped"], found["damaged"]) == (3, 2, {}, [])
    rows = listed(installed.folder / "set")
    assert list(rows[0]) == ["name", "patient", "eye", "camera", "frame"]
    assert sorted(Counter(each["patient"] for each in rows).values()) == [1, 2]
    assert Counter(each["eye"] for each in rows) == {"R": 2, "L": 1}
    assert {(each["camera"], each["frame"]) for each in rows} == {("kowa-vx-10", "1")}
    names = {path.stem for path in (installed.folder / "set" / "images").iterdir()}
    assert names == {each["name"] for each in rows}
    _nothing_of_the_patient_left(installed.folder / "set", runtime)


def _nothing_of_the_patient_left(folder: Path, runtime: Runtime) -> None:
    kept = row(runtime, "SELECT * FROM instances WHERE id = 2")
    study = row(runtime, "SELECT * FROM studies WHERE id = :id", id=kept["study_id"])
    key = runtime.settings.resolved_identity_key_file.read_text()
    long = [str(kept[each]) for each in ("sop_instance_uid", "sha256", "patient_key", "header_key")] + [key]
    short = [study["study_instance_uid"], kept["received_at"][:7], "PID4", "ACC77", "Doe", "CAMERA"]
    files = [path for path in folder.rglob("*") if path.is_file()]
    names = " ".join(str(path.relative_to(folder)) for path in files)
    readable = names + (folder / "images.csv").read_text()
    assert [each for each in [*long, *short] if each in readable] == []
    # Short texts occur in compressed pixels by chance: there only what is long means anything.
    assert not any(each.encode() in path.read_bytes() for each in long for path in files)
    assert not any(each["patient"][1:] in kept["patient_key"] for each in listed(folder))


def test_it_is_what_the_adapters_training_reads(installed: Installation, runtime: Runtime) -> None:
    """Decoded, cropped and blanked, it is prepared as it would have been from the DICOM object."""
    # Given real photographs, whose discs the frame cuts
    files = sorted(DEMO.glob("*.jpg"))[:4]
    objects = [make_fundus(file.read_bytes(), **NEW_CAMERA, patient_id=file.stem) for file in files]
    assert [offer(runtime, each) for each in objects] == [0] * 4
    # When
    found = figures(
        installed, "--camera", "Acme EyeCam 3000", "--include-ungradable", "--out", installed.folder / "set"
    )
    # Then fundus-train's reader takes the folder as it is
    assert found["pictures"] == 4
    photographs = read_folder(installed.folder / "set" / "images")
    assert [each.grade for each in photographs] == [None] * 4
    # And the tensors are those of the objects, within the error of finding the circle anew
    from_export = [prepare(read_rgb(each.path), 512) for each in photographs]
    for each in objects:
        stream = installed.folder / "object.dcm"
        each.save_as(stream, enforce_file_format=True)
        expected = prepare(next(frames(stream.read_bytes())), 512)
        nearest = min(from_export, key=lambda other: _difference(expected, other))
        assert _difference(expected, nearest) < 3.0
        assert abs(nearest.field.radius / expected.field.radius - 1) < 0.005
        assert ((nearest.tensor[..., 3] > 0) != (expected.tensor[..., 3] > 0)).mean() < 0.005


def _difference(first: Prepared, second: Prepared) -> float:
    """Mean absolute difference in grey levels, where both are inside the field."""
    both = (first.tensor[..., 3] > 0) & (second.tensor[..., 3] > 0)
    apart = np.abs(first.tensor[..., :3].astype(int) - second.tensor[..., :3].astype(int))
    return float(apart[both].mean())


def test_no_label_leaves(installed: Installation, runtime: Runtime) -> None:
    for grade in range(5):
        offer(runtime, fundus_of_grade(grade, patient_id=f"P{grade}"))
    analyse_all(runtime)
    figures(installed, "--camera", "kowa-vx-10", "--out", installed.folder / "set")
    assert len(listed(installed.folder / "set")) == 5
    with pytest.raises(DataError, match="expected 0 to 4"):
        read_labels(installed.folder / "set" / "images.csv")


def _refuse_by_pixels() -> FileDataset:
    return make_fundus(np.full((128, 128, 3), 120, np.uint8))


KEPT_BACK: dict[str, tuple[Callable[[], FileDataset], bool]] = {
    "BURNED_IN_ANNOTATION": (lambda: photograph(BurnedInAnnotation="YES"), False),
    "UNGRADABLE_QUALITY": (lambda: fundus_of_grade(None), True),
    "NOT_A_FUNDUS_PHOTOGRAPH": (_refuse_by_pixels, False),
    "NOT_COLOUR": (lambda: photograph(ImageType=["ORIGINAL", "PRIMARY", "REDFREE"]), False),
    "WIDE_FIELD_NOT_VALIDATED": (
        lambda: photograph(sop_class=WideFieldOphthalmicPhotographyStereographicProjectionImageStorage),
        False,
    ),
}


@pytest.mark.parametrize("reason", KEPT_BACK)
def test_what_is_kept_back_is_counted_and_said(
    installed: Installation, runtime: Runtime, reason: str
) -> None:
    # Given one picture to keep and one to leave
    make, wanted_when_ungradable = KEPT_BACK[reason]
    offer(runtime, photograph())
    assert offer(runtime, make()) == 0
    analyse_all(runtime)
    # When
    found = figures(installed, "--camera", "kowa-vx-10", "--out", installed.folder / "set")
    # Then
    assert (found["pictures"], found["skipped"]) == (1, {reason: 1})
    said = export(installed, "--camera", "kowa-vx-10", "--dry-run")
    assert (said.status, reason in said.words) == (0, True)
    # And a person may ask for ungradable ones, but for none of the others
    more = figures(installed, "--camera", "kowa-vx-10", "--include-ungradable", "--dry-run")
    assert more["pictures"] == 1 + wanted_when_ungradable


def test_what_nobody_analysed_yet_counts_as_ungradable(installed: Installation, runtime: Runtime) -> None:
    offer(runtime, photograph())
    found = figures(installed, "--camera", "kowa-vx-10", "--dry-run", status=1)
    assert (found["pictures"], found["skipped"]) == (0, {"IMAGE_UNFINISHED": 1})
    assert figures(installed, "--camera", "kowa-vx-10", "--dry-run", "--include-ungradable")["pictures"] == 1


def test_what_nobody_analysed_is_judged_by_its_file(installed: Installation, runtime: Runtime) -> None:
    # Given pictures of each kind that no row says anything of
    offer(runtime, photograph())
    for reason in ("BURNED_IN_ANNOTATION", "NOT_A_FUNDUS_PHOTOGRAPH", "NOT_COLOUR"):
        offer(runtime, KEPT_BACK[reason][0]())
    offer(runtime, make_fundus(transfer_syntax=ExplicitVRLittleEndian, PixelData=b"cut short"))
    # Then
    found = figures(installed, "--camera", "kowa-vx-10", "--dry-run", "--include-ungradable")
    assert found["pictures"] == 1
    assert found["skipped"] == dict.fromkeys(
        ("BURNED_IN_ANNOTATION", "NOT_A_FUNDUS_PHOTOGRAPH", "NOT_COLOUR", "PIXELS_UNREADABLE"), 1
    )


def test_a_camera_that_is_refused_by_policy_can_be_exported(installed: Installation) -> None:
    runtime = make_runtime(installed.folder, identity_key_file=None, camera={"unknown": "refuse"})
    try:
        offer(runtime, photograph(**NEW_CAMERA))
        analyse_all(runtime)
    finally:
        runtime.close()
    camera = ("--camera", "Acme EyeCam 3000", "--dry-run")
    assert figures(installed, *camera, status=1)["skipped"] == {"CAMERA_REFUSED": 1}
    assert figures(installed, *camera, "--include-ungradable")["pictures"] == 1


def test_an_identity_in_doubt_stays(installed: Installation, runtime: Runtime) -> None:
    """A picture that may be another patient's would sit on both sides of a patient-wise split."""
    for patient in ("P1", "P2"):
        offer(runtime, photograph(patient_id=patient, study_uid="1.2.3.4"))
    offer(runtime, photograph(sop_uid="1.2.3.9"))
    offer(runtime, fundus_of_grade(3, sop_uid="1.2.3.9"))
    offer(runtime, photograph())
    analyse_all(runtime)
    found = figures(installed, "--camera", "kowa-vx-10", "--dry-run", "--include-ungradable")
    assert (found["pictures"], found["skipped"]) == (1, {"PATIENT_CONFLICT": 2, "UID_CONFLICT": 1})


def test_damaged_files_are_named_and_the_others_exported(installed: Installation, runtime: Runtime) -> None:
    # Given four pictures, of which one file is changed, one gone, and one that the disk does not give
    for number in (1, 2, 3, 4):
        offer(runtime, photograph(sop_uid=f"1.2.3.{number}"))
    analyse_all(runtime)
    changed = row(runtime, "SELECT spool_path FROM instances WHERE sop_instance_uid = '1.2.3.1'")
    gone = row(runtime, "SELECT spool_path FROM instances WHERE sop_instance_uid = '1.2.3.2'")
    with runtime.spool.path(changed["spool_path"]).open("ab") as file:
        file.write(b"!")
    runtime.spool.path(gone["spool_path"]).unlink()
    unreadable = row(runtime, "SELECT spool_path FROM instances WHERE sop_instance_uid = '1.2.3.3'")
    runtime.spool.path(unreadable["spool_path"]).unlink()
    runtime.spool.path(unreadable["spool_path"]).mkdir()
    # When
    answer = export(installed, "--camera", "kowa-vx-10", "--out", installed.folder / "set")
    # Then
    assert answer.status == 1
    assert "1.2.3.1" in answer.err
    assert "1.2.3.2" in answer.err
    assert len(listed(installed.folder / "set")) == 1
    assert len(list((installed.folder / "set" / "images").iterdir())) == 1
    found = figures(installed, "--camera", "kowa-vx-10", "--dry-run", status=1)
    assert sorted((each["sop_instance_uid"], each["problem"]) for each in found["damaged"]) == [
        ("1.2.3.1", "SPOOL_FILE_DAMAGED"),
        ("1.2.3.2", "SPOOL_FILE_DAMAGED"),
        ("1.2.3.3", "Is a directory"),
    ]


def test_a_spool_that_is_not_mounted_is_not_taken_for_damaged(
    installed: Installation, runtime: Runtime
) -> None:
    offer(runtime, photograph())
    (installed.data / "spool").rename(installed.data / "elsewhere")
    answer = export(installed, "--camera", "kowa-vx-10", "--out", installed.folder / "set")
    assert (answer.status, "Mount the spool" in answer.words) == (2, True)
    assert not (installed.folder / "set").exists()
    assert not (installed.data / "spool").exists()


def test_every_frame_is_a_picture_of_its_own(installed: Installation, runtime: Runtime) -> None:
    # Given an object of two frames
    rgb = synthetic_fundus(128)
    inside = rgb.any(axis=2)
    first, second = rgb.copy(), rgb.copy()
    first[inside], second[inside] = (RED, GREEN_FOR_GRADE[1], BLUE), (30, 40, 30)
    ds = make_fundus(first, transfer_syntax=ExplicitVRLittleEndian)
    ds.NumberOfFrames = 2
    ds.PixelData = first.tobytes() + second.tobytes()
    assert offer(runtime, ds) == 0
    analyse_all(runtime)
    # When
    found = figures(installed, "--camera", "kowa-vx-10", "--out", installed.folder / "set")
    # Then the one that can be graded is there, by its own number
    assert (found["pictures"], found["skipped"]) == (1, {"UNGRADABLE_QUALITY": 1})
    assert [each["frame"] for each in listed(installed.folder / "set")] == ["1"]
    both = figures(
        installed, "--camera", "kowa-vx-10", "--include-ungradable", "--out", installed.folder / "both"
    )
    assert both["pictures"] == 2
    assert sorted(each["frame"] for each in listed(installed.folder / "both")) == ["1", "2"]


def test_a_sample_by_patients_and_by_time(installed: Installation, runtime: Runtime) -> None:
    # Given five pictures of one patient, and one each of three that came a year ago
    for _ in range(5):
        offer(runtime, photograph(patient_id="MANY"))
    for number in range(3):
        offer(runtime, photograph(patient_id=f"P{number}", study_uid=f"1.2.3.{number}"))
        past = "2025-01-0{0} 12:00:00.000000"
        statement = "UPDATE instances SET received_at = :at WHERE id = (SELECT max(id) FROM instances)"
        execute(runtime, statement, at=past.format(number + 1))
    analyse_all(runtime)
    camera = ("--camera", "kowa-vx-10")

    def count(*arguments: str) -> tuple[int, int]:
        found = figures(installed, *camera, "--dry-run", *arguments)
        return found["pictures"], found["patients"]

    # Then a small sample has as many patients as it can have
    assert count("--limit", "4") == (4, 4)
    assert count("--limit", "100") == (8, 4)
    assert count("--until", "2025-01-02") == (1, 1)
    assert count("--until", "2025-01-02T12:00:01") == (2, 2)
    assert count("--since", "2025-01-03", "--until", "2026-01-01") == (1, 1)
    answer = export(installed, *camera, "--dry-run", "--since", "2026-01-01", "--until", "2025-01-01")
    assert (answer.status, "--since" in answer.words) == (2, True)


def test_images_without_a_patient_id_are_not_one_patient(installed: Installation, runtime: Runtime) -> None:
    for study in ("1.2.3.1", "1.2.3.1", "1.2.3.2"):
        offer(runtime, photograph(patient_id="", study_uid=study))
    analyse_all(runtime)
    figures(installed, "--camera", "kowa-vx-10", "--out", installed.folder / "set")
    rows = listed(installed.folder / "set")
    assert sorted(Counter(each["patient"] for each in rows).values()) == [1, 2]


def test_the_cameras_that_there_are(installed: Installation, runtime: Runtime) -> None:
    # Given a known camera and one that no rule names
    for patient in ("P1", "P2", "P2"):
        offer(runtime, photograph(patient_id=patient))
    offer(runtime, photograph(**NEW_CAMERA))
    # Then both are listed, with what to write after --camera
    found = figures(installed, "--list")["cameras"]
    assert [(each["name"], each["images"], each["patients"]) for each in found] == [
        ("kowa-vx-10", 3, 2),
        ("Acme EyeCam 3000", 1, 1),
    ]
    said = export(installed, "--list")
    assert (said.status, "Acme EyeCam 3000" in said.words) == (0, True)
    # And of a name that stands for several models it is said that it does
    offer(runtime, photograph(model="VX-10i"))
    both = export(installed, "--camera", "kowa-vx-10", "--dry-run", "--include-ungradable")
    assert "more than one model: Kowa VX-10 (3), Kowa VX-10i (1)" in both.err
    assert "4 pictures" in both.out
    # And a name that is not among them is answered with those that are
    wrong = export(installed, "--camera", "kowa-vx-01", "--out", installed.folder / "set")
    assert wrong.status == 2
    assert "kowa-vx-10 (4 images)" in wrong.words
    assert "Acme EyeCam 3000 (1 image)" in wrong.words
    assert not (installed.folder / "set").exists()


def test_questions_that_cannot_be_answered(installed: Installation, runtime: Runtime) -> None:
    def complaint(*arguments: str | Path) -> str:
        answer = export(installed, *arguments)
        assert answer.status == 2
        return answer.words

    assert "no image has been received" in complaint("--camera", "kowa-vx-10", "--dry-run")
    offer(runtime, photograph())
    assert "--camera" in complaint("--out", installed.folder / "set")
    assert "--out" in complaint("--camera", "kowa-vx-10")
    (installed.folder / "full").mkdir()
    (installed.folder / "full" / "mine.txt").write_text("kept")
    assert "not empty" in complaint("--camera", "kowa-vx-10", "--out", installed.folder / "full")
    assert "--limit" in complaint("--camera", "kowa-vx-10", "--dry-run", "--limit", "0")


def test_nothing_to_export_leaves_no_folder(installed: Installation, runtime: Runtime) -> None:
    offer(runtime, fundus_of_grade(None))
    analyse_all(runtime)
    answer = export(installed, "--camera", "kowa-vx-10", "--out", installed.folder / "set")
    assert (answer.status, "nothing was exported" in answer.words) == (1, True)
    assert not (installed.folder / "set").exists()


def test_an_interrupted_export_says_that_it_is_incomplete(
    installed: Installation, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a person who presses Ctrl-C at the second picture
    for number in range(3):
        offer(runtime, photograph(patient_id=f"P{number}"))
    analyse_all(runtime)
    encode, encoded = training_set.png, []

    def interrupted(rgb: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
        encoded.append(rgb.shape)
        if len(encoded) == 2:
            raise KeyboardInterrupt
        return encode(rgb)

    monkeypatch.setattr(training_set, "png", interrupted)
    # When
    answer = export(installed, "--camera", "kowa-vx-10", "--out", installed.folder / "set")
    # Then
    assert (answer.status, "incomplete" in answer.words) == (2, True)
    assert [path.name for path in (installed.folder / "set").iterdir()] == ["images.incomplete"]
    monkeypatch.undo()
    again = export(installed, "--camera", "kowa-vx-10", "--out", installed.folder / "set")
    assert (again.status, "not finished" in again.words) == (2, True)


def test_help_teaches() -> None:
    answer = run("export-training-set", "--help")
    assert answer.status == 0
    for said in ("--camera", "--include-ungradable", "fundus-train adapter", "BurnedInAnnotation"):
        assert said in answer.words


@pytest.mark.slow
def test_the_documented_way_into_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command of models.md, "Add a new camera", on a small bundle, few pictures and few steps."""
    # Given what it starts from: a bundle, an exported camera, photographs of the labelled camera
    section = MODELS.read_text().split("\n## Add a new camera\n")[1].split("\n## ")[0]
    (command,) = re.findall(r"^ *(fundus-train adapter (?:.*\\\n)*.*)$", section, re.MULTILINE)
    write_bundle_with_extractor(tmp_path / "small", lived_trunk())
    for folder, seeds in (("new-camera", range(3)), ("labelled-camera", range(3, 6))):
        (tmp_path / folder / "images").mkdir(parents=True)
        for seed in seeds:
            picture = synthetic_fundus(seed=seed)
            assert cv2.imwrite(str(tmp_path / folder / "images" / f"{seed}.png"), picture[:, :, ::-1])
    # When
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command.replace("\\\n", " ").replace("--bundle reference", "--bundle ./small"))[1:]
    tiny = "--scale 2 --crop 32 --steps 2 --batch 1 --checkpoint-every 1 --threads 1 --minimum-photographs 3"
    answer = CliRunner().invoke(training, [*words, *tiny.split()])
    # Then the folder that the document names is a bundle with that adapter, and the worker accepts it
    assert answer.exit_code == 0, answer.output
    (folder,) = set(re.findall(r'`bundle = "\./(.+?)"`', section))
    assert sorted(Bundle.load(tmp_path / folder).manifest.adapters) == ["my-camera", "simulated-blue"]
    assert run("bundle", "verify", f"./{folder}").status == 0
