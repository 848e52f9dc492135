# SPDX-License-Identifier: Apache-2.0
"""How the two hand crops of a person and the body crop become one body.

Hands are always ordered left, right. A left hand is seen in the mirrored frame, as a right hand, and mirrored back here. Nothing here looks at other people:
a wrist or elbow that cannot be trusted becomes a dummy prompt, whoever else is in the batch."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .config import MHR_JOINTS
from .crops import View
from .decoder import OUTSIDE, Estimate
from .heads import HAND, Pose
from .prompts import DUMMY_POINT
from .rotations import angle_between, matrix_from_xzy, xzy_from_matrix

LARGEST_TURN = 1.4                     # radians between the wrist of the body and of the hand crop
SMALLEST_CROP = 64.0                   # pixels of the frame
LARGEST_DISTANCE = 0.25                # between the two wrists in the image, as a part of the hand's crop
RIGHT_WRIST, LEFT_WRIST, RIGHT_ELBOW, LEFT_ELBOW = 41, 62, 8, 7                 # keypoints
LOWER_ARMS, WRIST_TWISTS, RIGHT_WRIST_JOINT = (76, 40), (77, 41), 42            # joints
OWN_SCALES, SHARED_SCALES, HAND_SHAPES = (9, 8), 18, 40
WRIST_ANGLES = ((41, 43, 42), (31, 33, 32))                                     # of the 133 body values, about x, z, y
WRIST_LIMITS = ((-2.2, 1.0), (-2.2, 1.5), (-1.2, 1.5))                          # radians about x, z, y


@dataclass
class Hands:
    """What the hand crops say, N people. rotation (N, 2, 3, 3) of the wrist joints in MHR's axes; code (N, 2, 54); own_scale (N, 2), shared_scale (N, 2, 10);
    shape (N, 2, 5); wrist (N, 2, 2) and side (N, 2) pixels of the frame; inside (N, 2), whether all keypoints are in the crop."""

    rotation: Tensor
    code: Tensor
    own_scale: Tensor
    shared_scale: Tensor
    shape: Tensor
    wrist: Tensor
    side: Tensor
    inside: Tensor


class Fusion(nn.Module):
    def __init__(self):
        super().__init__()
        for name, table in {"wrist_angles": WRIST_ANGLES, "lower_arms": LOWER_ARMS, "wrist_twists": WRIST_TWISTS, "own_scales": OWN_SCALES,
                            "wrist_keypoints": (LEFT_WRIST, RIGHT_WRIST), "prompt_labels": (RIGHT_WRIST, LEFT_WRIST, RIGHT_ELBOW, LEFT_ELBOW),
                            "elbow_keypoints": (RIGHT_ELBOW, LEFT_ELBOW), "limits": WRIST_LIMITS}.items():
            self.register_buffer(name, torch.tensor(table), persistent=False)
        self.register_buffer("mirror", torch.tensor([[1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])[:, :, None], persistent=False)

    def hands(self, estimate: Estimate, view: View, width: int, scale_mean: Tensor, scale_comps: Tensor) -> Hands:
        """From 2N hand crops, all left ones first, their own views, and the frame's width in pixels."""
        def pairs(x: Tensor) -> Tensor:
            return x.unflatten(0, (2, -1)).transpose(0, 1)

        pose, seen = estimate.pose, estimate.projection
        own = pairs(pose.scale[:, 8])
        left = (scale_mean[8] + scale_comps[8, 8] * own[:, 0] - scale_mean[9]) / scale_comps[9, 9]      # a size of hand, in terms of the left hand's component
        wrist = pairs(seen.pixels[:, RIGHT_WRIST])
        wrist = torch.stack([mirror_x(wrist[:, 0], width), wrist[:, 1]], dim=1)
        return Hands(rotation=pairs(estimate.body.rotations[:, RIGHT_WRIST_JOINT]) * self.mirror, code=pairs(pose.hand[:, HAND:]),
                     own_scale=torch.stack([left, own[:, 1]], dim=1), shared_scale=pairs(pose.scale[:, SHARED_SCALES:]),
                     shape=pairs(pose.shape[:, HAND_SHAPES:]), wrist=wrist, side=pairs(view.side),
                     inside=pairs((seen.in_crop.abs() < OUTSIDE).all(dim=-1).all(dim=-1)))

    def wrists_before(self, pose: Pose) -> Tensor:
        """(N, 2, 3, 3) local rotations of the wrists as the body crop has them."""
        return matrix_from_xzy(pose.body[:, self.wrist_angles])

    def wrists_wanted(self, rotations: Tensor, joint_rotation: Tensor, hands: Hands) -> Tensor:
        """(N, 2, 3, 3) local rotations that turn the wrists of a body with these joint rotations (N, 127, 3, 3) as the hand crops have them."""
        assert rotations.shape[1] == MHR_JOINTS
        at_rest = rotations[:, self.lower_arms] @ joint_rotation[self.wrist_twists]
        return at_rest.mT @ hands.rotation

    def accept(self, first: Estimate, joint_rotation: Tensor, hands: Hands) -> Tensor:
        """(N, 2) bool: which hand crops agree with the body crop well enough to be used. The distance of the wrists is measured in the hand's own crop."""
        turn = angle_between(self.wrists_before(first.pose), self.wrists_wanted(first.body.rotations, joint_rotation, hands))
        distance = (hands.wrist - first.projection.pixels[:, self.wrist_keypoints]).norm(dim=-1)
        return (turn < LARGEST_TURN) & (hands.side > SMALLEST_CROP) & hands.inside & (distance / hands.side < LARGEST_DISTANCE)

    def prompts(self, first: Estimate, hands: Hands, accepted: Tensor, view: View) -> tuple[Tensor, Tensor]:
        """Points (N, 4, 2) from 0 to 1 in the body's crop, labels (N, 4): wrists of the hand crops and elbows of the body crop, right before left."""
        points = view.to_crop(torch.cat([hands.wrist.flip(1), first.projection.pixels[:, self.elbow_keypoints]], dim=1))
        good = (points.abs() <= OUTSIDE).all(dim=-1) & accepted.flip(1).repeat(1, 2)
        return torch.where(good[..., None], points + 0.5, 0.0).clamp(0, 1), torch.where(good, self.prompt_labels, DUMMY_POINT)

    def tentative(self, pose: Pose, hands: Hands) -> Pose:
        """The pose with both hands as seen, accepted or not: what the arms do under them."""
        scale = pose.scale.index_copy(1, self.own_scales, hands.own_scale)
        return replace(pose, hand=hands.code.flatten(1), scale=torch.cat([scale[:, :SHARED_SCALES], hands.shared_scale.mean(dim=1)], dim=1),
                       shape=torch.cat([pose.shape[:, :HAND_SHAPES], hands.shape.mean(dim=1)], dim=1))

    def merge(self, pose: Pose, hands: Hands, accepted: Tensor, before: Tensor, wanted: Tensor) -> tuple[Pose, Tensor]:
        """The pose with those hands that were accepted and whose wrists still turn by less than the limit; and which these are, (N, 2) bool.

        before, wanted (N, 2, 3, 3): the wrists of the first body estimate, and those that the hands ask for now."""
        used = accepted & (angle_between(before, wanted) < LARGEST_TURN)
        angles = torch.where(used[..., None], self._within_limits(xzy_from_matrix(wanted)), pose.body[:, self.wrist_angles])
        own = torch.where(used, hands.own_scale, pose.scale[:, self.own_scales])
        code = torch.where(used[..., None], hands.code, pose.hand.unflatten(-1, (2, HAND)))
        scale = pose.scale.index_copy(1, self.own_scales, own)
        return replace(pose, body=pose.body.index_copy(1, self.wrist_angles.flatten(), angles.flatten(1)), hand=code.flatten(1),
                       scale=torch.cat([scale[:, :SHARED_SCALES], _mean_of(used, hands.shared_scale, scale[:, SHARED_SCALES:])], dim=1),
                       shape=torch.cat([pose.shape[:, :HAND_SHAPES], _mean_of(used, hands.shape, pose.shape[:, HAND_SHAPES:])], dim=1)), used

    def _within_limits(self, angles: Tensor) -> Tensor:
        """Of the two triples of angles that are the same rotation, the one that a wrist can do, or comes nearer to."""
        other = torch.stack([angles[..., 0] + torch.pi, -(angles[..., 1] + torch.pi), angles[..., 2] + torch.pi], dim=-1)
        other = torch.atan2(other.sin(), other.cos())

        def excess(x: Tensor) -> Tensor:
            low, high = self.limits.unbind(-1)
            return ((low - x).clamp(min=0) ** 2 + (x - high).clamp(min=0) ** 2).sum(dim=-1, keepdim=True)

        return torch.where(excess(other) < excess(angles), other, angles)


def mirror_x(points: Tensor, width: int) -> Tensor:
    """(..., 2) pixels -> the same place in the frame flipped left to right."""
    return torch.stack([width - 1 - points[..., 0], points[..., 1]], dim=-1)


def mirror_camera(K: Tensor, width: int) -> Tensor:
    """(N, 3, 3) -> the camera that sees the flipped frame."""
    mirrored = K.clone()
    mirrored[:, 0, 2] = width - 1 - K[:, 0, 2]
    return mirrored


def _mean_of(used: Tensor, values: Tensor, otherwise: Tensor) -> Tensor:
    """(N, 2) bool, (N, 2, D), (N, D) -> (N, D): the mean over the used hands, or what was there."""
    total = torch.where(used[..., None], values, 0.0).sum(dim=1)
    count = used.sum(dim=1, keepdim=True)
    return torch.where(count > 0, total / count.clamp(min=1), otherwise)
