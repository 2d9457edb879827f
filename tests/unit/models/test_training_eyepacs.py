"""EyePACS on disk: what is joined, what is left out, what is refused, and how patients are divided."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from factories.eyepacs import EyepacsTree, write_tree

from models.preprocess import prepare
from models.training.data import DataError, read_rgb
from models.training.eyepacs import EyepacsLayout, EyepacsPhotograph, divide, read_layout, without_grades
from models.training.eyepacs_pictures import DONE, PENDING, PictureStore


@pytest.fixture
def tree(tmp_path: Path) -> EyepacsTree:
    """Eight eyes by camera 1, four by camera 2."""
    return write_tree(tmp_path / "eyepacs", {"1": 4, "2": 2})


def read(tree: EyepacsTree) -> EyepacsLayout:
    return read_layout([tree.images], tree.labels, tree.cameras)


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def silent(_stage: str, _step: int, _steps: int, _terms: dict[str, float]) -> None:
    """No progress shown."""


def made_up(patients: int, camera: str = "1") -> list[EyepacsPhotograph]:
    names = [(str(number), side) for number in range(patients) for side in ("left", "right")]
    return [EyepacsPhotograph(f"{n}_{side}", Path("/none"), n, camera, int(n) % 5) for n, side in names]


def test_photographs_grades_and_cameras_are_joined_by_name(tree: EyepacsTree) -> None:
    # Given photographs in two subfolders, two labels files, and camera codes with and without suffix
    layout = read(tree)
    # Then every photograph has its file, patient, camera and grade
    assert layout.counts() == {"1": 8, "2": 4}
    eye = next(photo for photo in layout.photographs if photo.name == "3_right")
    assert eye == EyepacsPhotograph("3_right", tree.images / "train" / "3_right.jpeg", "3", "1", 2)
    assert not any(layout.left_out().values())


def test_what_is_left_out_is_counted(tree: EyepacsTree) -> None:
    # Given a photograph of an unknown camera, one without camera code, and one without grade
    change(tree.cameras, "\n1_left,1\n", "\n1_left,unknown\n")
    change(tree.cameras, "\n2_left,1\n", "\n")
    change(tree.train_labels, "\n3_left,1\n", "\n")
    layout = read(tree)
    assert layout.left_out() == {
        "camera unknown": 1,
        "not in the cameras file": 1,
        "without a grade": 1,
        "of patients photographed by two cameras": 0,
    }
    assert not {"1_left", "2_left", "3_left"} & {photo.name for photo in layout.photographs}


def test_a_patient_photographed_by_two_cameras_is_left_out_or_refused(tree: EyepacsTree) -> None:
    change(tree.cameras, "\n2_left,1\n", "\n2_left,2\n")
    # Left out, with both eyes: one person in two styles would be a pair
    layout = read(tree)
    assert (layout.mixed_patients, layout.mixed_photographs) == (1, 2)
    assert "2" not in {photo.patient for photo in layout.photographs}
    # Or refused, where that is asked for
    with pytest.raises(DataError, match="1 patients photographed by more than one camera, 2"):
        read_layout([tree.images], tree.labels, tree.cameras, refuse_mixed_patients=True)


def test_missing_photographs_are_counted_with_a_remedy(tree: EyepacsTree) -> None:
    for name in ("1_left", "1_right", "3_left", "3_right"):
        (tree.images / "train" / f"{name}.jpeg").unlink()
    with pytest.raises(DataError, match=r"4 of 12 .* 1_left, 1_right, 3_left …\. Unpack the missing parts"):
        read(tree)


def test_only_graded_photographs_must_be_there(tree: EyepacsTree) -> None:
    # Given only the training half of the photographs and its labels
    layout = read_layout([tree.images / "train"], [tree.train_labels], tree.cameras)
    assert {photo.patient for photo in layout.photographs} == {"1", "3", "5"}
    assert layout.without_grade == 6


def test_one_name_twice_is_refused(tree: EyepacsTree) -> None:
    again = tree.images / "test" / "1_left.jpeg"
    again.write_bytes((tree.images / "train" / "1_left.jpeg").read_bytes())
    with pytest.raises(DataError, match="1_left is there twice"):
        read(tree)


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("cameras.csv", "\n1_left,1\n", "\n1_left,7\n", "1_left has camera code '7'; expected 1 to 6"),
        ("cameras.csv", "\n1_left,1\n", "\n1_left,1\n1_left,2\n", "camera code 2, but 1 in another row"),
        ("cameras.csv", "image_name,camera", "image,camera", "must name the columns image_name,camera"),
        ("trainLabels.csv", "\n1_left,2\n", "\n1_left,5\n", "1_left has level '5'; expected 0 to 4"),
        ("trainLabels.csv", "\n1_left,2\n", "\n1_left,\n", "1_left has level ''; expected 0 to 4"),
        ("trainLabels.csv", "\n1_left,2\n", "\n1_left,2\n1_left,3\n", "level 3, but 2 in another row"),
        ("trainLabels.csv", "image,level", "image,grade", "must name the columns image,level"),
    ],
)
def test_a_wrong_row_is_named(tree: EyepacsTree, file: str, old: str, new: str, said: str) -> None:
    change(tree.images / file, old, new)
    with pytest.raises(DataError, match=said):
        read(tree)


def test_files_that_do_not_belong_together_are_refused(tree: EyepacsTree) -> None:
    tree.cameras.write_text("image_name,camera\n900_left,1\n")
    with pytest.raises(DataError, match="lists none of the 12 photographs"):
        read(tree)


def test_a_name_without_a_patient_is_refused(tree: EyepacsTree) -> None:
    (tree.images / "train" / "IDRiD_001.jpeg").write_bytes(b"")
    change(tree.train_labels, "\n1_left,2\n", "\n1_left,2\nIDRiD_001,2\n")
    change(tree.cameras, "\n1_left,1\n", "\n1_left,1\nIDRiD_001,1\n")
    with pytest.raises(DataError, match="'IDRiD_001' is not named <patient>_left"):
        read(tree)


def test_a_patient_is_in_one_part_only_and_stays_there() -> None:
    shares = {"train": 0.5, "validation": 0.2, "test": 0.3}
    parts = divide(made_up(400), shares, {}, seed=3)
    patients = {part: {photo.patient for photo in photos} for part, photos in parts.items()}
    # Every patient is in exactly one part with both eyes, and the parts have about their shares
    assert sum(len(members) for members in patients.values()) == 400
    assert all(len(parts[part]) == 2 * len(patients[part]) for part in parts)
    assert all(abs(len(patients[part]) / 400 - share) < 0.08 for part, share in shares.items())
    # More patients move nobody; another seed does
    more = divide(made_up(500), shares, {}, seed=3)
    assert all(patients[part] <= {photo.patient for photo in more[part]} for part in parts)
    assert divide(made_up(400), shares, {}, seed=4) != parts


def test_a_cap_keeps_whole_patients() -> None:
    parts = divide(made_up(100), {"adapt": 0.5, "test": 0.5}, {"adapt": 7}, seed=0)
    assert len(parts["adapt"]) == 6
    assert len({photo.patient for photo in parts["adapt"]}) == 3
    assert len(parts["test"]) > 60


def test_photographs_are_prepared_once_and_those_without_a_field_drop_out(
    tree: EyepacsTree, tmp_path: Path
) -> None:
    # Given a photograph that shows nothing and one that is no picture
    photographs = read(tree).photographs
    blank, broken = photographs[0], photographs[3]
    broken.path.write_bytes(b"no picture")
    cv2.imwrite(str(blank.path), np.full((136, 200, 3), 90, np.uint8))
    store = PictureStore(tmp_path / "cache", 64, 1, silent)
    # When they are prepared
    pictures = store.load("eyes", photographs)
    # Then both are counted, and every other one has its own picture and grade
    assert (pictures.without_field, pictures.unreadable) == (1, 1)
    assert {photo.name for photo in pictures.photographs} == {
        photo.name for photo in photographs if photo not in (blank, broken)
    }
    for photo, tensor, grade in zip(pictures.photographs, pictures.tensors, pictures.grades, strict=True):
        assert np.array_equal(tensor, prepare(read_rgb(photo.path), 64).tensor)
        assert grade == photo.grade
    # And a second call prepares nothing
    steps: list[int] = []
    again = PictureStore(tmp_path / "cache", 64, 1, lambda *said: steps.append(said[1]))
    assert np.array_equal(again.load("eyes", photographs).tensors, pictures.tensors)
    assert steps == []


def test_a_killed_preparation_continues_where_it_stopped(tree: EyepacsTree, tmp_path: Path) -> None:
    # Given prepared photographs of which two are marked as not done and damaged, as a kill may leave them
    photographs = read(tree).photographs
    store = PictureStore(tmp_path, 64, 1, silent)
    expected = np.array(store.load("eyes", photographs).tensors)
    states = np.lib.format.open_memmap(next(tmp_path.glob("*.state.npy")), mode="r+")
    assert (states == DONE).all()
    states[[2, 5]] = PENDING
    states.flush()
    file = next(path for path in tmp_path.glob("*.npy") if ".state" not in path.name)
    np.lib.format.open_memmap(file, mode="r+")[[2, 5]] = 7
    # When it is continued, then it gives the same pictures
    again = PictureStore(tmp_path, 64, 1, silent).load("eyes", photographs)
    assert np.array_equal(again.tensors, expected)


def test_several_processes_prepare_the_same(
    tree: EyepacsTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.training.eyepacs_pictures._CHUNK", 4)
    photographs = read(tree).photographs
    one = PictureStore(tmp_path / "one", 64, 1, silent).load("eyes", photographs)
    two = PictureStore(tmp_path / "two", 64, 2, silent).load("eyes", photographs)
    assert np.array_equal(one.tensors, two.tensors)


def test_nothing_that_can_be_prepared_is_said(tree: EyepacsTree, tmp_path: Path) -> None:
    photographs = read(tree).photographs[:2]
    for photo in photographs:
        photo.path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of 2 photographs could be prepared"):
        PictureStore(tmp_path, 64, 1, silent).load("eyes", photographs)


def test_grades_that_were_taken_away_cannot_be_read(tree: EyepacsTree, tmp_path: Path) -> None:
    photographs = without_grades(read(tree).photographs)
    pictures = PictureStore(tmp_path, 64, 1, silent).load("eyes", photographs)
    assert pictures.photographs[0] == replace(pictures.photographs[0], grade=None)
    with pytest.raises(ValueError, match="unlabelled"):
        _ = pictures.grades
