"""The report as one page (PDF, A4): what the Structured Report says, in the same words, with pictures.

The same content and pictures give the same bytes: there is no clock in it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import ImageReader, simpleSplit
from reportlab.pdfgen.canvas import Canvas

from dicom_io import codes
from dicom_io.laterality import Laterality
from dicom_io.report_content import ReportContent, ReportEye, ReportImage
from dicom_io.report_tree import INTENDED_USE, PARTIAL, SIDE, route_text
from worker.printed.lettering import BOLD, REGULAR, fitted, identification, load_fonts, shown

Colour = tuple[int, int, int]

_WIDTH, _HEIGHT = A4
_MARGIN = 42.0
_GAP = 16.0
_COLUMN = (_WIDTH - 2 * _MARGIN - _GAP) / 2
_PICTURE = (_COLUMN - 24) / 2
_BODY, _SMALL = 8.6, 7.2
_INK, _GREY, _RULE, _PALE = (0.1, 0.12, 0.15), (0.38, 0.41, 0.45), (0.78, 0.8, 0.83), (0.945, 0.95, 0.96)
_BLUE, _RED = (0.09, 0.27, 0.45), (0.72, 0.09, 0.09)
_FOOTER_TOP = 96.0
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
        bundle_version: Version of the model bundle.
        pictures: Of each eye.
        legend: Colour and name of each lesion map; empty where no map is shown.
    """

    report: ReportContent
    header: Dataset
    written: str
    bundle_version: str
    pictures: Mapping[Laterality, EyePictures] = field(default_factory=dict)
    legend: Sequence[tuple[Colour, str]] = ()


def make_page(content: PageContent) -> bytes:
    """Return the page as a PDF file, its fonts embedded."""
    load_fonts()
    buffer = BytesIO()
    with _building:
        canvas = Canvas(buffer, pagesize=A4, invariant=1, pageCompression=1, lang="en")
        canvas.setTitle("Diabetic retinopathy grading (research)")
        canvas.setSubject(f"Structured Report {content.report.sop_instance_uid}")
        canvas.setCreator(f"fundus-worker {content.report.software_version}")
        _draw(_Pen(canvas), content)
        canvas.showPage()
        canvas.save()
    return buffer.getvalue()


class _Pen:
    """Writes on the canvas from top to bottom; `y` is the top of what comes next, in points."""

    def __init__(self, canvas: Any) -> None:
        self.canvas = canvas
        self.y = _HEIGHT - _MARGIN

    def line(self, text: str, x: float, *, size: float = _BODY, font: str = REGULAR, ink: Any = _INK) -> None:
        self.canvas.setFont(font, size)
        self.canvas.setFillColorRGB(*ink)
        self.canvas.drawString(x, self.y - size, text)

    def prose(
        self, text: str, x: float, width: float, *, size: float = _BODY, font: str = REGULAR, ink: Any = _INK
    ) -> None:
        """Text wrapped to `width`; what no room is left for above the footer ends in an ellipsis."""
        for part in simpleSplit(text, font, size, width):
            if self.y - size * 1.3 < _FOOTER_TOP:
                return
            self.line(fitted(part, font, size, width), x, size=size, font=font, ink=ink)
            self.y -= size * 1.32

    def rule(self, x: float = _MARGIN, width: float = _WIDTH - 2 * _MARGIN) -> None:
        self.canvas.setStrokeColorRGB(*_RULE)
        self.canvas.setLineWidth(0.6)
        self.canvas.line(x, self.y, x + width, self.y)

    def box(self, x: float, width: float, height: float, fill: Any) -> None:
        self.canvas.setFillColorRGB(*fill)
        self.canvas.rect(x, self.y - height, width, height, stroke=0, fill=1)

    def picture(self, jpeg: bytes, x: float, side: float) -> None:
        self.canvas.drawImage(ImageReader(BytesIO(jpeg)), x, self.y - side, side, side)


def _draw(pen: _Pen, content: PageContent) -> None:
    _draw_title(pen, content.report)
    _draw_identification(pen, content)
    top = pen.y
    bottoms = []
    for place, side in enumerate((Laterality.RIGHT, Laterality.LEFT)):
        pen.y = top
        _draw_eye(pen, content, side, _MARGIN + place * (_COLUMN + _GAP))
        bottoms.append(pen.y)
    pen.y = min(bottoms) - 4
    _draw_legend(pen, content.legend)
    _draw_unused(pen, content.report.images)
    _draw_limits(pen, content)
    _draw_footer(pen, content)


def _draw_title(pen: _Pen, report: ReportContent) -> None:
    badge = "RESEARCH USE ONLY"
    pen.box(_WIDTH - _MARGIN - 122, 122, 20, _RED)
    pen.canvas.setFont(BOLD, 9)
    pen.canvas.setFillColorRGB(1, 1, 1)
    pen.canvas.drawCentredString(_WIDTH - _MARGIN - 61, pen.y - 13.2, badge)
    pen.line("Diabetic retinopathy grading", _MARGIN, size=17, font=BOLD, ink=_BLUE)
    pen.y -= 23
    state = "Partial report" if report.partial else "Report"
    revision = f"revision {report.instance_number}" if report.instance_number > 1 else "first revision"
    replaces = ", replaces the report before it" if report.predecessors else ""
    said = f"{state} by software, preliminary, not verified by a person; {revision}{replaces}"
    pen.line(said, _MARGIN, ink=_GREY)
    pen.y -= 17


def _draw_identification(pen: _Pen, content: PageContent) -> None:
    entries = [*identification(content.header), ("Report written", content.written)]
    left, right = entries[:3], entries[3:]
    pen.box(_MARGIN, _WIDTH - 2 * _MARGIN, 64, _PALE)
    top = pen.y - 6
    for x, column in ((_MARGIN + 8, left), (_MARGIN + _COLUMN + _GAP, right)):
        pen.y = top
        for label, value in column:
            pen.line(label, x, size=_SMALL, ink=_GREY)
            pen.line(fitted(value, BOLD, _BODY, _COLUMN - 92), x + 80, font=BOLD)
            pen.y -= 13.4
    pen.y = top - 58 - 12


def _draw_eye(pen: _Pen, content: PageContent, side: Laterality, x: float) -> None:
    pen.box(x, _COLUMN, 18, _BLUE)
    pen.canvas.setFont(BOLD, 10)
    pen.canvas.setFillColorRGB(1, 1, 1)
    latin = "OD" if side is Laterality.RIGHT else "OS"
    pen.canvas.drawString(x + 8, pen.y - 12.8, f"{SIDE[side]} eye ({latin})")
    pen.y -= 26
    eye = next((each for each in content.report.eyes if each.laterality is side), None)
    _draw_pictures(pen, content.pictures.get(side), x + 8)
    if eye is None:
        pen.prose("No photograph of this eye was received, or none whose side is known.", x + 8, _COLUMN - 16)
        return
    _draw_result(pen, content, eye, x + 8)
    for flag in eye.flags:
        pen.y -= 2
        pen.prose(shown(flag), x + 8, _COLUMN - 16, size=_SMALL, ink=_RED)
    pen.y -= 6


def _draw_pictures(pen: _Pen, pictures: EyePictures | None, x: float) -> None:
    """Photograph and lesion map side by side, or words where there is none."""
    shown_now = pictures or EyePictures(None, None, 0, 0)
    for place, (jpeg, missing) in enumerate(
        (
            (shown_now.photograph, "No photograph to show"),
            (shown_now.overlay, "No lesion map: no grade stated"),
        )
    ):
        left = x + place * (_PICTURE + 8)
        pen.box(left, _PICTURE, _PICTURE, (0, 0, 0) if jpeg else _PALE)
        if jpeg:
            pen.picture(jpeg, left, _PICTURE)
        else:
            pen.canvas.setFont(REGULAR, _SMALL)
            pen.canvas.setFillColorRGB(*_GREY)
            pen.canvas.drawCentredString(left + _PICTURE / 2, pen.y - _PICTURE / 2, missing)
    pen.y -= _PICTURE + 4
    captions = ("Photograph" if shown_now.photograph else "", "Lesion maps" if shown_now.overlay else "")
    for place, caption in enumerate(captions):
        pen.line(caption, x + place * (_PICTURE + 8), size=_SMALL, ink=_GREY)
    pen.y -= 14


def _draw_result(pen: _Pen, content: PageContent, eye: ReportEye, x: float) -> None:
    width = _COLUMN - 16
    if eye.grade is None:
        pen.prose("No grade is stated", x, width, size=12, font=BOLD, ink=_RED)
        pen.y -= 2
        pen.prose(f"{eye.reason_text or 'No reason was recorded.'} [{eye.reason_code}]", x, width)
    else:
        pen.prose(codes.SEVERITY[eye.grade].meaning, x, width, size=12, font=BOLD)
        pen.y -= 1
        verdict = "Referable" if eye.referable else "Not referable"
        said = f"{verdict} for diabetic retinopathy (ICDR grade {eye.grade} on the scale 0 to 4)"
        pen.prose(said, x, width, font=BOLD, ink=_RED if eye.referable else _INK)
    pen.y -= 4
    for label, value in _figures(content, eye):
        pen.line(label, x, size=_SMALL, ink=_GREY)
        pen.line(fitted(value, REGULAR, _BODY, width - 116), x + 116)
        pen.y -= 12.2


def _figures(content: PageContent, eye: ReportEye) -> Iterable[tuple[str, str]]:
    if eye.grade is not None and eye.referable_probability is not None:
        yield "Probability of referable", f"{eye.referable_probability:.0%}"
    if eye.grade is not None and eye.certainty is not None:
        yield "Certainty of the grade", f"{eye.certainty:.0%}"
    if eye.quality is not None:
        quality = codes.image_quality(eye.quality, content.report.minimum_quality).meaning
        yield "Image quality", quality.partition(" - ")[0].removesuffix(" image quality")
    pictures = content.pictures.get(eye.laterality)
    if pictures is not None:
        yield "Photographs", f"{pictures.used} of {pictures.photographs} used"


def _draw_legend(pen: _Pen, legend: Sequence[tuple[Colour, str]]) -> None:
    if not legend:
        return
    x = _MARGIN
    pen.line("Lesion maps:", x, size=_SMALL, ink=_GREY)
    x += 54
    for colour, label in legend:
        pen.canvas.setFillColorRGB(*(part / 255 for part in colour))
        pen.canvas.setStrokeColorRGB(*_GREY)
        pen.canvas.setLineWidth(0.4)
        pen.canvas.rect(x, pen.y - 7.4, 7, 7, stroke=1, fill=1)
        name = shown(label)
        pen.line(name, x + 10, size=_SMALL)
        x += 22 + pen.canvas.stringWidth(name, REGULAR, _SMALL)
    pen.y -= 11
    said = (
        "Where the classifier saw signs of each kind, as it counted them for the grade. They do not outline "
        "lesions exactly; a place without colour is not proof that nothing is there."
    )
    pen.prose(said, _MARGIN, _WIDTH - 2 * _MARGIN, size=_SMALL, ink=_GREY)
    pen.y -= 5


def _draw_unused(pen: _Pen, images: Sequence[ReportImage]) -> None:
    unused = [image for image in images if not image.used]
    if not unused:
        return
    pen.rule()
    pen.y -= 6
    pen.prose("Photographs that no result rests on", _MARGIN, _COLUMN * 2, font=BOLD)
    pen.y -= 1
    room = max(1, int((pen.y - _FOOTER_TOP - 74) / 11))
    for image in unused[: room if len(unused) <= room else room - 1]:
        side = "Side not known" if image.laterality is None else f"{SIDE[image.laterality]} eye"
        reason = f"{image.reason_text or 'No reason was recorded.'} [{image.reason_code}]"
        text = f"{side}: {reason} Camera: {shown(route_text(image))}"
        pen.line(fitted(text, REGULAR, _SMALL, _WIDTH - 2 * _MARGIN), _MARGIN, size=_SMALL)
        pen.y -= 11
    if len(unused) > room:
        more = len(unused) - room + 1
        pen.line(f"and {more} more: the Structured Report lists them all", _MARGIN, size=_SMALL, ink=_GREY)
        pen.y -= 11
    pen.y -= 3


def _draw_limits(pen: _Pen, content: PageContent) -> None:
    report = content.report
    pen.rule()
    pen.y -= 6
    limits = ", ".join(subject[:1].lower() + subject[1:] for subject in report.not_assessed)
    pen.prose(f"Not assessed: {limits}.", _MARGIN, _WIDTH - 2 * _MARGIN, font=BOLD)
    pen.prose(INTENDED_USE, _MARGIN, _WIDTH - 2 * _MARGIN, font=BOLD, ink=_RED)
    if report.partial:
        pen.prose(PARTIAL, _MARGIN, _WIDTH - 2 * _MARGIN, ink=_RED)


def _draw_footer(pen: _Pen, content: PageContent) -> None:
    report, algorithm = content.report, content.report.algorithm
    pen.y = _FOOTER_TOP - 6
    pen.rule()
    pen.y -= 5
    adapters = sorted({image.adapter for image in report.images if image.used and image.adapter})
    lines = [
        f"Software: fundus-worker {report.software_version}.   Models: bundle {algorithm.bundle_id} "
        f"{content.bundle_version}, SHA-256 {algorithm.bundle_sha256[:16]}…",
        f"{'; '.join(algorithm.parameters)}.   Camera adapters: {', '.join(adapters) or 'none'}.",
        f"Structured Report {report.sop_instance_uid}",
        f"Study {content.header.StudyInstanceUID}",
    ]
    for text in lines:
        pen.line(fitted(shown(text), REGULAR, 6.4, _WIDTH - 2 * _MARGIN), _MARGIN, size=6.4, ink=_GREY)
        pen.y -= 9
    pen.canvas.setFont(REGULAR, 6.4)
    pen.canvas.setFillColorRGB(*_GREY)
    pen.canvas.drawRightString(_WIDTH - _MARGIN, pen.y + 2.6, "Page 1 of 1")
