# SPDX-License-Identifier: Apache-2.0
"""The names of SAM 3's weights in `sam3.pt`, as first published, and in `model.safetensors`, as the hub and transformers have them. Both ways."""

import re
from collections.abc import Iterable

import torch
from torch import Tensor

from ...errors import Body4DError

_VIT, _TEXT, _SEG = "backbone.vision_backbone.trunk.", "backbone.language_backbone.encoder.", "segmentation_head."

# The hub's beginning of a name and the published one's; the first that fits counts, then the endings within that part.
_PARTS = [
    (r"detector_model\.vision_encoder\.backbone\.", "detector." + _VIT, [
        (r"embeddings\.position_embeddings", "pos_embed"), (r"embeddings\.patch_embeddings\.projection", "patch_embed.proj"), (r"^layer_norm", "ln_pre"),
        (r"^layers", "blocks"), (r"layer_norm", "norm"), (r"attention\.([qkv])_proj\.(\w+)", r"attn.qkv.\2#\1"), (r"attention\.o_proj", "attn.proj")]),
    (r"detector_model\.vision_encoder\.neck\.fpn_layers\.", "detector.backbone.vision_backbone.convs.", "neck"),
    (r"tracker_neck\.fpn_layers\.", "detector.backbone.vision_backbone.sam2_convs.", "neck"),
    (r"detector_model\.text_encoder\.text_model\.", "detector." + _TEXT, [
        (r"embeddings\.token_embedding", "token_embedding"), (r"embeddings\.position_embedding\.weight", "positional_embedding"),
        (r"final_layer_norm", "ln_final"), (r"encoder\.layers", "transformer.resblocks"), (r"self_attn\.([qkv])_proj\.(\w+)", r"attn.in_proj_\2#\1"),
        (r"self_attn\.out_proj", "attn.out_proj"), (r"layer_norm", "ln_"), (r"mlp\.fc1", "mlp.c_fc"), (r"mlp\.fc2", "mlp.c_proj")]),
    (r"detector_model\.text_encoder\.text_projection\.weight", "detector." + _TEXT + "text_projection", []),
    (r"detector_model\.text_projection\.", "detector.backbone.language_backbone.resizer.", []),
    (r"detector_model\.geometry_encoder\.", "detector.geometry_encoder.", [
        (r"^layers\.", "encode."), (r"cross_attn\.", "cross_attn_image."), (r"vision_layer_norm", "img_pre_norm"), (r"prompt_layer_norm", "norm"),
        (r"output_layer_norm", "encode_norm"), (r"layer_norm", "norm"), "attention", "mlp"]),
    (r"detector_model\.detr_encoder\.", "detector.transformer.encoder.", [(r"cross_attn\.", "cross_attn_image."), (r"layer_norm", "norm"), "attention", "mlp"]),
    (r"detector_model\.detr_decoder\.", "detector.transformer.decoder.", [
        (r"text_cross_attn_layer_norm", "catext_norm"), (r"vision_cross_attn_layer_norm", "norm1"), (r"self_attn_layer_norm", "norm2"),
        (r"mlp_layer_norm", "norm3"), (r"text_cross_attn\.", "ca_text."), (r"vision_cross_attn\.", "cross_attn."), (r"output_layer_norm", "norm"),
        (r"presence_layer_norm", "presence_token_out_norm"), (r"presence_head", "presence_token_head"), (r"box_head", "bbox_embed"),
        (r"box_rpb_embed_(\w)", r"boxRPB_embed_\1"), "attention", "mlp", "counted"]),
    (r"detector_model\.mask_decoder\.", "detector." + _SEG, [
        (r"mask_embedder", "mask_predictor.mask_embed"), (r"instance_projection", "instance_seg_head"), (r"semantic_projection", "semantic_seg_head"),
        (r"prompt_cross_attn_norm", "cross_attn_norm"), (r"prompt_cross_attn\.", "cross_attend_prompt."), "attention"]),
    (r"detector_model\.dot_product_scoring\.", "detector.dot_prod_scoring.", [
        (r"text_mlp_out_norm", "prompt_mlp.out_norm"), (r"text_mlp", "prompt_mlp"), (r"text_proj", "prompt_proj"), (r"query_proj", "hs_proj"), "counted"]),
    (r"tracker_model\.prompt_encoder\.", "tracker.sam_prompt_encoder.", [
        (r"shared_embedding\.positional_embedding", "pe_layer.positional_encoding_gaussian_matrix"), (r"mask_embed\.conv1", "mask_downscaling.0"),
        (r"mask_embed\.layer_norm1", "mask_downscaling.1"), (r"mask_embed\.conv2", "mask_downscaling.3"), (r"mask_embed\.layer_norm2", "mask_downscaling.4"),
        (r"mask_embed\.conv3", "mask_downscaling.6"), (r"^point_embed\.weight", "point_embeddings#rows")]),
    (r"tracker_model\.shared_image_embedding\.positional_embedding", "tracker.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", []),
    (r"tracker_model\.mask_decoder\.", "tracker.sam_mask_decoder.", [
        (r"upscale_conv1", "output_upscaling.0"), (r"upscale_layer_norm", "output_upscaling.1"), (r"upscale_conv2", "output_upscaling.3"),
        (r"mlp\.proj_in", "mlp.lin1"), (r"mlp\.proj_out", "mlp.lin2"), (r"layer_norm", "norm"), (r"o_proj", "out_proj"), "ends"]),
    (r"tracker_model\.memory_attention\.", "tracker.transformer.encoder.", [(r"layer_norm", "norm"), (r"o_proj", "out_proj")]),
    (r"tracker_model\.memory_encoder\.", "tracker.maskmem_backbone.", [
        (r"mask_downsampler\.final_conv", "mask_downsampler.encoder.12"), (r"feature_projection", "pix_feat_proj"), (r"memory_fuser", "fuser"),
        (r"scale$", "gamma"), (r"depthwise_conv", "dwconv"), (r"pointwise_conv", "pwconv"), (r"^projection", "out_proj"), "downsampler",
        (r"layer_norm", "norm")]),
    (r"tracker_model\.object_pointer_proj\.", "tracker.obj_ptr_proj.", ["ends"]),
    (r"tracker_model\.", "tracker.", [
        (r"temporal_positional_encoding_projection_layer", "obj_ptr_tpos_proj"), (r"no_memory_embedding", "no_mem_embed"),
        (r"no_memory_positional_encoding", "no_mem_pos_enc"), (r"memory_temporal_positional_encoding", "maskmem_tpos_enc"),
        (r"no_object_pointer", "no_obj_ptr"), (r"occlusion_spatial_embedding_parameter", "no_obj_embed_spatial")]),
]
_SHARED = {
    "attention": [(r"attn(\w*)\.([qkv])_proj\.(\w+)$", r"attn\1.in_proj_\3#\2"), (r"(ca_text|cross_attend_prompt)\.([qkv])_proj\.(\w+)$", r"\1.in_proj_\3#\2"),
                  (r"\.o_proj\.", ".out_proj.")],
    "mlp": [(r"mlp\.fc(\d)", r"linear\1")],
    "counted": [(r"\.layer1\.", ".layers.0."), (r"\.layer2\.", ".layers.1."), (r"\.layer3\.", ".layers.2.")],
    "ends": [(r"(^|\.)layers\.0\.(weight|bias)$", r"\1layers.1.\2"), (r"proj_in\.", "layers.0."), (r"proj_out\.", "layers.2.")],
    "downsampler": [(rf"mask_downsampler\.layers\.{i}\.{what}", f"mask_downsampler.encoder.{3 * i + j}") for i in range(4)
                    for j, what in enumerate(("conv", "layer_norm"))],
    "neck": [(r"^0\.scale_layers\.0", "0.dconv_2x2_0"), (r"^0\.scale_layers\.2", "0.dconv_2x2_1"), (r"^1\.scale_layers\.0", "1.dconv_2x2"),
             (r"proj1", "conv_1x1"), (r"proj2", "conv_3x3")],
}
# Dropped on the way in. Tables that are computed, and what only points drawn for the detector would read.
COMPUTED = re.compile(r"freqs_cis|rope_embeddings|position_ids|inv_freq|attn_mask|coord_cache|position_encoding\.")
UNREAD = re.compile(r"detector\.geometry_encoder\.points_|detector\.transformer\.decoder\.instance_")
_POSITIONS, _PROJECTION = "detector." + _VIT + "pos_embed", "detector." + _TEXT + "text_projection"


def published_name(name: str) -> tuple[str, str]:
    """The published name of a hub name, and which part of that tensor it is: "" all of it, q, k or v a third, "rows" one of four small ones per row."""
    for start, other, rules in _PARTS:
        found = re.match(start, name)
        if found:
            rest = name[found.end():]
            for rule in [rules] if isinstance(rules, str) else rules:
                for pattern, becomes in _SHARED[rule] if isinstance(rule, str) else [rule]:
                    rest = re.sub(pattern, becomes, rest)
            whole, _, part = (other + rest).partition("#")
            return whole, part
    raise KeyError(name)


def from_published(published: dict[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """The hub's tensors of these names from published ones; what is missing is left out. Unknown published names are kept as they are, for `check` to name."""
    weights, used = {}, set()
    for name in names:
        whole, part = published_name(name)
        pieces = [f"{whole}.{i}.weight" for i in range(4)] if part == "rows" else [whole]
        if any(piece not in published for piece in pieces):
            continue
        used.update(pieces)
        tensor = torch.cat([published[piece] for piece in pieces]) if part == "rows" else published[whole]
        if whole == _POSITIONS:
            tensor = tensor[:, 1:]                    # the class token's, which this backbone has no use for
        if whole == _PROJECTION:
            tensor = tensor.T
        weights[name] = tensor.chunk(3)["qkv".index(part)] if part in ("q", "k", "v") else tensor
    return weights | {name: tensor for name, tensor in published.items() if name not in used and not COMPUTED.search(name) and not UNREAD.match(name)}


def to_published(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a network under their published names. The class token's position, which the network has not, is written as zeros."""
    published: dict[str, Tensor] = {}
    thirds: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights.items():
        whole, part = published_name(name)
        if part == "rows":
            published |= {f"{whole}.{i}.weight": row[None] for i, row in enumerate(tensor)}
        elif part:
            thirds.setdefault(whole, {})[part] = tensor
        elif whole == _POSITIONS:
            published[whole] = torch.cat((torch.zeros_like(tensor[:, :1]), tensor), 1)
        else:
            published[whole] = tensor.T if whole == _PROJECTION else tensor
    return published | {whole: torch.cat([parts[p] for p in "qkv"]) for whole, parts in thirds.items()}


def check(weights: dict[str, Tensor], wanted: dict[str, Tensor], where) -> None:
    """Raises Body4DError `checkpoint_mismatch` unless the names and sizes are those that the network has."""
    missing, unknown = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    sizes = [f"{n} is {list(weights[n].shape)} and not {list(wanted[n].shape)}" for n in wanted if n in weights and weights[n].shape != wanted[n].shape]
    kinds = (missing, "missing names"), (unknown, "unknown names"), (sizes, "other sizes")
    faults = [f"{len(found)} {kind}, such as {found[0]}" for found, kind in kinds if found]
    if faults:
        raise Body4DError(f"{where} does not hold the weights of SAM 3: {'; '.join(faults)}.", "Other versions (SAM 2, SAM 3.1) do not fit. `body4d setup "
                          "full` says which files are needed and downloads them again if they are incomplete.", "checkpoint_mismatch")
