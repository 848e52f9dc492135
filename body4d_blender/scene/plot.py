# SPDX-License-Identifier: GPL-3.0-or-later
"""Confidence over time as a picture: the person's colour up to how sure the pose is, doubtful stretches behind it. No bpy."""

import numpy as np

GROUND, DOUBTFUL, LIMIT, NOW = (0.11, 0.11, 0.11), (0.42, 0.13, 0.11), (0.3, 0.3, 0.3), (1.0, 1.0, 1.0)


def columns_of(samples: int, width: int) -> np.ndarray:
    """(width + 1,) the sample at which each column of the picture begins; every column shows one sample at least."""
    return np.linspace(0, samples, width + 1)


def column_at(sample: float, samples: int, width: int) -> int | None:
    """The column that shows a sample; None outside."""
    return min(width - 1, int((sample + 0.5) * width / samples)) if 0 <= sample < samples else None


def plot(confidence: np.ndarray, doubtful: np.ndarray, color, limit: float, width: int, height: int) -> np.ndarray:
    """A picture (height, width, 4) float32, its first row at the bottom. confidence (n,) 0..1, NaN where there is nothing; doubtful (n,) bool; color sRGB.

    A column of many samples shows the worst of them.
    """
    edges = columns_of(len(confidence), width)
    begin = np.minimum(edges[:-1].astype(int), len(confidence) - 1)
    shown = np.fmin.reduceat(np.asarray(confidence, np.float32), begin)  # NaN only where all are
    image = np.ones((height, width, 4), np.float32)
    image[..., :3] = np.where(np.logical_or.reduceat(doubtful, begin)[None, :, None], DOUBTFUL, GROUND)
    rows = (np.arange(height) + 0.5) / height
    image[int(limit * height), :, :3] = LIMIT
    filled = rows[:, None] < np.nan_to_num(shown)[None]
    image[..., :3] = np.where(filled[..., None], np.asarray(color, np.float32)[:3], image[..., :3])
    return image


def mark(image: np.ndarray, column: int | None) -> np.ndarray:
    """The picture with a line at one column."""
    if column is None:
        return image
    image = image.copy()
    image[:, column, :3] = NOW
    return image
