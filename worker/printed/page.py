"""The report as one page (PDF, A4): what the Structured Report says, in the same words, with pictures.

The same content and pictures give the same bytes: there is no clock in it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO

from pydicom.dataset import Dataset
from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import simpleSplit
from reportlab.pdfgen.canvas import Canvas

from dicom_io import codes
from dicom_io.laterality import Laterality
from dicom_io.report_content import ReportContent, ReportEye, ReportImage
from dicom_io.report_tree import INTENDED_USE, NOT_NEGATIVE, PARTIAL, SIDE, route_text
from worker.printed.lettering import BOLD, REGULAR, fitted, identification, load_fonts, shown
from worker.printed.pen import (
    BLUE,
    BODY,
    COLUMN,
    FOOTER_TOP,
    GAP,
    GREY,
    INK,
    MARGIN,
    PALE,
    PICTURE,
    RED,
    SMALL,
    WHITE,
    WIDTH,
    Pen,
)

Colour = tuple[int, int, int]

_building = threading.Lock()
"""reportlab's fonts remember which characters a page has used: one page at a time."""


@dataclass(frozen=True)
class EyePictures:
    """Pictures of one eye, JPEG of square RGB images.

    Attributes:
        photograph: One of its photographs, cropped to the field of view; None when it is not stored any more.
        overlay: The same with its lesion maps; None where no grade is stated.
        photographs: How many photographs of this eye there are.
        used: On how many of them the result rests.
    """

    photograph: bytes | None
    overlay: bytes | None
    photographs: int
    used: int


@dataclass(frozen=True)
class PageContent:
    """Everything that the page shows.

    Attributes:
        report: What the Structured Report says.
        header: Patient and study as the report has them.
        written: When the report was written, in its own time zone, as text.
        pictures: Of each eye.
        legend: Colour and name of each lesion map; empty where no map is shown.
    """

    report: ReportContent
    header: Dataset
    written: str
    pictures: Mapping[Laterality, EyePictures] = field(default_factory=dict)
    legend: Sequence[tuple[Colour, str]] = ()


def make_page(content: PageContent) -> bytes:
    """Return the page as a PDF file, its fonts embedded."""
    load_fonts()
    buffer = BytesIO()
    with _building:
        canvas = Canvas(buffer, pagesize=A4, invariant=1, initialFontName=REGULAR, lang="en")
        canvas.setTitle("Diabetic retinopathy grading (research)")
        canvas.setSubject(f"Structured Report {content.report.sop_instance_uid}")
        canvas.setCreator(f"fundus-worker {content.report.software_version}")
        _draw(Pen(canvas), content)
        canvas.showPage()
        canvas.save()
    return buffer.getvalue()


def _draw(pen: Pen, content: PageContent) -> None:
    _draw_title(pen, content.report)
    _draw_identification(pen, content)
    top = pen.y
    bottoms = []
    for place, side in enumerate((Laterality.RIGHT, Laterality.LEFT)):
        pen.y = top
        _draw_eye(pen, content, side, MARGIN + place * (COLUMN + GAP))
        bottoms.append(pen.y)
    pen.y = min(bottoms) - 4
    _draw_legend(pen, content.legend)
    _draw_unused(pen, content.report.images)
    _draw_limits(pen, content)
    _draw_footer(pen, content)


def _draw_title(pen: Pen, report: ReportContent) -> None:
    badge = "RESEARCH USE ONLY"
    pen.box(WIDTH - MARGIN - 122, 122, 20, RED)
    pen.label(badge, WIDTH - MARGIN - 61, pen.y - 13.2, size=9, font=BOLD, ink=WHITE)
    pen.line("Diabetic retinopathy grading", MARGIN, size=17, font=BOLD, ink=BLUE)
    pen.y -= 23
    state = "Partial report" if report.partial else "Report"
    revision = f"revision {report.instance_number}" if report.instance_number > 1 else "first revision"
    replaces = ", replaces the report before it" if report.predecessors else ""
    said = f"{state} by software, preliminary, not verified by a person; {revision}{replaces}"
    pen.line(said, MARGIN, ink=GREY)
    pen.y -= 17


def _draw_identification(pen: Pen, content: PageContent) -> None:
    entries = [*identification(content.header), ("Report written", content.written)]
    left, right = entries[:3], entries[3:]
    pen.box(MARGIN, WIDTH - 2 * MARGIN, 64, PALE)
    top = pen.y - 6
    for x, column in ((MARGIN + 8, left), (MARGIN + COLUMN + GAP, right)):
        pen.y = top
        for label, value in column:
            pen.line(label, x, size=SMALL, ink=GREY)
            pen.line(fitted(value, BOLD, BODY, COLUMN - 92), x + 80, font=BOLD)
            pen.y -= 13.4
    pen.y = top - 58 - 12


def _draw_eye(pen: Pen, content: PageContent, side: Laterality, x: float) -> None:
    pen.box(x, COLUMN, 18, BLUE)
    pen.canvas.setFont(BOLD, 10)
    pen.canvas.setFillColorRGB(1, 1, 1)
    latin = "OD" if side is Laterality.RIGHT else "OS"
    pen.canvas.drawString(x + 8, pen.y - 12.8, f"{SIDE[side]} eye ({latin})")
    pen.y -= 26
    eye = next((each for each in content.report.eyes if each.laterality is side), None)
    _draw_pictures(pen, content.pictures.get(side), x + 8)
    if eye is None:
        pen.prose("No photograph of this eye was received, or none whose side is known.", x + 8, COLUMN - 16)
        pen.prose(NOT_NEGATIVE, x + 8, COLUMN - 16, font=BOLD)
        return
    _draw_result(pen, content, eye, x + 8)
    for flag in eye.flags:
        pen.y -= 2
        pen.prose(shown(flag), x + 8, COLUMN - 16, size=SMALL, ink=RED)
    pen.y -= 6


def _draw_pictures(pen: Pen, pictures: EyePictures | None, x: float) -> None:
    """Photograph and lesion map side by side, or words where there is none."""
    shown_now = pictures or EyePictures(None, None, 0, 0)
    frames = ((shown_now.photograph, "No photograph to show"), (shown_now.overlay, "No lesion map to show"))
    for place, (jpeg, missing) in enumerate(frames):
        left = x + place * (PICTURE + 8)
        pen.box(left, PICTURE, PICTURE, (0, 0, 0) if jpeg else PALE)
        if jpeg:
            pen.picture(jpeg, left, PICTURE)
        else:
            pen.label(missing, left + PICTURE / 2, pen.y - PICTURE / 2, size=SMALL, ink=GREY)
    pen.y -= PICTURE + 4
    captions = ("Photograph" if shown_now.photograph else "", "Lesion maps" if shown_now.overlay else "")
    for place, caption in enumerate(captions):
        pen.line(caption, x + place * (PICTURE + 8), size=SMALL, ink=GREY)
    pen.y -= 14


def _draw_result(pen: Pen, content: PageContent, eye: ReportEye, x: float) -> None:
    width = COLUMN - 16
    if eye.grade is None:
        pen.prose("No grade is stated", x, width, size=12, font=BOLD, ink=RED)
        pen.y -= 2
        pen.prose(f"{eye.reason_text or 'No reason was recorded.'} [{eye.reason_code}]", x, width)
        pen.prose(NOT_NEGATIVE, x, width, font=BOLD)
    else:
        pen.prose(codes.SEVERITY[eye.grade].meaning, x, width, size=12, font=BOLD)
        pen.y -= 1
        verdict = "Referable" if eye.referable else "Not referable"
        said = f"{verdict} for diabetic retinopathy (ICDR grade {eye.grade} on the scale 0 to 4)"
        pen.prose(said, x, width, font=BOLD, ink=RED if eye.referable else INK)
    pen.y -= 4
    for label, value in _figures(content, eye):
        pen.line(label, x, size=SMALL, ink=GREY)
        pen.line(fitted(value, REGULAR, BODY, width - 116), x + 116)
        pen.y -= 12.2


def _figures(content: PageContent, eye: ReportEye) -> Iterable[tuple[str, str]]:
    if eye.grade is not None and eye.referable_probability is not None:
        yield "Probability of referable DR", _percent(eye.referable_probability)
    if eye.grade is not None and eye.certainty is not None:
        yield "Certainty of the grade", _percent(eye.certainty)
    if eye.quality is not None:
        quality = codes.image_quality(eye.quality, content.report.minimum_quality).meaning
        yield "Image quality", quality.partition(" - ")[0].removesuffix(" image quality")
    pictures = content.pictures.get(eye.laterality)
    if pictures is not None:
        yield "Photographs", f"{pictures.used} of {pictures.photographs} used"


def _percent(probability: float) -> str:
    """No probability is certainty: what would be rounded to 0 or 100 is said to be under 1 or over 99."""
    if probability >= 0.995:
        return "over 99%"
    return "under 1%" if probability < 0.01 else f"{probability:.0%}"


def _draw_legend(pen: Pen, legend: Sequence[tuple[Colour, str]]) -> None:
    if not legend:
        return
    x = MARGIN
    pen.line("Lesion maps:", x, size=SMALL, ink=GREY)
    x += 54
    for colour, label in legend:
        pen.canvas.setFillColorRGB(*(part / 255 for part in colour))
        pen.canvas.setStrokeColorRGB(*GREY)
        pen.canvas.setLineWidth(0.4)
        pen.canvas.rect(x, pen.y - 7.4, 7, 7, stroke=1, fill=1)
        name = shown(label)
        pen.line(name, x + 10, size=SMALL)
        x += 22 + pen.canvas.stringWidth(name, REGULAR, SMALL)
    pen.y -= 11
    said = (
        "Where the classifier saw signs of each kind, as it counted them for the grade. They do not outline "
        "lesions exactly; a place without colour is not proof that nothing is there."
    )
    pen.prose(said, MARGIN, WIDTH - 2 * MARGIN, size=SMALL, ink=GREY)
    pen.y -= 5


def _draw_unused(pen: Pen, images: Sequence[ReportImage]) -> None:
    unused = [image for image in images if not image.used]
    if not unused:
        return
    pen.rule()
    pen.y -= 6
    pen.prose("Photographs that no result rests on", MARGIN, COLUMN * 2, font=BOLD)
    pen.y -= 1
    room = max(1, int((pen.y - FOOTER_TOP - 74) / 22))
    for image in unused[: room if len(unused) <= room else room - 1]:
        side = "Side not known" if image.laterality is None else f"{SIDE[image.laterality]} eye"
        reason = f"{image.reason_text or 'No reason was recorded.'} [{image.reason_code}]"
        text = f"{side}: {reason} Camera: {shown(route_text(image))}"
        for part in simpleSplit(text, REGULAR, SMALL, WIDTH - 2 * MARGIN)[:2]:
            pen.line(part, MARGIN, size=SMALL)
            pen.y -= 9.6
        pen.y -= 2
    if len(unused) > room:
        more = len(unused) - room + 1
        pen.line(f"and {more} more: the Structured Report lists them all", MARGIN, size=SMALL, ink=GREY)
        pen.y -= 11
    pen.y -= 3


def _draw_limits(pen: Pen, content: PageContent) -> None:
    report = content.report
    pen.rule()
    pen.y -= 6
    limits = ", ".join(subject[:1].lower() + subject[1:] for subject in report.not_assessed)
    pen.prose(f"Not assessed: {limits}.", MARGIN, WIDTH - 2 * MARGIN, font=BOLD)
    pen.prose(INTENDED_USE, MARGIN, WIDTH - 2 * MARGIN, font=BOLD, ink=RED)
    if report.partial:
        pen.prose(PARTIAL, MARGIN, WIDTH - 2 * MARGIN, ink=RED)


def _draw_footer(pen: Pen, content: PageContent) -> None:
    report, algorithm = content.report, content.report.algorithm
    pen.y = FOOTER_TOP - 6
    pen.rule()
    pen.y -= 5
    adapters = sorted({image.adapter for image in report.images if image.used and image.adapter})
    bundle = f"{algorithm.bundle_id} {algorithm.bundle_version}".strip()
    parameters = "; ".join(algorithm.parameters)
    lines = [
        f"Software: fundus-worker {report.software_version}.   "
        f"Models: bundle {bundle}, SHA-256 {algorithm.bundle_sha256[:16]}…",
        f"{parameters[:1].upper()}{parameters[1:]}.   Camera adapters: {', '.join(adapters) or 'none'}.",
        f"Structured Report {report.sop_instance_uid}",
        f"Study {content.header.StudyInstanceUID}",
    ]
    for text in lines:
        pen.line(fitted(shown(text), REGULAR, 6.4, WIDTH - 2 * MARGIN), MARGIN, size=6.4, ink=GREY)
        pen.y -= 9
    pen.canvas.setFont(REGULAR, 6.4)
    pen.canvas.setFillColorRGB(*GREY)
    pen.canvas.drawRightString(WIDTH - MARGIN, pen.y + 2.6, "Page 1 of 1")
