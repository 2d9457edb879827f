"""Objects of the corpus made odder still: what one seed makes of them is always the same."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from functools import cache

from corpus.case import Case
from corpus.catalogue import CASES
from pydicom import uid

_LEFT_OUT = ("bomb-deflated",)
"""Half a gigabyte each time, for which there is nothing to learn."""
_NUMBERS = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF)
_LENGTHS = (0, 1, 4, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFF0, 0xFFFFFFFF)
_VRS = (b"OB", b"OW", b"SQ", b"UN", b"US", b"UI", b"LO", b"PN", b"IS", b"DS", b"AT", b"ZZ", b"\0\0")
_SYNTAXES = tuple(
    str(each).encode()
    for each in (
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.JPEGBaseline8Bit,
        uid.JPEGExtended12Bit,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEG2000Lossless,
        uid.RLELossless,
    )
)
_TEXTS = (
    b"\\",
    b"^",
    b"=",
    b"\x1b$B",
    b"\x1b$)C",
    b"\xff\xfe",
    b"\0",
    b"YBR_FULL",
    b"PALETTE COLOR",
    b"-1",
    b"1e9",
)


@cache
def sources(left_out: tuple[str, ...] = _LEFT_OUT) -> tuple[bytes, ...]:
    """Files of the corpus."""
    chosen: list[Case] = [case for case in CASES if case.name not in left_out]
    return tuple(content for case in chosen for content in case.files().values())


def mutated(seed: int, number: int) -> bytes:
    """Object `number` of the run `seed`: a file of the corpus, changed in one to six ways."""
    rng = random.Random(f"{seed}/{number}")  # noqa: S311 - nothing secret follows from it
    return mutate(rng, rng.choice(sources()))


def mutate(rng: random.Random, content: bytes) -> bytes:
    """`content` changed in one to six ways, behind its meta information: that is the receiver's own work."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        content = rng.choice(_CHANGES)(rng, content)
    return content


def dataset_start(content: bytes) -> int:
    """Where the data set of a file begins (PS3.10 7.1); 0 in a file without sound meta information."""
    start = 144 + int.from_bytes(content[140:144], "little")
    return start if content[128:136] == b"DICM\x02\0\0\0" and start <= len(content) else 0


def _place(rng: random.Random, content: bytes) -> int:
    """A place in the data set: near its beginning, where the header is, or anywhere."""
    start = dataset_start(content)
    end = min(len(content), start + 2700) if rng.random() < 0.7 else len(content)
    return rng.randrange(start, max(end, start + 1))


def _replaced(content: bytes, at: int, patch: bytes) -> bytes:
    return content[:at] + patch + content[at + len(patch) :]


def _flip(rng: random.Random, content: bytes) -> bytes:
    at = _place(rng, content)
    return _replaced(content, at, bytes([(content[at] if at < len(content) else 0) ^ 1 << rng.randrange(8)]))


def _noise(rng: random.Random, content: bytes) -> bytes:
    return _replaced(content, _place(rng, content), rng.randbytes(rng.choice((1, 2, 4, 16, 64))))


def _short(rng: random.Random, content: bytes) -> bytes:
    return _replaced(content, _place(rng, content), struct.pack("<H", rng.choice(_NUMBERS)))


def _long(rng: random.Random, content: bytes) -> bytes:
    return _replaced(content, _place(rng, content), struct.pack("<L", rng.choice(_LENGTHS)))


def _cut(rng: random.Random, content: bytes) -> bytes:
    return content[: _place(rng, content)]


def _delete(rng: random.Random, content: bytes) -> bytes:
    at = _place(rng, content)
    return content[:at] + content[at + rng.choice((1, 2, 8, 64, 1000)) :]


def _repeat(rng: random.Random, content: bytes) -> bytes:
    at, length = _place(rng, content), rng.choice((1, 2, 8, 64, 1000))
    return content[: at + length] + content[at:]


def _text(rng: random.Random, content: bytes) -> bytes:
    return _replaced(content, _place(rng, content), rng.choice(_TEXTS))


def _other_tail(rng: random.Random, content: bytes) -> bytes:
    """The header of one object, the rest of another."""
    other = rng.choice(sources())
    return content[: _place(rng, content)] + other[_place(rng, other) :]


def _other_vr(rng: random.Random, content: bytes) -> bytes:
    at = _element(rng, content)
    return _replaced(content, at + 4, rng.choice(_VRS))


def _other_length(rng: random.Random, content: bytes) -> bytes:
    at = _element(rng, content)
    return _replaced(content, at + 6, struct.pack("<H", rng.choice(_NUMBERS)))


def _other_value(rng: random.Random, content: bytes) -> bytes:
    at = _element(rng, content)
    return _replaced(
        content, at + 8, rng.choice((rng.choice(_TEXTS), struct.pack("<H", rng.choice(_NUMBERS))))
    )


def _other_syntax(rng: random.Random, content: bytes) -> bytes:
    """Another transfer syntax in the meta information than that of the data set."""
    at = content.find(b"\x02\x00\x10\x00UI", 132, 600)
    if at < 0:
        return content
    length = int.from_bytes(content[at + 6 : at + 8], "little")
    syntax = rng.choice(_SYNTAXES)
    syntax += b"\0" * (len(syntax) % 2)
    element = content[at : at + 6] + len(syntax).to_bytes(2, "little") + syntax
    return content[:at] + element + content[at + 8 + length :]


def _element(rng: random.Random, content: bytes) -> int:
    """Where an element of the header begins: explicit VRs give it away."""
    at = _place(rng, content)
    for place in range(at, min(at + 400, len(content) - 8)):
        if content[place + 4 : place + 6] in _VRS:
            return place
    return at


_CHANGES: Sequence[Callable[[random.Random, bytes], bytes]] = (
    *(_flip, _noise, _short, _long, _cut, _delete, _repeat, _text, _other_tail),
    *(_other_vr, _other_length, _other_value, _other_value, _other_syntax),
)
