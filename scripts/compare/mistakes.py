# SPDX-License-Identifier: Apache-2.0
"""Deliberate mistakes in our SAM 3D Body, each of which has to show."""

import contextlib
import dataclasses
import types
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from body4d_engine.models.sam_3d_body import crops as crops_module
from body4d_engine.models.sam_3d_body import inference as inference_module
from body4d_engine.models.sam_3d_body.crops import CropInput
from body4d_engine.models.sam_3d_body.inference import Sam3dBody
from body4d_engine.models.sam_3d_body.prompts import DUMMY_POINT

from .published import replaced


def mistakes(model: Sam3dBody, items: list[CropInput]) -> Iterator[tuple]:
    """name, mode, a context in which the mistake is made, the crops to run."""
    def changed(**what):
        return [dataclasses.replace(item, **{name: make(item) for name, make in what.items()}) for item in items]

    def weights(layer: nn.Module):
        return replaced(layer, "weight", nn.Parameter(layer.weight * 1.05))

    none = contextlib.nullcontext()
    body, fusion, hands = model.body, model.fusion, model.hand
    bare = types.MethodType(lambda self, tokens, view: self.norm(self.mix(torch.nn.functional.pad(tokens, (0, 99)))), body.rays)
    cut = crops_module.cut
    yield "rays off", "body", replaced(body.rays, "forward", bare), items
    yield "mask off", "body", none, changed(mask=lambda item: None)
    yield "principal point ignored", "body", none, changed(K=centre_camera)
    middle = torch.tensor(items[0].image.shape[1::-1]) / 2
    yield "CLIFF centre", "body", replaced(body, "_condition", lambda view: torch.cat([view.centre - middle, view.side[:, None]], 1) / view.K[:, 0, :1]), items
    yield "box a pixel off", "body", none, changed(box=lambda item: item.box + np.float32(1))
    yield "box padding 1.2", "body", replaced(crops_module, "BODY_PADDING", 1.2), items
    yield "BGR", "body", none, bgr(items)
    yield "mask 0/255", "body", replaced(inference_module, "cut", lambda images, *rest: cut(images, *rest) * (255 if images.shape[-1] == 1 else 1)), items
    yield "weights of decoder layer 2 up 5 %", "body", weights(body.layers[1].mlp[0]), items
    yield "weights of encoder layer 1 up 5 %", "body", weights(next(m for n, m in model.backbone.named_modules() if n.endswith(("gate_proj", "up")))), items
    yield "keypoint tokens not updated", "body", replaced(body, "_look", lambda _, image: (torch.zeros(len(image), *body.tokens_2d.shape), 0.0)), items
    yield "left hand not mirrored", "full", replaced(inference_module, "cut", lambda *given: cut(*given[:5])), items
    nothing = torch.zeros(len(items), 4, 2), torch.full((len(items), 4), DUMMY_POINT)
    yield "wrist prompts dropped", "full", replaced(fusion, "prompts", lambda *_: nothing), items
    yield "hand camera scale 1", "full", replaced(hands.camera_head, "scale", 1.0), items
    yield "left and right hands exchanged", "full", replaced(fusion, "mirror", fusion.mirror.flip(0)), items


def centre_camera(item: CropInput) -> np.ndarray:
    K = item.K.copy()
    K[:2, 2] = item.image.shape[1] / 2, item.image.shape[0] / 2
    return K


def bgr(items: list[CropInput]) -> list[CropInput]:
    swapped = {id(item.image): np.ascontiguousarray(item.image[..., ::-1]) for item in items}
    return [dataclasses.replace(item, image=swapped[id(item.image)]) for item in items]
