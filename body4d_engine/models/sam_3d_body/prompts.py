# SPDX-License-Identifier: Apache-2.0
"""What conditions the decoders besides the pixels: points, masks and the rays of the camera."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate

from .config import KEYPOINTS, PATCH, Config
from .crops import View

DUMMY_POINT = -2                       # the label of "no point here"
_LABEL_OFFSET = 2                      # labels -2 (no point), -1 (wrong point), then the keypoints, are rows 0, 1, 2.. of the table


class FourierPositions(nn.Module):
    """Random Fourier features of points in the unit square (Tancik et al. 2020, as in SAM)."""

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("frequencies", torch.randn(2, dim // 2))

    def forward(self, points: Tensor) -> Tensor:
        """(..., 2) from 0 to 1 -> (..., dim)."""
        turns = 2 * math.pi * ((2 * points - 1) @ self.frequencies)
        return torch.cat([turns.sin(), turns.cos()], dim=-1)

    def of_image(self, config: Config) -> Tensor:
        """(1, tokens, dim): of the image tokens' centres, in the coordinates of the whole square crop."""
        rows, columns = config.grid
        cells, cut = config.image_size // PATCH, config.margin // PATCH
        centres = (torch.arange(cells, device=self.frequencies.device, dtype=torch.float32) + 0.5) / cells
        y, x = torch.meshgrid(centres, centres[cut:cut + columns], indexing="ij")
        return self(torch.stack([x, y], dim=-1)).reshape(1, rows * columns, -1)


class Prompts(nn.Module):
    """Encodes keypoint prompts and masks."""

    def __init__(self, config: Config):
        super().__init__()
        dim = config.backbone.dim
        self.config = config
        self.positions = FourierPositions(dim)
        self.labels = nn.Embedding(KEYPOINTS + _LABEL_OFFSET, dim)
        self.to_token = nn.Linear(dim, config.dim)
        self.no_mask = nn.Parameter(torch.zeros(dim))
        widths = (1, *config.mask_channels)
        self.mask_convs = nn.ModuleList(nn.Conv2d(a, b, kernel_size=2, stride=2) for a, b in zip(widths, widths[1:]))
        self.mask_norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for width in widths[1:])
        self.mask_out = nn.Conv2d(widths[-1], dim, kernel_size=1)

    def points(self, points: Tensor, labels: Tensor) -> Tensor:
        """(N, P, 2) from 0 to 1 in the crop, (N, P) int64 labels (a keypoint, or DUMMY_POINT) -> (N, P, decoder dim)."""
        where = torch.where((labels >= 0)[..., None], self.positions(points), 0.0)
        return self.to_token(where + self.labels(labels + _LABEL_OFFSET))

    def mask(self, masks: Tensor, has_mask: Tensor) -> Tensor:
        """(N, 1, S, S) of 0 and 1, (N,) bool -> (N, tokens, dim), to be added to the image tokens."""
        x = masks
        for conv, norm in zip(self.mask_convs, self.mask_norms):
            x = gelu(norm(conv(x).movedim(1, -1))).movedim(-1, 1)
        tokens = _without_margin(self.mask_out(x), self.config.margin // PATCH).flatten(2).transpose(1, 2)
        return torch.where(has_mask[:, None, None], tokens, self.no_mask)


class Rays(nn.Module):
    """Tells every image token which way the camera looks through it: Fourier features of its ray, mixed into its channels."""

    BANDS = 16
    FINEST = 32.0                      # half of the highest resolution, 64

    def __init__(self, config: Config):
        super().__init__()
        dim = config.backbone.dim
        self.mix = nn.Linear(dim + 3 * (2 * self.BANDS + 1), dim, bias=False)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.grid = config.grid
        self.register_buffer("bands", math.pi * torch.linspace(1.0, self.FINEST, self.BANDS), persistent=False)
        ramp = torch.arange(config.image_size, dtype=torch.float64)
        for name, part in (("rows", ramp), ("columns", ramp[config.margin:config.image_size - config.margin])):
            # The published network shrinks a map of rays with anti-aliasing. Rays are linear in the pixel, so shrinking the pixel's own coordinate is the same.
            small = interpolate(part[None, None, None].expand(1, 1, PATCH, -1), (1, len(part) // PATCH), mode="bilinear", antialias=True)
            self.register_buffer(name, small[0, 0, 0].float(), persistent=False)

    def forward(self, tokens: Tensor, view: View) -> Tensor:
        """(N, tokens, dim) -> the same shape."""
        half = view.size / 2
        x, y = (((pixels - half) / view.scale[:, None] + view.centre[:, axis, None] - view.K[:, axis, 2, None]) / view.K[:, axis, axis, None]
                for axis, pixels in ((0, self.columns), (1, self.rows)))
        count, (rows, columns) = len(tokens), self.grid
        x, y = x[:, None, :].expand(count, rows, columns), y[:, :, None].expand(count, rows, columns)
        rays = torch.stack([x, y, torch.ones_like(x)], dim=-1).flatten(1, 2)
        turns = (rays[..., None] * self.bands).flatten(2)
        return self.norm(self.mix(torch.cat([tokens, rays, turns.sin(), turns.cos()], dim=-1)))


def _without_margin(image: Tensor, margin: int) -> Tensor:
    return image[..., margin:image.shape[-1] - margin]


def normalise(crops: Tensor, mean: Tensor, std: Tensor, margin: int) -> Tensor:
    """(N, 3, S, S) from 0 to 255 -> what the backbones take, without the columns that they never see."""
    return (_without_margin(crops, margin) / 255.0 - mean) / std
