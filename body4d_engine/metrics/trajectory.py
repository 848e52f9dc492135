# SPDX-License-Identifier: Apache-2.0
"""How far a whole motion through space is from the true one, after one alignment for many samples."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .accuracy import NO_HIPS, distances
from .align import moved, similarity
from .base import Metric, Motion, Result

LEAST_WAY_M = 0.1  # a shorter way is no measure for an error on it


@dataclass(frozen=True)
class WMPJPE(Metric):
    """mean ||s R x + t - y|| with one s, R, t per chunk of 100 samples, from the joints of its first two samples.

    Samples without a known joint in both are skipped before the chunks are cut. Source: GVHMR `compute_global_metrics`, `first_align_joints`
    (after WHAM). The world is the camera's, which stands still.
    """

    chunk: int = 100
    name: ClassVar[str] = "w_mpjpe"
    unit: ClassVar[str] = "mm"
    meaning: ClassVar[str] = "How far joints drift in the 100 samples after two samples were laid on the truth."

    def __call__(self, motion: Motion, truth: Motion) -> Result:
        both = np.isfinite(motion.joints_m + truth.joints_m).all(-1).any(1)
        known = np.flatnonzero(both)
        error = np.full(len(motion), np.nan)
        for first in range(0, len(known), self.chunk):
            samples = known[first : first + self.chunk]
            ours, theirs = motion.joints_m[samples], truth.joints_m[samples]
            head = self.anchor(samples)
            transform = similarity(ours[head].reshape(-1, 3), theirs[head].reshape(-1, 3))
            error[samples] = distances(moved(ours, transform), theirs)
        return self.mean_of(error, "motion and reference have no joints at the same samples")

    def anchor(self, samples: np.ndarray) -> slice:
        """Which of a chunk's samples are laid on each other."""
        return slice(0, 2)


@dataclass(frozen=True)
class WAMPJPE(WMPJPE):
    """As `WMPJPE`, with s, R, t from all samples of the chunk. Source: GVHMR `global_align_joints`."""

    name: ClassVar[str] = "wa_mpjpe"
    meaning: ClassVar[str] = "How far joints are off when 100 samples at a time are laid on the truth as one."

    def anchor(self, samples: np.ndarray) -> slice:
        return slice(None)


@dataclass(frozen=True)
class RTE(Metric):
    """mean ||R h + t - g|| / (length of the true way) * 100, h and g the middles of the hips, R and t rigid, from all samples.

    Source: GVHMR `compute_rte` (after WHAM). per_sample: in % of the whole way.
    """

    name: ClassVar[str] = "rte"
    unit: ClassVar[str] = "% of way"
    meaning: ClassVar[str] = "How far the person's way through space is from the true one."

    def __call__(self, motion: Motion, truth: Motion) -> Result:
        ours, theirs = motion.root(), truth.root()
        known = np.isfinite(ours + theirs).all(-1)
        if known.sum() < 3:
            return self.undefined(NO_HIPS)
        way = np.linalg.norm(np.diff(theirs[known], axis=0), axis=-1).sum()
        if way < LEAST_WAY_M:
            return self.undefined(f"the person's true way is only {100 * way:.1f} cm long")
        transform = similarity(np.where(known[:, None], ours, np.nan), np.where(known[:, None], theirs, np.nan), with_scale=False)
        error = np.linalg.norm(moved(ours, transform) - theirs, axis=-1) / way * 100
        return self.mean_of(error, note=f"of {way:.2f} m")
