"""One image: claim, decode, crop, batch, findings. Every analysis ends in a finding, a refusal or a retry."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import structlog

from dicom_io.camera import CameraMatch
from dicom_io.errors import DecoderPoolClosedError, DicomIoError, RefusedPixelsError
from dicom_io.header import FundusHeader, colour_refusal, read_header
from dicom_io.pixels import frames
from models.errors import NoFieldOfViewError
from models.predictor import Prediction
from models.preprocess import Prepared, prepare
from worker.backoff import backoff_s
from worker.dispatch import Job
from worker.errors import BatcherClosedError, BatcherFullError
from worker.routing import Verdict, choose_route, judge
from worker.runtime import Runtime
from worker.store import images, studies
from worker.store.images import FrameFinding, ImageClaim

log = structlog.get_logger(__name__)
_CLAIMS_PER_ATTEMPT = 4
"""A claim that ended without a word was a crash, perhaps of a neighbour: more of them are forgiven."""

_WHILE_FULL = 5
"""An image that found the engine's queue full waits as one does that has failed so often."""


class ImageRefusedError(Exception):
    """The image is not analysed, for a reason that a person can act on."""

    def __init__(self, reason_code: str, detail: str) -> None:
        super().__init__(detail)
        self.reason_code = reason_code


def analyse(runtime: Runtime, instance_id: int) -> None:
    """Analyse one instance if it is free; do nothing when it is done or in somebody else's hands."""
    claimed = runtime.database.write(
        images.claim, instance_id, runtime.process_id, runtime.settings.jobs.claim_s
    )
    if claimed is None:
        return
    started = time.perf_counter()
    with runtime.claims.keeping(claimed.token):
        claimed = _routed(runtime, claimed)
        outcome = _end(runtime, claimed)
    log.info(
        "image_ended",
        outcome=outcome,
        sop_instance_uid=claimed.sop_instance_uid,
        instance=instance_id,
        route=claimed.route,
        ms=round((time.perf_counter() - started) * 1000, 1),
    )
    _wake_report(runtime, claimed.study_id)


def _routed(runtime: Runtime, claimed: ImageClaim) -> ImageClaim:
    """The claim with the way that the active bundle takes: the image may have come under another bundle."""
    manifest = runtime.bundle.manifest
    match = CameraMatch(claimed.camera, claimed.camera_exact, rule=None)
    route, adapter = choose_route(match, manifest.training_camera, manifest.adapters)
    if (route, adapter) == (claimed.route, claimed.adapter):
        return claimed
    return runtime.database.write(images.reroute, claimed, route, adapter)


def _end(runtime: Runtime, claimed: ImageClaim) -> str:
    """Do the work and write how it ended; return that in a word or two for the log."""
    if claimed.claims > runtime.settings.jobs.max_attempts * _CLAIMS_PER_ATTEMPT:
        detail = f"taken {claimed.claims - 1} times, never finished: it may crash the process that reads it"
        return _refuse(runtime, claimed, "INTERNAL_ERROR", detail)
    try:
        findings = _read(runtime, claimed)
    except Exception as error:
        return _end_without_findings(runtime, claimed, error)
    kept = runtime.database.write(images.finish, claimed, runtime.bundle_pk, findings)
    return "analysed" if kept else "claim lost"


def _end_without_findings(runtime: Runtime, claimed: ImageClaim, error: Exception) -> str:
    """Tell apart: we are stopping, the image is at fault, or something may work later."""
    if isinstance(error, BatcherClosedError | DecoderPoolClosedError) and runtime.stopping.is_set():
        runtime.database.write(images.give_back, claimed)
        return "given back"
    if isinstance(error, BatcherFullError | OSError):
        # Too much at once, or a disk that cannot be read now, is no fault of the image and no attempt.
        jobs = runtime.settings.jobs
        delay_s = backoff_s(_WHILE_FULL, jobs.retry_base_s, jobs.retry_max_s)
        runtime.database.write(images.give_back, claimed, delay_s)
        log.warning("image_put_back", instance=claimed.instance_id, error=type(error).__name__)
        return f"given back {type(error).__name__}"
    if isinstance(error, ImageRefusedError | NoFieldOfViewError):
        return _refuse(runtime, claimed, error.reason_code, str(error))
    if isinstance(error, DicomIoError) and not error.retryable:
        if isinstance(error, RefusedPixelsError):  # our own words: they name the transfer syntax, say
            log.warning("pixels_refused", sop_instance_uid=claimed.sop_instance_uid, detail=str(error))
        return _refuse(runtime, claimed, error.reason_code, str(error))
    if not isinstance(error, DicomIoError):
        log.exception("analysis_failed", instance=claimed.instance_id)
    return _retry(runtime, claimed, error)


def _refuse(runtime: Runtime, claimed: ImageClaim, reason_code: str, detail: str) -> str:
    kept = runtime.database.write(images.refuse, claimed, reason_code, detail)
    return f"refused {reason_code}" if kept else "claim lost"


def _retry(runtime: Runtime, claimed: ImageClaim, error: Exception) -> str:
    """Try again later, or end it after the last attempt. The row learns the error's type, not its values."""
    jobs = runtime.settings.jobs
    kind = type(error).__name__
    failures = claimed.attempts + 1
    if failures >= jobs.max_attempts:
        return _refuse(runtime, claimed, "INTERNAL_ERROR", f"{kind} in each of {failures} attempts")
    delay_s = backoff_s(failures, jobs.retry_base_s, jobs.retry_max_s)
    kept = runtime.database.write(images.retry, claimed, kind, delay_s)
    return f"retry {kind}" if kept else "claim lost"


def _wake_report(runtime: Runtime, study_id: int) -> None:
    priority = runtime.database.read(studies.ready_for_report, study_id)
    if priority is not None:
        runtime.dispatcher.wake(Job.REPORT, study_id, priority)


@dataclass(frozen=True)
class _Frame:
    """What is known of a frame beside its prediction; its pixels are left to the engine's queue."""

    number: int
    field_fraction: float
    mean_rgb: tuple[float, float, float]
    decode_ms: float
    prepare_ms: float


def _read(runtime: Runtime, claimed: ImageClaim) -> list[FrameFinding]:
    """Return one finding a frame."""
    verdict = judge(claimed.route, claimed.camera, claimed.sop_class_uid, runtime.settings.camera)
    if verdict.policy == "refuse":
        raise ImageRefusedError("CAMERA_REFUSED", "refused by the [camera] policy for this camera")
    data = runtime.spool.read_verified(claimed.spool_path, claimed.sha256)
    header = read_header(runtime.spool.path(claimed.spool_path))
    if refusal := colour_refusal(header):
        raise ImageRefusedError(refusal, "the header says that it is no colour photograph of the retina")
    waiting = _handed_in(runtime, claimed, header, data)
    if not waiting:
        raise ImageRefusedError("PIXELS_MISSING", "the object has no frame")
    findings = []
    for frame, future, submitted in waiting:
        prediction = future.result()
        engine_ms = (time.perf_counter() - submitted) * 1000
        findings.append(
            _finding(
                runtime, claimed, verdict=verdict, frame=frame, prediction=prediction, engine_ms=engine_ms
            )
        )
    return findings


def _handed_in(
    runtime: Runtime, claimed: ImageClaim, header: FundusHeader, data: bytes
) -> list[tuple[_Frame, Future[Prediction], float]]:
    """Hand every frame to the engine, or none: when one cannot be, those before it are taken back."""
    waiting: list[tuple[_Frame, Future[Prediction], float]] = []
    try:
        with runtime.batcher.announce(header.number_of_frames) as slot:
            for frame, tensor in _frames(runtime, header, data):
                waiting.append((frame, slot.submit(tensor, claimed.adapter), time.perf_counter()))
    except BaseException:
        for _, future, _ in waiting:
            future.cancel()
        raise
    return waiting


def _frames(
    runtime: Runtime, header: FundusHeader, data: bytes
) -> Iterator[tuple[_Frame, npt.NDArray[np.uint8]]]:
    size = runtime.bundle.manifest.size
    started = time.perf_counter()
    rgb: npt.NDArray[np.uint8]
    for number, rgb in enumerate(frames(data, header, runtime.decoders.decode), start=1):
        decoded = time.perf_counter()
        prepared = prepare(rgb, size)
        ended = time.perf_counter()
        yield _measured(number, prepared, decoded - started, ended - decoded), prepared.tensor
        started = time.perf_counter()


def _measured(number: int, prepared: Prepared, decode_s: float, prepare_s: float) -> _Frame:
    return _Frame(number, prepared.field.fraction, prepared.mean_rgb, decode_s * 1000, prepare_s * 1000)


def _finding(
    runtime: Runtime,
    claimed: ImageClaim,
    *,
    verdict: Verdict,
    frame: _Frame,
    prediction: Prediction,
    engine_ms: float,
) -> FrameFinding:
    """Put the prediction into its row; an ungradable picture has no grade at all."""
    gradable = prediction.gradable
    red, green, blue = frame.mean_rgb
    return FrameFinding(
        frame_number=frame.number,
        route=claimed.route,
        adapter=claimed.adapter,
        grade=prediction.grade if gradable else None,
        grade_label=prediction.grade_label if gradable else None,
        referable=prediction.referable if gradable else None,
        referable_probability=prediction.referable_probability if gradable else None,
        certainty=prediction.certainty if gradable else None,
        quality=prediction.quality,
        probabilities=list(prediction.probabilities) if gradable else None,
        reason_code=verdict.reason_code if gradable else "UNGRADABLE_QUALITY",
        engine=runtime.engine_name,
        field_fraction=frame.field_fraction,
        mean_red=red,
        mean_green=green,
        mean_blue=blue,
        decode_ms=frame.decode_ms,
        prepare_ms=frame.prepare_ms,
        engine_ms=engine_ms,
    )
