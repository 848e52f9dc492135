# SPDX-License-Identifier: Apache-2.0
"""The parts of SAM 3's tracker for several people at once, on the weights and layers of transformers' `Sam3TrackerVideoModel`, whose own loop takes one person
at a time. B is the number of people, g the image tokens per side, C the width of the network."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ABSENT = -1024.0                 # the logit of every pixel of somebody who is not seen
PREVIOUS_LIMIT = 32.0            # logits fed back are clamped to this


class View(NamedTuple):
    """One picture as the tracker sees it: `low` and its positions (g*g, 1, C), and two finer maps (1, C/8, 4g, 4g) and (1, C/4, 2g, 2g)."""

    low: Tensor
    positions: Tensor
    fine: Tensor
    middle: Tensor


class Segmented(NamedTuple):
    """`logits` (B, 4g, 4g) of the best mask, the network's own guess of its IoU (B), `pointer` (B, C), `score` (B): the logit of being visible."""

    logits: Tensor
    iou: Tensor
    pointer: Tensor
    score: Tensor


def view(tracker, neck, hidden: Tensor) -> View:
    """The tracker's maps from the shared backbone's tokens (1, g*g, D)."""
    grid = tracker.prompt_encoder.image_embedding_size
    fine, middle, low = pyramid(neck, hidden.view(1, *grid, -1).permute(0, 3, 1, 2), 3)
    return View(low.flatten(2).permute(2, 0, 1), places(neck, low).flatten(2).permute(2, 0, 1), tracker.mask_decoder.conv_s0(fine),
                tracker.mask_decoder.conv_s1(middle))


def pyramid(neck, tokens: Tensor, levels: int) -> list[Tensor]:
    """The finest `levels` maps of a neck from (1, D, g, g)."""
    return [layer(tokens) for layer in neck.fpn_layers[:levels]]


def places(neck, picture_map: Tensor) -> Tensor:
    """The positions of a map's pixels, like it in shape. Always in float32: the library counts them in the map's type, and bfloat16 has too few digits."""
    return neck.position_encoding(picture_map.shape, picture_map.device, torch.float32)


def without_memory(tracker, seen: View) -> Tensor:
    """The picture for a prompted frame (1, C, g, g): no memory is looked at."""
    return as_map(seen.low + tracker.no_memory_embedding)


def as_map(tokens: Tensor) -> Tensor:
    """(g*g, B, C) to (B, C, g, g)."""
    grid = round(len(tokens) ** 0.5)
    return tokens.permute(1, 2, 0).unflatten(2, (grid, grid))


def with_memory(tracker, seen: View, features: list[Tensor], steps: list[list[int]], pointers: Tensor, distances: list[list[int]], most: int) -> Tensor:
    """The picture in the light of the memories, (B, C, g, g).

    Per person the same number M of mask memories and P of pointers: `features` M x (B, g*g, 64), `steps` and `distances` B x M and B x P, `pointers` (B, P, C);
    `most`: the pointers that a clip of this length may look at, which scales their distances."""
    count, device = len(steps), seen.low.device
    spatial = memory_positions(tracker, seen)[None]
    index = torch.tensor(steps, device=device) - 1                 # 0, a prompted frame, takes the last row
    temporal = tracker.memory_temporal_positional_encoding[index].flatten(2)
    memory = torch.cat(features, 1).to(seen.low.dtype)
    memory_places = torch.cat([spatial + temporal[:, m, None] for m in range(temporal.shape[1])], 1)
    people, spoken, width = pointers.shape
    parts = width // memory.shape[2]
    if spoken:
        when = torch.tensor(distances, device=device, dtype=torch.float32) / max(1, most - 1)
        when = tracker.temporal_positional_encoding_projection_layer(_sine(when, width).to(pointers.dtype))
        memory = torch.cat((memory, pointers.reshape(people, spoken * parts, -1)), 1)
        memory_places = torch.cat((memory_places, when.repeat_interleave(parts, 1)), 1)
    seen_by_all = tracker.memory_attention(
        current_vision_features=seen.low.expand(-1, count, -1), current_vision_position_embeddings=seen.positions.expand(-1, count, -1),
        memory=memory.transpose(0, 1), memory_posision_embeddings=memory_places.transpose(0, 1), num_object_pointer_tokens=spoken * parts)
    return as_map(seen_by_all[0].transpose(0, 1))


def _sine(distance: Tensor, width: int) -> Tensor:
    """Distances (...) as sines and cosines (..., width) (Vaswani et al. 2017)."""
    half = width // 2
    rate = 10000.0 ** (2 * (torch.arange(half, device=distance.device, dtype=torch.float32) // 2) / half)
    angle = distance[..., None] / rate
    return torch.cat((angle.sin(), angle.cos()), -1)


def memory_positions(tracker, seen: View) -> Tensor:
    """The places of a mask memory's tokens (g*g, 64)."""
    grid = round(len(seen.low) ** 0.5)
    shape = torch.Size((1, tracker.mem_dim, grid, grid))
    return tracker.memory_encoder.position_encoding(shape, seen.low.device, torch.float32)[0].flatten(1).T


def segment(tracker, picture: Tensor, seen: View, points: Tensor | None = None, labels: Tensor | None = None, mask: Tensor | None = None,
            several: bool = True) -> Segmented:
    """The masks of B people in `picture` (B, C, g, g). `points` (B, P, 2) network pixels with `labels` (B, P): 1 on the person, 0 off, 2 and 3 a box's corners;
    `mask` (B, 1, 4g, 4g) logits. `several`: the network's three guesses, of which the one that it thinks best is taken."""
    count, device = len(picture), picture.device
    if points is None:
        points, labels = torch.zeros(count, 1, 2, device=device), -torch.ones(count, 1, dtype=torch.int32, device=device)
    sparse, dense = tracker.prompt_encoder(input_points=points[:, None], input_labels=labels[:, None], input_boxes=None, input_masks=mask)
    masks, ious, tokens, score = tracker.mask_decoder(
        image_embeddings=picture, image_positional_embeddings=tracker.get_image_wide_positional_embeddings().expand(count, -1, -1, -1),
        sparse_prompt_embeddings=sparse, dense_prompt_embeddings=dense, multimask_output=several,
        high_resolution_features=[seen.fine.expand(count, -1, -1, -1), seen.middle.expand(count, -1, -1, -1)])
    rows = torch.arange(count, device=device)
    masks, ious, tokens, score = masks[:, 0], ious[:, 0].float(), tokens[:, 0], score[:, 0, 0].float()
    best = ious.argmax(1)
    visible = (score > 0)[:, None]
    pointer = tracker.object_pointer_proj(tokens[rows, best]).float()
    return Segmented(torch.where(visible[..., None], masks[rows, best].float(), ABSENT), ious[rows, best],
                     torch.where(visible, pointer, tracker.no_object_pointer.float()), score)


def pointer_from_mask(tracker, seen: View, mask: Tensor) -> tuple[Tensor, Tensor]:
    """A person given by a mask (H, W) float in 0..1: its pointer (1, C), that of the network's single guess as published, and whether it shows anybody (1) bool.
    The picture is looked at without memory."""
    side = 4 * tracker.prompt_encoder.mask_input_size[0]
    mask = F.interpolate(mask[None, None], (side, side), mode="bilinear", align_corners=False, antialias=True)
    shown = (mask > 0).any()[None]
    pointer = segment(tracker, as_map(seen.low), seen, mask=tracker.mask_downsample(mask), several=False).pointer
    return torch.where(shown[:, None], pointer, tracker.no_object_pointer.float()), shown


def low_logits_from_mask(mask: Tensor, side: int) -> Tensor:
    """A mask (H, W) float as certain logits (side, side)."""
    certain = torch.where(mask > 0.5, -ABSENT, ABSENT)
    return F.interpolate(certain[None, None], (side, side), mode="bilinear", align_corners=False, antialias=True)[0, 0]


def at_picture_size(tracker, logits: Tensor) -> Tensor:
    """(B, 4g, 4g) to (B, image, image)."""
    return F.interpolate(logits[:, None], (tracker.image_size,) * 2, mode="bilinear", align_corners=False)[:, 0]


def encode_memory(tracker, seen: View, logits: Tensor, score: Tensor, prompted: bool) -> Tensor:
    """What is remembered of masks (B, image, image) on this picture: (B, g*g, 64) bfloat16, as published. A prompted mask counts as certain."""
    inside = (logits > 0).float() if prompted else logits.sigmoid()
    inside = inside * tracker.config.sigmoid_scale_for_mem_enc + tracker.config.sigmoid_bias_for_mem_enc
    # Resized last, as published. The library resizes the logits first, which is another mask along its edge.
    side = 4 * tracker.prompt_encoder.mask_input_size[0]
    inside = F.interpolate(inside[:, None], (side, side), mode="bilinear", align_corners=False, antialias=True)
    features, _ = tracker.memory_encoder(as_map(seen.low.expand(-1, len(logits), -1)), inside)
    absent = tracker.occlusion_spatial_embedding_parameter[0, :, None, None] * (score <= 0)[:, None, None, None]
    return (features + absent).flatten(2).transpose(1, 2).to(torch.bfloat16)
