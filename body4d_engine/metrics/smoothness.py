# SPDX-License-Identifier: Apache-2.0
"""How smooth a motion is, without a reference."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import MM, Metric, Motion, Result, nanmean, placed


def camera_note(motion: Motion) -> str:
    """What to say where the camera frame is not the world's."""
    return "" if motion.still is None or motion.still.all() else "the camera moves, which counts too"


@dataclass(frozen=True)
class Jitter(Metric):
    """mean over samples and joints of ||x[t+3] - 3 x[t+2] + 3 x[t+1] - x[t]|| * fps^3 / 10, in 10 m/s^3, in the camera frame.

    Source: GVHMR, `eval_utils.compute_jitter`. per_sample: at t+1, its second sample.
    """

    name: ClassVar[str] = "jitter"
    unit: ClassVar[str] = "10 m/s^3"
    meaning: ClassVar[str] = "How much the joints tremble; a person's own quick motion counts too."

    def __call__(self, motion: Motion) -> Result:
        third = nanmean(np.linalg.norm(motion.difference(3, self.points(motion)), axis=-1))
        return self.mean_of(placed(third * motion.fps**3 / 10, len(motion), 1), "nobody is there for four samples in a row", camera_note(motion))

    def points(self, motion: Motion) -> np.ndarray:
        """(T, J, 3) what is looked at."""
        return motion.joints_m


@dataclass(frozen=True)
class PoseJitter(Jitter):
    """`Jitter` of the joints relative to the middle of the hips: without the person's way through space."""

    name: ClassVar[str] = "pose_jitter"
    meaning: ClassVar[str] = "Jitter of the pose alone, seen from the hips' middle."

    def points(self, motion: Motion) -> np.ndarray:
        return motion.joints_m - motion.root()[:, None]


@dataclass(frozen=True)
class RootJitter(Jitter):
    """`Jitter` of the middle of the hips."""

    name: ClassVar[str] = "root_jitter"
    meaning: ClassVar[str] = "Jitter of the hips' middle, mostly along the camera's axis."

    def points(self, motion: Motion) -> np.ndarray:
        return motion.root()[:, None]


@dataclass(frozen=True)
class Acceleration(Metric):
    """mean over samples and joints of ||x[t-1] - 2 x[t] + x[t+1]||, in mm per frame^2 (frame = sample), in the camera frame.

    Source: the second difference of HMMR's and GVHMR's acceleration error, of one motion alone. per_sample: at t.
    """

    name: ClassVar[str] = "acceleration"
    unit: ClassVar[str] = "mm/frame^2"
    meaning: ClassVar[str] = "How much the joints' steps change from frame to frame."

    def __call__(self, motion: Motion) -> Result:
        second = nanmean(np.linalg.norm(motion.difference(2), axis=-1))
        return self.mean_of(placed(second * MM, len(motion), 1), "nobody is there for three samples in a row", camera_note(motion))
