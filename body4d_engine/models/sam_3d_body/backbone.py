# SPDX-License-Identifier: Apache-2.0
"""The image encoders of the two published networks, behind one interface: normalised crops in, image tokens out."""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from .config import PATCH, BackboneConfig, Config


class Dinov3(nn.Module):
    """DINOv3 (Siméoni et al. 2025) from transformers; class and register tokens are dropped."""

    def __init__(self, config: BackboneConfig):
        from transformers.models.dinov3_vit import DINOv3ViTConfig, DINOv3ViTModel
        super().__init__()
        self.prefix = 1 + config.registers
        self.model = DINOv3ViTModel(DINOv3ViTConfig(
            patch_size=PATCH, hidden_size=config.dim, intermediate_size=config.hidden, num_hidden_layers=config.layers, num_attention_heads=config.heads,
            hidden_act="silu", use_gated_mlp=True, num_register_tokens=config.registers, layer_norm_eps=1e-5, rope_theta=100.0, key_bias=False,
            attn_implementation="sdpa"))
        rotary = self.model.rope_embeddings
        rotary.register_buffer("inv_freq", rotary.inv_freq.clone())            # the checkpoint has its own, and they may be rounded

    def forward(self, crops: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, H/16 * W/16, dim)."""
        return self.model(crops).last_hidden_state[:, self.prefix:]


class VitBlock(nn.Module):
    def __init__(self, dim: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down(gelu(self.up(self.norm2(x))))


class Vit(nn.Module):
    """A plain ViT (Dosovitskiy et al. 2021; ViT-H/16 with ViTPose's two pixels of padding), one learned position per token."""

    PADDING = 2

    def __init__(self, config: BackboneConfig, tokens: int):
        super().__init__()
        self.patches = nn.Conv2d(3, config.dim, PATCH, stride=PATCH, padding=self.PADDING)
        self.positions = nn.Parameter(torch.zeros(1, tokens + 1, config.dim))
        self.blocks = nn.ModuleList(VitBlock(config.dim, config.heads, config.hidden) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, crops: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, H/16 * W/16, dim)."""
        x = self.patches(crops).flatten(2).transpose(1, 2)
        x = x + self.positions[:, 1:] + self.positions[:, :1]      # the first position is the class token's, which this network lacks
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def build_backbone(config: Config) -> nn.Module:
    rows, columns = config.grid
    return Dinov3(config.backbone) if config.backbone.kind == "dinov3" else Vit(config.backbone, rows * columns)
