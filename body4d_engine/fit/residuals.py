# SPDX-License-Identifier: Apache-2.0
"""The energy of a fit and its derivatives, for N samples at once.

Unknowns per sample, D = 60: translation of the root in camera space (3), left increment of the root's rotation (3), theta (54).
Distances are in metres, so that one robust scale serves image and space: an image residual is scaled by root depth / focal length, a factor
that is held constant in derivatives (else a fit could shrink its residuals by coming nearer).

In space keypoints of arms and face are compared as seen from the joint they hang from: so a trunk that the landmarker tilts wrongly does not bend the
arms, and each of their bones is told its own way in depth. Those of legs are compared as seen from the hips: the landmarker pushes shanks back and feet
forth in depth, by some centimetres on the mean, which mostly cancels along the leg but would bend it bone by bone.
"""

from dataclasses import dataclass

import numpy as np

from ..models.anny.pose import KEYPOINT_WEIGHTS, KEYPOINTS, LEFT_HIP, RIGHT_HIP, PoseModel, Rig, exp
from .observations import Observations

IMAGE, SPACE, PRIOR, LIMIT = 30.0, 1.0, 0.08, 40.0
# A picture shows how far a bone tilts, not which way (Taylor 2000). So at robust scales above ROUGH_M landmarks in space lead, alike in all directions;
ROUGH_SPACE, ROUGH_M = 30.0, 0.2
LEGS_SPACE = 4.0  # but those of legs less: knees bend one way only, and a strong lead bends straight legs as far as the landmarks are wrong
DEPTH = 0.2  # then only so much of their error along the line of sight, where they are guessed: bones as long as they are and the image know better
GAP_PRIOR = 0.2  # of the prior where nothing was seen: enough for limbs to hang in a long gap, too little to pull a short one towards the rest pose
VELOCITY = 0.02
BODY_SMOOTH, BODY_CUTOFF_HZ = 16.0, 4.0
ROOT_SMOOTH, ROOT_CUTOFF_HZ = 160.0 * np.array([0.25, 0.25, 1.0]), np.array([4.0, 4.0, 3.0])  # depth is seen least and wobbles most
FAST_MS2 = 8.0  # smoothing gives way where the keypoints of the body accelerate more than this
FAST_ROOT_MS2 = 40.0  # and for the root: well above free fall, well below a jump to another place
NEAREST_M = 0.3
FAST_STEP_S = 1 / 30  # acceleration is measured between samples so far apart, whatever the rate: between closer ones noise would pass for it
_PARENTS = {"elbow": "shoulder", "wrist": "elbow", "index": "wrist", "pinky": "wrist"}
_FACE = ("nose", "eye", "ear")
LEGS = np.array([name.endswith(("knee", "ankle", "heel", "toe")) for name in KEYPOINTS])
MAX_STEP = np.array([0.5] * 3 + [0.6] * 3 + [0.6] * 54)


@dataclass
class Poses:
    """N poses: root position (N, 3) in camera space, root rotation (N, 3, 3), theta (N, 54)."""

    position: np.ndarray
    rotation: np.ndarray
    theta: np.ndarray

    def __len__(self) -> int:
        return len(self.theta)

    def __getitem__(self, index) -> "Poses":
        return Poses(self.position[index], self.rotation[index], self.theta[index])

    def moved(self, step: np.ndarray) -> "Poses":
        """The poses after a step (N, 60); roots stay in front of the camera."""
        position = self.position + step[:, :3]
        position[:, 2] = np.maximum(position[:, 2], NEAREST_M)
        return Poses(position, exp(step[:, 3:6]) @ self.rotation, self.theta + step[:, 6:])

    def chosen(self, take_other: np.ndarray, other: "Poses") -> "Poses":
        """Per sample, the other pose where take_other (N,)."""
        pick = take_other
        return Poses(np.where(pick[:, None], other.position, self.position), np.where(pick[:, None, None], other.rotation, self.rotation),
                     np.where(pick[:, None], other.theta, self.theta))


@dataclass
class Linear:
    """Energy (N,) and its Gauss-Newton form: gradient (N, D), Hessian blocks (N, D, D); keypoints and their Jacobian for other terms."""

    energy: np.ndarray
    gradient: np.ndarray
    hessian: np.ndarray
    keypoints: np.ndarray
    jacobian: np.ndarray


def clipped(step: np.ndarray) -> np.ndarray:
    """Shorten each sample's step (N, 60) so that nothing moves too far at once."""
    return step / np.maximum((np.abs(step) / MAX_STEP).max(1), 1)[:, None]


def image_residuals(keypoints: np.ndarray, poses: Poses, seen: Observations) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residuals (N, K, 2) in metres at body depth, points in camera space (N, K, 3), metres per pixel (N,)."""
    points = keypoints + poses.position[:, None]
    depth = np.maximum(points[..., 2:], 0.05)
    metres = poses.position[:, 2] / seen.focal
    projected = seen.focal[:, None, None] * points[..., :2] / depth + seen.centre[:, None]
    return (projected - seen.xy) * metres[:, None, None], points, metres


def about_hips(points: np.ndarray) -> np.ndarray:
    """Points (N, K, ...) relative to the middle of the hips."""
    return points - (points[:, LEFT_HIP] + points[:, RIGHT_HIP])[:, None] / 2


def _hanging() -> np.ndarray:
    """(K, 2) the keypoints between which each keypoint hangs: in arms twice the joint before it; the face from both shoulders, all others from both hips."""
    out = []
    for name in KEYPOINTS:
        side, part = name.split("_")[0], name.split("_")[-1]
        parent = _PARENTS.get(part, "shoulder" if part in _FACE else "hip")
        out.append([KEYPOINTS.index(f"{one}_{parent}") for one in ((side, side) if part in _PARENTS else ("left", "right"))])
    return np.array(out)


HANGING = _hanging()


def about_parents(points: np.ndarray) -> np.ndarray:
    """Points (N, K, ...) relative to what each hangs from."""
    return points - (points[:, HANGING[:, 0]] + points[:, HANGING[:, 1]]) / 2


def robust(squared: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Geman-McClure: value and weight of its quadratic model for squared residuals."""
    share = scale**2 / (squared + scale**2)
    return squared * share, share**2


def energy(rig: Rig, poses: Poses, seen: Observations, scale: float, landmark_scale: float) -> np.ndarray:
    """(N,) energies of data, prior and limits, without derivatives."""
    return _data_energy(rig.keypoints(*rig.pose(poses.rotation, poses.theta)), rig.model, poses, seen, scale, landmark_scale)


def linearize(rig: Rig, poses: Poses, seen: Observations, scale: float, landmark_scale: float, shape: np.ndarray | None = None) -> Linear:
    """Data, prior and limits around the poses. `shape` (N, K, 3, E): derivatives of the keypoints by E more unknowns (D becomes 60 + E)."""
    model, n = rig.model, len(poses)
    keypoints, jacobian = rig.keypoints_and_jacobian(poses.rotation, poses.theta)
    if shape is not None:
        jacobian = np.concatenate([jacobian, shape], -1)
    flat, points, metres = image_residuals(keypoints, poses, seen)
    squeeze = _squeeze(seen, scale)
    solid = about_parents(keypoints - landmark_scale * seen.world) @ squeeze
    image_weight, space_weight = _weights(seen, scale)
    image_energy, image_robust = robust((flat**2).sum(-1), scale)
    space_energy, space_robust = robust((solid**2).sum(-1), scale)

    depth = np.maximum(points[..., 2], 0.05)
    project = np.zeros((n, len(KEYPOINT_WEIGHTS), 2, 3))  # d flat / d point
    ratio = (seen.focal * metres)[:, None] / depth
    project[..., 0, 0] = project[..., 1, 1] = ratio
    project[..., 2] = -ratio[..., None] * points[..., :2] / depth[..., None]
    root_image = np.sqrt(image_weight * image_robust)[..., None, None]
    root_space = np.sqrt(space_weight * space_robust)[..., None, None]
    project *= root_image
    count = len(KEYPOINT_WEIGHTS)
    rows = np.zeros((n, 5 * count, 3 + jacobian.shape[-1]))
    rows[:, : 2 * count, :3] = project.reshape(n, -1, 3)
    rows[:, : 2 * count, 3:] = (project @ jacobian).reshape(n, 2 * count, -1)
    rows[:, 2 * count :, 3:] = (root_space * (squeeze[:, None] @ about_parents(jacobian))).reshape(n, 3 * count, -1)
    errors = np.concatenate([(root_image[..., 0] * flat).reshape(n, -1), (root_space[..., 0] * solid).reshape(n, -1)], 1)

    across = rows.transpose(0, 2, 1)
    hessian = across @ rows
    gradient = (across @ errors[..., None])[..., 0]
    prior, over, prior_energy = _prior(model, poses.theta, seen)
    diagonal = np.arange(6, 6 + model.angles)
    gradient[:, diagonal] += prior * poses.theta + LIMIT * over
    hessian[:, diagonal, diagonal] += prior + LIMIT * (over != 0)
    total = (image_weight * image_energy).sum(1) + (space_weight * space_energy).sum(1) + prior_energy
    return Linear(total, gradient, hessian, keypoints, jacobian)


def _data_energy(keypoints, model: PoseModel, poses: Poses, seen: Observations, scale: float, landmark_scale: float) -> np.ndarray:
    flat, _, _ = image_residuals(keypoints, poses, seen)
    solid = about_parents(keypoints - landmark_scale * seen.world) @ _squeeze(seen, scale)
    image_weight, space_weight = _weights(seen, scale)
    total = (image_weight * robust((flat**2).sum(-1), scale)[0]).sum(1) + (space_weight * robust((solid**2).sum(-1), scale)[0]).sum(1)
    return total + _prior(model, poses.theta, seen)[2]


def _squeeze(seen: Observations, scale: float) -> np.ndarray:
    """(N, 3, 3) symmetric: shrinks by DEPTH what lies along the line of sight to the hips."""
    if scale > ROUGH_M:
        return np.tile(np.eye(3), (len(seen), 1, 1))
    along = np.column_stack([((seen.xy[:, LEFT_HIP] + seen.xy[:, RIGHT_HIP]) / 2 - seen.centre) / seen.focal[:, None], np.ones(len(seen))])
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    return np.eye(3) - (1 - DEPTH) * along[:, :, None] * along[:, None]


def _weights(seen: Observations, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """(N, K) weights of image and space residuals."""
    trust = seen.weight[:, None] * KEYPOINT_WEIGHTS
    space = np.where(LEGS, LEGS_SPACE, ROUGH_SPACE) if scale > ROUGH_M else SPACE
    return IMAGE * trust * seen.visibility, space * trust * seen.solid


def _prior(model: PoseModel, theta: np.ndarray, seen: Observations) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prior weights (N, 54), how far each angle is over its limit (N, 54), energy (N,)."""
    prior = PRIOR * np.where(seen.seen, 1.0, GAP_PRIOR)[:, None] * model.stiffness
    over = theta - np.clip(theta, *model.limits.T)
    return prior, over, (prior * theta**2).sum(1) + LIMIT * (over**2).sum(1)
