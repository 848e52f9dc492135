# SPDX-License-Identifier: Apache-2.0
"""MoGe-2 (Wang et al. 2025, MoGe-2: Accurate Monocular Geometry with Metric Scale and Sharp Details): its point map and mask, for the focal length.

DINOv2 from transformers, a decoder over five resolutions and one head each for points and mask. Metric scale and normals are not built."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers.models.dinov2.configuration_dinov2 import Dinov2Config
from transformers.models.dinov2.modeling_dinov2 import Dinov2Backbone, Dinov2Embeddings

from ...errors import Body4DError
from ..checkpoints import naming, owned
from .config import BACKBONES, LEVELS, PATCH, TRAINED_GRID, checked, other_checkpoint
from .focal import focal_px, sample_rows, view_plane
from .keys import from_published, read_checkpoint

_NORMS = {"none": lambda dim: nn.Identity(), "layer_norm": lambda dim: nn.GroupNorm(1, dim), "group_norm": lambda dim: nn.GroupNorm(dim // 32, dim),
          "instance_norm": nn.InstanceNorm2d}
_ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": lambda: nn.LeakyReLU(0.2), "silu": nn.SiLU, "elu": nn.ELU}
_REMAPS = {"linear": lambda xy, z: (xy, z), "sinh": lambda xy, z: (xy.sinh(), z.sinh()), "exp": lambda xy, z: (xy * z.exp(), z.exp()),
           "sinh_exp": lambda xy, z: (xy.sinh(), z.exp())}


def _smooth(dim_in: int, dim_out: int) -> nn.Conv2d:
    return nn.Conv2d(dim_in, dim_out, 3, padding=1, padding_mode="replicate")


def _doubler(kind: str, dim_in: int, dim_out: int) -> nn.Sequential:
    """To twice the resolution."""
    if kind == "conv_transpose":
        return nn.Sequential(nn.ConvTranspose2d(dim_in, dim_out, 2, stride=2), _smooth(dim_out, dim_out))
    if kind == "pixel_shuffle":
        return nn.Sequential(_smooth(dim_in, 4 * dim_out), nn.PixelShuffle(2), _smooth(dim_out, dim_out))
    if kind in ("bilinear", "nearest"):
        return nn.Sequential(nn.Upsample(scale_factor=2, mode=kind), _smooth(dim_in, dim_out))
    raise ValueError(f"resampler {kind!r}")


class Block(nn.Module):
    """A residual pair of convolutions."""

    def __init__(self, dim: int, hidden: int, norm_in: str, norm_hidden: str, activation: str):
        super().__init__()
        self.norm1, self.conv1 = _NORMS[norm_in](dim), _smooth(dim, hidden)
        self.norm2, self.conv2 = _NORMS[norm_hidden](hidden), _smooth(hidden, dim)
        self.activation = _ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(self.activation(self.norm1(x)))
        return x + self.conv2(self.activation(self.norm2(hidden)))


class Stack(nn.Module):
    """A decoder from coarse to fine that takes a map in and gives a map out at every resolution. Its arguments are named as in `model_config`."""

    def __init__(self, dim_in, dim_res_blocks, dim_out, resamplers, dim_times_res_block_hidden=1, num_res_blocks=1, res_block_in_norm="layer_norm",
                 res_block_hidden_norm="group_norm", activation="relu"):
        super().__init__()
        dims, count = dim_res_blocks, len(dim_res_blocks)

        def each(value) -> list:
            return list(value) if isinstance(value, list | tuple) else [value] * count

        self.inputs = nn.ModuleList(nn.Identity() if a is None else nn.Conv2d(a, b, 1) for a, b in zip(each(dim_in), dims))
        self.blocks = nn.ModuleList(
            nn.Sequential(*(Block(dim, dim_times_res_block_hidden * dim, res_block_in_norm, res_block_hidden_norm, activation) for _ in range(repeats)))
            for dim, repeats in zip(dims, each(num_res_blocks)))
        self.doublers = nn.ModuleList(_doubler(kind, a, b) for kind, a, b in zip(each(resamplers), dims, dims[1:]))
        self.outputs = nn.ModuleList(nn.Identity() if b is None else nn.Conv2d(a, b, 1) for a, b in zip(dims, each(dim_out)))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        out, x = [], 0
        for level, given in enumerate(maps):
            x = self.blocks[level](x + self.inputs[level](given))
            out.append(self.outputs[level](x))
            if level < len(self.doublers):
                x = self.doublers[level](x)
        return out


class Embeddings(Dinov2Embeddings):
    """DINOv2's own rule for grids other than the trained one, which transformers leaves out: positions are stretched by a scale of
    (tokens + 0.1) / 37, not to a size. MoGe-2 was trained so; the difference is a tenth of a token at the far edge."""

    position_offset: float

    def interpolate_pos_encoding(self, embeddings: Tensor, height: int, width: int) -> Tensor:
        rows, columns = height // PATCH, width // PATCH
        if rows == columns == TRAINED_GRID:
            return self.position_embeddings
        grid = self.position_embeddings[:, 1:].float().unflatten(1, (TRAINED_GRID, TRAINED_GRID)).permute(0, 3, 1, 2)
        scale = tuple((count + self.position_offset) / TRAINED_GRID for count in (rows, columns))
        grid = interpolate(grid, scale_factor=scale, mode="bicubic").flatten(2).transpose(1, 2)
        return torch.cat([self.position_embeddings[:, :1].float(), grid], 1).to(embeddings.dtype)


class Dinov2(Dinov2Backbone):
    """Normalised pictures in, normalised image tokens of chosen layers out."""

    def __init__(self, name: str, layers: list[int]):
        size = BACKBONES[name]
        super().__init__(Dinov2Config(hidden_size=size.dim, num_hidden_layers=size.layers, num_attention_heads=size.heads, mlp_ratio=4, patch_size=PATCH,
                                      image_size=PATCH * TRAINED_GRID, layer_norm_eps=1e-6, use_mask_token=False, reshape_hidden_states=False,
                                      out_indices=[layer + 1 for layer in sorted(layers)]))
        self.embeddings = Embeddings(self.config)
        self.embeddings.position_offset = size.position_offset
        self.post_init()


class MoGe(nn.Module):
    """`backbone_dtype`: what the backbone computes in, under autocast; None for float16 on a CUDA device, as published, and float32 elsewhere.
    The decoder and all that follows are float32."""

    def __init__(self, config: dict, backbone_dtype: torch.dtype | None = None):
        super().__init__()
        self.config, self.backbone_dtype = config, backbone_dtype
        encoder = config["encoder"]
        count, layers = BACKBONES[encoder["backbone"]].layers, encoder["intermediate_layers"]
        layers = list(range(count - layers, count)) if isinstance(layers, int) else layers
        self.backbone = Dinov2(encoder["backbone"], layers)
        self.projections = nn.ModuleList(nn.Conv2d(BACKBONES[encoder["backbone"]].dim, encoder["dim_out"], 1) for _ in layers)
        self.neck, self.points, self.mask = Stack(**config["neck"]), Stack(**config["points_head"]), Stack(**config["mask_head"])
        self.remap = _REMAPS[config.get("remap_output", "linear")]
        self.token_range = tuple(config.get("num_tokens_range", (1200, 3600)))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    @classmethod
    def build(cls, config: str | dict = "vitl", backbone_dtype: torch.dtype | None = None) -> "MoGe":
        """A network with random weights: `vitl`, `vitb`, `tiny` or a published `model_config`. Raises Body4DError `checkpoint_keys`."""
        try:
            return cls(checked(config), backbone_dtype)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise other_checkpoint(f"describes a network that is not known ({type(error).__name__}: {error})") from error

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu", backbone_dtype: torch.dtype | None = None) -> "MoGe":
        """The published network in `path`, a `model.pt` or the folder that holds one.

        Raises Body4DError: `checkpoint_missing`, `checkpoint_unreadable`, `checkpoint_keys` (of another model, or not all there)."""
        with naming(Path(path)):
            config, published = read_checkpoint(Path(path))
            with torch.device("meta"):                      # no memory: every tensor comes from the file
                model = cls.build(config, backbone_dtype)
            ours = from_published(published, {name: tensor.shape for name, tensor in model.state_dict().items()})
        # Copied, straight to the device: the file may be replaced while the network lives.
        model.load_state_dict({name: owned(tensor, device) for name, tensor in ours.items()}, assign=True)
        return model.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        return self.mean.device

    def grid(self, width: int, height: int, tokens: int | None = None) -> tuple[int, int]:
        """Rows and columns of image tokens for a picture: about `tokens` (the most that it was trained for, 3600, if None), as near square as they can be.

        Raises Body4DError `tokens` outside the trained range."""
        tokens, (least, most) = self.token_range[1] if tokens is None else tokens, self.token_range
        if not least <= tokens <= most:
            raise Body4DError(f"MoGe-2 was trained for {least} to {most} tokens, not for {tokens}.", "Choose a number between them.", "tokens")
        return max(1, round((tokens * height / width) ** 0.5)), max(1, round((tokens * width / height) ** 0.5))

    @torch.no_grad()
    def forward(self, rgb: Tensor | np.ndarray, tokens: int | None = None) -> tuple[Tensor, Tensor]:
        """rgb (B, H, W, 3) uint8 -> points (B, H, W, 3) and mask (B, H, W), float32 on the network's device.

        Points are in the camera's axes (x right, y down, z forward), up to a scale and a shift along z (`focal_and_shift` finds the shift). mask: how likely
        the pixel has a depth, 0..1; not the sky. One map per picture, whatever else is in the batch. Raises Body4DError `frames`, `tokens`."""
        rgb = rgb if isinstance(rgb, Tensor) else torch.from_numpy(np.array(rgb))        # a copy: the frame may be read-only or a mirrored view
        if rgb.ndim != 4 or rgb.shape[-1] != 3 or rgb.dtype != torch.uint8 or not rgb.numel():
            raise Body4DError(f"MoGe-2 takes RGB frames of eight bits, (B, H, W, 3); given: {tuple(rgb.shape)} {rgb.dtype}.", "", "frames")
        height, width = rgb.shape[1:3]
        rows, columns = self.grid(width, height, tokens)
        # Made small where it lies: less to carry to the device.
        small = interpolate(rgb.permute(0, 3, 1, 2).float() / 255, (rows * PATCH, columns * PATCH), mode="bilinear", antialias=True).to(self.mean.device)
        maps = self.neck(self._encoded((small - self.mean) / self.std, rows, columns, width / height))
        points, mask = (interpolate(head(maps)[-1], (height, width), mode="bilinear") for head in (self.points, self.mask))
        points = points.permute(0, 2, 3, 1)
        return torch.cat(self.remap(points[..., :2], points[..., 2:]), -1), mask[:, 0].sigmoid()

    def _encoded(self, pictures: Tensor, rows: int, columns: int, aspect: float) -> list[Tensor]:
        """What enters the decoder at each resolution: image features at the coarsest, and at all of them where on the view plane a cell lies."""
        dtype = self.backbone_dtype or (torch.float16 if pictures.is_cuda else torch.float32)
        with torch.autocast(pictures.device.type, dtype) if dtype != torch.float32 else nullcontext():
            layers = self.backbone(pictures).feature_maps
        cells = [tokens[:, 1:].float().transpose(1, 2).unflatten(2, (rows, columns)) for tokens in layers]
        features = sum(project(cell) for project, cell in zip(self.projections, cells))
        planes = [torch.from_numpy(view_plane(columns << level, rows << level, aspect).astype(np.float32)).permute(2, 0, 1) for level in range(LEVELS)]
        planes = [plane.to(pictures.device).expand(len(pictures), -1, -1, -1) for plane in planes]
        return [torch.cat([features, planes[0]], 1), *planes[1:]]

    def focal(self, rgb: Tensor | np.ndarray, tokens: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """rgb (B, H, W, 3) uint8 -> focal lengths in pixels (B,), the same across and down, with the principal point in the picture's centre; and the
        share (B,) of the picture, 0..1, that has a depth. NaN where no focal length can be told (fewer than two of 64 x 64 samples have a depth).

        Frame by frame: memory does not grow with B. Raises Body4DError as `forward` does."""
        focals, shares = [], []
        for frame in rgb:
            height, width = frame.shape[:2]
            points, mask = self(frame[None], tokens)
            rows, columns = (torch.from_numpy(sample_rows(count)).to(points.device) for count in (height, width))
            points, mask = (found[0, rows][:, columns].cpu().numpy() for found in (points, mask))
            valid = (mask > 0.5) & np.isfinite(points).all(-1)
            focals.append(focal_px(points, valid, width, height))
            shares.append(valid.mean())
        return np.array(focals, np.float64), np.array(shares, np.float64)
