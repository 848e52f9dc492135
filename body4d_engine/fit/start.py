# SPDX-License-Identifier: Apache-2.0
"""A rough pose to start from, where there is no sample before: the rest pose turned and placed as the landmarks say."""

import numpy as np

from ..models.anny.pose import KEYPOINTS, TORSO, Rig
from .observations import Observations
from .residuals import IMAGE, KEYPOINT_WEIGHTS, NEAREST_M, Poses, about_hips

_TURNED = np.array([*TORSO, KEYPOINTS.index("nose")])
FARTHEST_M = 200.0


def rough_poses(rig: Rig, seen: Observations, landmark_scale: float) -> Poses:
    """Theta zero; root rotation by Procrustes of shoulders, hips and nose; position by linear least squares of the landmarks in space
    against those in the image."""
    n = len(seen)
    theta = np.zeros((n, rig.model.angles))
    rest = rig.keypoints(*rig.pose(np.eye(3)[None], theta[:1]))
    rest_hips = rest[0] - about_hips(rest)[0]
    model = about_hips(rest)[0, _TURNED]
    world = landmark_scale * seen.world
    u, _, vt = np.linalg.svd(np.einsum("nki,kj->nij", world[:, _TURNED], model))
    fix = np.ones((n, 1, 3))
    fix[:, 0, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * fix) @ vt
    hips = np.array([_placed(world[i], seen.xy[i] - seen.centre[i], seen.visibility[i], seen.focal[i]) for i in range(n)])
    position = hips - np.einsum("nij,j->ni", rotation, rest_hips[0])
    position[:, 2] = np.maximum(position[:, 2], NEAREST_M)
    return Poses(position, rotation, theta)


def _placed(world: np.ndarray, pixels: np.ndarray, visibility: np.ndarray, focal: float) -> np.ndarray:
    """(3,) where the middle of the hips is: least squares of f (X + t) = p (Z + t_z), in pixels relative to the image centre."""
    weight = np.sqrt(IMAGE * visibility * KEYPOINT_WEIGHTS + 1e-9)[:, None]
    rows, right = np.zeros((len(world), 2, 3)), np.empty((len(world), 2))
    for axis in range(2):
        rows[:, axis, axis] = focal
        rows[:, axis, 2] = -pixels[:, axis]
        right[:, axis] = pixels[:, axis] * world[:, 2] - focal * world[:, axis]
    rows, right = (rows * weight[..., None]).reshape(-1, 3), (right * weight).ravel()
    t = np.linalg.lstsq(rows, right, rcond=None)[0]
    if np.isfinite(t).all() and NEAREST_M < t[2] < FARTHEST_M:
        return t
    spread = np.sqrt((weight**2 * (pixels - pixels.mean(0)) ** 2).sum()) + 1e-6  # too flat or too noisy: depth from the sizes alone
    size = np.sqrt((weight**2 * (world[:, :2] - world[:, :2].mean(0)) ** 2).sum()) + 1e-6
    depth = float(np.clip(focal * size / spread, NEAREST_M, FARTHEST_M))
    return np.array([*(pixels.mean(0) * depth / focal - world[:, :2].mean(0)), depth])
