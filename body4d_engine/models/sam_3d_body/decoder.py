# SPDX-License-Identifier: Apache-2.0
"""The promptable decoder: tokens that look at the image and at each other, and after every layer at the body that they would make so far.

There are two of the same build, one for bodies and one for hands: a Branch is a decoder with all that it owns."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, scaled_dot_product_attention

from .config import KEYPOINTS, Config
from .crops import View
from .heads import CAMERA, POSE, Body, CameraHead, Pose, PoseHead, Projection
from .prompts import Rays

CONDITION = 3
HIPS = (9, 10)
NEAREST = 1e-5                         # metres; keypoints nearer than this or behind the camera tell a token nothing
OUTSIDE = 0.5


class Attention(nn.Module):
    def __init__(self, dim: int, context: int, config: Config):
        super().__init__()
        inner = config.heads * config.head_dim
        self.heads = config.heads
        self.q, self.k, self.v = nn.Linear(dim, inner), nn.Linear(context, inner), nn.Linear(context, inner)
        self.out = nn.Linear(inner, dim)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer, x in ((self.q, query), (self.k, key), (self.v, value)))
        return self.out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Self-attention, cross-attention to the image, MLP, each behind a norm; positions are normalised and added again in every layer (LaPE, Yu et al. 2023)."""

    def __init__(self, config: Config, first: bool):
        super().__init__()
        dim, context = config.dim, config.backbone.dim
        self.first = first
        self.norm_position, self.norm_image_position = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(context, eps=1e-6)
        self.norm_self, self.self_attention = nn.LayerNorm(dim, eps=1e-6), Attention(dim, dim, config)
        self.norm_cross, self.norm_image = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(context, eps=1e-6)
        self.cross_attention = Attention(dim, context, config)
        self.norm_mlp = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, config.hidden), nn.GELU(), nn.Linear(config.hidden, dim))

    def forward(self, x: Tensor, position: Tensor, image: Tensor, image_position: Tensor) -> Tensor:
        position, image_position = self.norm_position(position), self.norm_image_position(image_position)
        value = self.norm_self(x)
        query = value if self.first else value + position
        x = x + self.self_attention(query, query, value)
        value = self.norm_image(image)
        x = x + self.cross_attention(self.norm_cross(x) + position, value + image_position, value)
        return x + self.mlp(self.norm_mlp(x))


@dataclass
class Estimate:
    """What a branch says about N crops. camera (N, 3) as predicted; hands (N, 2, dim) tokens of the left and the right hand's place; `body` and `projection`
    are None where only the parameters were asked for."""

    pose: Pose
    camera: Tensor
    translation: Tensor
    hands: Tensor
    body: Body | None
    projection: Projection | None

    def vector(self) -> Tensor:
        """(N, 522), the form in which an estimate goes back into the network."""
        return torch.cat([self.pose.vector(), self.camera], dim=1)


class Branch(nn.Module):
    def __init__(self, config: Config, hand: bool):
        super().__init__()
        dim, context = config.dim, config.backbone.dim
        self.grid = config.grid
        self.widening = config.image_size / (config.image_size - 2 * config.margin)
        self.initial_pose, self.initial_camera = nn.Parameter(torch.zeros(1, POSE)), nn.Parameter(torch.zeros(1, CAMERA))
        self.to_token, self.previous_to_token = nn.Linear(CONDITION + POSE + CAMERA, dim), nn.Linear(POSE + CAMERA, dim)
        self.rays = Rays(config)
        self.tokens_2d, self.tokens_3d = nn.Parameter(torch.zeros(KEYPOINTS, dim)), nn.Parameter(torch.zeros(KEYPOINTS, dim))
        self.position_2d = nn.Sequential(nn.Linear(2, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.position_3d = nn.Sequential(nn.Linear(3, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.feature = nn.Linear(context, dim)
        self.layers = nn.ModuleList(Layer(config, first=index == 0) for index in range(config.layers))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pose_head = PoseHead(config, hand)
        self.camera_head = CameraHead(config, config.hand_camera_scale if hand else 1.0)

    def forward(self, mhr: nn.Module, image: Tensor, image_position: Tensor, view: View, prompts: Tensor, hands: Tensor, mesh: str,
                previous: Tensor | None = None) -> Estimate:
        """image (N, tokens, C), prompts (N, P, dim), hands (2, dim), previous (N, 522) or None for the first estimate.

        `mesh`: what of MHR the result needs, `keypoints`, or `nothing` (parameters and camera only)."""
        count = len(image)
        start = torch.cat([self.initial_pose, self.initial_camera], dim=1).expand(count, -1)
        pose_token = self.to_token(torch.cat([self._condition(view), start], dim=1))[:, None]
        previous_token = self.previous_to_token(start if previous is None else previous)[:, None]
        image = self.rays(image, view)
        image_map = image.transpose(1, 2).unflatten(2, self.grid)

        def repeat(rows: Tensor) -> Tensor:
            return rows.expand(count, -1, -1)

        first = 2 + prompts.shape[1] + 2                       # of the keypoints' tokens
        tokens = torch.cat([pose_token, previous_token, prompts, repeat(hands), repeat(self.tokens_2d), repeat(self.tokens_3d)], dim=1)
        nowhere = torch.zeros_like(repeat(self.tokens_2d))
        fixed = torch.cat([torch.zeros_like(pose_token), previous_token, prompts, nowhere[:, :2]], dim=1)
        position = torch.cat([fixed, nowhere, nowhere], dim=1)

        for index, layer in enumerate(self.layers):
            tokens = layer(tokens, position, image, image_position)
            if index + 1 < len(self.layers):
                now = self._read(mhr, self.norm(tokens[:, 0]), view, "keypoints")
                position_2d, feature = self._look(now.projection, image_map)
                tokens[:, first:first + KEYPOINTS] += feature
                body = now.body.keypoints
                centred = body - (body[:, HIPS[0]:HIPS[0] + 1] + body[:, HIPS[1]:HIPS[1] + 1]) / 2
                position = torch.cat([fixed, position_2d, self.position_3d(centred)], dim=1)
        estimate = self._read(mhr, self.norm(tokens[:, 0]), view, mesh)
        estimate.hands = self.norm(tokens[:, first - 2:first])
        return estimate

    def _condition(self, view: View) -> Tensor:
        """(N, 3): where the crop is in the field of view, and how large (CLIFF, Li et al. 2022)."""
        return torch.cat([view.centre - view.K[:, :2, 2], view.side[:, None]], dim=1) / view.K[:, 0, 0, None]

    def _read(self, mhr: nn.Module, token: Tensor, view: View, mesh: str) -> Estimate:
        pose, camera = self.pose_head(token, self.initial_pose), self.camera_head(token, self.initial_camera)
        if mesh == "nothing":
            return Estimate(pose, camera, self.camera_head.translation(camera, view), token, None, None)
        body = self.pose_head.evaluate(mhr, pose, "keypoints")
        projection = self.camera_head.project(body.keypoints, camera, view)
        return Estimate(pose, camera, projection.translation, token, body, projection)

    def _look(self, projection: Projection, image_map: Tensor) -> tuple[Tensor, Tensor]:
        """What each keypoint's token learns from where the keypoint is now: its place, and the image there. (N, 70, dim) twice."""
        seen = ((projection.in_crop.abs() <= OUTSIDE).all(dim=-1) & (projection.depth >= NEAREST))[..., None]
        where = torch.where(seen, projection.in_crop, 0.0)        # before use: a point in the camera's plane is not finite
        position = torch.where(seen, self.position_2d(where), 0.0)
        place = torch.stack([where[..., 0] * 2 * self.widening, where[..., 1] * 2], dim=-1)
        sampled = grid_sample(image_map, place[:, :, None], mode="bilinear", padding_mode="zeros", align_corners=False)[..., 0].transpose(1, 2)
        return position, self.feature(torch.where(seen, sampled, 0.0))
