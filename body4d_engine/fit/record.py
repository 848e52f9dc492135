# SPDX-License-Identifier: Apache-2.0
"""Poses of a person <-> the arrays that a take keeps of them."""

import numpy as np
from scipy.spatial.transform import Rotation

from ..errors import Body4DError
from ..models.anny.body import MODEL, Skinner
from ..models.anny.hands import ANGLES, NAMES, SIDES
from ..models.anny.pose import CORE, KEYPOINT_WEIGHTS, KEYPOINTS, PoseModel, pose_model
from ..take_arrays import Earlier
from .detailed import Detailed, Shown
from .observations import Observations
from .residuals import Poses, image_residuals
from .shape import Shape
from .solver import D

GOOD_M = 0.06  # an image residual of this size halves the confidence
BATCH = 60


def to_params(poses: Poses) -> np.ndarray:
    """(N, 60) float32: root position, root rotation vector, theta. What a take keeps, and what a fit goes on from."""
    return np.concatenate([poses.position, Rotation.from_matrix(poses.rotation).as_rotvec(), poses.theta], 1).astype(np.float32)


def from_params(params: np.ndarray) -> Poses:
    """The poses of (N, 60) params."""
    params = np.asarray(params, np.float64)
    return Poses(params[:, :3], Rotation.from_rotvec(params[:, 3:6]).as_matrix(), params[:, 6:])


class Recorder:
    """Writes one person's poses into the stage that is being written: of the samples of `span`, [begin, stop), one after the other. asked (T,),
    optional: what the user corrects, see `corrected`."""

    def __init__(self, take, person: int, stage: str, shape: Shape, span: tuple[int, int], model: PoseModel | None = None,
                 asked: np.ndarray | None = None):
        self.model = model or pose_model()
        self.take, self.group, self.stage, self.shape, self.span = take, f"people/{person}", stage, shape, span
        self.rig = shape.rig(self.model)
        self.detailed = Detailed(take, person, self.rig, asked)
        hands = self.detailed.hands.model
        self._skinner = Skinner(hands.skin, self.rig.rest.vertices, self.rig.rest.joints[hands.bones])
        body = self.model.body
        self._dims = {"vertices": (len(self.rig.rest.vertices), 3), "root": (3,), "confidence": (), "params": (D,),
                      "angles": (len(self.model.names) + 2 * ANGLES,), "joints": (len(body.parents), 3), "rotations": (len(body.parents), 4),
                      "keypoints_m": (len(KEYPOINTS), 3), "keypoints_px": (len(KEYPOINTS), 3), "state": ()}
        for name, dims in self._dims.items():
            self.declare(name, dims)
        self._shown = Shown(take, self.group, stage)

    def declare(self, name: str, dims: tuple[int, ...]) -> None:
        """Declare an array of the person with a record (*dims,) for every sample of the span."""
        self.take.create_array(self.group, name, "u1" if name == "state" else "f4", dims, pc2=name == "vertices", span=self.span)

    def next(self, name: str = "params") -> int:
        """The sample that is to be written next."""
        return self.span[0] + self.take.count(self.group, name, self.stage)

    def write_body(self) -> None:
        """The person's body file."""
        body, rest, shape = self.model.body, self.rig.rest, self.shape
        self.take.write_npz(f"{self.group}/body.{self.stage}.npz", model=np.array(MODEL), faces=body.faces,
                            rest_vertices_m=rest.vertices.astype(np.float32), joint_names=np.array(body.joint_names), parents=body.parents,
                            rest_joints_m=rest.joints.astype(np.float32), inverse_binds=rest.inverse_binds().astype(np.float32),
                            skin_indptr=body.skin.indptr.astype(np.int32), skin_indices=body.skin.indices.astype(np.int32),
                            skin_weights=body.skin.data.astype(np.float32), keypoint_names=np.array(KEYPOINTS),
                            angle_names=np.array([*self.model.names, *(f"{name}.{side}" for side in SIDES for name in NAMES)]),
                            phenotype_names=np.array(body.phenotypes), phenotypes=shape.phenotypes,
                            scale=np.float64(shape.scale), landmark_scale=np.float64(shape.landmark_scale), height_m=np.float64(rest.height))

    def append(self, params: np.ndarray, state: np.ndarray, confidence: np.ndarray, seen: Observations) -> None:
        """params (N, 60) float32, state (N,), confidence (N,), the observations of the same samples: the next ones."""
        for first in range(0, len(params), BATCH):
            self._append(*(a[first : first + BATCH] for a in (params, state, confidence, seen)))

    def _append(self, params, state, confidence, seen) -> None:
        poses = from_params(params)
        self._shown = self._shown or Shown(self.take, self.group, self.stage)
        angles, rotations, positions = self.detailed.pose(self._shown.of(self.next(), params, seen.seen), poses)
        joints, turns = self.detailed.hands.joints(rotations, positions)
        keypoints = self.rig.keypoints(rotations, positions)
        points = keypoints + poses.position[:, None]
        pixels = seen.focal[:, None, None] * points[..., :2] / np.maximum(points[..., 2:], 0.05) + seen.centre[:, None]
        quaternions = Rotation.from_matrix(turns.reshape(-1, 3, 3)).as_quat(canonical=True)[:, [3, 0, 1, 2]].reshape(*turns.shape[:2], 4)
        records = {"vertices": self._skinner(rotations, positions), "root": poses.position, "state": state, "confidence": confidence,
                   "params": params, "angles": angles, "joints": joints, "rotations": quaternions, "keypoints_m": keypoints,
                   "keypoints_px": np.concatenate([pixels, seen.visibility[..., None]], 2)}
        for name, values in records.items():
            if not np.isfinite(values).all():
                bad = self.next() + int(np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(1))[0])
                raise Body4DError(f"The body of person {self.group.rpartition('/')[2]} at frame {self.take.frames[bad]} came out without numbers "
                                  f"({name}, stage {self.stage}).", "Leave the frame out with --start and --end, and report the clip.", "body_not_finite")
            self.take.append(self.group, name, values)

    def has_all(self, earlier: Earlier) -> bool:
        """Whether an earlier result has every array of this person over the whole span."""
        return all(earlier.covers(self.group, name, self.span, dims) for name, dims in self._dims.items())

    def copy(self, earlier: Earlier, begin: int, stop: int) -> None:
        """Write the next samples as they are in an earlier result; they are committed with what was appended before, under the cursor of the last commit."""
        for name in self._dims:
            self.take.append(self.group, name, earlier.by_sample(self.group, name)[begin:stop])
        self._shown = None

    def confidence(self, poses: Poses, seen: Observations) -> np.ndarray:
        """(N,) 0..1: how visible the landmarks of trunk and limbs were, and how well the body meets them."""
        keypoints = self.rig.keypoints(*self.rig.pose(poses.rotation, poses.theta))
        error = image_error(keypoints, poses, seen)
        return seen.visibility[:, CORE].mean(1) * (0.5 + 0.5 * seen.weight) / (1 + (error / GOOD_M) ** 2) * seen.seen


def image_error(keypoints: np.ndarray, poses: Poses, seen: Observations) -> np.ndarray:
    """(N,) weighted mean distance in metres at body depth between keypoints and landmarks in the image."""
    flat, _, _ = image_residuals(keypoints, poses, seen)
    weight = seen.visibility * KEYPOINT_WEIGHTS
    return (np.linalg.norm(flat, axis=-1) * weight).sum(1) / np.maximum(weight.sum(1), 1e-9)


def read_shape(take, person: int, stage: str) -> Shape:
    """The shape a stage wrote. take: a Take or an Earlier."""
    body = take.read_npz(f"people/{person}/body.{stage}.npz")
    return Shape(body["phenotypes"].astype(np.float64), float(body["scale"]), float(body["landmark_scale"]))
