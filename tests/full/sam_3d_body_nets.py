# SPDX-License-Identifier: Apache-2.0
"""Tiny random SAM 3D Body networks, with cameras in front of the bodies and hands that may be accepted, and frames for them."""

import dataclasses

import numpy as np
import torch

from body4d_engine.models.mhr import stand_in
from body4d_engine.models.sam_3d_body.config import CONFIGS, BackboneConfig, Config
from body4d_engine.models.sam_3d_body.crops import CropInput
from body4d_engine.models.sam_3d_body.inference import Sam3dBody

TINY = CONFIGS["tiny"]
TINY_VIT = dataclasses.replace(TINY, backbone=BackboneConfig("vit", dim=32, layers=2, heads=2, hidden=64), image_size=128, margin=16)


def straight() -> torch.Tensor:
    """(519,) all angles zero, as the network writes them: far from numbers so small that their angle is noise."""
    joint, angle = [1.0, 0, 0, 0, 1, 0], [0.0, 1]
    hand = [number for count in (3, 1, 1, 3, 1, 1, 3, 1, 1, 3, 1, 1, 2, 3, 1, 1) for number in (joint if count == 3 else angle * count)]
    return torch.tensor([*joint, *joint * 23, *angle * 58, *[0.0] * (6 + 45 + 28), *hand * 2, *[0.0] * 72])


def network(config: Config = TINY, seed: int = 0) -> Sam3dBody:
    torch.manual_seed(seed)
    model = Sam3dBody.build(config, stand_in.mhr(config.vertices))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        if parameter.dim() > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5)
        else:
            parameter.add_(0.1 * torch.randn_like(parameter))
    for branch in (model.body, model.hand):
        head = branch.pose_head
        branch.initial_pose.copy_(straight() + 0.3 * torch.randn(519))
        head.proj[2].weight.mul_(0.4)
        branch.initial_camera.copy_(torch.tensor([-0.9 if branch is model.body else -0.06, 0.0, 0.0]))
        branch.camera_head.proj[2].weight.mul_(0.1)
        head.scale_mean.normal_(std=0.05)
        head.scale_comps.normal_(std=0.1)
        head.scale_comps[8, 8], head.scale_comps[9, 9] = 0.2, 0.25
        head.hand_mean.normal_(std=0.3)
        head.left_hand.copy_(torch.arange(68, 95))
        head.right_hand.copy_(torch.arange(95, 122))
        for row in head.keypoint_mapping:
            row[torch.randint(config.vertices, (3,))] = 0.2
            row[config.vertices + torch.randint(127, (1,))] = 0.4
    model.hand.pose_head.not_hand.copy_(torch.cat([torch.arange(6, 101), torch.arange(128, 178)]))
    model.body.pose_head.joint_rotation.copy_(torch.linalg.qr(torch.randn(127, 3, 3))[0])
    return model.prepare()


def frame(width: int = 160, height: int = 120, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x * a + y * b + c) for a, b, c in random.uniform(0.02, 0.3, (3, 3))]
    return (127 + 60 * np.stack(waves, axis=-1) + random.normal(0, 20, (height, width, 3))).clip(0, 255).astype(np.uint8)


def camera(width: int = 160, height: int = 120, focal: float = 180.0, off: float = 0.0) -> np.ndarray:
    return np.array([[focal, 0, (width - 1) / 2 + off], [0, focal, (height - 1) / 2 - off], [0, 0, 1]])


def people() -> list[CropInput]:
    """Five crops of two frames, with masks and without, one cut by the border."""
    first, second = frame(seed=1), frame(seed=2)
    y, x = np.mgrid[:120, :160]
    disc = (x - 60) ** 2 + (y - 60) ** 2 < 900
    return [CropInput(first, np.array([20, 10, 70, 110]), camera(off=7), disc), CropInput(second, np.array([50, 20, 130, 100]), camera(focal=220)),
            CropInput(first, np.array([80, 5, 140, 118]), camera(off=7), ~disc), CropInput(second, np.array([-20, 30, 60, 130]), camera(focal=220), disc),
            CropInput(second, np.array([60, 40, 90, 90]), camera(focal=220))]
