"""What leaves in a training set: the picture inside the field, pseudonyms, and nothing else."""

from __future__ import annotations

import csv
import re
import struct
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from factories.fundus import Drawing, draw

from models.errors import NoFieldOfViewError
from models.preprocess import find_field
from worker.store.exporting import StoredImage
from worker.training_export import in_sampled_order
from worker.training_set import ExportError, ExportFolder, Pseudonyms, inside_field
from worker.training_set import png as as_png

IMAGE = StoredImage(
    study_id=1,
    sop_instance_uid="1.2.3",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.77.1.5.1",
    spool_path="objects/00/0.dcm",
    sha256="0" * 64,
    patient_key="a" * 64,
    state="ANALYSED",
    reason_code=None,
    uid_conflict=False,
    study_reason=None,
)


def stored(number: int, patient: str) -> StoredImage:
    return replace(IMAGE, study_id=number, sha256=f"{number:064x}", patient_key=patient)


def chunks(stream: bytes) -> list[bytes]:
    """Types of the chunks of a PNG stream, in order (PNG specification, 5.3)."""
    assert stream[:8] == b"\x89PNG\r\n\x1a\n"
    found, place = [], 8
    while place < len(stream):
        (length,) = struct.unpack(">I", stream[place : place + 4])
        found.append(stream[place + 4 : place + 8])
        place += 12 + length
    return found


def test_text_outside_the_field_is_blanked() -> None:
    # Given a whole disc with a name written over all of the surround
    rgb = draw(Drawing(width=500, height=400, radius=150, text=True))
    for line in range(12, 400, 18):
        cv2.putText(rgb, "DOE JANE 1950-01-01 " * 4, (2, line), cv2.FONT_HERSHEY_PLAIN, 1.0, (250, 250, 250))
    clean = draw(Drawing(width=500, height=400, radius=150))
    columns, rows = np.meshgrid(np.arange(500), np.arange(400))
    from_centre = np.hypot(columns - 249.5, rows - 199.5)
    rgb[from_centre < 156] = clean[from_centre < 156]
    # When
    picture = inside_field(rgb)
    # Then nothing is left outside the circle, and inside it nothing is changed
    assert picture.shape[:2] in {(300, 300), (301, 301)}
    field = find_field(rgb)
    top, left = np.round(np.array([field.centre_y, field.centre_x]) - (picture.shape[0] - 1) / 2).astype(int)
    rows, columns = np.ogrid[: picture.shape[0], : picture.shape[1]]
    reach = np.hypot(columns + left - field.centre_x, rows + top - field.centre_y)
    assert not picture[reach > field.radius].any()
    source = rgb[top : top + picture.shape[0], left : left + picture.shape[1]]
    assert (picture == source)[reach <= field.radius].all()


def test_a_disc_that_the_frame_cuts_is_not_padded() -> None:
    """A black band would read as retina that is dark: the frame's edge has to stay the picture's edge."""
    picture = inside_field(draw(Drawing(width=400, height=270, radius=160)))
    assert picture.shape[0] == 270
    assert abs(picture.shape[1] - 320) <= 2


def test_a_picture_without_a_field_is_not_exported() -> None:
    with pytest.raises(NoFieldOfViewError):
        inside_field(np.full((200, 300, 3), 120, np.uint8))


def test_the_png_holds_the_pixels_and_nothing_else() -> None:
    rgb = draw()
    stream = as_png(rgb)
    assert set(chunks(stream)) == {b"IHDR", b"IDAT", b"IEND"}
    assert stream[24:26] == bytes((8, 2))  # eight bits, truecolour
    read = cv2.imdecode(np.frombuffer(stream, np.uint8), cv2.IMREAD_UNCHANGED)
    assert read is not None
    assert (read[:, :, ::-1] == rgb).all()


def test_pseudonyms_are_the_same_within_an_export_and_others_in_the_next() -> None:
    first, second = Pseudonyms(), Pseudonyms()
    assert first.patient("x") == first.patient("x")
    assert len({first.patient("x"), first.patient("y"), second.patient("x"), first.picture("x", 1)}) == 4
    assert first.picture("x", 1) != first.picture("x", 2)
    assert re.fullmatch(r"p[0-9a-f]{16}", first.patient("x"))
    assert re.fullmatch(r"i[0-9a-f]{16}", first.picture("x", 1))


def test_a_sample_takes_one_picture_of_each_patient_before_a_second_one() -> None:
    # Given one patient with many pictures and nine with two
    images = [stored(n, "many") for n in range(50)] + [stored(100 + n, f"p{n % 9}") for n in range(18)]
    # When
    chosen = in_sampled_order(images, lambda each: each.patient_key, seed=0)
    # Then
    assert sorted(each.sha256 for each in chosen) == sorted(each.sha256 for each in images)
    assert Counter(each.patient_key for each in chosen[:10]) == Counter({each.patient_key for each in images})
    assert Counter(each.patient_key for each in chosen[:20])["many"] == 2


def test_the_sample_depends_on_the_seed_and_not_on_the_order_of_acquisition() -> None:
    images = [stored(n, f"p{n % 7}") for n in range(40)]

    def order(given: list[StoredImage], seed: int) -> list[str]:
        return [each.sha256 for each in in_sampled_order(given, lambda each: each.patient_key, seed)]

    assert order(images, 1) == order(images[::-1], 1)
    assert order(images, 1) != order(images, 2)
    numbers = [int(each, 16) for each in order([stored(n, "one") for n in range(40)], 0)]
    rising = sum(a < b for a, b in pairwise(numbers))
    assert 8 < rising < 31


def test_an_export_is_whole_or_says_that_it_is_not(tmp_path: Path) -> None:
    folder = ExportFolder(tmp_path / "new" / "set")
    folder.add({"name": "i1", "patient": "p1", "eye": "R", "camera": "kowa-vx-10", "frame": "1"}, draw())
    # Given an export that is under way, the folder that training reads is not there
    assert not (folder.root / "images").exists()
    assert (folder.root / "images.incomplete" / "i1.png").is_file()
    assert not (folder.root / "images.csv").exists()
    # When it ends
    folder.complete()
    # Then
    assert sorted(path.name for path in folder.root.iterdir()) == ["images", "images.csv"]
    with (folder.root / "images.csv").open(newline="") as lines:
        assert list(csv.reader(lines)) == [
            ["name", "patient", "eye", "camera", "frame"],
            ["i1", "p1", "R", "kowa-vx-10", "1"],
        ]
    assert folder.root.stat().st_mode & 0o077 == 0


def test_rows_are_in_the_order_of_their_pseudonyms(tmp_path: Path) -> None:
    folder = ExportFolder(tmp_path)
    for name in ("i3", "i1", "i2"):
        folder.add({"name": name, "patient": "p", "eye": "", "camera": "k", "frame": "1"}, draw())
    folder.complete()
    lines = (tmp_path / "images.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["name", "i1", "i2", "i3"]


@pytest.mark.parametrize("name", ["note.txt", "images.incomplete"])
def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ExportError, match=r"not empty|not finished"):
        ExportFolder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set").write_text("")
    with pytest.raises(ExportError, match="is a file"):
        ExportFolder(tmp_path / "set")
