# SPDX-License-Identifier: Apache-2.0
"""A fitted body with its fingers, and with wrists and head turned as they were measured."""

import numpy as np

from ..models.anny.hands import HandRig, hand_model
from ..models.anny.pose import Rig
from . import corrected
from .aim import Chain
from .hands import HandMotion, Hands
from .head import HeadMotion
from .observations import first_seen
from .residuals import Poses

# What a measured palm asks of the arm: the forearm's twist gives way before the wrist does, the elbow hardly at all.
_ARM = (5, 0.3, 20, 1, 1, 1)
_NECK = (3, 3, 3, 1, 1, 1)


class Detailed:
    """One person's hands and head over the take. asked (T,), optional: what the user corrects, see `corrected`."""

    def __init__(self, take, person: int, rig: Rig, asked: np.ndarray | None = None):
        self.rig, self.hands = rig, HandRig(hand_model(), rig.rest)
        no_hands, no_head = (None, None) if asked is None else (corrected.hands(asked), asked & corrected.BODY > 0)
        self._motion, self._head = HandMotion(take, person, self.hands, no_hands), HeadMotion(take, person, no_head)
        self._arms = [Chain(rig.model, (f"elbow.{side}", f"wrist.{side}"), _ARM, keep=True) for side in "LR"]
        self._neck = Chain(rig.model, ("neck", "head"), _NECK, keep=False)

    def pose(self, samples: np.ndarray, poses: Poses) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The samples (N,) that are shown, mostly consecutive, and their fitted poses -> angles (N, 54 + 34) of body and hands, and the rotations
        (N, B + 30, 3, 3) and positions (N, B + 30, 3) of all bones that move (see HandRig.pose)."""
        rotations, positions = self.rig.pose(poses.rotation, poses.theta)
        hands, head, seen = self._at(samples)
        theta = self._neck.aimed(self.rig, poses.theta, rotations, head, seen)
        for k, arm in enumerate(self._arms):
            theta = arm.aimed(self.rig, theta, rotations, hands.palms[:, k], hands.weight[:, k], self.hands.points[k, 2, 0])
        if theta is not poses.theta:
            rotations, positions = self.rig.pose(poses.rotation, theta)
        angles = np.concatenate([theta, hands.angles.reshape(len(samples), -1)], 1)
        return angles, *self.hands.pose(rotations, positions, hands.angles)

    def _at(self, samples: np.ndarray):
        """Hands, head and its weight at the samples, which are asked for in runs of consecutive ones."""
        wanted, place = np.unique(samples, return_inverse=True)
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1)
        hands, heads = [self._motion.at(run) for run in runs], [self._head.at(run) for run in runs]
        joined = Hands(*(np.concatenate([getattr(part, name) for part in hands])[place] for name in ("angles", "palms", "weight")))
        return joined, *(np.concatenate(parts)[place] for parts in zip(*heads, strict=True))


class Shown:
    """Which sample's hands and head each sample of a stage shows: its own where it has a pose, else those of the pose that is held."""

    def __init__(self, take, group: str, stage: str):
        self._first = first_seen(take, group)
        written = take.by_sample(group, "params", stage)
        poses = written.records[:, 3:]
        self._last, self._pose = 0, np.zeros(0)
        if len(poses):
            row, self._pose = len(poses) - 1, np.array(poses[-1])
            while row and (poses[row - 1] == self._pose).all():
                row -= 1
            self._last = written.first + row

    def of(self, begin: int, params: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """(N,) for the next samples from `begin`, of params (N, 60), seen (N,) or not."""
        before = np.concatenate([[self._pose if len(self._pose) else params[0, 3:]], params[:-1, 3:]])
        own = seen | (params[:, 3:] != before).any(1)
        shown = np.maximum.accumulate(np.where(own, begin + np.arange(len(own)), max(self._last, self._first)))
        shown = np.maximum(shown, self._first)
        self._last, self._pose = int(shown[-1]), params[-1, 3:].copy()
        return shown
