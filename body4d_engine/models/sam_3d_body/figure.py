# SPDX-License-Identifier: Apache-2.0
"""The body that a network speaks of, as arrays: posed and at rest, in person space, with rotations from rest and SAM 3D Body's keypoints."""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ...memory import Batches
from ..mhr.names import JOINT_NAMES, ROOT
from .fusion import WRIST_ANGLES
from .heads import BODY_ANGLES, FULL_POSE, MODEL, PoseHead
from .heads import Angles as Continuous
from .inference import Sam3dBody

_POSE = 6  # where among MHR's parameters the pose begins
_LENGTHS = 6  # the last of the pose: how long parts of the body are
_AT_ONCE, _KEYPOINTS_AT_ONCE = 32, 256  # bodies whose meshes, or keypoints alone, are computed together, where memory suffices


class Figure:
    """Person space: the camera's axes (x right, y down, z forward), metres, origin at the root joint."""

    def __init__(self, network: Sam3dBody):
        self.mhr, self.head = network.mhr, network.body.pose_head
        self._meshes, self._points = Batches(_AT_ONCE, "one body"), Batches(_KEYPOINTS_AT_ONCE, "one body's keypoints")
        still = self._tensor(np.zeros((1, MODEL)))
        self._half_turn = self._tensor([1, 1, -1, -1])
        self._rest_turns = self._turns(still) * self._tensor([1, -1, -1, -1])  # inverted

    @cached_property
    def angles(self):
        """The parameters as rotations and lengths, see `angles.Angles`: what only streams bodies does without, and without scipy."""
        from .angles import Angles

        return Angles(*_joints_of(self.head))

    @property
    def average(self) -> np.ndarray:
        """(204,) parameters of a person of average proportions, in the rest pose."""
        return np.concatenate([np.zeros(FULL_POSE), self.head.scale_mean.cpu().numpy()]).astype(np.float32)

    @torch.inference_mode()
    def posed(self, params: np.ndarray, shape: np.ndarray) -> dict[str, np.ndarray]:
        """MHR's parameters (N, 204) and identity (N, 45) -> arrays float32 of N rows, see `in_person_space`."""
        parts = list(self._meshes.run(lambda part: self._posed(params[part.start : part.stop], shape[part.start : part.stop]), range(len(params))))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _posed(self, params: np.ndarray, shape: np.ndarray) -> dict[str, np.ndarray]:
        given = self._tensor(params)
        vertices, transforms = self.mhr.posed(self._tensor(shape), given)
        vertices, joints = self.mhr.to_camera(vertices), self.mhr.to_camera(transforms[..., :3, 3])
        keypoints = self.head.keypoint_weights @ torch.cat([vertices[:, self.head.keypoint_vertices], joints], dim=1)
        return {name: value.cpu().numpy() for name, value in self.in_person_space(vertices, joints, keypoints, given).items()}

    @torch.inference_mode()
    def keypoints(self, params: np.ndarray, shape: np.ndarray) -> np.ndarray:
        """(N, 70, 3) in person space, without the mesh. As for `posed`; the shape may be one for all, (1, 45)."""
        return np.concatenate(list(self._points.run(lambda part: self._keypoints(params[part.start : part.stop], shape, part), range(len(params)))))

    def _keypoints(self, params: np.ndarray, shape: np.ndarray, part: range) -> np.ndarray:
        identity = self._tensor(shape if len(shape) == 1 else shape[part.start : part.stop])
        vertices, transforms = self.mhr.posed(identity, self._tensor(params), None, self.head.keypoint_vertices)
        joints = self.mhr.to_camera(transforms[..., :3, 3])
        points = self.head.keypoint_weights @ torch.cat([self.mhr.to_camera(vertices), joints], dim=1)
        return (points - joints[:, ROOT : ROOT + 1]).cpu().numpy()

    @torch.inference_mode()
    def frames(self, params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 127, 3, 3) where each joint's own axes point and (N, 127, 3) where it is, about MHR's origin in metres; both in the camera's axes, float64."""
        given = self._tensor(params)
        places = self.mhr.to_camera(self.mhr.transforms(given)[..., :3, 3])
        return tuple(found.cpu().double().numpy() for found in (self.mhr.camera_rotations(given), places))

    def with_scale(self, params: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Parameters (N, 204) with the proportions of one scale code (28,)."""
        out = params.copy()
        out[:, FULL_POSE:] = (self.head.scale_mean + self._tensor(scale) @ self.head.scale_comps).cpu().numpy()
        return out

    @torch.inference_mode()
    def hand_codes(self, params: np.ndarray) -> np.ndarray:
        """(N, 108): what the network would have to say, left then right, so that the fingers are those of the parameters (N, 204)."""
        given, head = self._tensor(params), self.head
        fingers = torch.stack([given[:, head.left_hand], given[:, head.right_hand]], dim=1)
        codes = (head.hand_angles.continuous(fingers.flatten(0, 1)) - head.hand_mean).cpu().numpy()
        return np.linalg.lstsq(head.hand_comps.T.cpu().numpy(), codes.T, rcond=None)[0].T.reshape(len(params), -1).astype(np.float32)

    def in_person_space(self, vertices: Tensor, joints: Tensor, keypoints: Tensor, params: Tensor) -> dict[str, Tensor]:
        """Points about MHR's origin in the camera's axes, and the parameters (N, 204) -> vertices (N, V, 3), joints (N, 127, 3), keypoints_m (N, 70, 3);
        rotations (N, 127, 4), quaternions w x y z from rest to posed, by forward kinematics; offset (N, 3) from MHR's origin to the root joint."""
        root = joints[:, ROOT : ROOT + 1]
        return {"vertices": vertices - root, "joints": joints - root, "keypoints_m": keypoints - root, "rotations": self._rotations(params),
                "offset": root[:, 0]}

    @torch.inference_mode()
    def rest(self, params: np.ndarray, shape: np.ndarray) -> dict[str, np.ndarray]:
        """What a take's body file says of a person with these lengths and proportions (the last 74 of the parameters (204,)) and this identity (45,): the mesh
        and the skeleton at rest, in person space, and how they hang together."""
        params = np.where(np.arange(MODEL) < FULL_POSE - _LENGTHS, 0, params)[None].astype(np.float32)
        at_rest = self.posed(params, shape[None])
        joints = at_rest["joints"][0].astype(np.float64)
        axes = self.mhr.camera_rotations(self._tensor(params))[0].cpu().double().numpy()
        inverse = np.tile(np.eye(4), (len(joints), 1, 1))
        inverse[:, :3, :3] = axes.transpose(0, 2, 1)
        inverse[:, :3, 3] = -np.einsum("jab,ja->jb", axes, joints)
        weights = self.mhr.weights.cpu().numpy()
        rows, columns = weights.nonzero()
        above = self.mhr.ancestors[0][: len(joints)].cpu().numpy()
        return {"model": np.array("MHR"), "faces": self.mhr.faces.cpu().numpy().astype(np.int32), "rest_vertices_m": at_rest["vertices"][0],
                "joint_names": np.array(JOINT_NAMES), "parents": np.where(above == len(joints), -1, above).astype(np.int32),
                "rest_joints_m": joints.astype(np.float32), "inverse_binds": inverse.astype(np.float32),
                "skin_indptr": np.searchsorted(rows, np.arange(len(weights) + 1)).astype(np.int32), "skin_indices": columns.astype(np.int32),
                "skin_weights": weights[rows, columns].astype(np.float32)}

    def _rotations(self, params: Tensor) -> Tensor:
        """Quaternions in MHR's axes, posed times rest inverted, seen from the camera: turned by half a turn about x. w is never negative."""
        turned = _product(self._turns(params), self._rest_turns)
        turned = turned * self._half_turn
        return torch.where(turned[..., :1] < 0, -turned, turned)

    def _turns(self, params: Tensor) -> Tensor:
        """(N, 127, 4) of the joints' own axes in MHR's, w x y z."""
        return self.mhr.skeleton(self.mhr.transforms(params))[..., 3:7].roll(1, -1)

    def _tensor(self, values) -> Tensor:
        return torch.as_tensor(np.asarray(values, np.float32), device=self.mhr.base.device)


def _joints_of(head: PoseHead) -> tuple[list, list, list]:
    """Of MHR's parameters the triples that are a joint's angles about x, y, z, the wrists' about x, z, y, and the angles that stand alone."""
    fingers = [hand.tolist() for hand in (head.left_hand, head.right_hand)]
    wrists = [tuple(_POSE + index for index in wrist) for wrist in WRIST_ANGLES]
    taken = {index for places in (*fingers, *wrists) for index in places} | set(range(FULL_POSE, FULL_POSE + BODY_ANGLES))
    root = _POSE - 3  # whose angles come first there, and are read about z, y, x
    (_, *free), single = ([tuple(root + index for index in joint) for joint in part] for part in _places(head.body_angles))
    triples = [(3, 4, 5), *(joint for joint in free if not taken & set(joint))]
    alone = [joint[0] for joint in single if not taken & set(joint)]
    free, single = _places(head.hand_angles)
    for hand in fingers:
        triples += [tuple(hand[index] for index in joint) for joint in free]
        alone += [hand[index] for index, in single]
    return triples, wrists, alone


def _places(angles: Continuous) -> tuple[list, list]:
    """Where in the angles that a head gives the free joints (J, 3) are, and those that stand alone (K, 1)."""
    places, (free, single, _) = angles.inverse.argsort(), angles.counts
    return places[: free // 2].view(-1, 3).tolist(), places[free // 2 : free // 2 + single // 2].view(-1, 1).tolist()


def _product(first: Tensor, second: Tensor) -> Tensor:
    """Quaternions w x y z multiplied, (..., 4)."""
    a, b, c, d = first.unbind(-1)
    w, x, y, z = second.unbind(-1)
    return torch.stack([a * w - b * x - c * y - d * z, a * x + b * w + c * z - d * y, a * y - b * z + c * w + d * x, a * z + b * y - c * x + d * w], dim=-1)
