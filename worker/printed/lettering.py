"""Fonts of the page, and header values as people write them.

The fonts are in the package and are embedded in what is made: DejaVu Sans, reduced to Latin, Greek and
Cyrillic. A value in another script is not guessed at or spelled with boxes: the page says that it cannot show
it, and the study itself has it.
"""

from __future__ import annotations

import threading
import unicodedata
from functools import cache
from importlib.resources import files
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from reportlab import rl_config
from reportlab.pdfbase.pdfmetrics import registerFont, stringWidth
from reportlab.pdfbase.ttfonts import TTFont

REGULAR, BOLD = "FundusSans", "FundusSans-Bold"
NOT_SHOWN = "(in another script: see the study)"
_FILES = {REGULAR: "DejaVuSans.ttf", BOLD: "DejaVuSans-Bold.ttf"}
_GROUPS = 3
_SEXES = {"M": "male", "F": "female", "O": "other"}
_lock = threading.Lock()


def font_bytes(name: str) -> bytes:
    """Return a font's file (TrueType)."""
    return files("worker.printed").joinpath("fonts", _FILES[name]).read_bytes()


@cache
def _fonts() -> dict[str, Any]:
    rl_config.useA85 = 0  # pictures as they are: as text they would be a quarter longer
    fonts = {name: TTFont(name, BytesIO(font_bytes(name))) for name in _FILES}
    for font in fonts.values():
        registerFont(font)
    return fonts


def load_fonts() -> None:
    """Make the fonts known to reportlab; may be called from several threads, again and again."""
    with _lock:
        _fonts()


def can_show(value: str) -> bool:
    """Say whether the fonts have every character."""
    load_fonts()
    glyphs = _fonts()[REGULAR].face.charToGlyph
    return all(ord(each) in glyphs for each in value)


def shown(value: str) -> str:
    """Return a value as the page can write it, composed (NFC); or the sentence that says that it cannot."""
    composed = " ".join(unicodedata.normalize("NFC", value).split())
    return composed if can_show(composed) else NOT_SHOWN


def person_name(value: str) -> str:
    """Return a PN (PS3.5 section 6.2.1) as "Family, Given": the first of its groups that can be shown."""
    groups = [_spoken(group) for group in value.split("=")[:_GROUPS]]
    written = [group for group in groups if group]
    return next((shown(group) for group in written if can_show(group)), NOT_SHOWN if written else "")


def _spoken(group: str) -> str:
    family, given, middle, prefix, suffix = (*(part.strip() for part in group.split("^")), *[""] * 5)[:5]
    rest = " ".join(part for part in (prefix, given, middle, suffix) if part)
    return unicodedata.normalize("NFC", ", ".join(part for part in (family, rest) if part))


def date(value: str) -> str:
    """Return a DA as YYYY-MM-DD."""
    return f"{value[:4]}-{value[4:6]}-{value[6:]}" if len(value) == 8 else value


def identification(header: Dataset) -> list[tuple[str, str]]:
    """Return label and value of what a reader identifies patient and study by, as the report has it."""
    birth = date(str(header.get("PatientBirthDate") or ""))
    sex = _SEXES.get(str(header.get("PatientSex") or ""), "")
    return [
        ("Patient", person_name(str(header.get("PatientName") or "")) or "not stated"),
        ("Patient ID", shown(str(header.get("PatientID") or "")) or "not stated"),
        ("Born, sex", ", ".join(part for part in (birth, sex) if part) or "not stated"),
        ("Accession number", shown(str(header.get("AccessionNumber") or "")) or "not stated"),
        ("Study date", date(str(header.get("StudyDate") or "")) or "not stated"),
        ("Study", shown(str(header.get("StudyDescription") or "")) or "not described"),
    ]


def fitted(value: str, font: str, size: float, width: float) -> str:
    """Return the text, cut with an ellipsis where it is wider than `width` points."""
    if stringWidth(value, font, size) <= width:
        return value
    while value and stringWidth(value + "…", font, size) > width:
        value = value[:-1]
    return value.rstrip() + "…"
