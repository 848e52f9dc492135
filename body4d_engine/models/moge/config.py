# SPDX-License-Identifier: Apache-2.0
"""The make-up of the networks, as the dictionary `model_config` that a published checkpoint carries beside its weights."""

from dataclasses import dataclass

from ...errors import Body4DError

CHECKPOINT = "model.pt"
HUB_IDS = ("Ruicheng/moge-2-vitl", "Ruicheng/moge-2-vitl-normal")       # the same network here: the second has one head more, which is not read
PATCH = 14                         # pixels per side of an image token
TRAINED_GRID = 37                  # tokens per side for which DINOv2's positions were learned
LEVELS = 5                         # resolutions of the decoder, each twice the one before


@dataclass(frozen=True)
class Backbone:
    """`position_offset` is what DINOv2 adds to the number of tokens when it stretches its positions (see `model.Embeddings`)."""

    dim: int
    layers: int
    heads: int
    position_offset: float = 0.1


BACKBONES = {"dinov2_vits14": Backbone(384, 12, 6), "dinov2_vitb14": Backbone(768, 12, 12), "dinov2_vitl14": Backbone(1024, 24, 16),
             "tiny": Backbone(32, 4, 2)}


def _stack(dims: tuple[int, ...], inputs: list[int], blocks: list[int], out: int | None) -> dict:
    return {"dim_in": inputs, "dim_out": None if out is None else [None] * (LEVELS - 1) + [out], "dim_res_blocks": list(dims), "num_res_blocks": blocks,
            "res_block_in_norm": "none", "res_block_hidden_norm": "none", "resamplers": ["conv_transpose"] * 3 + ["bilinear"]}


def _config(backbone: str, layers: list[int], tail: tuple[int, ...] = (256, 128, 64, 32), blocks: int = 2, tokens: tuple[int, int] = (1200, 3600)) -> dict:
    dim = BACKBONES[backbone].dim
    dims = (dim, *tail)
    return {"encoder": {"backbone": backbone, "intermediate_layers": layers, "dim_out": dim},
            "neck": _stack(dims, [dim + 2] + [2] * (LEVELS - 1), [0, *[blocks] * 3, 0], None),
            "points_head": _stack(dims, list(dims), [0, 1, 1, 1, 0], 3), "mask_head": _stack(dims, list(dims), [0, 1, 1, 1, 0], 1),
            "remap_output": "exp", "num_tokens_range": list(tokens)}


# vitl as published. vitb after its pattern: a checkpoint's own dictionary decides when one is loaded. tiny is for tests.
CONFIGS = {"vitl": _config("dinov2_vitl14", [5, 11, 17, 23]), "vitb": _config("dinov2_vitb14", [2, 5, 8, 11]),
           "tiny": _config("tiny", [1, 3], (16, 8, 8, 4), 1, (12, 60))}


def checked(config: str | dict) -> dict:
    """A named or a published configuration. Raises Body4DError `checkpoint_keys` for what is no MoGe-2."""
    if isinstance(config, str):
        return CONFIGS[config]
    if isinstance(config.get("encoder"), str):
        raise other_checkpoint("is of the first MoGe, not of MoGe-2")
    missing = [name for name in ("encoder", "neck", "points_head", "mask_head") if not isinstance(config.get(name), dict)]
    if missing:
        raise other_checkpoint(f"has no {' and no '.join(missing)}")
    backbone = config["encoder"].get("backbone")
    if backbone not in BACKBONES:
        raise other_checkpoint(f"has the backbone {backbone!r}, where one of {', '.join(name for name in BACKBONES if name != 'tiny')} is known")
    return config


def other_checkpoint(what: str) -> Body4DError:
    return Body4DError(f"The MoGe-2 checkpoint {what}.", f"Use {CHECKPOINT} of {' or '.join(HUB_IDS)}, complete.", "checkpoint_keys")
