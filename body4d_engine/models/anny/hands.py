# SPDX-License-Identifier: Apache-2.0
"""Fingers: 17 anatomical angles per hand that drive 15 of Anny's bones, and the skin of a body whose fingers move.

Angles in radians, the same for both hands (mirrored bodies have the same angles). Thumb: bending, spreading and twist at its root, bending of its two
joints. Each other finger: bending and spreading at the knuckle, bending of the middle joint; the last joint bends two thirds as far (Rijpkema and
Girard 1991). Bending is 0 where a finger is straight in line with its metacarpal and grows towards the palm; spreading grows towards the thumb.
The thumb's three root angles are 0 at rest.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import sparse

from .body import Rest
from .pose import PoseModel, exp, pose_model

SIDES = "LR"
FINGERS, PHALANGES = 5, 3
NAMES = ("thumb_bend", "thumb_spread", "thumb_twist", "thumb_middle", "thumb_last",
         *(f"{finger}_{angle}" for finger in ("index", "middle", "ring", "pinky") for angle in ("bend", "spread", "middle")))
ANGLES = len(NAMES)
LAST = 2 / 3
_THUMB_LIMITS = ((-35, 45), (-40, 40), (-30, 30), (-15, 60), (-20, 80))
_FINGER_LIMITS = ((-20, 90), (-30, 30), (0, 110))
LIMITS = np.radians((*_THUMB_LIMITS, *(_FINGER_LIMITS * 4)))  # (17, 2)
# A hand that hangs and does nothing; bending grows from index to little finger.
RELAXED = np.radians((4, 0, 0, 14, 20, 18, 2, 30, 24, 0, 36, 28, -2, 38, 31, -5, 36))


class HandModel:
    """The constant part: which joints are fingers, and the skin when they move on their own. Bones are the pose model's, then 30 finger bones."""

    def __init__(self, model: PoseModel):
        body = model.body
        index = {name: i for i, name in enumerate(body.joint_names)}
        self.model = model
        self.wrists = [index[f"wrist.{side}"] for side in SIDES]
        self.wrist_slots = model.anchor[self.wrists]
        self.joints = np.array([[[index[f"finger{f}-{p}.{side}"] for p in (1, 2, 3)] for f in range(1, 6)] for side in SIDES])  # (2, 5, 3)
        self.anchor = model.anchor.copy()  # per joint: the slot of its nearest moving ancestor, or of itself
        self.anchor[self.joints.ravel()] = len(model.bones) + np.arange(self.joints.size)
        members = sparse.csr_matrix((np.ones(len(self.anchor)), (np.arange(len(self.anchor)), self.anchor)))
        self.skin = sparse.csr_matrix(body.skin @ members)  # (V, B + 30)
        self.skin.sum_duplicates()
        self.bones = np.concatenate([model.bones, self.joints.ravel()])
        self.tips = np.array([[self._tip(body, fingers[-1]) for fingers in hand] for hand in self.joints])  # (2, 5) vertices

    def _tip(self, body, joint: int) -> int:
        """The vertex of a finger's last bone that is farthest from its head, in an average body."""
        rest = body.rest(body.bounds.mean(1))
        own = np.flatnonzero(np.asarray(body.skin[:, joint].todense()).ravel() > 0.5)
        return int(own[np.linalg.norm(rest.vertices[own] - rest.joints[joint], axis=1).argmax()])


@lru_cache(maxsize=1)
def hand_model() -> HandModel:
    return HandModel(pose_model())


@dataclass
class HandRig:
    """One person's hands at rest. points (2, 5, 4, 3): each finger's three joints and its tip, metres from the wrist; axes (2, 5, 3, 3): of each
    finger, to bend, to spread and its own; straight (2, 5, 3): how far each joint is bent at rest."""

    model: HandModel
    rest: Rest

    def __post_init__(self):
        model, rest = self.model, self.rest
        wrists = rest.joints[model.wrists]
        self.points = np.concatenate([rest.joints[model.joints], rest.vertices[model.tips][:, :, None]], 2) - wrists[:, None, None]
        self.bones = np.diff(self.points, axis=2)
        self.bones /= np.linalg.norm(self.bones, axis=-1, keepdims=True)  # (2, 5, 3, 3) directions
        across = self.points[:, 1, 0] - self.points[:, 4, 0]  # from the little finger's knuckle to the index finger's
        self.axes, self.straight = np.empty((2, FINGERS, 3, 3)), np.zeros((2, FINGERS, PHALANGES))
        for hand in range(2):
            for finger in range(FINGERS):
                own = self.bones[hand, finger, 0]
                whole = _unit(self.points[hand, finger, 3] - self.points[hand, finger, 0])
                towards = self.points[hand, 4, 0] - self.points[hand, 0, 3] if finger == 0 else across[hand]
                spread = _unit(np.cross(whole, towards))
                bend = np.cross(spread, whole)
                if finger == 0:  # the thumb bends towards the little finger's knuckle
                    spread, bend = -np.cross(spread, whole), spread
                chain = [_unit(self.points[hand, finger, 0]) if finger else own, *self.bones[hand, finger]]
                turns = np.array([_angle_about(bend, a, b) for a, b in zip(chain[:-1], chain[1:], strict=True)])
                if finger and turns.sum() < 0:
                    bend, turns = -bend, -turns
                mirror = 1 - 2 * hand if finger == 0 else 1  # turns that look alike in a mirror go the other way about these axes of the thumb
                self.axes[hand, finger] = bend, mirror * spread, mirror * whole
                self.straight[hand, finger] = turns
        self.hanging = rest.joints - rest.joints[model.bones][model.anchor]

    def palm(self, hand: int) -> np.ndarray:
        """(5, 3) wrist and knuckles from index to little finger, metres from the wrist, at rest."""
        return np.concatenate([np.zeros((1, 3)), self.points[hand, 1:, 0]])

    def turns(self, angles: np.ndarray) -> np.ndarray:
        """angles (N, 2, 17) -> rotations (N, 2, 5, 3, 3, 3) of each finger bone about rest axes, relative to the bone before."""
        count = len(angles)
        vectors = np.zeros((count, 2, FINGERS, PHALANGES, 3))
        bend, spread, whole = (self.axes[:, :, k] for k in range(3))  # (2, 5, 3)
        thumb, fingers = angles[..., :5], angles[..., 5:].reshape(count, 2, 4, 3)
        root = exp(thumb[..., 0:1] * bend[:, 0] + thumb[..., 1:2] * spread[:, 0] + thumb[..., 2:3] * whole[:, 0])
        vectors[:, :, 0, 1] = (thumb[..., 3:4] - self.straight[:, 0, 1:2]) * bend[:, 0]
        vectors[:, :, 0, 2] = (thumb[..., 4:5] - self.straight[:, 0, 2:3]) * bend[:, 0]
        bends = np.stack([fingers[..., 0], fingers[..., 2], LAST * fingers[..., 2]], -1) - self.straight[:, 1:]
        vectors[:, :, 1:] = bends[..., None] * bend[:, 1:, None]
        out = exp(vectors)
        out[:, :, 0, 0] = root
        out[:, :, 1:, 0] = exp(fingers[..., 1:2] * spread[:, 1:]) @ out[:, :, 1:, 0]
        return out

    def directions(self, angles: np.ndarray) -> np.ndarray:
        """angles (N, 2, 17) -> (N, 2, 5, 3, 3) directions of the finger bones in the wrist's frame (axes as at rest)."""
        turned = self.turns(angles)
        for p in (1, 2):
            turned[:, :, :, p] = turned[:, :, :, p - 1] @ turned[:, :, :, p]
        return np.einsum("nhfpij,hfpj->nhfpi", turned, self.bones)

    def landmarks(self, angles: np.ndarray) -> np.ndarray:
        """angles (N, 2, 17) -> (N, 2, 21, 3) MediaPipe's hand landmarks in the wrist's frame, metres."""
        lengths = np.linalg.norm(np.diff(self.points, axis=2), axis=-1)
        ends = self.points[:, :, :1] + np.cumsum(self.directions(angles) * lengths[..., None], 3)
        roots = np.broadcast_to(self.points[:, :, :1], (len(angles), 2, FINGERS, 1, 3))
        return np.concatenate([np.zeros((len(angles), 2, 1, 3)), np.concatenate([roots, ends], 3).reshape(-1, 2, 20, 3)], 2)

    def pose(self, rotations: np.ndarray, positions: np.ndarray, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The body's moving bones (see Rig.pose) with the fingers' behind them: rotations (N, B + 30, 3, 3) from rest, positions (N, B + 30, 3)."""
        wrist = rotations[:, self.model.wrist_slots][:, :, None]  # (N, 2, 1, 3, 3)
        turned = self.turns(angles)
        places = np.empty(turned.shape[:4] + (3,))
        steps = np.diff(self.points[:, :, :3], axis=2)
        places[:, :, :, 0] = positions[:, self.model.wrist_slots][:, :, None] + np.einsum("nhxij,hfj->nhfi", wrist, self.points[:, :, 0])
        turned[:, :, :, 0] = wrist @ turned[:, :, :, 0]
        for p in (1, 2):
            places[:, :, :, p] = places[:, :, :, p - 1] + np.einsum("nhfij,hfj->nhfi", turned[:, :, :, p - 1], steps[:, :, p - 1])
            turned[:, :, :, p] = turned[:, :, :, p - 1] @ turned[:, :, :, p]
        count = len(angles)
        return (np.concatenate([rotations, turned.reshape(count, -1, 3, 3)], 1), np.concatenate([positions, places.reshape(count, -1, 3)], 1))

    def joints(self, rotations: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bones as `pose` gives them -> all joints (N, J, 3) in person space and their rotations (N, J, 3, 3) from rest."""
        anchor = self.model.anchor
        turned = rotations[:, anchor]
        return positions[:, anchor] + np.einsum("njab,jb->nja", turned, self.hanging), turned


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _angle_about(axis: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """The angle that turns a to b about the unit axis, seen along it."""
    a, b = a - axis * (axis @ a), b - axis * (axis @ b)
    return float(np.arctan2(np.cross(a, b) @ axis, a @ b))
