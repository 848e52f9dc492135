# SPDX-License-Identifier: Apache-2.0
"""From a pose token to a body: MHR's parameters, its evaluation, and the camera.

MHR itself is y-up in centimetres; everything returned here but transforms, rotations and parameters is in the OpenCV camera's axes (x right, y down,
z forward), metres, before the camera translation is added."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .config import KEYPOINTS, MHR_JOINTS, Config
from .crops import View
from .rotations import matrix_from_6d, matrix_from_xyz, xyz_from_matrix

ROTATION, BODY, SHAPE, SCALE, HAND, FACE = 6, 260, 45, 28, 54, 72
POSE = ROTATION + BODY + SHAPE + SCALE + 2 * HAND + FACE
CAMERA = 3
BODY_ANGLES, HAND_ANGLES, FULL_POSE, MODEL = 133, 27, 136, 204
RIGHT_HAND_KEYPOINTS = slice(21, 42)

# Which of the 133 body values are the three angles of a free joint, which single angles, which lengths. A free joint is written as six numbers, an angle as
# sine and cosine, a length as itself, in this order. From the checkpoint's format.
_FREE = ((0, 2, 4), (6, 8, 10), (12, 13, 14), (15, 16, 17), (18, 19, 20), (21, 22, 23), (24, 25, 26), (27, 28, 29), (34, 35, 36), (37, 38, 39), (44, 45, 46),
         (53, 54, 55), (64, 65, 66), (85, 69, 73), (86, 70, 79), (87, 71, 82), (88, 72, 76), (91, 92, 93), (112, 96, 100), (113, 97, 106), (114, 98, 109),
         (115, 99, 103), (130, 131, 132))
_LENGTHS = tuple(range(124, 130))
_SINGLE = tuple(index for index in range(BODY_ANGLES) if index not in {i for joint in _FREE for i in joint} | set(_LENGTHS))
_UNUSED = (*range(62, 116), *range(130, 133))      # the hands, which have values of their own, and the jaw
_HAND_JOINTS = (3, 1, 1, 3, 1, 1, 3, 1, 1, 3, 1, 1, 2, 3, 1, 1)    # angles per joint of one hand


class Angles(nn.Module):
    """Angles from their continuous form: free joints as six numbers each, then single angles as sine and cosine, then lengths as they are.

    free (J, 3), single (K,), lengths (L,): places in the result. `order`: where these parts are in the input, if not in this order."""

    def __init__(self, free, single, lengths=(), order=None):
        super().__init__()
        places = [*(index for joint in free for index in joint), *single, *lengths]
        self.counts = (6 * len(free), 2 * len(single), len(lengths))
        self.register_buffer("inverse", torch.tensor(places).argsort(), persistent=False)
        self.register_buffer("order", None if order is None else torch.tensor(order), persistent=False)

    def forward(self, continuous: Tensor) -> Tensor:
        """(N, 6J + 2K + L) -> (N, 3J + K + L) radians."""
        free, single, lengths = (continuous if self.order is None else continuous[:, self.order]).split(self.counts, dim=-1)
        free = xyz_from_matrix(matrix_from_6d(free.unflatten(-1, (-1, 6)))).flatten(1)
        single = single.unflatten(-1, (-1, 2))
        return torch.cat([free, torch.atan2(single[..., 0], single[..., 1]), lengths], dim=-1)[:, self.inverse]

    def continuous(self, angles: Tensor) -> Tensor:
        """The inverse of `forward`."""
        free, single, lengths = self.counts
        free, single, lengths = angles[:, self.inverse.argsort()].split((free // 2, single // 2, lengths), dim=-1)
        free = matrix_from_xyz(free.unflatten(-1, (-1, 3)))[..., :2].mT.flatten(1)
        parts = torch.cat([free, torch.stack([single.sin(), single.cos()], dim=-1).flatten(1), lengths], dim=-1)
        return parts if self.order is None else parts[:, self.order.argsort()]


def _body_angles() -> Angles:
    """From the root's rotation and the body, (N, 266), to 3 angles about z, y, x and the 133 values, (N, 136)."""
    return Angles([(2, 1, 0), *((a + 3, b + 3, c + 3) for a, b, c in _FREE)], [place + 3 for place in _SINGLE], [place + 3 for place in _LENGTHS])


def _hand_angles() -> Angles:
    free, single, free_at, single_at, angle, number = [], [], [], [], 0, 0
    for count in _HAND_JOINTS:
        angles, numbers = range(angle, angle + count), range(number, number + 2 * count)
        if count == 3:
            free.append(tuple(angles))
            free_at += numbers
        else:
            single += angles
            single_at += numbers
        angle, number = angle + count, number + 2 * count
    return Angles(free, single, order=free_at + single_at)


@dataclass
class Pose:
    """What a pose token says. raw (N, 266) continuous rotation and body; rotation (N, 3) angles about z, y, x as predicted, fed to MHR as x, y, z;
    body (N, 133) radians, its hand block and jaw zero, [124:130] lengths; shape (N, 45); scale (N, 28); hand (N, 108) left then right, continuous;
    face (N, 72), always zero."""

    raw: Tensor
    rotation: Tensor
    body: Tensor
    shape: Tensor
    scale: Tensor
    hand: Tensor
    face: Tensor

    def vector(self) -> Tensor:
        """(N, 519), the form in which a pose goes back into the network."""
        return torch.cat([self.raw, self.shape, self.scale, self.hand, self.face], dim=1)


@dataclass
class Body:
    """An evaluation of MHR, N people. vertices (N, V, 3) and keypoints (N, 70, 3) metres, camera axes, origin of MHR, None where they were not asked for;
    transforms (N, 127, 4, 4) of the joints in MHR's own y-up axes and centimetres; parameters (N, 204), MHR's input."""

    vertices: Tensor | None
    keypoints: Tensor | None
    transforms: Tensor
    parameters: Tensor

    @property
    def rotations(self) -> Tensor:
        """(N, 127, 3, 3) of the joints in MHR's own y-up axes."""
        turns = self.transforms[..., :3, :3]
        return turns / torch.linalg.vector_norm(turns, dim=-2, keepdim=True)


class PoseHead(nn.Module):
    """Reads MHR's parameters off a pose token and evaluates MHR. The hand's head is wrist-centred: it turns and moves the body so that the right wrist is
    where the prediction says, keeps the hand's parameters only, and reports the right hand's keypoints, the others at the origin."""

    def __init__(self, config: Config, hand: bool):
        super().__init__()
        self.hand = hand
        self.vertices = config.vertices
        self.proj = nn.Sequential(nn.Linear(config.dim, config.dim), nn.ReLU(), nn.Linear(config.dim, POSE))
        self.body_angles, self.hand_angles = _body_angles(), _hand_angles()
        tables = {"scale_mean": torch.zeros(MODEL - FULL_POSE), "scale_comps": torch.zeros(SCALE, MODEL - FULL_POSE), "hand_mean": torch.zeros(HAND),
                  "hand_comps": torch.eye(HAND), "left_hand": torch.zeros(HAND_ANGLES, dtype=torch.long),
                  "right_hand": torch.zeros(HAND_ANGLES, dtype=torch.long), "keypoint_mapping": torch.zeros(KEYPOINTS, config.vertices + MHR_JOINTS)}
        if hand:
            tables |= {"right_wrist": torch.zeros(3), "root": torch.zeros(3), "local_to_world_wrist": torch.eye(3),
                       "not_hand": torch.zeros(145, dtype=torch.long)}
        else:
            tables["joint_rotation"] = torch.zeros(MHR_JOINTS, 3, 3)
        for name, table in tables.items():
            self.register_buffer(name, table)
        used = torch.ones(3 + BODY_ANGLES)
        used[[3 + place for place in _UNUSED]] = 0.0
        self.register_buffer("used_angles", used, persistent=False)
        self.register_buffer("to_camera", torch.tensor([0.01, -0.01, -0.01]), persistent=False)
        self.prepare()

    def prepare(self) -> None:
        """Derives the tables that evaluation uses from those of the checkpoint; to be called whenever these change."""
        mapping = self.keypoint_mapping.clone()
        if self.hand:
            mapping[:RIGHT_HAND_KEYPOINTS.start] = 0
            mapping[RIGHT_HAND_KEYPOINTS.stop:] = 0
        on_mesh, on_joints = mapping.split([self.vertices, MHR_JOINTS], dim=1)
        used = on_mesh.abs().sum(dim=0).nonzero().flatten()
        self.register_buffer("keypoint_vertices", used, persistent=False)
        self.register_buffer("keypoint_weights", torch.cat([on_mesh[:, used], on_joints], dim=1), persistent=False)
        # The 204 parameters are gathered in one step from [trans 3, rotation 3, body 130, left hand 27, right hand 27, scales 68, a zero].
        source = torch.arange(FULL_POSE, device=mapping.device)
        source[self.left_hand] = FULL_POSE + torch.arange(HAND_ANGLES, device=mapping.device)
        source[self.right_hand] = FULL_POSE + HAND_ANGLES + torch.arange(HAND_ANGLES, device=mapping.device)
        first_scale = FULL_POSE + 2 * HAND_ANGLES
        source = torch.cat([source, first_scale + torch.arange(MODEL - FULL_POSE, device=mapping.device)])
        if self.hand:
            source[self.not_hand] = first_scale + MODEL - FULL_POSE
        self.register_buffer("parameter_source", source, persistent=False)

    def forward(self, token: Tensor, initial: Tensor) -> Pose:
        """(N, dim), (1 or N, 519) -> the pose."""
        raw, shape, scale, hand, face = (self.proj(token) + initial).split([ROTATION + BODY, SHAPE, SCALE, 2 * HAND, FACE], dim=1)
        rotation, body = (self.body_angles(raw) * self.used_angles).split([3, BODY_ANGLES], dim=1)
        return Pose(raw=raw, rotation=rotation, body=body, shape=shape, scale=scale, hand=hand, face=torch.zeros_like(face))

    def mhr_parameters(self, pose: Pose) -> Tensor:
        """(N, 204): translation (10 per metre) and rotation of the root, 130 pose values, 68 scales."""
        rotation, translation = pose.rotation, torch.zeros_like(pose.rotation)
        if self.hand:
            turned = matrix_from_xyz(rotation) @ self.local_to_world_wrist
            rotation, translation = xyz_from_matrix(turned), -(turned @ (self.right_wrist - self.root) + self.root)
        fingers = torch.addmm(self.hand_mean, pose.hand.reshape(-1, HAND), self.hand_comps)
        fingers = self.hand_angles(fingers).view(len(rotation), 2 * HAND_ANGLES)
        scales = torch.addmm(self.scale_mean, pose.scale, self.scale_comps)
        everything = torch.cat([translation * 10, rotation, pose.body[:, :FULL_POSE - 6], fingers, scales, torch.zeros_like(scales[:, :1])], dim=1)
        return everything[:, self.parameter_source]

    def evaluate(self, mhr: nn.Module, pose: Pose, mesh: str) -> Body:
        """`mesh`: `all` vertices, those that `keypoints` use, or `none` (joints only)."""
        parameters = self.mhr_parameters(pose)
        if mesh == "none":
            return Body(None, None, mhr.transforms(parameters), parameters)
        # Faces stay neutral: the published network's expression is always zero.
        vertices, transforms = mhr.posed(pose.shape, parameters, None, None if mesh == "all" else self.keypoint_vertices)
        vertices = vertices * self.to_camera
        used = vertices[:, self.keypoint_vertices] if mesh == "all" else vertices
        joints = transforms[..., :3, 3] * self.to_camera
        return Body(vertices if mesh == "all" else None, self.keypoint_weights @ torch.cat([used, joints], dim=1), transforms, parameters)


@dataclass
class Projection:
    """translation (N, 3) metres, to be added to a Body; pixels (N, 70, 2) in the frame; in_crop (N, 70, 2), -0.5 to 0.5 inside; depth (N, 70) metres."""

    translation: Tensor
    pixels: Tensor
    in_crop: Tensor
    depth: Tensor


class CameraHead(nn.Module):
    """Where the body is, from its size in the crop (CLIFF, Li et al. 2022): scale and shift in the crop to metres in front of the real camera."""

    def __init__(self, config: Config, scale: float):
        super().__init__()
        self.scale = scale
        self.proj = nn.Sequential(nn.Linear(config.dim, config.dim), nn.ReLU(), nn.Linear(config.dim, CAMERA))

    def forward(self, token: Tensor, initial: Tensor) -> Tensor:
        """(N, dim), (1 or N, 3) -> (N, 3) scale and shift as predicted."""
        return self.proj(token) + initial

    def translation(self, camera: Tensor, view: View) -> Tensor:
        """(N, 3) -> (N, 3) metres. The published network's scale and vertical shift have the opposite sign."""
        span = -camera[:, 0] * view.side * self.scale + 1e-8
        shift = 2 * (view.centre - view.K[:, :2, 2]) / span[:, None]
        return torch.cat([camera[:, 1:2] + shift[:, :1], shift[:, 1:] - camera[:, 2:3], (2 * view.K[:, 0, 0] / span)[:, None]], dim=1)

    def project(self, keypoints: Tensor, camera: Tensor, view: View) -> Projection:
        translation = self.translation(camera, view)
        pixels, depth = project(keypoints + translation[:, None], view.K)
        return Projection(translation, pixels, view.to_crop(pixels), depth)


def project(points: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """(N, P, 3) camera space, (N, 3, 3) -> (N, P, 2) pixels, (N, P) depth in metres."""
    depth = points[..., 2]
    return ((points / depth[..., None]) @ K.mT)[..., :2], depth
