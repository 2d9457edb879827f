from __future__ import annotations

import re
import zlib
from dataclasses import replace

import numpy as np
import pytest
from factories.reports import SHAPES, Shape, content, graded, header, image
from pydicom.dataset import Dataset

from dicom_io.laterality import Laterality
from dicom_io.report_header import patient_and_study
from models.activation import map_colours
from worker.document_pictures import PAGE_SIDE, as_jpeg, with_key
from worker.printed.lettering import NOT_SHOWN, fitted, identification, person_name, shown
from worker.printed.page import EyePictures, PageContent, make_page

JPEG = as_jpeg(np.full((64, 64, 3), (170, 80, 40), np.uint8))


def page(shape: Shape, *, pictures: bool = True) -> bytes:
    eyes = shape.content.eyes if pictures else ()
    seen = {eye.laterality: EyePictures(JPEG, JPEG if eye.grade is not None else None, 2, 1) for eye in eyes}
    legend = [(map_colours(1)[0], "microaneurysms")]
    return make_page(
        PageContent(shape.content, patient_and_study(shape.evidence), "2026-03-04 05:06", seen, legend)
    )


def words(pdf: bytes) -> str:
    """What the page says: its text operators, mapped back through the fonts' ToUnicode tables."""
    streams = [zlib.decompressobj().decompress(part) for part in _streams(pdf) if part[:1] == b"\x78"]
    (drawn,) = [part for part in streams if b" Tf" in part]
    tables = [_unicode(part) for part in streams if b"beginbfrange" in part or b"beginbfchar" in part]
    fonts = dict(zip(sorted(set(re.findall(rb"/(F\d\+\d) ", drawn))), tables, strict=False))
    said, table = [], {}
    for font, text in re.findall(rb"/(F\d\+\d) [\d.]+ Tf|\(((?:\\.|[^\\()])*)\) Tj", drawn):
        if font:
            table = fonts.get(font, {})
        else:
            codes = re.sub(rb"\\(\d{3}|.)", lambda m: _unescaped(m.group(1)), text, flags=re.DOTALL)
            said.append("".join(table.get(code, chr(code)) for code in codes))
    return " ".join(said)


def _streams(pdf: bytes) -> list[bytes]:
    return re.findall(rb"[^d]stream\r?\n(.*?)endstream", pdf, flags=re.DOTALL)


def _unescaped(found: bytes) -> bytes:
    return (
        bytes([int(found, 8)])
        if found.isdigit()
        else {b"n": b"\n", b"r": b"\r", b"t": b"\t"}.get(found, found)
    )


def _unicode(stream: bytes) -> dict[int, str]:
    pairs = re.findall(rb"<([0-9A-F]{2})> <([0-9A-F]{4})>", stream)
    ranges = re.findall(rb"<([0-9A-F]{2})> <[0-9A-F]{2}> \[?((?:<[0-9A-F]{4}>\s*)+)\]?", stream)
    table = {int(code, 16): chr(int(value, 16)) for code, value in pairs}
    for first, values in ranges:
        for place, each in enumerate(re.findall(rb"<([0-9A-F]{4})>", values)):
            table[int(first, 16) + place] = chr(int(each, 16))
    return table


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_of_report_is_one_page_with_the_same_bytes_each_time(name: str) -> None:
    pdf = page(SHAPES[name]())
    assert pdf == page(SHAPES[name]())
    assert pdf.startswith(b"%PDF-")
    assert re.findall(rb"/Type /Page\b", pdf) == [b"/Type /Page"]


def test_the_fonts_are_in_the_file() -> None:
    pdf = page(SHAPES["two-eyes"]())
    embedded = re.findall(rb"/FontName /(\S+)", pdf)
    assert embedded
    assert len(re.findall(rb"/FontFile2 ", pdf)) == len(embedded)
    others = re.findall(rb"/Subtype /(Type1|CIDFontType0|Type3)", pdf)
    assert others == []


def test_it_says_what_the_report_says() -> None:
    text = words(page(SHAPES["one-withheld"]()))
    for said in (
        "RESEARCH USE ONLY",
        "Doe, Jane",
        "PID0001",
        "ACC0001",
        "Moderate non-proliferative",
        "No grade is stated",
        "too dark or blurred to be graded. [UNGRADABLE_QUALITY]",
        "This is not a negative result.",
        "Not assessed: macular oedema",
        "Not a medical device",
        "reference-1",
        "microaneurysms",
        "Page 1 of 1",
    ):
        assert said in text, said
    assert "100%" not in text


def test_what_does_not_fit_is_counted_not_cut() -> None:
    unused = tuple(image(number, None, "LATERALITY_UNKNOWN", "No side.") for number in range(2, 60))
    headers = tuple(header(number) for number in range(1, 60))
    shape = Shape(content((graded(),), (image(1), *unused)), headers)
    text = words(page(shape))
    listed = text.count("Side not known")
    (more,) = re.findall(r"and (\d+) more: the Structured Report lists them all", text)
    assert listed + int(more) == len(unused)
    assert "Not assessed" in text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Doe^Jane", "Doe, Jane"),
        ("Doe^Jane^M^Dr^PhD", "Doe, Dr Jane M PhD"),
        ("Πέτρου^Μαρία", "Πέτρου, Μαρία"),
        ("Иванова^Анна", "Иванова, Анна"),
        ("Nguyễn^Thị", "Nguyễn, Thị"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada, Tarou"),
        ("=山田^太郎", NOT_SHOWN),
        ("Mu\u0308ller^Zoe\u0308", "Müller, Zoë"),
        ("^^^^", ""),
        ("", ""),
    ],
)
def test_a_name_is_written_as_people_write_it_or_said_not_to_be(value: str, expected: str) -> None:
    assert person_name(value) == expected


def test_a_value_in_another_script_is_never_boxes() -> None:
    ds = Dataset()
    ds.PatientName, ds.PatientID, ds.AccessionNumber = "=山田", "", "眼底-7"
    found = dict(identification(ds))
    assert found["Patient"] == NOT_SHOWN
    assert found["Patient ID"] == "not stated"
    assert found["Accession number"] == NOT_SHOWN
    assert shown("a\tb") == "a b"


def test_a_value_that_is_too_wide_ends_in_an_ellipsis() -> None:
    assert fitted("short", "FundusSans", 8, 200) == "short"
    assert fitted("A" * 100, "FundusSans", 8, 60).endswith("…")


def test_the_map_has_its_key_below_and_is_not_touched() -> None:
    overlay = np.random.default_rng(0).integers(0, 255, (768, 768, 3), np.uint8)
    entries = list(zip(map_colours(3), ("one", "two", "three"), strict=True))
    made = with_key(overlay, entries, ("a note",))
    assert np.array_equal(made[:768], overlay)
    assert made.shape[0] > 768
    assert made.shape[1:] == (768, 3)
    for colour, _ in entries:
        assert (made[768:] == colour).all(axis=2).any()


def test_pictures_of_the_page_are_small() -> None:
    assert len(as_jpeg(np.zeros((768, 768, 4), np.uint8))) < PAGE_SIDE * 40


def test_an_eye_that_nobody_photographed_is_no_healthy_eye() -> None:
    shape = SHAPES["two-eyes"]()
    one = replace(
        shape.content,
        eyes=tuple(eye for eye in shape.content.eyes if eye.laterality is Laterality.RIGHT),
    )
    text = words(page(Shape(one, shape.evidence)))
    assert "No photograph of this eye was received" in text
    assert "This is not a negative result." in text
