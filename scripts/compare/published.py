# SPDX-License-Identifier: Apache-2.0
"""The published SAM 3D Body with our random weights, through its own loader and our adapter, on the CPU."""

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from body4d_engine.models.mhr import stand_in
from body4d_engine.models.official import silent
from body4d_engine.models.official import sam_3d_body as official
from body4d_engine.models.sam_3d_body import crops as crops_module
from body4d_engine.models.sam_3d_body import keys
from body4d_engine.models.sam_3d_body.inference import Sam3dBody

PACKAGE = "sam_3d_body"

@contextlib.contextmanager
def on_cpu(checkout: Path, model: Sam3dBody, dinov3: Path | None = None, package: str = PACKAGE) -> Iterator[None]:
    """Inside, the package of that checkout is the one that is imported, asks for the CPU where it asks for CUDA by name, and makes a small image encoder."""
    os.environ.setdefault("MOMENTUM_ENABLED", "0")        # any value at all makes the published head use the TorchScript file
    forget(package)
    with contextlib.ExitStack() as stack:
        for folder in (checkout, dinov3) if dinov3 else (checkout,):
            sys.path.insert(0, str(folder))
            stack.callback(sys.path.remove, str(folder))
        stack.callback(forget, package)
        stack.enter_context(replaced(torch.Tensor, "cuda", lambda self, *_, **__: self))
        with silent():
            from sam_3d_body import sam_3d_body_estimator
            from sam_3d_body.models.meta_arch import sam3d_body as meta
        for module in (sam_3d_body_estimator, meta):
            plain = module.recursive_to
            module.recursive_to = lambda x, target, plain=plain: plain(x, "cpu" if target == "cuda" else target)
        meta.create_backbone = lambda name, cfg: small_backbone(model, dinov3, name, cfg)
        yield


def forget(package: str) -> None:
    """SAM-Body4D brings a package of the same name."""
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]


def save(model: Sam3dBody, folder: Path, seed: int) -> None:
    """The weights as they are published: model.ckpt, model_config.yaml, assets/mhr_model.pt."""
    config = model.config
    decoder = {"TYPE": "sam", "DIM": config.dim, "DEPTH": config.layers, "HEADS": config.heads, "DIM_HEAD": config.head_dim, "MLP_DIM": config.hidden,
               "LAYER_SCALE_INIT": 0.0, "DROP_RATE": 0.0, "ATTN_DROP_RATE": 0.0, "DROP_PATH_RATE": 0.0, "FFN_TYPE": "origin", "ENABLE_TWOWAY": False,
               "REPEAT_PE": True, "FROZEN": False, "DO_INTERM_PREDS": True, "DO_KEYPOINT_TOKENS": True, "KEYPOINT_TOKEN_UPDATE": True,
               "DO_HAND_DETECT_TOKENS": True, "DO_KEYPOINT3D_TOKENS": True, "CONDITION_TYPE": "cliff", "USE_INTRIN_CENTER": True}
    options = {"MODEL": {"IMAGE_MEAN": [0.485, 0.456, 0.406], "IMAGE_STD": [0.229, 0.224, 0.225], "IMAGE_SIZE": [config.image_size] * 2,
                         "BACKBONE": {"TYPE": "dinov3_vith16plus" if config.backbone.kind == "dinov3" else "vit_hmr_512_384", "DROP_PATH_RATE": 0.0},
                         "PERSON_HEAD": {"POSE_TYPE": "mhr", "CAMERA_TYPE": "perspective"}, "DECODER": decoder,
                         "MHR_HEAD": {"MLP_DEPTH": 2, "MLP_CHANNEL_DIV_FACTOR": 1, "MHR_MODEL_PATH": ""},
                         "CAMERA_HEAD": {"MLP_DEPTH": 2, "MLP_CHANNEL_DIV_FACTOR": 1, "DEFAULT_SCALE_FACTOR_HAND": config.hand_camera_scale},
                         "PROMPT_ENCODER": {"ENABLE": True, "MAX_NUM_CLICKS": 2, "PROMPT_KEYPOINTS": "mhr70", "MASK_EMBED_TYPE": "v2", "MASK_PROMPT": "v1",
                                            "KEYPOINT_SAMPLER": {"TYPE": "v1", "KEYBODY_RATIO": 0.8, "WORST_RATIO": 0.8, "NEGATIVE_RATIO": 0.0,
                                                                 "DUMMY_RATIO": 0.1, "DISTANCE_THRESH": 0.0}}},
               "TRAIN": {"USE_FP16": False}}
    (folder / "assets").mkdir(parents=True, exist_ok=True)
    (folder / "model_config.yaml").write_text(json.dumps(options))        # JSON is YAML
    torch.save({"state_dict": keys.to_published(model.state_dict(), config)}, folder / "model.ckpt")
    stand_in.save_torchscript(folder / "assets" / "mhr_model.pt", config.vertices, seed=seed)


def load(folder: Path, model: Sam3dBody) -> official.Sam3dBody:
    """The adapter that `--models official` uses, on the CPU. Inside `on_cpu`."""
    with replaced(official, "on_cuda", lambda module, device: device), contextlib.redirect_stderr(io.StringIO()):
        return official.Sam3dBody.load(folder / "model.ckpt", folder / "assets" / "mhr_model.pt", model, "cpu")


def names_apart(theirs: official.Sam3dBody, folder: Path, without_backbone: bool) -> list[str]:
    """Tensors that only one of them knows: the published network, the checkpoint that our key map wrote."""
    known = {name for name in theirs.estimator.model.state_dict() if ".mhr." not in name}
    written = set(torch.load(folder / "model.ckpt", weights_only=True)["state_dict"])
    return sorted(name for name in known ^ written if not (without_backbone and name.startswith("backbone.")))


@contextlib.contextmanager
def our_crops() -> Iterator[None]:
    """Inside, the published code sees the pixels that ours sees: OpenCV's own differ by one level in a few of a hundred thousand."""
    from sam_3d_body.data.transforms import common

    with replaced(common.cv2, "warpAffine", _our_warp):
        yield


def _our_warp(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], flags: int = 0) -> np.ndarray:
    side = torch.tensor([size[0] / matrix[0, 0]])
    centre = torch.tensor([[(size[0] / 2 - matrix[axis, 2]) / matrix[0, 0] for axis in (0, 1)]])
    picture = torch.from_numpy(np.ascontiguousarray(image)).reshape(1, *image.shape[:2], -1)
    crop = crops_module.cut(picture, torch.zeros(1, dtype=torch.long), centre, side, size[0])[0].permute(1, 2, 0).numpy().astype(np.uint8)
    return crop if crop.shape[2] == 3 else crop[..., 0]


def small_backbone(model: Sam3dBody, dinov3: Path | None, name: str, cfg) -> nn.Module:
    config = model.config.backbone
    if config.kind == "vit":
        from sam_3d_body.models.backbones.vit import ViT
        from sam_3d_body.models.modules.transformer import LayerNorm32
        return ViT(img_size=(512, 384), patch_size=16, embed_dim=config.dim, depth=config.layers, num_heads=config.heads, ratio=1, norm_layer=LayerNorm32,
                   mlp_ratio=config.hidden / config.dim, qkv_bias=True)
    if dinov3 is not None:
        from dinov3.models.vision_transformer import DinoVisionTransformer
        from sam_3d_body.models.backbones.dinov3 import Dinov3Backbone
        small = DinoVisionTransformer(patch_size=16, pos_embed_rope_base=100, pos_embed_rope_normalize_coords="separate", pos_embed_rope_rescale_coords=2,
                                      pos_embed_rope_dtype="fp32", embed_dim=config.dim, depth=config.layers, num_heads=config.heads,
                                      ffn_ratio=config.hidden * 1.5 / config.dim, layerscale_init=1e-5, norm_layer="layernormbf16", ffn_layer="swiglu",
                                      n_storage_tokens=config.registers, mask_k_bias=True)
        with replaced(torch.hub, "load", lambda *_, **__: small):
            return Dinov3Backbone(name, cfg=cfg)
    return SharedBackbone(model)


class SharedBackbone(nn.Module):
    patch_size = 16

    def __init__(self, model: Sam3dBody):
        super().__init__()
        self.inner = [model]                              # in a list: not a part of the published model's names
        self.embed_dim = self.embed_dims = model.config.backbone.dim

    def forward(self, x: Tensor, extra_embed=None) -> Tensor:
        return self.inner[0].backbone(x).transpose(1, 2).unflatten(2, self.inner[0].config.grid)


@contextlib.contextmanager
def replaced(owner, name: str, value):
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
