# SPDX-License-Identifier: Apache-2.0
"""Pictures into SAM 3 and its masks back out."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

OUTSHONE = -10.0                 # the logit of a pixel that another person claims


def to_network(rgb: np.ndarray, size: int, device: torch.device | str = "cpu") -> Tensor:
    """A picture (H, W, 3) uint8 RGB, squashed to (1, 3, size, size) in [-1, 1]: antialiased bilinear, rounded to whole levels as in the library's
    processor."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise ValueError(f"a picture is (H, W, 3) uint8, not {rgb.shape} {rgb.dtype}")
    picture = torch.from_numpy(np.array(rgb)).to(device)  # a copy: the frame may be read-only or a mirrored view
    picture = picture.permute(2, 0, 1)[None].float()
    picture = F.interpolate(picture, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return picture.round_().clamp_(0, 255).div_(127.5).sub_(1.0)


def resize_logits(logits: Tensor, height: int, width: int) -> Tensor:
    """(N, h, w) to (N, height, width), bilinear."""
    return F.interpolate(logits[:, None].float(), (height, width), mode="bilinear", align_corners=False)[:, 0]


def exclusive(logits: Tensor) -> Tensor:
    """(N, H, W) logits of N people with every pixel left to the one whose logit is highest there; the others get at most OUTSHONE."""
    if len(logits) < 2:
        return logits
    owner = logits.argmax(0, keepdim=True)
    people = torch.arange(len(logits), device=logits.device)[:, None, None]
    return torch.where(owner == people, logits, logits.clamp(max=OUTSHONE))


def clean(logits: Tensor, area: int) -> Tensor:
    """(N, h, w) logits with small faults removed: background patches of at most `area` pixels are filled, then foreground patches of at most `area` pixels are
    deleted, unless they are more than half of the mask. Patches are connected over edges and corners."""
    if area <= 0 or not len(logits):
        return logits
    logits = torch.where(_small_patches(logits <= 0, torch.full((len(logits),), area, device=logits.device), area), 0.1, logits)
    inside = logits > 0
    return torch.where(_small_patches(inside, (inside.sum((1, 2)) // 2).clamp(max=area), area), -0.1, logits)


def _small_patches(mask: Tensor, limits: Tensor, most: int) -> Tensor:
    """The pixels of (N, h, w) that belong to a connected patch of at most limits (N) pixels, which are at most `most`.

    Each pixel learns the highest number within `most` steps. A patch that small has then one number throughout, and no
    part of a larger one has a number of its own without touching another."""
    count, height, width = mask.shape
    # 24 bits count the pixels of any mask that the network makes, and a float32 holds them.
    numbers = torch.arange(1, height * width + 1, device=mask.device, dtype=torch.float32).view(1, height, width) * mask
    for _ in range(most):
        numbers = F.max_pool2d(numbers, 3, 1, 1) * mask
    lowest = -F.max_pool2d(torch.where(mask, -numbers, -torch.inf), 3, 1, 1)
    meets_another = mask & ((F.max_pool2d(numbers, 3, 1, 1) != numbers) | (lowest != numbers))
    labels = numbers.long().flatten(1)
    sizes = torch.zeros(count, height * width + 1, dtype=torch.long, device=mask.device).scatter_add_(1, labels, torch.ones_like(labels))
    open_ended = torch.zeros_like(sizes).scatter_add_(1, labels, meets_another.flatten(1).long())
    small = (sizes <= limits[:, None]) & (open_ended == 0)
    return small.gather(1, labels).view_as(mask) & mask
