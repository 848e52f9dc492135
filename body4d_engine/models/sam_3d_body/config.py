# SPDX-License-Identifier: Apache-2.0
"""The sizes of the SAM 3D Body networks: the two published ones and a tiny one for tests."""

from dataclasses import dataclass

MHR_VERTICES = 18439
MHR_JOINTS = 127
KEYPOINTS = 70                     # MHR70: 0-20 body and feet, 21-41 right hand (41 the wrist), 42-62 left hand (62 the wrist), 63-69 elbows, shoulders, neck
PATCH = 16                         # pixels per side of an image token


@dataclass(frozen=True)
class BackboneConfig:
    """`dinov3`: transformers' DINOv3 ViT with registers and a gated MLP. `vit`: a plain ViT with one learned position per token."""

    kind: str
    dim: int
    layers: int
    heads: int
    hidden: int
    registers: int = 4


@dataclass(frozen=True)
class Config:
    """Sizes of one network. `margin`: columns of the square crop that the backbone never sees, on each side, in pixels."""

    backbone: BackboneConfig
    image_size: int = 512
    margin: int = 0
    dim: int = 1024
    layers: int = 6
    heads: int = 8
    head_dim: int = 64
    hidden: int = 1024
    mask_channels: tuple[int, ...] = (4, 16, 64, 256)
    hand_camera_scale: float = 10.0
    vertices: int = MHR_VERTICES
    faces: int = 36874

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of image tokens."""
        return self.image_size // PATCH, (self.image_size - 2 * self.margin) // PATCH


CONFIGS = {
    "dinov3": Config(BackboneConfig("dinov3", dim=1280, layers=32, heads=20, hidden=5120)),
    "vith": Config(BackboneConfig("vit", dim=1280, layers=32, heads=16, hidden=5120), margin=64),
    "tiny": Config(BackboneConfig("dinov3", dim=32, layers=2, heads=2, hidden=48), image_size=64, dim=32, layers=2, heads=2, head_dim=8, hidden=32,
                   mask_channels=(4, 4, 8, 8), vertices=200, faces=80),
}
