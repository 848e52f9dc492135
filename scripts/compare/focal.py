# SPDX-License-Identifier: Apache-2.0
"""MoGe-2's focal length: the two choices of `--models` on one random checkpoint and the same pictures."""

import contextlib
import copy
import functools
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from body4d_engine.models.moge import config
from body4d_engine.models.moge.model import MoGe
from body4d_engine.models.official import moge as official

from .published import replaced

TOLERANCE = 1e-4                                          # relative
VIEW = 55.0                                               # degrees across that the random network's points span, more or less
SIZES = ((120, 90), (90, 160), (300, 170))


def compare(checkout: Path) -> dict:
    sys.path.insert(0, str(checkout))
    try:
        with tempfile.TemporaryDirectory() as folder:
            _save(Path(folder) / "model.pt")
            ours, theirs = MoGe.load(folder), official.MoGe.load(folder)
    finally:
        sys.path.remove(str(checkout))
    report: dict = {"network": "MoGe-2", "pictures": [], "mistakes": {}, "faults": []}
    clips = [_pictures(*size) for size in SIZES]
    for pictures in clips:
        for mine, his, *shares in zip(ours.focal(pictures)[0], theirs.focal(pictures)[0], ours.focal(pictures)[1], theirs.focal(pictures)[1]):
            report["pictures"].append({"size": pictures.shape[2:0:-1], "ours_px": mine, "published_px": his, "shares": shares})
            if not abs(mine / his - 1) <= TOLERANCE:
                report["faults"].append(f"focal lengths {mine:.3f} and {his:.3f} px")
    for name, mistake, change in _mistakes(ours):
        with mistake:
            moved = max(float(np.abs(ours.focal(change(pictures))[0] / before - 1).max()) for pictures, before in zip(clips, _said(report, clips)))
        report["mistakes"][name] = moved
        if not moved > 10 * TOLERANCE:
            report["faults"].append(f"the mistake {name!r} moves the focal length by {moved:.2e} only")
    return report


def show(report: dict) -> None:
    print(f"\n{report['network']}: focal lengths by --models ours and --models official (tolerance {TOLERANCE:g})")
    for found in report["pictures"]:
        print("  {} x {}: {:.4f} and {:.4f} px, {:.1e} apart; with a depth {:.4f} and {:.4f} of the picture".format(
            *found["size"], found["ours_px"], found["published_px"], abs(found["ours_px"] / found["published_px"] - 1), *found["shares"]))
    for name, moved in report["mistakes"].items():
        print(f"    mistake {name:34s} {moved:9.2e}  {moved / TOLERANCE:8.0f} times the tolerance")


def _said(report: dict, clips: list[np.ndarray]) -> list[np.ndarray]:
    values = iter(found["ours_px"] for found in report["pictures"])
    return [np.array([next(values) for _ in pictures]) for pictures in clips]


def _mistakes(ours: MoGe):
    none, same = contextlib.nullcontext(), lambda pictures: pictures  # noqa: E731
    yield "BGR", none, lambda pictures: np.ascontiguousarray(pictures[..., ::-1])
    yield "upside down", none, lambda pictures: np.ascontiguousarray(pictures[:, ::-1])
    layer = ours.projections[0]
    yield "weights after the encoder up 5 %", replaced(layer, "weight", nn.Parameter(layer.weight * 1.05)), same
    yield "the fewest tokens", replaced(ours, "token_range", (ours.token_range[0],) * 2), same
    yield "positions off by part of a token", replaced(ours.backbone.embeddings, "position_offset", 0.9), same


def _pictures(width: int, height: int) -> np.ndarray:
    random = np.random.default_rng(width)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x * a + y * b + c) for a, b, c in random.uniform(0.02, 0.3, (6, 3))]
    made = [127 + 60 * np.stack(waves[first:first + 3], -1) + random.normal(0, 10, (height, width, 3)) for first in (0, 3)]
    return np.stack(made).clip(0, 255).astype(np.uint8)


def _save(file: Path) -> None:
    """A published network with random weights whose points lie more or less where they are seen: only such have a focal length."""
    import moge.model.dinov2.hub.backbones as hub
    from moge.model.dinov2.layers import MemEffAttention, NestedTensorBlock
    from moge.model.dinov2.models.vision_transformer import DinoVisionTransformer
    from moge.model.v2 import MoGeModel

    size = config.BACKBONES["tiny"]
    hub.tiny = lambda pretrained=False: DinoVisionTransformer(
        img_size=config.PATCH * config.TRAINED_GRID, patch_size=config.PATCH, embed_dim=size.dim, depth=size.layers, num_heads=size.heads, init_values=1.0,
        block_chunks=0, block_fn=functools.partial(NestedTensorBlock, attn_class=MemEffAttention))
    options = copy.deepcopy(config.CONFIGS["tiny"])
    options |= {"normal_head": dict(options["points_head"]), "scale_head": {"dims": [size.dim, size.dim, 1]}}
    torch.manual_seed(0)
    model = MoGeModel(**copy.deepcopy(options)).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "gamma" in name or ".norm" in name and name.endswith("weight"):
            parameter.copy_(1 + 0.1 * torch.randn_like(parameter))
        else:
            wide = 0.05 if name.endswith("bias") else 0.2 if "pos_embed" in name or "cls" in name else parameter[0].numel() ** -0.5
            parameter.copy_(wide * torch.randn_like(parameter))
    slope = math.tan(math.radians(VIEW / 2))
    for stack in (model.neck, model.points_head):
        last = stack.resamplers[-1][-1]
        last.weight[:2], last.bias[:2] = 0, 0
    entry, inner, out = model.neck.input_blocks[-1], model.points_head.input_blocks[-1], model.points_head.output_blocks[-1]
    entry.weight[:2, :, 0, 0], entry.bias[:2] = torch.eye(2), 0
    inner.weight[:2], inner.bias[:2] = 0, 0
    inner.weight[0, 0], inner.weight[1, 1] = 1, 1
    out.weight.mul_(0.1)
    out.weight[:2] *= 0.1
    out.weight[:2, :2, 0, 0] = slope * torch.eye(2) + 0.02 * torch.randn(2, 2)
    out.bias[:2], out.bias[2] = 0, 0.7
    torch.save({"model_config": options, "model": model.state_dict()}, file)
