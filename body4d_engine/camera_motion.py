# SPDX-License-Identifier: Apache-2.0
"""How the camera turned, from what `background` measured."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter1d, minimum_filter1d

STANDS, TURNS = 0.002, 0.003  # of the longer side in a second: what the background of a camera that stands still may drift, or depart from turning
GROUP = "camera_motion"


def moved(warp: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (N, 2) px under a homography (3, 3)."""
    out = points @ warp[:, :2].T + warp[:, 2]
    return out[:, :2] / out[:, 2:]


@dataclass(frozen=True)
class Turns:
    """T samples. rotation (T, 3, 3): from the axes of the shot's first sample to this one's. known (T,) bool: false where the camera moves
    otherwise than by turning about itself, which a homography cannot tell from the scene."""

    rotation: np.ndarray
    known: np.ndarray


def turns(take, spacing_s: float) -> Turns:
    """How the camera turned, from what `prepare` saw. Where it stood still, or nothing could be seen, it did not turn at all.

    A camera that turns about itself by R moves every background point by K R K^-1, whatever its distance (Hartley and Zisserman 2004, 8.4).
    """
    count = take.samples
    if not take.has(GROUP, "warp", "prepare"):
        return Turns(np.tile(np.eye(3), (count, 1, 1)), np.ones(count, bool))
    camera, warps = take.camera(), np.asarray(take.read(GROUP, "warp", "prepare"), np.float64)
    size = np.array([take.clip["width"], take.clip["height"]])
    places = np.stack(np.meshgrid(*(np.linspace(0.1, 0.9, 5),) * 2), -1).reshape(-1, 2) * size
    focal, centre = camera["focal_px"].astype(np.float64), camera["principal_px"].astype(np.float64)
    steps, shift, other = np.tile(np.eye(3), (count, 1, 1)), np.zeros((count, *places.shape)), np.zeros((count, *places.shape))
    for i in range(1, count):
        seen = moved(warps[i], places)
        rays, ends = (np.column_stack([(xy - centre[k]) / focal[k], np.ones(len(xy))]) for k, xy in ((i - 1, places), (i, seen)))
        left, _, right = np.linalg.svd(ends.T @ rays)  # the rotation that takes rays to ends best (Kabsch 1976)
        steps[i] = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
        turned = rays @ steps[i].T
        shift[i], other[i] = seen - places, seen - (focal[i] * turned[:, :2] / turned[:, 2:] + centre[i])
    reach = 2 * max(1, round(0.5 / spacing_s)) + 1
    still = _drift(shift, reach) < STANDS * size.max()
    steps[still] = np.eye(3)
    rotation = np.empty_like(steps)
    now = np.eye(3)
    for i, step in enumerate(steps):
        rotation[i] = now = step @ now
    return Turns(rotation, still | (_drift(other, reach) < TURNS * size.max()))


def _drift(steps: np.ndarray, reach: int) -> np.ndarray:
    """(T,) px: how far points that move by steps (T, P, 2) get to within `reach` samples around each."""
    path = np.cumsum(steps, axis=0)
    span = maximum_filter1d(path, reach, axis=0, mode="nearest") - minimum_filter1d(path, reach, axis=0, mode="nearest")
    return np.sqrt((span**2).sum(-1).mean(1))
