# SPDX-License-Identifier: Apache-2.0
"""The published checkpoint's names for our network's tensors, both ways, and the reading of `model.pt`.

MoGe-2 has one published layout, {"model_config": ..., "model": tensors}, on the hub and in a SAM-Body4D weight folder alike."""

import re
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoints import read_pickled
from .config import CHECKPOINT, other_checkpoint

# Ours -> theirs, applied one after the other.
_RENAMED = tuple((re.compile(pattern), theirs) for pattern, theirs in (
    (r"^backbone\.encoder\.layer\.", "encoder.backbone.blocks."),
    (r"^backbone\.embeddings\.patch_embeddings\.projection\.", "encoder.backbone.patch_embed.proj."),
    (r"^backbone\.embeddings\.position_embeddings$", "encoder.backbone.pos_embed"),
    (r"^backbone\.embeddings\.cls_token$", "encoder.backbone.cls_token"),
    (r"^backbone\.layernorm\.", "encoder.backbone.norm."),
    (r"\.attention\.[qkv]_proj\.", ".attn.qkv."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"^projections\.", "encoder.output_projections."),
    (r"^(mean|std)$", r"encoder.image_\1"),
    (r"^(points|mask)\.", r"\1_head."),
    (r"^(neck|points_head|mask_head)\.(input|output)s\.", r"\1.\2_blocks."),
    (r"^(neck|points_head|mask_head)\.doublers\.", r"\1.resamplers."),
    (r"^(neck|points_head|mask_head)\.blocks\.(\d+\.\d+)\.norm1\.", r"\1.res_blocks.\2.layers.0."),
    (r"^(neck|points_head|mask_head)\.blocks\.(\d+\.\d+)\.conv1\.", r"\1.res_blocks.\2.layers.2."),
    (r"^(neck|points_head|mask_head)\.blocks\.(\d+\.\d+)\.norm2\.", r"\1.res_blocks.\2.layers.3."),
    (r"^(neck|points_head|mask_head)\.blocks\.(\d+\.\d+)\.conv2\.", r"\1.res_blocks.\2.layers.5."),
))
_PART = re.compile(r"\.attention\.([qkv])_proj\.")          # three layers with us, one with them
_IGNORED = ("normal_head.", "scale_head.", "encoder.backbone.mask_token")      # heads that a focal length does not need; what only training reads


def published_name(ours: str) -> str:
    for pattern, theirs in _RENAMED:
        ours = pattern.sub(theirs, ours)
    return ours


def from_published(published: dict[str, Tensor], shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """The published dictionary -> ours, of which `shapes` says what there is.

    Raises Body4DError `checkpoint_keys` that names what is missing, unknown or of another size."""
    theirs = {name: published_name(name) for name in shapes}
    missing = sorted(set(theirs.values()) - set(published))
    if missing:
        raise other_checkpoint(f"lacks {_some(missing)}")
    unknown = [name for name in published if name not in set(theirs.values()) and not name.startswith(_IGNORED)]
    if unknown:
        raise other_checkpoint(f"has {_some(unknown)}, which this network lacks")
    ours = {}
    for name, source in theirs.items():
        part, tensor = _PART.search(name), published[source]
        ours[name] = tensor.tensor_split(3)["qkv".index(part[1])] if part else tensor
    wrong = [theirs[name] for name, tensor in ours.items() if tensor.shape != shapes[name]]
    if wrong:
        raise other_checkpoint(f"has another size in {_some(wrong)}")
    return ours


def to_published(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our dictionary -> the published one, without the tensors that this network does not have."""
    parts: dict[str, list[Tensor]] = {}
    for name in sorted(ours):                               # q before k before v is not the alphabet's order
        if not _PART.search(name):
            parts[published_name(name)] = [ours[name]]
        elif _PART.search(name)[1] == "q":
            parts[published_name(name)] = [ours[_PART.sub(f".attention.{part}_proj.", name)] for part in "qkv"]
    return {name: torch.cat(tensors) if len(tensors) > 1 else tensors[0] for name, tensors in parts.items()}


def read_checkpoint(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """`model_config` and the tensors of a `model.pt` or of the folder that holds it; mapped from the file, nothing in it is executed.

    Raises Body4DError: `checkpoint_missing`, `checkpoint_unreadable` (broken, cut off, or more than tensors), `checkpoint_keys` (of another model)."""
    content = read_pickled(path / CHECKPOINT if path.is_dir() else path)
    config, tensors = (content.get(name) for name in ("model_config", "model"))
    if not isinstance(config, dict) or not isinstance(tensors, dict):
        raise other_checkpoint("holds no pair of model_config and model")
    return config, tensors


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
