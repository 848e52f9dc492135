# SPDX-License-Identifier: Apache-2.0
"""The published checkpoint's names for our network's tensors, both ways.

`from_published` takes the dictionary of `model.ckpt`, `to_published` makes one. What inference does not read is named here and dropped on the way in; on the
way out it is written as training starts it, so that the published code loads the result without a missing or an unknown name."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ...errors import Body4DError
from ..checkpoints import owned
from .config import KEYPOINTS, Config
from .heads import HAND

CHECKPOINT = "model.ckpt"
PUBLISHED_KEYPOINTS = 308
_BUFFERS = {"scale_mean": "scale_mean", "scale_comps": "scale_comps", "hand_mean": "hand_pose_mean", "hand_comps": "hand_pose_comps",
            "left_hand": "hand_joint_idxs_left", "right_hand": "hand_joint_idxs_right"}
_HAND_BUFFERS = {"right_wrist": "right_wrist_coords", "root": "root_coords", "local_to_world_wrist": "local_to_world_wrist", "not_hand": "nonhand_param_idxs"}
_LAYER = {"norm_position": "ln_pe_1", "norm_image_position": "ln_pe_2", "norm_self": "ln1", "norm_cross": "ln2_1", "norm_image": "ln2_2", "norm_mlp": "ln3",
          "mlp.0": "ffn.layers.0.0", "mlp.2": "ffn.layers.1"}
_ATTENTION = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "out": "proj"}
_FFN = {"0": "layers.0.0", "2": "layers.1"}

# Dropped on the way in: MHR, which has a file of its own; the other 238 keypoints; tables that only the other head reads; and what only training reads.
_IGNORED_PREFIXES = ("head_pose.mhr.", "head_pose_hand.mhr.", "hand_cls_embed.")
_NETWORK_PREFIXES = ("backbone.", "decoder.", "decoder_hand.")       # an unknown name here is a layer that would be left out
_IGNORED_SUFFIXES = (".hand_pose_comps_ori", ".attn.qkv.bias_mask", "num_batches_tracked")


def _with_bias(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in pairs for part in ("weight", "bias")}


def _branch(config: Config, ours: str, tail: str) -> dict[str, str]:
    """A decoder with all that it owns: tail is empty for the body and `_hand` for the hands."""
    names = {f"{ours}.initial_pose": f"init_pose{tail}.weight", f"{ours}.initial_camera": f"init_camera{tail}.weight",
             f"{ours}.tokens_2d": f"keypoint_embedding{tail}.weight", f"{ours}.tokens_3d": f"keypoint3d_embedding{tail}.weight"}
    pairs = [(f"{ours}.to_token", f"init_to_token_mhr{tail}"), (f"{ours}.previous_to_token", f"prev_to_token_mhr{tail}"),
             (f"{ours}.rays.norm", f"ray_cond_emb{tail}.norm"), (f"{ours}.feature", f"keypoint_feat_linear{tail}"),
             (f"{ours}.norm", f"decoder{tail}.norm_final")]
    pairs += [(f"{ours}.{a}.{i}", f"{b}{tail}.{j}") for a, b in (("position_2d", "keypoint_posemb_linear"), ("position_3d", "keypoint3d_posemb_linear"))
              for i, j in _FFN.items()]
    pairs += [(f"{ours}.{a}.proj.{i}", f"{b}{tail}.proj.{j}") for a, b in (("pose_head", "head_pose"), ("camera_head", "head_camera")) for i, j in _FFN.items()]
    for index in range(config.layers):
        mine, theirs = f"{ours}.layers.{index}", f"decoder{tail}.layers.{index}"
        pairs += [(f"{mine}.{a}", f"{theirs}.{b}") for a, b in _LAYER.items()]
        pairs += [(f"{mine}.{kind}_attention.{a}", f"{theirs}.{kind}_attn.{b}") for kind in ("self", "cross") for a, b in _ATTENTION.items()]
    names |= {f"{ours}.pose_head.{a}": f"head_pose{tail}.{b}" for a, b in (_BUFFERS | (_HAND_BUFFERS if tail else {})).items()}
    return names | _with_bias(pairs)


def _names(config: Config) -> dict[str, str]:
    """Our name -> theirs, for every tensor that is the same in both."""
    names = _branch(config, "body", "") | _branch(config, "hand", "_hand")
    names |= {"prompts.positions.frequencies": "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
              "hand_positions.frequencies": "hand_pe_layer.positional_encoding_gaussian_matrix", "hand_tokens": "hand_box_embedding.weight",
              "body.pose_head.joint_rotation": "head_pose.joint_rotation"}
    steps = len(config.mask_channels)
    pairs = [("prompts.to_token", "prompt_to_token"), ("prompts.mask_out", f"prompt_encoder.mask_downscaling.{3 * steps}")]
    pairs += [(f"prompts.mask_{ours}.{i}", f"prompt_encoder.mask_downscaling.{3 * i + offset}") for i in range(steps)
              for ours, offset in (("convs", 0), ("norms", 1))]
    pairs += [(f"hand_box.{2 * i}", f"bbox_embed.layers.{i}") for i in range(3)]
    if config.backbone.kind == "dinov3":
        names |= {f"backbone.model.embeddings.{a}": f"backbone.encoder.{b}" for a, b in (("cls_token", "cls_token"), ("register_tokens", "storage_tokens"))}
        pairs += [("backbone.model.embeddings.patch_embeddings", "backbone.encoder.patch_embed.proj"), ("backbone.model.norm", "backbone.encoder.norm")]
        for index in range(config.backbone.layers):
            mine, theirs = f"backbone.model.model.layer.{index}", f"backbone.encoder.blocks.{index}"
            names |= {f"{mine}.layer_scale{i}.lambda1": f"{theirs}.ls{i}.gamma" for i in (1, 2)}
            pairs += [(f"{mine}.{a}", f"{theirs}.{b}") for a, b in (
                ("norm1", "norm1"), ("norm2", "norm2"), ("attention.o_proj", "attn.proj"), ("mlp.gate_proj", "mlp.w1"), ("mlp.up_proj", "mlp.w2"),
                ("mlp.down_proj", "mlp.w3"))]
    else:
        names["backbone.positions"] = "backbone.pos_embed"
        pairs += [("backbone.patches", "backbone.patch_embed.proj"), ("backbone.norm", "backbone.last_norm")]
        pairs += [(f"backbone.blocks.{i}.{a}", f"backbone.blocks.{i}.{b}") for i in range(config.backbone.layers) for a, b in (
            ("norm1", "norm1"), ("norm2", "norm2"), ("qkv", "attn.qkv"), ("out", "attn.proj"), ("up", "mlp.fc1"), ("down", "mlp.fc2"))]
    return names | _with_bias(pairs)


def _attention_blocks(config: Config) -> list[tuple[str, str]]:
    """Of DINOv3: where queries, keys and values are three layers with us and one with them."""
    if config.backbone.kind != "dinov3":
        return []
    return [(f"backbone.model.model.layer.{i}.attention", f"backbone.encoder.blocks.{i}.attn.qkv") for i in range(config.backbone.layers)]


def _points() -> list[str]:
    return ["invalid_point_embed", "not_a_point_embed", *(f"point_embeddings.{i}" for i in range(KEYPOINTS))]


def from_published(published: dict[str, Tensor], config: Config) -> dict[str, Tensor]:
    """The published dictionary -> ours. Raises Body4DError `checkpoint_keys` that names what is missing, or shows a network of another depth."""
    return _from_published(published, config)[0]


def _from_published(published: dict[str, Tensor], config: Config) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Ours, and the names that were not expected."""
    published = dict(published)
    missing: list[str] = []

    def take(name: str) -> Tensor:
        if name not in published:
            missing.append(name)
            return torch.zeros(1)
        return published.pop(name)

    ours = {mine: take(theirs) for mine, theirs in _names(config).items()}
    for branch, tail in (("body", ""), ("hand", "_hand")):
        ours[f"{branch}.rays.mix.weight"] = take(f"ray_cond_emb{tail}.conv.weight").flatten(1)
        ours[f"{branch}.pose_head.keypoint_mapping"] = take(f"head_pose{tail}.keypoint_mapping")[:KEYPOINTS]
    ours["prompts.no_mask"] = take("prompt_encoder.no_mask_embed.weight").flatten()
    ours["prompts.labels.weight"] = torch.cat([take(f"prompt_encoder.{name}.weight").reshape(1, -1) for name in _points()]) if not missing else torch.zeros(1)
    for mine, theirs in _attention_blocks(config):
        weights = take(f"{theirs}.weight").chunk(3)
        biases = (take(f"{theirs}.bias") * published.get(f"{theirs}.bias_mask", 1)).chunk(3)
        if not missing:
            ours |= {f"{mine}.{part}_proj.weight": weight for part, weight in zip("qkv", weights)}
            ours |= {f"{mine}.q_proj.bias": biases[0], f"{mine}.v_proj.bias": biases[2]}       # the keys' part is masked out in the published network
    if config.backbone.kind == "dinov3":
        ours["backbone.model.rope_embeddings.inv_freq"] = 1 / take("backbone.encoder.rope_embed.periods").float()
        token = published.pop("backbone.encoder.mask_token", torch.zeros(1, config.backbone.dim))      # training's; not every checkpoint has kept it
        ours["backbone.model.embeddings.mask_token"] = token.reshape(1, 1, -1)
    if missing:
        raise _other_checkpoint(f"lacks {_some(missing)}")
    unused = _unused(ours, config)
    unknown = [name for name in published if name not in unused and not name.startswith(_IGNORED_PREFIXES) and not name.endswith(_IGNORED_SUFFIXES)]
    deeper = [name for name in unknown if name.startswith(_NETWORK_PREFIXES)]
    if deeper:
        raise _other_checkpoint(f"has {_some(deeper)}, which this network lacks")
    return ours, tuple(unknown)


def to_published(ours: dict[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Our dictionary -> the published one. Names of ours that belong to MHR are passed over."""
    published = {theirs: ours[mine] for mine, theirs in _names(config).items()}
    for branch, tail in (("body", ""), ("hand", "_hand")):
        published[f"ray_cond_emb{tail}.conv.weight"] = ours[f"{branch}.rays.mix.weight"][:, :, None, None]
        mapping = ours[f"{branch}.pose_head.keypoint_mapping"]
        published[f"head_pose{tail}.keypoint_mapping"] = torch.cat([mapping, mapping.new_zeros(PUBLISHED_KEYPOINTS - KEYPOINTS, mapping.shape[1])])
    published["prompt_encoder.no_mask_embed.weight"] = ours["prompts.no_mask"][None]
    published |= {f"prompt_encoder.{name}.weight": row[None] for name, row in zip(_points(), ours["prompts.labels.weight"])}
    for mine, theirs in _attention_blocks(config):
        published[f"{theirs}.weight"] = torch.cat([ours[f"{mine}.{part}_proj.weight"] for part in "qkv"])
        q, v = ours[f"{mine}.q_proj.bias"], ours[f"{mine}.v_proj.bias"]
        published[f"{theirs}.bias"] = torch.cat([q, torch.zeros_like(q), v])
        published[f"{theirs}.bias_mask"] = torch.cat([torch.ones_like(q), torch.zeros_like(q), torch.ones_like(v)])
    if config.backbone.kind == "dinov3":
        published["backbone.encoder.mask_token"] = ours["backbone.model.embeddings.mask_token"][0]
        published["backbone.encoder.rope_embed.periods"] = 1 / ours["backbone.model.rope_embeddings.inv_freq"]
    return published | _unused(ours, config)


def _unused(ours: dict[str, Tensor], config: Config) -> dict[str, Tensor]:
    """What the published dictionary also has and our network does not read, as training starts it."""
    rotations = ours["body.pose_head.joint_rotation"]
    names = {"hand_cls_embed.weight": torch.zeros(2, config.dim), "hand_cls_embed.bias": torch.zeros(2), "head_pose_hand.joint_rotation": rotations,
             "head_pose.right_wrist_coords": torch.zeros(3), "head_pose.root_coords": torch.zeros(3), "head_pose.local_to_world_wrist": torch.eye(3),
             "head_pose.nonhand_param_idxs": torch.zeros(145, dtype=torch.long)}
    for tail in ("", "_hand"):
        names |= {f"head_pose{tail}.hand_pose_comps_ori": torch.eye(HAND), f"head_pose{tail}.faces": torch.zeros(config.faces, 3, dtype=torch.long)}
    return names


def assign(model: nn.Module, published: dict[str, Tensor], device=None, backbone: torch.dtype = torch.float32, only: str = "") -> tuple[str, ...]:
    """Gives a network the tensors of a published dictionary, as copies on the device, and returns the names that it has no use for. backbone: the type of the
    encoder's weights; all else is float32. only: how names begin that are copied; the others stay as they are in the dictionary.

    Raises Body4DError `checkpoint_keys`."""
    ours, unread = _from_published(published, model.config)
    wanted = model.state_dict()
    wrong = [name for name, tensor in ours.items() if name in wanted and tensor.shape != wanted[name].shape]
    if wrong:
        raise _other_checkpoint(f"has another size in {_some(wrong)}")
    lowered = {f"backbone.{name}" for name, _ in model.backbone.named_parameters()}
    model.load_state_dict({name: owned(tensor, device, backbone if name in lowered else torch.float32) if name.startswith(only) else tensor
                           for name, tensor in ours.items()}, assign=True)
    return unread


def config_of(published: dict[str, Tensor], configs: Iterable[Config]) -> Config:
    """Which of the networks a published dictionary is of, by its backbone. Raises Body4DError `checkpoint_keys` for none of them."""
    shapes = {name: tuple(tensor.shape) for name, tensor in published.items()}
    for config in configs:
        theirs = "backbone.encoder.patch_embed.proj.weight" if config.backbone.kind == "dinov3" else "backbone.patch_embed.proj.weight"
        if shapes.get(theirs, ())[:1] == (config.backbone.dim,) and shapes.get("decoder.norm_final.weight") == (config.dim,):
            return config
    raise _other_checkpoint("is of none of the known networks")


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _other_checkpoint(what: str) -> Body4DError:
    return Body4DError(f"The SAM 3D Body checkpoint {what}.", "Use model.ckpt of facebook/sam-3d-body-dinov3 or facebook/sam-3d-body-vith, complete.",
                       "checkpoint_keys")
