# SPDX-License-Identifier: Apache-2.0
"""Arms that were fitted tilting away from the camera where the landmarks say towards it, or the other way round.

A picture shows how far a bone tilts but not which way (Taylor 2000), and no small step leads from the one pose to the other. An arm may go
either way, so where its landmarks in space disagree with the fit clearly and for long, it is fitted anew with them in the lead.
"""

from dataclasses import replace

import numpy as np
from scipy.ndimage import uniform_filter1d

from ..models.anny.pose import KEYPOINTS, Rig
from .observations import Observations
from .residuals import Poses
from .solver import fit_sequence

ARMS = [np.array([KEYPOINTS.index(f"{side}_{part}") for part in ("shoulder", "elbow", "wrist", "index", "pinky")]) for side in ("left", "right")]
CLEAR_M = 0.15  # so far apart in depth, seen from the shoulder, elbow and wrist are on the mean
TRUSTED = 0.5  # least trust in both in space
LONG_S, MOSTLY = 0.5, 0.5  # and so they are for this share of that time
LEAD = 25.0  # times as much landmarks of such arms count then
STAGES = ((0.5, 8),)


def contested(rig: Rig, poses: Poses, seen: Observations, landmark_scale: float, spacing_s: float) -> np.ndarray:
    """(N, K) bool: the keypoints of arms, but the shoulders, whose tilt in successive samples is not that of the landmarks."""
    keypoints = rig.keypoints(*rig.pose(poses.rotation, poses.theta))
    away = (keypoints - landmark_scale * seen.world)[..., 2]
    out = np.zeros(away.shape, bool)
    for shoulder, *arm in ARMS:
        joints = arm[:2]
        wrong = (np.abs(away[:, joints] - away[:, [shoulder]]).mean(1) > CLEAR_M) & (seen.solid[:, joints].min(1) > TRUSTED) & seen.seen
        share = uniform_filter1d(wrong.astype(float), 2 * int(LONG_S / spacing_s / 2) + 1, mode="nearest")
        out[:, arm] = (share > MOSTLY)[:, None]
    return out


def tilted(rig: Rig, poses: Poses, seen: Observations, landmark_scale: float, spacing_s: float, smoothing: float = 1.0) -> Poses:
    """The poses of successive samples, with new ones where arms are contested. Others stay exactly as they are."""
    arms = contested(rig, poses, seen, landmark_scale, spacing_s)
    if not arms.any():
        return poses
    led = replace(seen, solid=seen.solid * np.where(arms, LEAD, 1.0))
    return poses.chosen(arms.any(1), fit_sequence(rig, poses, led, landmark_scale, spacing_s, STAGES, smoothing=smoothing))
