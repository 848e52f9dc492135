# SPDX-License-Identifier: Apache-2.0
"""Whether a box goes on beyond the picture. numpy only."""

import numpy as np

EDGE = 0.01  # of the picture's longer side: a box so near the edge may go on beyond it


def at_edges(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(..., 4) bool: whether boxes (..., 4), x0, y0, x1, y1 in px, reach the left, right, upper and lower edge of a picture of that width and height."""
    margin, (width, height) = EDGE * max(size), size
    return np.stack([box[..., 0] < margin, box[..., 2] > width - margin, box[..., 1] < margin, box[..., 3] > height - margin], -1)
