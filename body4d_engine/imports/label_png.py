# SPDX-License-Identifier: Apache-2.0
"""Masks of several people as one 8-bit palette PNG whose pixel value is the person's id, the way DAVIS and SAM-Body4D keep them.

OpenCV reads such a file as colours and cannot write one, so the few chunks it takes are written here.
"""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

from ..errors import Body4DError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def davis_palette() -> np.ndarray:
    """(256, 3) uint8 RGB: DAVIS's 22 colours, then greys."""
    palette = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    for index in range(22):
        bits = [(index >> (channel + 3 * level)) & 1 for level in (0, 1) for channel in range(3)]
        palette[index] = [min(128 * bits[c] + 64 * bits[c + 3], 191) for c in range(3)]
    return palette


def write_label_png(path: Path, labels: np.ndarray) -> None:
    """labels (H, W) uint8, 0 = nobody."""
    height, width = labels.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row starts with its filter: none
    rows[:, 1:] = labels
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", davis_palette().tobytes()), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    path.write_bytes(_SIGNATURE + b"".join(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
                                           for kind, data in chunks))


def read_label_png(path: Path) -> np.ndarray:
    """labels (H, W) uint8 of a palette or grey PNG. Where two entries of the palette share a colour, the lower one is meant."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise Body4DError(f"{path} cannot be read: {error.strerror or error}.", "Copy the folder again.", "bad_mask") from error
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data[:8] == _SIGNATURE and len(data) > 33 else None
    if image is None or image.dtype != np.uint8:
        raise Body4DError(f"{path} is not a readable 8-bit PNG mask.", "Copy the folder again, or leave its masks folder out.", "bad_mask")
    if image.ndim == 2:
        return image
    palette = _palette(data) if data[25] == 3 else None
    if palette is None:
        raise Body4DError(f"{path} is a colour picture, not a mask whose pixels are people's ids.", "Leave the folder masks out.", "bad_mask")
    blue, green, red = (image[..., k].astype(np.int32) for k in range(3))
    colors = (palette[:, 0].astype(np.int32) << 16) | (palette[:, 1].astype(np.int32) << 8) | palette[:, 2]
    values, first = np.unique(colors, return_index=True)
    packed = (red << 16) | (green << 8) | blue
    return first[np.clip(np.searchsorted(values, packed), 0, len(values) - 1)].astype(np.uint8)


def _palette(data: bytes) -> np.ndarray | None:
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"PLTE":
            return np.frombuffer(data, np.uint8, length, at + 8).reshape(-1, 3)
        at += 12 + length
    return None
