# SPDX-License-Identifier: Apache-2.0
"""Whether a motion is as lively as the true one, and at the same time."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import signal

from ..runs import runs
from .accuracy import from_hips
from .base import Metric, Motion, Result

MOST_OF_NYQUIST = 0.9  # a cutoff above this share of half the sample rate filters nothing
LEAST_CHANGE_M = 1e-5  # of speeds per sample: less is rounding
ALIKE = 0.3  # correlation of speeds below which two motions have no common peaks


def low_pass(points: np.ndarray, fps: float, cutoff_hz: float = 6.0, cuts: tuple[int, ...] = ()) -> np.ndarray:
    """points (T, J, 3) through a Butterworth filter of order 2 run forwards and backwards (order 4, no lag), each joint's stretches without a gap
    by themselves; NaN where a stretch is too short to be filtered. Source: Winter 2009; Pose2Sim's filter with its defaults."""
    b, a = signal.butter(2, cutoff_hz / (fps / 2))
    least = 3 * max(len(a), len(b)) + 1
    out = np.full(points.shape, np.nan)
    for joint in range(points.shape[1]):
        for first, stop in runs(np.isfinite(points[:, joint]).all(-1), cuts=cuts):
            if stop - first >= least:
                out[first:stop, joint] = signal.filtfilt(b, a, points[first:stop, joint], axis=0)
    return out


@dataclass(frozen=True)
class JitterRatio(Metric):
    """(mean ||third difference of x||) / (mean ||third difference of y||), both over the joints and samples that both have, camera frame."""

    name: ClassVar[str] = "jitter_ratio"
    unit: ClassVar[str] = "x"
    meaning: ClassVar[str] = "Jitter as a multiple of the reference's as it is, which may have noise of its own."

    def __call__(self, motion: Motion, truth: Motion) -> Result:
        theirs = self.reference(truth)
        if theirs is None:
            return self.undefined(f"{motion.fps:g} samples per second are too few for this filter")
        ours = np.linalg.norm(motion.difference(3), axis=-1)
        theirs = np.linalg.norm(truth.difference(3, theirs), axis=-1)
        both = np.isfinite(ours) & np.isfinite(theirs)
        if not both.any() or theirs[both].sum() == 0:
            return self.undefined("the reference does not move" if both.any() else "no four samples in a row are known")
        return self.result(ours[both].sum() / theirs[both].sum(), both.any(1).sum())

    def reference(self, truth: Motion) -> np.ndarray | None:
        """(T, J, 3) what the motion is compared with; None where that cannot be had."""
        return truth.joints_m


@dataclass(frozen=True)
class FilteredJitterRatio(JitterRatio):
    """`JitterRatio` to the reference after a Butterworth low pass of order 4 without lag (`low_pass`)."""

    cutoff_hz: float = 6.0
    name: ClassVar[str] = "jitter_ratio_filtered"
    meaning: ClassVar[str] = "Jitter as a multiple of the reference's below 6 Hz: 1 is as lively, less too smooth."

    def reference(self, truth: Motion) -> np.ndarray | None:
        return low_pass(truth.joints_m, truth.fps, self.cutoff_hz, truth.cuts) if self.cutoff_hz < MOST_OF_NYQUIST * truth.fps / 2 else None


@dataclass(frozen=True)
class PeakLag(Metric):
    """The lag L that makes sum over joints of cov(speed_x(t + L), speed_y(t)) / norm largest; speeds ||x[t+1] - x[t]|| of joints seen from the hips'
    middle, after `low_pass` of both (which has no lag) so that noise has no say. Between samples by the parabola through the largest value and its
    neighbours. Positive: the motion comes late.

    most: lags beyond it are not looked at. The covariances are summed before they are normalised, so joints that move much count most.
    """

    most: int = 15
    cutoff_hz: float = 6.0
    name: ClassVar[str] = "peak_lag"
    unit: ClassVar[str] = "frames"
    meaning: ClassVar[str] = "How many samples the motion's peaks come late (early if negative)."

    def __call__(self, motion: Motion, truth: Motion) -> Result:
        ours, theirs = from_hips(motion), from_hips(truth)
        if ours is None or theirs is None:
            return self.undefined("hips are missing")
        if self.cutoff_hz < MOST_OF_NYQUIST * motion.fps / 2:
            ours, theirs = (low_pass(joints, motion.fps, self.cutoff_hz, motion.cuts) for joints in (ours, theirs))
        ours, theirs = (np.linalg.norm(motion.difference(1, joints), axis=-1) for joints in (ours, theirs))
        both = np.isfinite(ours) & np.isfinite(theirs)
        most = min(self.most, len(ours) // 4)
        if both.any(1).sum() < 10 or most < 1:
            return self.undefined("fewer than ten steps are known")
        ours, theirs = np.where(both, ours, np.nan), np.where(both, theirs, np.nan)
        lags = np.arange(-most, most + 1)
        score = np.array([_correlation(ours[max(lag, 0) : len(ours) + min(lag, 0)], theirs[max(-lag, 0) : len(ours) - max(lag, 0)]) for lag in lags])
        best = int(np.nanargmax(score)) if np.isfinite(score).any() else -1
        if best < 0 or score[best] < ALIKE:
            return self.undefined("the two motions have no common peaks")
        if best in (0, len(lags) - 1):
            return self.undefined(f"the lag is beyond {most} samples")
        before, top, after = score[best - 1 : best + 2]
        bend = before - 2 * top + after
        lag = lags[best] + (0.5 * (before - after) / bend if bend < 0 else 0.0)
        return self.result(lag, both.any(1).sum(), note=f"correlation {top:.2f}")


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Of speeds (T, J), NaN left out, each joint about its own mean, all joints together."""
    known = np.isfinite(a) & np.isfinite(b)
    count = np.maximum(known.sum(0), 1)
    a, b = np.where(known, a, 0), np.where(known, b, 0)
    a, b = np.where(known, a - a.sum(0) / count, 0), np.where(known, b - b.sum(0) / count, 0)
    power = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / power) if power > known.sum() * LEAST_CHANGE_M**2 else np.nan
