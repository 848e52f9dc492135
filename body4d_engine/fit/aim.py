# SPDX-License-Identifier: Apache-2.0
"""Turn the end of a short chain of joints (wrist, head) to where it was measured to point, and leave the rest of the body where it is."""

import numpy as np
from scipy.spatial.transform import Rotation

from ..models.anny.pose import PoseModel, Rig, exp
from .windows import smoothstep

STEPS = 4
STEP = 1e-4  # radians, for derivatives
MIDDLE_M = 0.02  # the chain's end moved by so much counts as much as a radian of turn
DAMPING = 1e-3
# How far a hand's tilt in depth is believed. Against hands triangulated from 2 to 4 views (33 of Demo_SinglePerson; all that were read, cameras 1 and 2),
# mean error of the finger joints relative to the wrist: 43 mm where no hand is turned, 43 for 1, 40 for 0.5, 40 for 0.3.
TILT = 0.5
DOUBTFUL, IMPOSSIBLE = 1.2, 2.2  # radians between pose and measurement: believed up to the one, not at all beyond the other


class Chain:
    """Joint groups (see PoseModel) from the trunk outwards; the last bone that they move is the one that is turned.

    stiffness: per angle, how unwillingly it changes. keep: where the last bone's head is stays as it was (a wrist must not leave its place,
    a head may nod).
    """

    def __init__(self, model: PoseModel, groups: tuple[str, ...], stiffness: tuple[float, ...], keep: bool):
        self.columns = np.array([i for group in groups for i, name in enumerate(model.names) if name.startswith(f"{group}:")])
        self.stiffness, self.keep = np.array(stiffness), keep
        driven = np.flatnonzero(np.abs(model.drive[:, :, self.columns]).max((1, 2)) > 0) + 1
        self.bones = driven[np.argsort(model.below[:, driven].sum(0))]  # the fewer ancestors, the nearer to the trunk
        self.drive = model.drive[self.bones - 1][:, :, self.columns]  # (bones, 3, angles)
        self.base = int(model.parents[self.bones[0]])
        self.limits = model.limits[self.columns]
        outside = [c for c in range(len(model.names)) if c not in self.columns]
        assert not np.abs(model.drive[self.bones - 1][:, :, outside]).any() and (model.parents[self.bones[1:]] == self.bones[:-1]).all()

    def end(self, rig: Rig, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """angles (..., A) -> rotation (..., 3, 3) of the last bone and place (..., 3) of its head, both seen from the bone before the chain."""
        turns = exp(np.einsum("bct,...t->...bc", self.drive, angles))
        rotation, place = turns[..., 0, :, :], np.zeros(angles.shape[:-1] + (3,))
        for k, bone in enumerate(self.bones[1:], 1):
            place = place + rotation @ rig.offsets[bone]
            rotation = rotation @ turns[..., k, :, :]
        return rotation, place

    def aimed(self, rig: Rig, theta: np.ndarray, rotations: np.ndarray, wanted: np.ndarray, weight: np.ndarray,
              along: np.ndarray | None = None) -> np.ndarray:
        """Angles theta (N, 54) changed so that the last bone is turned from as it is towards wanted (N, 3, 3), camera axes, as far as weight (N,) says.

        rotations (N, B, 3, 3): of the bones under theta. along (3,): a direction fixed to the bone whose tilt in depth, which a picture hardly
        shows, is believed by TILT only. Gauss-Newton with numerical derivatives, held inside the limits.
        """
        rows = np.flatnonzero(weight > 1e-3)
        if not len(rows):
            return theta
        start = theta[rows][:, self.columns]
        now, place = self.end(rig, start)
        away = Rotation.from_matrix(now.transpose(0, 2, 1) @ rotations[rows, self.base].transpose(0, 2, 1) @ wanted[rows]).as_rotvec()
        size = np.linalg.norm(away, axis=1)
        if along is not None:  # the axis in the picture's plane about which the direction nods, in the bone's own axes
            axis = np.cross([0, 0, 1], wanted[rows] @ along)
            axis /= np.maximum(np.linalg.norm(axis, axis=1, keepdims=True), 1e-6)
            own = rotations[rows, self.base] @ now
            axis = np.einsum("nji,nj->ni", own, axis)
            away -= (1 - TILT) * np.einsum("ni,ni->n", axis, away)[:, None] * axis
        share = weight[rows] * (1 - smoothstep((size - DOUBTFUL) / (IMPOSSIBLE - DOUBTFUL)))
        target = (now @ exp(away * share[:, None])).transpose(0, 2, 1)
        angles = start.copy()
        low, high = np.minimum(self.limits[:, 0], start), np.maximum(self.limits[:, 1], start)
        tried = np.concatenate([np.zeros((1, len(self.columns))), STEP * np.eye(len(self.columns))])
        for _ in range(STEPS):
            turned, at = self.end(rig, angles[:, None] + tried)
            error = _small(target[:, None] @ turned)
            if self.keep:
                error = np.concatenate([error, (at - place[:, None]) / MIDDLE_M], -1)
            slopes = (error[:, 1:] - error[:, :1]) / STEP  # (N, A, 3 or 6)
            normal = slopes @ slopes.transpose(0, 2, 1) + DAMPING * np.diag(self.stiffness)
            gradient = np.einsum("nar,nr->na", slopes, error[:, 0]) + DAMPING * self.stiffness * (angles - start)
            angles = np.clip(angles - np.linalg.solve(normal, gradient[..., None])[..., 0], low, high)
        out = theta.copy()
        out[rows[:, None], self.columns] = angles
        return out


def _small(rotation: np.ndarray) -> np.ndarray:
    """(..., 3) twice the tangent of half the angle along the axis: as good as the angle for small ones, and grows with large ones."""
    vector = np.stack([rotation[..., 2, 1] - rotation[..., 1, 2], rotation[..., 0, 2] - rotation[..., 2, 0],
                       rotation[..., 1, 0] - rotation[..., 0, 1]], -1)
    return 2 * vector / np.maximum(1 + np.trace(rotation, axis1=-2, axis2=-1), 0.1)[..., None]
