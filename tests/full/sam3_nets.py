# SPDX-License-Identifier: Apache-2.0
"""A tiny SAM 3 whose random weights all matter, and pictures for it."""

import numpy as np
import torch

from body4d_engine.models.sam3.model import Sam3


def lively(seed: int = 0, config: str = "tiny", gain: float = 1.5) -> Sam3:
    """The library starts some weights at zero or nearly so (places in time, the memory's layers): here every weight changes the result. `gain`: of the variance
    from layer to layer; above 1 the last digits grow."""
    sam3 = Sam3.build(config, seed=seed)
    random = torch.Generator().manual_seed(seed)
    for name, tensor in sam3.net.named_parameters():
        noise = torch.randn(tensor.shape, generator=random)
        if "norm" in name and name.endswith("weight"):
            tensor.copy_(1 + 0.2 * noise)
        elif tensor.ndim < 2 or "embed" in name or "positional" in name or "token" in name or "pointer" in name and tensor.shape[0] == 1:
            tensor.copy_(0.3 * noise)
        else:
            fan_in = tensor[0].numel() if tensor.ndim > 1 else 1
            tensor.copy_(noise * (gain / fan_in) ** 0.5)
    return sam3


def pictures(count: int, height: int = 90, width: int = 160, seed: int = 0) -> list[np.ndarray]:
    """Two bright boxes that move over noise, (H, W, 3) uint8."""
    random = np.random.default_rng(seed)
    frames = []
    for t in range(count):
        picture = random.integers(0, 80, (height, width, 3))
        for k in range(2):
            x, y = 15 + 60 * k + 3 * t * (1 - 2 * k), 20 + 10 * k + t
            picture[y : y + 35, max(0, x) : max(0, x) + 25] = (200, 60 + 120 * k, 40)
        frames.append(picture.astype(np.uint8))
    return frames
