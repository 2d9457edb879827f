"""Several frames, and the ways in which encapsulated frames are cut into fragments (PS3.5 A.4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from corpus.case import Case, Outcome, graded, refused
from corpus.photograph import as_jpeg, brighter, compressed, make, photograph, raw, written
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import JPEGBaseline8Bit


def _sided(case: str, sides: Sequence[str], laterality: str | None = None) -> list[bytes]:
    """A multi-frame object that states the side of each frame (PS3.3 C.7.6.16.2.8)."""
    pictures = [as_jpeg(), as_jpeg(brighter())] * len(sides)
    ds = make(case, pictures[: len(sides)], laterality=laterality)
    groups = []
    for side in sides:
        anatomy, group = Dataset(), Dataset()
        anatomy.FrameLaterality = side
        group.FrameAnatomySequence = DicomSequence([anatomy])
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = DicomSequence(groups)
    return [written(ds)]


def _raw_frames(case: str, *, stated: int, there: int) -> list[bytes]:
    ds = make(case, np.stack([photograph()] * there))
    ds.NumberOfFrames = stated
    return [written(ds)]


def _with_blank(case: str) -> list[bytes]:
    blank = np.zeros_like(photograph())
    return [written(make(case, [as_jpeg(), as_jpeg(blank)]))]


def _with_pixels(ds: FileDataset, content: bytes) -> list[bytes]:
    ds.PixelData = content
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    return [written(ds)]


def _extended_offsets(case: str) -> list[bytes]:
    streams = [as_jpeg(), as_jpeg(brighter())]
    content, offsets, lengths = encapsulate_extended(streams)
    ds = make(case, streams)
    ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = offsets, lengths
    return _with_pixels(ds, content)


def _wrong_offsets(case: str) -> list[bytes]:
    ds = make(case, [as_jpeg(), as_jpeg(brighter())])
    content = bytearray(ds.PixelData)
    content[12:16] = (7).to_bytes(4, "little")
    return _with_pixels(ds, bytes(content))


CASES = (
    Case(
        "frames-uncompressed",
        "three uncompressed frames, one side",
        graded(),
        lambda case: _raw_frames(case, stated=3, there=3),
    ),
    Case(
        "frames-of-both-eyes",
        "a frame of each eye, each with its own side",
        Outcome(results=(("ANALYSED", None),), eyes={"R": None, "L": None}),
        lambda case: _sided(case, ("R", "L")),
        same_colours=False,
    ),
    Case(
        "frames-side-missing",
        "two frames, the side stated of the first only",
        Outcome(results=(("ANALYSED", None),), eyes={"R": None}),
        lambda case: _sided(case, ("R", "")),
        same_colours=False,
    ),
    Case(
        "frames-against-the-image",
        "a left frame in an image that says right",
        Outcome(results=(("ANALYSED", None),), eyes={"R": None}),
        lambda case: _sided(case, ("R", "L"), laterality="R"),
        same_colours=False,
    ),
    Case(
        "frames-fewer-than-stated",
        "five frames stated, two there",
        refused("PIXELS_UNREADABLE"),
        lambda case: _raw_frames(case, stated=5, there=2),
    ),
    Case(
        "frames-too-many",
        "100,000 frames stated",
        refused("IMAGE_TOO_LARGE"),
        lambda case: [written(raw(case, NumberOfFrames=100_000))],
    ),
    Case(
        "frames-one-blank",
        "two frames, the second black",
        refused("NOT_A_FUNDUS_PHOTOGRAPH"),
        _with_blank,
    ),
    Case(
        "fragments-several",
        "one frame in many fragments, no offset table",
        graded(),
        lambda case: _with_pixels(make(case), encapsulate([as_jpeg()], fragments_per_frame=9, has_bot=False)),
    ),
    Case(
        "fragments-odd",
        "a stream of odd length, padded",
        graded(),
        lambda case: _with_pixels(make(case), encapsulate([as_jpeg() + b"\0" * (1 - len(as_jpeg()) % 2)])),
    ),
    Case(
        "fragments-extended-offsets",
        "an extended offset table",
        graded(),
        _extended_offsets,
        same_colours=False,
    ),
    Case(
        "fragments-wrong-offsets",
        "an offset table that points nowhere",
        graded(),
        _wrong_offsets,
        same_colours=False,
    ),
    Case(
        "fragments-unended",
        "encapsulated frames without a delimiter at the end",
        graded(),
        lambda case: [written(compressed(case, as_jpeg(), JPEGBaseline8Bit))[:-8]],
        dcmtk="cannot read it",
    ),
)
