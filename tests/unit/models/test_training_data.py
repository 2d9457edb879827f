"""Photographs and labels are read strictly; look-alikes stay on one side of every split."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from factories.fundus import Drawing, Picture, draw

from models.preprocess import prepare
from models.training.data import (
    DataError,
    fingerprint,
    halves,
    lesion_masks,
    look_alike_groups,
    read_folder,
    read_labels,
    read_lesions,
    read_rgb,
    signature,
    split,
)


def write(path: Path, picture: Picture) -> Path:
    """Write a picture without loss."""
    assert cv2.imwrite(str(path), picture[:, :, ::-1])
    return path


def test_grades_are_read_from_the_first_two_columns(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("\ufeffImage name,Retinopathy grade,Risk\nA_1,3,2,,\nA_2.jpg,0,0\n\n", encoding="utf-8")
    assert read_labels(labels).grades == {"A_1": 3, "A_2": 0}
    assert read_labels(labels).oedema == {}


def test_macular_oedema_is_read_where_the_heading_names_it(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("Image name,Retinopathy grade,Risk of macular edema ,,\nA_1,3,2,,\nA_2,0,,\n")
    assert read_labels(labels).oedema == {"A_1": 2}
    labels.write_text("name,grade,macular oedema\nA_1,3,3\n")
    with pytest.raises(DataError, match="macular oedema '3'; expected 0 to 2"):
        read_labels(labels)


@pytest.mark.parametrize("content", ["name,grade\nA,5\n", "name,grade\nA,\n", "name,grade\n"])
def test_a_grade_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(content)
    with pytest.raises(DataError, match=r"labels\.csv"):
        read_labels(labels)


def test_a_folder_is_listed_with_its_grades(tmp_path: Path) -> None:
    for name in ("b", "a", "unlabelled"):
        write(tmp_path / f"{name}.png", draw())
    (tmp_path / "notes.txt").write_text("no picture")
    labels = tmp_path / "labels.csv"
    labels.write_text("name,grade\na,1\nb,4\n")
    assert [(photo.name, photo.grade) for photo in read_folder(tmp_path, labels)] == [("a", 1), ("b", 4)]
    assert [photo.grade for photo in read_folder(tmp_path)] == [None, None, None]


def test_an_empty_folder_and_a_broken_picture_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no picture"):
        read_folder(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        read_rgb(tmp_path / "broken.jpg")
    with pytest.raises(DataError, match="masks"):
        read_lesions(tmp_path)


def test_masks_have_the_geometry_of_the_prepared_picture(tmp_path: Path) -> None:
    # Given a photograph whose mask marks exactly its bright pixels
    picture = draw(Drawing(width=800, height=540, radius=320, lesions=6))
    write(tmp_path / "P.jpg", picture)
    bright = (picture[..., 2] > 90) & (picture[..., 1] > 160)
    write(tmp_path / "P_EX.png", np.repeat((bright * 255).astype(np.uint8)[..., None], 3, 2))
    (photograph,) = read_lesions(tmp_path)
    # When both are brought into the graphs' geometry
    prepared = prepare(picture, 256)
    masks = lesion_masks(photograph, prepared.field, 256)
    # Then the mask lies on the bright pixels, kinds without a file are empty, shares are 0..1
    assert masks.shape == (5, 256, 256)
    assert not masks[[0, 1, 3, 4]].any()
    assert 0.0 <= masks.min() <= masks.max() <= 1.0
    marked = masks[2] > 0.9
    assert marked.sum() > 50
    assert (
        prepared.tensor[marked][:, 2].mean() > 2 * prepared.tensor[prepared.tensor[..., 3] > 0][:, 2].mean()
    )


def test_the_same_eye_again_is_recognised_and_another_is_not() -> None:
    # Given an eye, the same eye shifted, darker and bluer, and two other eyes
    first = draw(Drawing(seed=1))
    again = draw(Drawing(seed=1, shift_x=6, shift_y=-4)).astype(float) * (0.7, 0.8, 1.3)
    others = [draw(Drawing(seed=seed)) for seed in (2, 3)]
    pictures = [first, others[0], np.clip(again, 0, 255).astype(np.uint8), others[1]]
    signatures = np.stack([signature(prepare(picture, 128).tensor) for picture in pictures])
    # When they are grouped, then the first and the third are one group
    assert look_alike_groups(signatures) == [0, 1, 0, 3]


def test_a_group_is_never_divided_and_pinned_ones_train() -> None:
    names = [f"P{index:03d}" for index in range(200)]
    groups = [index // 2 for index in range(200)]
    parts = split(names, groups, seed=3, pinned=["P010"])
    assert all(parts[names[index]] == parts[names[index + 1]] for index in range(0, 200, 2))
    assert parts["P010"] == parts["P011"] == "train"
    counts = [list(parts.values()).count(part) for part in ("train", "validation", "test")]
    assert counts == pytest.approx([120, 30, 50], abs=20)


def test_a_split_does_not_move_when_photographs_are_added_and_differs_by_seed() -> None:
    names = [f"P{index:03d}" for index in range(60)]
    few, many = split(names[:40], range(40), seed=0), split(names, range(60), seed=0)
    assert all(many[name] == part for name, part in few.items())
    assert split(names, range(60), seed=1) != many


def test_the_halves_of_an_adapter_share_no_eye() -> None:
    names = [f"P{index:03d}" for index in range(120)]
    groups = [index // 3 for index in range(120)]
    first, second = halves(names, groups, seed=0)
    assert sorted(first + second) == names
    assert {groups[names.index(name)] for name in first}.isdisjoint(
        groups[names.index(name)] for name in second
    )
    assert min(len(first), len(second)) > 30


def test_a_fingerprint_depends_on_names_and_contents_only(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_text(file.name)
    before = fingerprint(files)
    assert fingerprint(reversed(files)) == before
    files[0].write_text("changed")
    assert fingerprint(files) != before
