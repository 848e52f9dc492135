# SPDX-License-Identifier: Apache-2.0
"""A small random SAM 3D Body whose bodies differ as people do, and crops for it."""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from body4d_engine.models.mhr import stand_in
from body4d_engine.models.sam_3d_body import crops as crops_module
from body4d_engine.models.sam_3d_body.config import CONFIGS, BackboneConfig
from body4d_engine.models.sam_3d_body.crops import CropInput
from body4d_engine.models.sam_3d_body.inference import Sam3dBody
from body4d_engine.models.sam_3d_body.rotations import matrix_from_xyz

NETWORKS = {
    "dinov3": dataclasses.replace(CONFIGS["dinov3"], backbone=BackboneConfig("dinov3", dim=64, layers=2, heads=2, hidden=48), dim=64, layers=3,
                                  heads=2, head_dim=32, hidden=64),
    "vith": dataclasses.replace(CONFIGS["vith"], backbone=BackboneConfig("vit", dim=64, layers=2, heads=2, hidden=256), dim=64, layers=3, heads=2, head_dim=32,
                                hidden=64),
}
SEEDS = {"dinov3": 1, "vith": 4}              # with these some hands are used and some refused
GAIN = {"dinov3": 0.5, "vith": 0.5}           # of the last layer of the pose: bodies differ by some 10 cm


def random_network(name: str, seed: int) -> Sam3dBody:
    """Random weights with bodies that differ, cameras in front, and hands that are sometimes accepted."""
    torch.manual_seed(seed)
    config = NETWORKS[name]
    model = Sam3dBody.build(config, stand_in.mhr(seed=seed))
    for parameter in (*model.backbone.parameters(), *model.prompts.parameters(), *model.body.parameters(), *model.hand.parameters(), model.hand_tokens):
        if parameter.dim() > 1 or parameter is model.prompts.no_mask:
            parameter.data = torch.randn_like(parameter) * (parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.3)
        else:
            parameter.data += 0.1 * torch.randn_like(parameter)
    for branch in (model.body, model.hand):
        head, vertices = branch.pose_head, config.vertices
        branch.initial_pose.data = straight() + 0.3 * torch.randn_like(branch.initial_pose)
        branch.initial_camera.data = torch.tensor([[-0.9, 0.0, 0.1]]) if branch is model.body else torch.tensor([[-0.06, 0.0, 0.05]])
        branch.camera_head.proj[2].weight.data *= 0.15
        head.proj[2].weight.data *= GAIN[name]
        head.scale_mean.normal_(std=0.05)
        head.scale_comps.normal_(std=0.1)
        head.scale_comps[8, 8], head.scale_comps[9, 9] = 0.2, 0.25
        head.hand_mean.normal_(std=0.1)
        head.left_hand.copy_(torch.arange(68, 95))
        head.right_hand.copy_(torch.arange(95, 122))
        for row in head.keypoint_mapping:
            row[torch.randint(vertices, (6,))] = torch.rand(6) / 8
            row[vertices + torch.randint(127, (1,))] = 0.5
    body, hand = model.body.pose_head, model.hand.pose_head
    for table in ("scale_mean", "scale_comps", "hand_mean", "keypoint_mapping"):
        getattr(hand, table).copy_(getattr(body, table))
    hand.not_hand.copy_(torch.tensor([i for i in range(204) if i > 2 and not 6 + 95 <= i < 6 + 122 and not 136 + 40 <= i][:145]))
    hand.right_wrist.copy_(torch.tensor([0.2, 1.1, 0.05]))
    hand.root.copy_(torch.tensor([0.0, 0.9, 0.0]))
    hand.local_to_world_wrist.copy_(matrix_from_xyz(torch.tensor([0.4, -1.1, 0.7])))
    body.joint_rotation.copy_(matrix_from_xyz(torch.randn(127, 3)))
    return model.prepare()


def crops(centred: bool, image_size: int = 420) -> list[CropInput]:
    """Two frames of 520 x 420 with three people each, one cut by the border. `centred`: the principal point in the exact middle of the pixels."""
    random = np.random.default_rng(7)
    width, height = 520, image_size
    items = []
    for frame in range(2):
        y, x = np.mgrid[:height, :width]
        waves = [np.sin(x * random.uniform(0.01, 0.2) + y * random.uniform(0.01, 0.2) + random.uniform(0, 6)) for _ in range(9)]
        image = np.stack([127 + 40 * sum(waves[3 * c:3 * c + 3]) for c in range(3)], axis=-1) + random.normal(0, 6, (height, width, 3))
        image = image.clip(0, 255).astype(np.uint8)
        middle = ((width - 1) / 2, (height - 1) / 2) if centred else (width / 2 + 60 - 100 * frame, height / 2 - 35)
        focal = 500.0 + 120 * frame
        K = np.array([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1]])
        for box in ([40, 30, 190, 390], [230, 60, 420, 400], [400, 100, 540, 300]):
            box = np.array(box, dtype=np.float32) + random.uniform(-12, 12, 4).astype(np.float32)
            mask = ((x - box[[0, 2]].mean()) / (box[2] - box[0]) * 2) ** 2 + ((y - box[[1, 3]].mean()) / (box[3] - box[1]) * 2) ** 2 < 0.8
            items.append(CropInput(image, box, K, mask))
    return items


def straight() -> Tensor:
    """(519,) all angles zero, as the network writes them: far from numbers so small that their angle is noise."""
    joint, angle = [1.0, 0, 0, 0, 1, 0], [0.0, 1]
    hand = [number for count in (3, 1, 1, 3, 1, 1, 3, 1, 1, 3, 1, 1, 2, 3, 1, 1) for number in (joint if count == 3 else angle * count)]
    return torch.tensor([*joint, *joint * 23, *angle * 58, *[0.0] * (6 + 45 + 28), *hand * 2, *[0.0] * 72])


def settle_hands(model: Sam3dBody, items: list[CropInput]) -> None:
    """Puts the hands' boxes where the wrists are and the wrists' rest where the hands want it, for the first crop: then some hands are accepted, some not."""
    with torch.inference_mode():
        packed = crops_module.pack(items, "cpu")
        view = crops_module.View(packed.centre, packed.side, packed.K, model.config.image_size)
        masks = crops_module.cut(packed.masks, torch.arange(len(items)), packed.centre, packed.side, view.size)
        image = model.encode(crops_module.cut(packed.frames, packed.frame_of, packed.centre, packed.side, view.size), masks, packed.has_mask)
        first = model._body(image, view, "keypoints")
        wrists = first.projection.in_crop[0, [62, 41]] + 0.5
        # One layer makes both boxes: a separate place for each hand comes from the difference of their tokens.
        wanted = torch.cat([wrists.clamp(0.05, 0.95), torch.full((2, 2), 0.55)], dim=1)
        wanted = torch.log(wanted / (1 - wanted))
        hidden = model.hand_box[:4](first.hands[0])
        layer = model.hand_box[4]
        layer.weight.mul_(0.02)
        now = layer(hidden)
        step = hidden[0] - hidden[1]
        layer.weight.add_((((wanted - now)[0] - (wanted - now)[1])[:, None] * step[None]) / step.square().sum())
        layer.bias.add_((wanted - layer(hidden)).mean(dim=0))
        _, hands = model._hands(packed, first, view)
        lower = first.body.rotations[0, [76, 40]]
        before = model.fusion.wrists_before(first.pose)[0]
        model.body.pose_head.joint_rotation[[77, 41]] = lower.mT @ hands.rotation[0] @ before.mT
