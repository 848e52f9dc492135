# SPDX-License-Identifier: Apache-2.0
"""A body that is put where a motion wants it: a base pose, and points that must be met exactly."""

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from body4d_engine.models.anny.body import Skinner
from body4d_engine.models.anny.pose import KEYPOINTS, PoseModel, Rig, exp

CONTACTS = ("left_heel", "left_big_toe", "right_heel", "right_big_toe")
FOOT = ("ankle", "heel", "big_toe")
WEIGHT, PLACE_WEIGHT, STEPS = 1000.0, (40.0, 15.0, 40.0), 14  # 1/m; a radian of a joint counts as its stiffness
REACH = 0.992  # of a straight leg
STILL_M, NEAR_GROUND_M = 0.001, 0.012  # a contact moves less than this in a frame, and is at most this much higher than when standing flat


@dataclass
class Motion:
    """What a motion asks for over N frames: root rotation (N, 3, 3), place of the body's origin (N, 3), theta (N, 54), and points (N, 3) per keypoint name."""

    root: np.ndarray
    place: np.ndarray
    theta: np.ndarray
    targets: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.place)


class Puppet:
    """One person's rest body and what follows from it."""

    def __init__(self, model: PoseModel, phenotypes: np.ndarray, height_m: float):
        self.model = model
        self.rest = model.body.rest(phenotypes, model.body.scale_for_height(phenotypes, height_m))
        self.rig = Rig(model, self.rest)
        points = self.rig.keypoints(*self.rig.pose(np.eye(3)[None], np.zeros((1, model.angles))))[0]
        self.points = dict(zip(KEYPOINTS, points))
        self.sole = float(self.rest.vertices[:, 1].max())  # y of the ground when standing
        self.leg = float(np.linalg.norm(self.points["left_hip"] - self.points["left_knee"])
                         + np.linalg.norm(self.points["left_knee"] - self.points["left_ankle"]))
        self.hips = float(self.sole - self.points["left_hip"][1])  # hip height at rest
        self.ankle = float(self.sole - self.points["left_ankle"][1])
        self.slots = {name: i for i, name in enumerate(model.names)}

    def foot(self, side: str) -> np.ndarray:
        """(3, 3) ankle, heel and big toe of a foot that stands flat, relative to the ground below its ankle, toes towards -z."""
        points = np.array([self.points[f"{side}_{name}"] for name in FOOT])
        points = points - [points[0, 0], self.sole, points[0, 2]]
        ahead = points[2] - points[1]
        turn = np.arctan2(ahead[0], -ahead[2])  # the rest pose turns the feet out
        return points @ turn_y(turn).T

    def theta(self, n: int, **angles) -> np.ndarray:
        """(n, 54) zeros but for the angles named like `arm_L_0`: numbers or (n,)."""
        out = np.zeros((n, self.model.angles))
        for name, value in angles.items():
            group, _, axis = name.rpartition("_")
            out[:, self.slots[group.replace("_L", ".L").replace("_R", ".R") + ":" + axis]] = value
        return out

    def aim_arm(self, theta: np.ndarray, side: str, direction: np.ndarray) -> None:
        """Turn an upper arm so that it points along direction (N, 3), given in the chest's axes."""
        index = self.model.body.joint_names.index
        rest = self.rest.joints[index(f"lowerarm01.{side}")] - self.rest.joints[index(f"upperarm01.{side}")]
        first = self.slots[f"arm.{side}:0"]
        theta[:, first : first + 3] = between(rest, direction)

    def solve(self, motion: Motion) -> tuple[np.ndarray, np.ndarray]:
        """Place (N, 3) and theta (N, 54) that meet the targets and otherwise stay as near as they can to the motion's own."""
        names = [name for name in motion.targets if "ankle" not in name]  # the skin there follows the shin as well: only `_Leg` uses it
        index = [KEYPOINTS.index(name) for name in names]
        wanted = np.stack([motion.targets[name] for name in names], 1)
        keep = np.concatenate([PLACE_WEIGHT, np.sqrt(self.model.stiffness)])
        place, theta = self._legs(motion)
        aim_place, aim_theta = place.copy(), theta.copy()
        eye = np.broadcast_to(np.eye(3), (len(motion), len(index), 3, 3))
        for _ in range(STEPS):
            points, jacobian = self.rig.keypoints_and_jacobian(motion.root, theta)
            miss = (wanted - points[:, index] - place[:, None]).reshape(len(motion), -1)
            slope = np.concatenate([eye, jacobian[:, index, :, 3:]], 3).reshape(len(motion), -1, 3 + self.model.angles)
            away = np.concatenate([aim_place - place, aim_theta - theta], 1)
            normal = WEIGHT**2 * slope.transpose(0, 2, 1) @ slope + np.diag(keep**2)
            right = WEIGHT**2 * (slope.transpose(0, 2, 1) @ miss[..., None])[..., 0] + keep**2 * away
            step = np.linalg.solve(normal, right[..., None])[..., 0]
            step *= np.minimum(1, 0.4 / np.maximum(np.abs(step).max(1, keepdims=True), 1e-9))
            place += step[:, :3]
            theta += step[:, 3:]
        return place, theta

    def _legs(self, motion: Motion) -> tuple[np.ndarray, np.ndarray]:
        """Place, lowered until the legs reach, and theta with legs whose feet are where the motion wants them and whose knees point ahead."""
        place, theta = motion.place.copy(), motion.theta.copy()
        legs = [_Leg(self, side, motion) for side in ("left", "right") if f"{side}_heel" in motion.targets]
        if not legs:
            return place, theta
        drop = np.max([leg.too_high(place) for leg in legs], 0)
        place[:, 1] += ndimage.gaussian_filter1d(ndimage.maximum_filter1d(drop, 9, mode="nearest"), 2, mode="nearest")
        for leg in legs:
            leg.bend(place, theta)
        return place, theta

    def perform(self, motion: Motion) -> "Performance":
        """Pose the body in every frame."""
        place, theta = self.solve(motion) if motion.targets else (motion.place, motion.theta)
        rotations, positions = self.rig.pose(motion.root, theta)
        keypoints = self.rig.keypoints(rotations, positions) + place[:, None]
        return Performance(self, rotations, positions + place[:, None], keypoints)


@dataclass
class Performance:
    """A puppet's bones (N, B, 3, 3) and (N, B, 3) and keypoints (N, K, 3) in world axes."""

    puppet: Puppet
    rotations: np.ndarray
    positions: np.ndarray
    keypoints: np.ndarray

    def vertices(self, rest: np.ndarray | None = None) -> np.ndarray:
        """(N, V, 3) float32 of the body, or of another surface with the same topology, such as its clothes."""
        puppet = self.puppet
        skinner = Skinner(puppet.model.skin, puppet.rest.vertices if rest is None else rest, puppet.rest.joints[puppet.model.bones])
        return skinner(self.rotations, self.positions)

    def contact(self) -> np.ndarray:
        """(N, 4) which of CONTACTS stand: near the ground, and still since the frame before or until the one after."""
        points = self.keypoints[:, [KEYPOINTS.index(name) for name in CONTACTS]]
        flat = np.array([self.puppet.points[name][1] - self.puppet.sole for name in CONTACTS])
        moved = np.linalg.norm(np.diff(points, axis=0), axis=2) < STILL_M
        still = np.concatenate([moved, moved[-1:]]) | np.concatenate([moved[:1], moved])
        return still & (points[..., 1] > flat - NEAR_GROUND_M)


class _Leg:
    """Hip, knee and ankle of one side in closed form."""

    def __init__(self, puppet: Puppet, side: str, motion: Motion):
        self.puppet, self.motion, self.letter = puppet, motion, side[0].upper()
        joint = dict(zip(puppet.model.body.joint_names, puppet.rest.joints))
        self.hip, knee, ankle = (joint[f"{bone}.{self.letter}"] for bone in ("upperleg01", "lowerleg01", "foot"))
        rest = np.array([puppet.points[f"{side}_{part}"] for part in FOOT])
        wanted = np.stack([motion.targets[f"{side}_{part}"] for part in FOOT], 1)
        self.turned = _kabsch(rest - rest.mean(0), wanted - wanted.mean(1, keepdims=True))
        self.ankle = wanted[:, 0] + self.turned @ (ankle - rest[0])
        along = (ankle - knee) / np.linalg.norm(ankle - knee)
        axis = np.array([1.0, 0, 0]) - along * along[0]
        self.axis = axis / np.linalg.norm(axis)
        self.angles = np.linspace(0.06, 2.5, 200)
        self.folded = (knee - self.hip) + exp(self.angles[:, None] * self.axis) @ (ankle - knee)  # (200, 3) ankle from hip
        self.lengths = np.linalg.norm(self.folded, axis=1)

    def _from_hip(self, place: np.ndarray) -> np.ndarray:
        return self.ankle - place - self.motion.root @ self.hip

    def too_high(self, place: np.ndarray) -> np.ndarray:
        """(N,) metres by which the hips have to come down so that the foot is in reach."""
        away = self._from_hip(place)
        reach = REACH * self.lengths[0]
        flat = np.hypot(away[:, 0], away[:, 2])
        return np.maximum(0, away[:, 1] - np.sqrt(np.maximum(reach**2 - flat**2, 0.01)))

    def bend(self, place: np.ndarray, theta: np.ndarray) -> None:
        """Set hip, knee and foot of theta."""
        away = np.einsum("nji,nj->ni", self.motion.root, self._from_hip(place))  # in the pelvis' axes
        length = np.linalg.norm(away, axis=1)
        knee = np.interp(length, self.lengths[::-1], self.angles[::-1])
        folded = np.stack([np.interp(knee, self.angles, self.folded[:, k]) for k in range(3)], 1)
        sideways = np.broadcast_to([1.0, 0, 0], away.shape)
        hip = _axes(away, sideways) @ _axes(folded, sideways).transpose(0, 2, 1)
        lower = self.motion.root @ hip @ exp(knee[:, None] * self.axis)
        foot = lower.transpose(0, 2, 1) @ self.turned
        for group, values in (("leg", Rotation.from_matrix(hip).as_rotvec()), ("foot", Rotation.from_matrix(foot).as_rotvec())):
            first = self.puppet.slots[f"{group}.{self.letter}:0"]
            theta[:, first : first + 3] = values
        theta[:, self.puppet.slots[f"knee.{self.letter}:0"]] = knee


def _axes(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N, 3, 3) rotations whose columns are along first, near second, and square to both."""
    a = first / np.linalg.norm(first, axis=1, keepdims=True)
    b = second - (second * a).sum(1, keepdims=True) * a
    b /= np.linalg.norm(b, axis=1, keepdims=True)
    return np.stack([a, b, np.cross(a, b)], -1)


def _kabsch(points: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """Rotations (N, 3, 3) that best take points (K, 3) to turned (N, K, 3), both about their means."""
    u, _, vt = np.linalg.svd(turned.transpose(0, 2, 1) @ points)
    u[:, :, 2] *= np.linalg.det(u @ vt)[:, None]
    return u @ vt


def turn_y(angle) -> np.ndarray:
    """(..., 3, 3) rotation about the y axis: heading 0 faces -z, pi/2 faces -x."""
    angle = np.asarray(angle, np.float64)
    return exp(np.stack([np.zeros_like(angle), angle, np.zeros_like(angle)], -1))


def turn_x(angle) -> np.ndarray:
    """(..., 3, 3) rotation about the x axis: positive bows."""
    angle = np.asarray(angle, np.float64)
    return exp(np.stack([angle, np.zeros_like(angle), np.zeros_like(angle)], -1))


def turn_z(angle) -> np.ndarray:
    angle = np.asarray(angle, np.float64)
    return exp(np.stack([np.zeros_like(angle), np.zeros_like(angle), angle], -1))


def between(start: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """(N, 3) smallest rotation vectors that take start (3,) to direction (N, 3)."""
    a = start / np.linalg.norm(start)
    b = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    axis = np.cross(a, b)
    sine = np.linalg.norm(axis, axis=-1, keepdims=True)
    return axis * (np.arctan2(sine, (b @ a)[..., None]) / np.maximum(sine, 1e-9))
