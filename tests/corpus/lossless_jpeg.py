"""An encoder for JPEG lossless (ITU-T T.81 process 14): no Python package has one."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

_CODE_BITS = 5
"""Every difference category has a code of this many bits; 17 categories need no more."""
_CATEGORIES = 17


def encode(samples: npt.NDArray[np.uint8], *, selection: int = 1) -> bytes:
    """A lossless JPEG stream of one interleaved scan.

    Args:
        samples: uint8 (H, W, C).
        selection: Predictor (T.81 table H.1): 1 left, 2 above.
    """
    rows, columns, components = samples.shape
    identifiers = range(1, components + 1)
    frame = struct.pack(">BHHB", 8, rows, columns, components)
    frame += b"".join(bytes((each, 0x11, 0)) for each in identifiers)
    table = bytes(16 * [0])
    counts = bytearray(table)
    counts[_CODE_BITS - 1] = _CATEGORIES
    huffman = b"\x00" + bytes(counts) + bytes(range(_CATEGORIES))
    scan = bytes([components]) + b"".join(bytes((each, 0)) for each in identifiers)
    scan += bytes((selection, 0, 0))
    segments = ((0xC3, frame), (0xC4, huffman), (0xDA, scan))
    head = b"".join(
        b"\xff" + bytes([code]) + struct.pack(">H", len(body) + 2) + body for code, body in segments
    )
    return b"\xff\xd8" + head + _entropy_coded(_differences(samples, selection)) + b"\xff\xd9"


def _differences(samples: npt.NDArray[np.uint8], selection: int) -> npt.NDArray[np.int32]:
    """Sample minus prediction (T.81 H.1.2.1), in the order of the scan."""
    wide = samples.astype(np.int32)
    predicted = np.empty_like(wide)
    if selection == 2:
        predicted[1:] = wide[:-1]
    else:
        predicted[:, 1:] = wide[:, :-1]
        predicted[1:, 0] = wide[:-1, 0]
    predicted[0, 1:] = wide[0, :-1]
    predicted[0, 0] = 128
    return (wide - predicted).reshape(-1)


def _entropy_coded(differences: npt.NDArray[np.int32]) -> bytes:
    """Category and remainder of each difference (T.81 H.1.2.2), bytes of 0xFF stuffed."""
    parts = []
    for value in differences.tolist():
        size = abs(value).bit_length()
        parts.append(f"{size:0{_CODE_BITS}b}")
        if size:
            parts.append(f"{value if value > 0 else value + (1 << size) - 1:0{size}b}")
    bits = "".join(parts)
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
