# SPDX-License-Identifier: GPL-3.0-or-later
"""Which scene frame shows which clip frame. No bpy."""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import numpy as np

SAME_RATE = 1e-5  # Blender keeps the frame rate base as float32: 30 / 1.001 is 30000/1001 only to 1e-7
EXACT_FLOAT = 1 << 24  # Blender interpolates curves in float32, which holds whole numbers up to here


@dataclass(frozen=True)
class Timing:
    """Clip frame 0 is at scene frame `start`; one clip frame lasts `rate` scene frames."""

    start: int
    rate: float = 1.0

    def scene_frames(self, clip_frames) -> np.ndarray:
        """Scene frames (n,) float64 of clip frames (n,)."""
        return self.start + np.asarray(clip_frames, np.float64) * self.rate


def rate_between(scene_fps: float, clip_fps: Fraction) -> float:
    """Scene frames per clip frame; exactly 1 where both run at the same speed."""
    rate = float(scene_fps / clip_fps)
    return 1.0 if abs(rate - 1) < SAME_RATE else rate


def fps_parts(fps: Fraction) -> tuple[int, float]:
    """Blender's (fps, fps_base) of a rate: 30000/1001 -> (30, 1.001), 25 -> (25, 1.0), 25/2 -> (13, 1.04)."""
    whole = max(1, ceil(fps))
    return whole, float(whole / fps)


def knots(samples: int, step: int) -> np.ndarray:
    """Sample indices at which a curve that counts samples needs a key so that it is exact at every sample in between.

    Two keys would do, were it not for float32: Blender computes change * time / duration, and change * time must stay a whole number
    that float32 holds. So a long clip gets a key every few thousand samples.
    """
    stride = max(1, int((EXACT_FLOAT / max(1, step)) ** 0.5))
    return np.unique(np.append(np.arange(0, samples, stride), samples - 1))
