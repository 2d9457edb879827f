"""Each transfer syntax over the wire into a running service: a finding, or its named refusal."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories.bundle import GREEN_FOR_GRADE
from factories.dicom import ExplicitVRLittleEndian, as_jpeg, make_fundus, synthetic_fundus
from factories.encodings import as_j2k, as_jpeg_ls, as_rle, by_dcmtk, compressed, rgb_to_ybr
from factories.hostile_decoder import pool_that_dies_of
from factories.runtime import make_settings, rows, send, value
from factories.servers import free_port
from factories.storescu import storescu
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    JPEG2000,
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    WideFieldOphthalmicPhotographyStereographicProjectionImageStorage,
)

from worker.runtime import Runtime
from worker.service import Role, Service

pytestmark = [pytest.mark.dcmtk, pytest.mark.xdist_group("dcmtk")]
GRADE = 2
CRASHING_ROWS = 96
BY_PYNETDICOM = "pynetdicom"


def picture(size: int = 128) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """What the tiny bundle gives grade 2."""
    rgb = synthetic_fundus(size)
    rgb[rgb.any(axis=2)] = np.array((200, GREEN_FOR_GRADE[GRADE], 60), np.uint8)
    return rgb


RGB = picture()
DEEP: dict[str, Any] = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}


def raw(rgb: np.ndarray[Any, np.dtype[np.uint8]] = RGB, **options: Any) -> FileDataset:
    return make_fundus(rgb, transfer_syntax=ExplicitVRLittleEndian, photometric="RGB", **options)


def coded(stream: bytes, syntax: UID, photometric: str = "RGB", **options: Any) -> FileDataset:
    return compressed(stream, syntax, photometric=photometric, **options)


def dcmtk(
    program: str, options: str, source: Callable[[], FileDataset] = raw
) -> Callable[[Path], FileDataset]:
    def make(folder: Path) -> FileDataset:
        return dcmread(BytesIO(by_dcmtk(source(), folder, program, options)))

    return make


def deep() -> FileDataset:
    return raw(PixelData=(RGB.astype("<u2") << 4).tobytes(), **DEEP)


def palette() -> FileDataset:
    colours, indices = np.unique(RGB.reshape(-1, 3), axis=0, return_inverse=True)
    ds = raw()
    ds.PhotometricInterpretation, ds.SamplesPerPixel = "PALETTE COLOR", 1
    del ds.PlanarConfiguration
    for channel, name in enumerate(("Red", "Green", "Blue")):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [len(colours), 0, 16])
        table = (colours[:, channel].astype("<u2") << 8).tobytes()
        setattr(ds, f"{name}PaletteColorLookupTableData", table)
    ds.PixelData = indices.astype(np.uint8).tobytes()
    return ds


def two_eyes() -> FileDataset:
    """Two frames, each with a side of its own (PS3.3 C.7.6.16.2.8), the second one of another grade."""
    other = RGB.copy()
    other[other.any(axis=2)] = np.array((200, GREEN_FOR_GRADE[4], 60), np.uint8)
    ds = coded(b"\0\0", JPEGLSLossless, laterality=None, NumberOfFrames=2)
    ds.PixelData = encapsulate([as_jpeg_ls(RGB), as_jpeg_ls(other)])
    groups = []
    for side in ("R", "L"):
        anatomy, group = Dataset(), Dataset()
        anatomy.FrameLaterality = side
        group.FrameAnatomySequence = Items([anatomy])
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = Items(groups)
    return ds


@dataclass(frozen=True)
class Case:
    """What is sent, how, and what has to come of it.

    Attributes:
        make: Makes the object, with a folder for DCMTK's programs.
        proposed: storescu's option for the transfer syntax, or `BY_PYNETDICOM`.
        expected: Reason code of the refusal or finding; None for a finding with the grade.
    """

    make: Callable[[Path], FileDataset]
    proposed: str
    expected: str | None = None


def plainly(make: Callable[[], FileDataset]) -> Callable[[Path], FileDataset]:
    return lambda folder: make()


CASES = {
    "explicit": Case(plainly(raw), "-xe"),
    "implicit": Case(dcmtk("dcmconv", "+ti"), "-xi"),
    "big_endian": Case(dcmtk("dcmconv", "+tb"), "-xb"),
    "deflated": Case(dcmtk("dcmconv", "+td"), "-xd"),
    "deep": Case(plainly(deep), "-xe"),
    "palette": Case(plainly(palette), "-xe"),
    "jpeg": Case(plainly(lambda: make_fundus(as_jpeg(RGB, quality=95, subsampling="444"))), "-xy"),
    "jpeg_labelled_rgb": Case(
        plainly(lambda: make_fundus(as_jpeg(RGB, quality=95, subsampling="444"), photometric="RGB")), "-xy"
    ),
    "rgb_labelled_ybr": Case(plainly(lambda: raw(PhotometricInterpretation="YBR_FULL")), "-xe"),
    "ybr_labelled_rgb": Case(plainly(lambda: raw(PixelData=rgb_to_ybr(RGB).tobytes())), "-xe"),
    "jpeg_extended": Case(dcmtk("dcmcjpeg", "+ee +q 98 +s4"), "-xx"),
    "jpeg_lossless_sv1": Case(dcmtk("dcmcjpeg", "+e1"), "-xs"),
    "jpeg_lossless": Case(dcmtk("dcmcjpeg", "+el +sv 4"), BY_PYNETDICOM),
    "jpeg_ls": Case(plainly(lambda: coded(as_jpeg_ls(RGB), JPEGLSLossless)), "-xt"),
    "jpeg_ls_lossy": Case(plainly(lambda: coded(as_jpeg_ls(RGB, error=2), JPEGLSNearLossless)), "-xu"),
    "jpeg_2000": Case(plainly(lambda: coded(as_j2k(RGB, use_mct=True), JPEG2000Lossless, "YBR_RCT")), "-xv"),
    "jpeg_2000_lossy": Case(
        plainly(lambda: coded(as_j2k(RGB, use_mct=True, compression_ratios=[6]), JPEG2000, "YBR_ICT")), "-xw"
    ),
    "rle": Case(plainly(lambda: coded(as_rle(RGB), RLELossless)), "-xr"),
    "wide_field": Case(
        plainly(
            lambda: coded(
                as_rle(RGB),
                RLELossless,
                sop_class=WideFieldOphthalmicPhotographyStereographicProjectionImageStorage,
            )
        ),
        BY_PYNETDICOM,
        "WIDE_FIELD_NOT_VALIDATED",
    ),
    "deep_jpeg_lossless": Case(dcmtk("dcmcjpeg", "+e1", deep), "-xs", "UNSUPPORTED_TRANSFER_SYNTAX"),
    "truncated": Case(
        plainly(lambda: coded(as_j2k(RGB)[:900], JPEG2000Lossless)), "-xv", "PIXELS_UNREADABLE"
    ),
    "bomb": Case(
        plainly(lambda: coded(as_jpeg_ls(RGB), JPEGLSLossless, Rows=40_000, Columns=40_000)),
        "-xt",
        "IMAGE_TOO_LARGE",
    ),
    "grey": Case(plainly(lambda: coded(as_jpeg_ls(RGB[..., 0].copy()), JPEGLSLossless)), "-xt", "NOT_COLOUR"),
    "monochrome": Case(plainly(lambda: raw(PhotometricInterpretation="MONOCHROME2")), "-xe", "NOT_COLOUR"),
    "empty": Case(plainly(lambda: raw(PixelData=b"")), "-xe", "PIXELS_MISSING"),
    "crash": Case(
        plainly(
            lambda: coded(
                as_j2k(picture(CRASHING_ROWS)), JPEG2000Lossless, Rows=CRASHING_ROWS, Columns=CRASHING_ROWS
            )
        ),
        "-xv",
        "DECODER_FAILED",
    ),
    "after_the_crash": Case(plainly(lambda: coded(as_j2k(RGB), JPEG2000Lossless)), "-xv"),
}
UIDS = {name: f"1.2.826.0.1.99.{number}" for number, name in enumerate((*CASES, "two_eyes"), start=1)}


def made(name: str, make: Callable[[Path], FileDataset], folder: Path) -> tuple[Path, FileDataset]:
    """The object of a case as a file."""
    ds = make(folder)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(UIDS[name])
    ds.StudyInstanceUID = f"{UIDS[name]}.1"
    path = folder / f"{name}.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path, ds


def eventually(runtime: Runtime, query: str, expected: object) -> bool:
    """Wait, at most a minute, until the query says so."""
    moment = threading.Event()
    return any(value(runtime, query) == expected or moment.wait(0.1) for _ in range(600))


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """A running service to which everything was sent, after the last image has ended."""
    folder, port = tmp_path_factory.mktemp("syntaxes"), free_port()
    settings = make_settings(
        folder, listener={"port": port}, study={"close_on": "association"}, jobs={"sweep_interval_s": 0.5}
    )
    service = Service(settings, Role.SERVE)
    service.start()
    assert service.runtime is not None
    running = service.runtime
    running.decoders = pool_that_dies_of("crash", CRASHING_ROWS)
    for name, case in CASES.items():
        path, ds = made(name, case.make, folder)
        if case.proposed == BY_PYNETDICOM:
            assert send(port, [ds]) == [0]
        else:
            sending = storescu(port, [path], options=("-R", case.proposed))
            assert sending.acknowledged == [path], sending.output
    assert send(port, [made("two_eyes", plainly(two_eyes), folder)[1]]) == [0]
    assert eventually(running, "SELECT count(*) FROM instances WHERE state = 'RECEIVED'", 0)
    yield running
    assert service.stop()


def outcomes(runtime: Runtime, uid: str) -> list[dict[str, Any]]:
    statement = "SELECT * FROM v_results WHERE sop_instance_uid = :uid ORDER BY frame_number"
    return rows(runtime, statement, uid=uid)


@pytest.mark.parametrize("name", CASES)
def test_every_transfer_syntax_ends_in_a_finding_or_in_its_named_refusal(runtime: Runtime, name: str) -> None:
    [outcome] = outcomes(runtime, UIDS[name])

    expected = CASES[name].expected
    assert outcome["reason_code"] == expected
    analysed = expected in (None, "WIDE_FIELD_NOT_VALIDATED")
    assert outcome["grade"] == (GRADE if analysed else None)


def test_each_frame_has_its_own_side_and_finding(runtime: Runtime) -> None:
    found = outcomes(runtime, UIDS["two_eyes"])

    assert [(each["frame_number"], each["laterality"], each["grade"]) for each in found] == [
        (1, "R", GRADE),
        (2, "L", 4),
    ]


def test_what_the_decoder_died_of_is_in_the_row(runtime: Runtime) -> None:
    detail = value(
        runtime, "SELECT reason_detail FROM instances WHERE sop_instance_uid = :uid", uid=UIDS["crash"]
    )

    assert "the decoder crashed (SIGSEGV)" in detail


def test_a_transfer_syntax_that_nobody_reads_is_turned_away_at_the_door(runtime: Runtime) -> None:
    assert rows(runtime, "SELECT reason_code FROM v_rejections") == []
    ds = coded(b"\0\0", HTJ2KLossless)

    with pytest.raises(ConnectionError):
        send(runtime.settings.listener.port, [ds])

    assert eventually(runtime, "SELECT count(*) FROM v_rejections", 1)
    [rejection] = rows(runtime, "SELECT reason_code, transfer_syntax_uid FROM v_rejections")
    assert tuple(rejection.values()) == ("CONTEXT_NOT_ACCEPTED", HTJ2KLossless)
