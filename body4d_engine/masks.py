# SPDX-License-Identifier: Apache-2.0
"""Masks as few bytes. numpy and the standard library only."""

import zlib

import numpy as np


def encode_mask(mask: np.ndarray | None) -> tuple[bytes, tuple[int, int, int, int]]:
    """A mask (H, W) bool as deflated bits of its bounding box, and that box x, y, w, h."""
    if mask is None or not mask.any():
        return b"", (0, 0, 0, 0)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    y, x, h, w = rows[0], columns[0], rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    return zlib.compress(np.packbits(mask[y : y + h, x : x + w]).tobytes(), 6), (int(x), int(y), int(w), int(h))


def decode_mask(data: bytes, box, height: int, width: int) -> np.ndarray:
    """The inverse of encode_mask. Raises ValueError where the data is no mask in a picture of that size."""
    mask = np.zeros((height, width), bool)
    x, y, w, h = box
    if data:
        if min(x, y, w, h) < 0 or x + w > width or y + h > height:
            raise ValueError(f"a mask at {x}, {y} of {w} x {h} px")
        try:
            bits = zlib.decompressobj().decompress(data, -(-w * h // 8) + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        if len(bits) != -(-w * h // 8):
            raise ValueError(f"{len(bits)} bytes for {w} x {h} px")
        mask[y : y + h, x : x + w] = np.unpackbits(np.frombuffer(bits, np.uint8), count=w * h).reshape(h, w)
    return mask
