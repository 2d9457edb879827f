"""Gathers what the page to read shows: the report's content, patient and study, and a picture of each eye."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from pydicom.dataset import Dataset

from dicom_io.errors import DicomIoError
from dicom_io.laterality import Laterality
from dicom_io.report_content import ReportContent
from models.errors import NoFieldOfViewError
from worker.document_pictures import as_jpeg, legend, see
from worker.document_plan import gravest
from worker.errors import MapsDifferError
from worker.grading import EyeResult
from worker.printed.page import EyePictures, PageContent, make_page
from worker.report_contents import image_result
from worker.runtime import Runtime
from worker.store.reports import ImageRow

log = structlog.get_logger(__name__)


def page_of(
    runtime: Runtime,
    content: ReportContent,
    header: Dataset,
    rows: Sequence[ImageRow],
    eyes: Sequence[EyeResult],
) -> bytes:
    """Return the page (PDF). A photograph that cannot be shown leaves its place empty.

    Raises:
        DecoderLostError, DecoderPoolClosedError, BatcherFullError, BatcherClosedError, OSError: Not now;
            later perhaps.
    """
    pictures = {Laterality(eye.laterality): _pictures(runtime, eye, rows) for eye in eyes}
    mapped = any(each.overlay for each in pictures.values())
    return make_page(
        PageContent(
            report=content,
            header=header,
            written=content.created_at.strftime("%Y-%m-%d %H:%M %z"),
            pictures=pictures,
            legend=legend(runtime) if mapped else (),
        )
    )


def _pictures(runtime: Runtime, eye: EyeResult, rows: Sequence[ImageRow]) -> EyePictures:
    """The photograph with the gravest finding; of an eye without a result the first that can be read."""
    stated = eye.reason_code is None
    own = [row for row in rows if image_result(row).laterality == eye.laterality]
    for row in gravest(rows, eye.laterality) if stated else own:
        try:
            seen = see(runtime, row, with_maps=stated)
        except (DicomIoError, NoFieldOfViewError, MapsDifferError) as error:
            if isinstance(error, DicomIoError) and error.retryable:
                raise
            kind = type(error).__name__
            log.warning("photograph_not_shown", sop_instance_uid=row.sop_instance_uid, error=kind)
            continue
        overlay = None if seen.overlay is None else as_jpeg(seen.overlay)
        return EyePictures(as_jpeg(seen.picture), overlay, eye.images, eye.images_used)
    return EyePictures(None, None, eye.images, eye.images_used)
