# SPDX-License-Identifier: Apache-2.0
"""A turned square of a picture as a network's input, and back."""

import cv2
import numpy as np

from .blazepose import Roi


def crop(rgb: np.ndarray, roi: Roi, size: int) -> np.ndarray:
    """(size, size, 3) uint8: the picture (H, W, 3) in the square; beyond its edges the outermost pixels are repeated, as in MediaPipe."""
    warp = roi.to_picture.copy()  # between sample positions (pixel centres) of both
    warp[:, :2] /= size
    warp[:, 2] += warp[:, :2] @ [0.5, 0.5] - 0.5
    return cv2.warpAffine(rgb, warp, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)


def network_input(crop: np.ndarray) -> np.ndarray:
    """(1, size, size, 3) float32 in 0..1."""
    return np.multiply(crop, np.float32(1 / 255), dtype=np.float32)[None]


def in_picture(points: np.ndarray, roi: Roi, size: int) -> np.ndarray:
    """Points (n, 3) of a network's square of `size` px, depth in the same unit -> px of the picture, depth in px too."""
    flat = np.column_stack([points[:, :2] / size, np.ones(len(points))]) @ roi.to_picture.T
    return np.column_stack([flat, points[:, 2] * roi.size / size])


def turned(points: np.ndarray, roi: Roi) -> np.ndarray:
    """Points (n, 3) in metres along the square's axes -> along the picture's."""
    c, s = np.cos(roi.angle), np.sin(roi.angle)
    return points @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
