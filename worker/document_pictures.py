"""Pictures for the objects beside a report: photographs as they are stored, and what the models saw in them.

The maps are computed anew, by the bundle that the finding is of. When it does not come to the same grade,
nothing is drawn: the map would not be that of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageDraw, ImageFont

from dicom_io.pixels import frames
from models.activation import Colour, draw_activation, map_colours
from models.preprocess import prepare
from worker.errors import MapsDifferError
from worker.printed.lettering import REGULAR, font_bytes, shown
from worker.runtime import Runtime
from worker.store.reports import ImageRow

Uint8Image = npt.NDArray[np.uint8]

SIDE = 768
"""Side of a picture in px: the maps have a sixth of it at most, and the photograph itself is in the study."""
PAGE_SIDE = 480
_LINE = 26


@dataclass(frozen=True)
class Seen:
    """A photograph and what the classifier saw in it.

    Attributes:
        picture: uint8 (SIDE, SIDE, 4), the photograph cropped to its field of view.
        overlay: uint8 (SIDE, SIDE, 3), the same with its lesion maps; None where none were asked for.
    """

    picture: Uint8Image
    overlay: Uint8Image | None


def see(runtime: Runtime, row: ImageRow, *, with_maps: bool) -> Seen:
    """Read a photograph again, and let the models see it again.

    Raises:
        SpoolDamagedError: Its file is missing or was changed.
        MapsDifferError: The models do not come to the grade that the finding states.
        DecoderLostError, DecoderPoolClosedError, BatcherFullError, BatcherClosedError, OSError: Not now;
            later perhaps.
    """
    data = runtime.spool.read_verified(row.spool_path, row.sha256)
    wanted = (row.frame_number or 1) - 1
    decoded = frames(data, decode=runtime.decoders.decode)
    rgb = next(frame for number, frame in enumerate(decoded) if number == wanted)
    picture = prepare(rgb, SIDE).tensor
    if not with_maps:
        return Seen(picture, None)
    tensor = prepare(rgb, runtime.bundle.manifest.size).tensor
    with runtime.batcher.announce(1) as slot:
        prediction = slot.submit(tensor, row.adapter).result()
    if prediction.grade != row.grade or not prediction.gradable:
        raise MapsDifferError(
            f"image {row.sop_instance_uid}: the models see another grade than the finding's"
        )
    return Seen(picture, draw_activation(picture, prediction.activation))


def legend(runtime: Runtime) -> list[tuple[Colour, str]]:
    """Return colour and name of each lesion map of the bundle."""
    labels = runtime.bundle.manifest.activation_labels
    return list(zip(map_colours(len(labels)), labels, strict=True))


def as_jpeg(picture: Uint8Image) -> bytes:
    """Return a square picture (RGB, or RGB and mask) as a small JPEG for the page."""
    rgb = Image.fromarray(np.ascontiguousarray(picture[..., :3]))
    small = np.asarray(rgb.resize((PAGE_SIDE, PAGE_SIDE), Image.Resampling.BOX))
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(small), quality=88, colorsubsampling="444"))


def with_key(overlay: Uint8Image, entries: Sequence[tuple[Colour, str]], notes: Sequence[str]) -> Uint8Image:
    """Return the overlay with its key and notes below it: uint8 (SIDE + lines, SIDE, 3).

    What is burned in names kinds of lesion and software, never a patient or a date.
    """
    rows = (len(entries) + 1) // 2 + len(notes)
    sheet = Image.new("RGB", (SIDE, SIDE + rows * _LINE + 12), (16, 18, 22))
    sheet.paste(Image.fromarray(overlay), (0, 0))
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.truetype(BytesIO(font_bytes(REGULAR)), 17)
    for place, (colour, label) in enumerate(entries):
        x, y = 14 + (place % 2) * (SIDE // 2), SIDE + 8 + (place // 2) * _LINE
        pen.rectangle((x, y + 2, x + 16, y + 18), fill=colour)
        pen.text((x + 26, y), shown(label), fill=(235, 235, 235), font=font)
    top = SIDE + 8 + ((len(entries) + 1) // 2) * _LINE
    for place, note in enumerate(notes):
        pen.text((14, top + place * _LINE), shown(note), fill=(175, 180, 185), font=font)
    return np.asarray(sheet)
