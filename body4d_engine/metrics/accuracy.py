# SPDX-License-Identifier: Apache-2.0
"""How far a motion is from the true one, with both in the camera frame. Motion and truth have the same joints at the same samples; joints that
are not known in either are left out."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .align import moved, similarity
from .base import MM, Metric, Motion, Result, nanmean, placed

NO_HIPS = "motion and reference have no hips at the same samples"


def from_hips(motion: Motion) -> np.ndarray | None:
    """(T, J, 3) joints from the middle of the hips; None without named hips."""
    hips = motion.of("left_hip", "right_hip")
    return None if hips is None else motion.joints_m - hips.mean(1, keepdims=True)


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(T,) mean distance in mm over the points that both have."""
    return nanmean(np.linalg.norm(a - b, axis=-1)) * MM


@dataclass(frozen=True)
class MPJPE(Metric):
    """mean over samples and joints of ||(x - x_hips) - (y - y_hips)||, hips = the middle of left and right hip.

    Source: Ionescu et al. 2014 (Human3.6M, protocol 1); the pelvis as in GVHMR's `batch_align_by_pelvis`.
    """

    name: ClassVar[str] = "mpjpe"
    unit: ClassVar[str] = "mm"
    meaning: ClassVar[str] = "How far a joint is from where it truly is, with the hips' middles laid on each other."

    def __call__(self, motion: Motion, truth: Motion) -> Result:
        ours, theirs = from_hips(motion), from_hips(truth)
        if ours is None or theirs is None:
            return self.undefined(NO_HIPS)
        return self.mean_of(distances(ours, theirs), NO_HIPS)


@dataclass(frozen=True)
class PAMPJPE(Metric):
    """mean over samples and joints of ||s R x + t - y|| with the s, R, t per sample that lay x best on y.

    Source: Human3.6M protocol 2; Umeyama 1991. least_joints: samples with fewer known joints do not count.
    """

    least_joints: int = 6
    name: ClassVar[str] = "pa_mpjpe"
    unit: ClassVar[str] = "mm"
    meaning: ClassVar[str] = "The error of the pose alone: place, direction and size are taken out in every sample."

    def __call__(self, motion: Motion, truth: Motion) -> Result:
        enough = (np.isfinite(motion.joints_m + truth.joints_m).all(-1).sum(1) >= self.least_joints)[:, None, None]
        error = distances(moved(motion.joints_m, similarity(motion.joints_m, truth.joints_m)), np.where(enough, truth.joints_m, np.nan))
        return self.mean_of(error, f"no sample has {self.least_joints} joints in both")


@dataclass(frozen=True)
class PVE(Metric):
    """mean over samples and vertices of ||(v - x_hips) - (w - y_hips)||: needs the same mesh in both.

    Source: per-vertex error as in GVHMR's `compute_camcoord_metrics`.
    """

    name: ClassVar[str] = "pve"
    unit: ClassVar[str] = "mm"
    meaning: ClassVar[str] = "How far a point of the skin is from where it truly is, with the hips' middles laid on each other."

    def __call__(self, motion: Motion, truth: Motion) -> Result:
        if motion.vertices_m is None or truth.vertices_m is None:
            return self.undefined("the reference has no vertices")
        ours, theirs = motion.of("left_hip", "right_hip"), truth.of("left_hip", "right_hip")
        if ours is None or theirs is None:
            return self.undefined(NO_HIPS)
        shift = (ours - theirs).mean(1)
        counts = {len(motion.vertices_m[0]), len(truth.vertices_m[0])}
        if len(counts) > 1:
            return self.undefined("the meshes differ: they have " + " and ".join(map(str, sorted(counts))) + " vertices")
        error = np.full(len(motion), np.nan)
        for i in np.flatnonzero(np.isfinite(shift).all(-1)):
            error[i] = distances((motion.vertices_m[i] - shift[i])[None], truth.vertices_m[i][None])[0]
        return self.mean_of(error, NO_HIPS)


@dataclass(frozen=True)
class AccelerationError(Metric):
    """mean over samples and joints of ||(x[t-1] - 2 x[t] + x[t+1]) - (y[t-1] - 2 y[t] + y[t+1])|| * fps^2, of joints seen from the hips' middle.

    Source: Kanazawa et al. 2019 (HMMR); hips and units as in GVHMR's `compute_camcoord_metrics`.
    """

    name: ClassVar[str] = "acceleration_error"
    unit: ClassVar[str] = "m/s^2"
    meaning: ClassVar[str] = "How far the joints' acceleration is from the true one: trembling and too much smoothing both count."

    def __call__(self, motion: Motion, truth: Motion) -> Result:
        ours, theirs = from_hips(motion), from_hips(truth)
        if ours is None or theirs is None:
            return self.undefined(NO_HIPS)
        error = nanmean(np.linalg.norm(motion.difference(2, ours - theirs), axis=-1)) * motion.fps**2
        return self.mean_of(placed(error, len(motion), 1), "no three samples in a row are known")


@dataclass(frozen=True)
class RootError(Metric):
    """mean over samples of ||h - g||, h and g the middles of the hips in the camera frame."""

    name: ClassVar[str] = "root_error"
    unit: ClassVar[str] = "mm"
    meaning: ClassVar[str] = "How far the person stands from where they truly are."

    def __call__(self, motion: Motion, truth: Motion) -> Result:
        return self.mean_of(MM * self.length(motion.root() - truth.root()), NO_HIPS)

    def length(self, offset: np.ndarray) -> np.ndarray:
        """(T,) of offsets (T, 3)."""
        return np.linalg.norm(offset, axis=-1)


@dataclass(frozen=True)
class RootDepthError(RootError):
    """mean over samples of |h_z - g_z|: the part of `RootError` along the camera's axis."""

    name: ClassVar[str] = "root_depth_error"
    meaning: ClassVar[str] = "How much too near or too far the person stands."

    def length(self, offset: np.ndarray) -> np.ndarray:
        return np.abs(offset[:, 2])


@dataclass(frozen=True)
class FocalRatio(Metric):
    """median over samples of the motion's focal length / the reference's (K). A distance from the camera comes out wrong by about this factor."""

    name: ClassVar[str] = "focal_ratio"
    unit: ClassVar[str] = "x"
    meaning: ClassVar[str] = "The take's focal length as a multiple of the true one."

    def __call__(self, motion: Motion, truth: Motion) -> Result:
        if motion.focal_px is None or truth.focal_px is None:
            return self.undefined("the reference has no K")
        ratio = motion.focal_px / truth.focal_px
        known = np.isfinite(ratio)
        return self.result(np.median(ratio[known]), known.sum(), ratio) if known.any() else self.undefined("they have no frame in common")
