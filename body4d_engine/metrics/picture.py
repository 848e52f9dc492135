# SPDX-License-Identifier: Apache-2.0
"""How well the bodies lie on the picture, as the tracker saw it."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Metric, Motion, Result, nanmean


@dataclass(frozen=True)
class ReprojectionError(Metric):
    """mean over samples and joints of ||projected joint - landmark||, in px of the clip. The landmarks are the tracker's, not the truth; where it
    took left for right they are exchanged.

    visible: landmarks of lower visibility do not count.
    """

    visible: float = 0.5
    name: ClassVar[str] = "reprojection"
    unit: ClassVar[str] = "px"
    meaning: ClassVar[str] = "How far the body's joints lie from the tracker's landmarks in the picture."

    def __call__(self, motion: Motion) -> Result:
        if motion.keypoints_px is None or motion.landmarks_px is None:
            return self.undefined("the take has no landmarks to compare with")
        seen = np.asarray(motion.landmarks_px, np.float64)
        off = np.linalg.norm(motion.keypoints_px[..., :2] - seen[..., :2], axis=-1)
        return self.mean_of(self.scaled(nanmean(np.where(seen[..., 2] >= self.visible, off, np.nan)), motion), "no landmark is visible")

    def scaled(self, error_px: np.ndarray, motion: Motion) -> np.ndarray:
        """(T,) in the metric's unit."""
        return error_px


@dataclass(frozen=True)
class RelativeReprojectionError(ReprojectionError):
    """`ReprojectionError` in % of how tall the person would stand in the picture (rest height * focal length / depth of the root)."""

    name: ClassVar[str] = "reprojection_relative"
    unit: ClassVar[str] = "% of height"
    meaning: ClassVar[str] = "The same for people of any size in the picture."

    def scaled(self, error_px: np.ndarray, motion: Motion) -> np.ndarray:
        return 100 * error_px / (np.nan if motion.height_px is None else motion.height_px)
