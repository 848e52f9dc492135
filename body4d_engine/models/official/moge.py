# SPDX-License-Identifier: Apache-2.0
"""The published MoGe-2 (microsoft/MoGe) behind the interface of `models.moge.model.MoGe`, as far as the engine uses it.

As published, it takes the most tokens that it was trained for, computes in float16 on a GPU, and takes the focal length for 1 (half the picture's diagonal)
where nothing has a depth; that is told as NaN here, as ours does."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..moge.focal import LEAST_POINTS, sample_rows
from ..moge.keys import CHECKPOINT
from . import published, running


class MoGe:
    """network: a published `MoGeModel` (moge.model.v2)."""

    def __init__(self, network):
        self.network = network

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> "MoGe":
        """From a `model.pt` or the folder that holds one. Raises Body4DError: those of `official.published`, `official_failed`."""
        path, model = Path(path), published("moge.model.v2", "MoGeModel")
        with running("moge"):
            return cls(model.from_pretrained(path / CHECKPOINT if path.is_dir() else path).to(device).eval())

    @property
    def device(self) -> torch.device:
        """The one it computes on: any that torch has."""
        return next(self.network.parameters()).device

    def focal(self, rgb: Tensor | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `models.moge.model.MoGe.focal`: rgb (B, H, W, 3) uint8 -> focal lengths in pixels (B,), shares of the picture with a depth (B,)."""
        found = [self._one(torch.as_tensor(np.array(frame))) for frame in rgb]
        return np.array([focal for focal, _ in found], np.float64), np.array([share for _, share in found], np.float64)

    def _one(self, frame: Tensor) -> tuple[float, float]:
        with running("moge"):
            said = self.network.infer(frame.to(self.device).permute(2, 0, 1).float() / 255, use_fp16=self.device.type == "cuda")
            seen, focal = said["mask"].bool().cpu(), said["intrinsics"][1, 1].item() * frame.shape[0]
        rows, columns = (torch.from_numpy(sample_rows(count)) for count in frame.shape[:2])
        seen = seen[rows][:, columns]  # the samples that the published solve looks at
        return focal if seen.sum() >= LEAST_POINTS else math.nan, seen.double().mean().item()
