# SPDX-License-Identifier: Apache-2.0
"""SAM 3 (Carion et al. 2025) with one set of weights and one vision backbone for two uses: finding everyone on a picture by a word, and following people that
were shown to it. The layers are those of transformers; loading, sharing, batching and memory are ours."""

from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..checkpoints import owned, without_weights
from . import network
from .checkpoint import read_folder
from .config import CONFIGS, Config, library_config
from .keys import check
from .pictures import resize_logits, to_network
from .text import WORDS, tokens

TEXT_ENCODER = "detector_model.text_encoder."
DETECTED = 0.5                   # the published threshold of a detection's score
SAME = 0.1                       # two detections whose masks overlap more than this (IoU) are one person


class Detections(NamedTuple):
    """People found on a picture, the surest first: `boxes` (N, 4) x0, y0, x1, y1 in pixels of that picture, `scores` (N) in 0..1, `masks` (N, H, W) bool."""

    boxes: np.ndarray
    scores: np.ndarray
    masks: np.ndarray


class Seen:
    """One picture after the vision backbone. Detector and tracker take it in place of the picture, and neither runs the backbone again."""

    def __init__(self, sam3: "Sam3", hidden: Tensor, height: int, width: int):
        self._sam3, self.hidden, self.height, self.width = sam3, hidden, height, width

    @cached_property
    def view(self) -> network.View:
        """The picture as the tracker sees it."""
        with self._sam3.computing():
            return network.view(self._sam3.tracker, self._sam3.net.tracker_neck, self.hidden)


class Sam3:
    """The network. `Sam3.build` makes one with random weights, `Sam3.load` one with the published ones.

    `dtype` float32 computes as it is stored; bfloat16 keeps float32 weights and computes under autocast, as the published code does."""

    def __init__(self, net, config: Config, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32):
        self.net, self.config, self.dtype = net.eval().requires_grad_(False).to(device), config, dtype
        self._words: dict[str, tuple] = {}

    @classmethod
    def build(cls, config: str = "full", device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0) -> "Sam3":
        """`full` or `tiny`, with random weights."""
        from transformers import Sam3VideoModel

        device = torch.device(device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device:
            torch.manual_seed(seed)
            net = Sam3VideoModel(library_config(CONFIGS[config]))
        # One table of random waves, kept twice.
        net.tracker_model.shared_image_embedding.positional_embedding.copy_(net.tracker_model.prompt_encoder.shared_embedding.positional_embedding)
        return cls(net, CONFIGS[config], device, dtype)

    @classmethod
    def load(cls, folder: Path | str, config: str = "full", device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32,
             lean: bool = False) -> "Sam3":
        """The weights in a folder: `model.safetensors` (or its parts with an index) as the hub has it, else `sam3.pt` as first published.

        Tensors go from the file to the device one by one. lean: without the text encoder, see `drop_text_encoder`, whose weights are then never copied.

        Raises Body4DError: `checkpoint_missing`, `checkpoint_unreadable`, `checkpoint_mismatch` (another model's, a missing or unknown name, another size)."""
        from transformers import Sam3VideoModel

        with without_weights():
            net = Sam3VideoModel(library_config(CONFIGS[config]))
        weights = read_folder(Path(folder), net.state_dict())
        check(weights, net.state_dict(), folder)
        net.load_state_dict({name: tensor.float() if lean and name.startswith(TEXT_ENCODER) else owned(tensor, device) for name, tensor in weights.items()},
                            assign=True)
        sam3 = cls(net, CONFIGS[config], device, dtype)
        if lean:
            sam3.drop_text_encoder()
        return sam3

    @property
    def device(self) -> torch.device:
        return self.net.tracker_neck.fpn_layers[0].proj1.weight.device

    @property
    def tracker(self):
        """The library's tracker, without a vision backbone of its own."""
        return self.net.tracker_model

    @contextmanager
    def computing(self):
        """Inference, in the type that this network computes in."""
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            yield

    def see(self, rgb: "np.ndarray | Seen") -> Seen:
        """A picture (H, W, 3) uint8 RGB through the vision backbone; what has been through it already is returned as it is."""
        if isinstance(rgb, Seen):
            return rgb
        with self.computing():
            hidden = self.net.detector_model.vision_encoder.backbone(to_network(rgb, self.config.image, self.device)).last_hidden_state
        return Seen(self, hidden, *rgb.shape[:2])

    def detect(self, rgb: "np.ndarray | Seen", text: str = "person", threshold: float = DETECTED) -> Detections:
        """Everybody on a picture whose score is above the threshold. A score is that of the outline times that of such a thing being in the picture at all.

        Raises Body4DError `text_unknown`."""
        word, seen = self._word(text), self.see(rgb)
        with self.computing():
            out = self._look_for(seen, *word)
            scores = (out.pred_logits.sigmoid() * out.presence_logits.sigmoid())[0].float()
            order = scores.argsort(descending=True, stable=True)
            order = order[scores[order] > threshold]
            logits = out.pred_masks[0, order].float()
            first = _without_repeats(logits > 0)
            order, logits = order[first], logits[first]
            scale = torch.tensor([seen.width, seen.height] * 2, device=self.device)
            boxes = out.pred_boxes[0, order].float().clamp(0, 1) * scale
            # One at a time: a crowd's logits at the size of a 4K picture would need gigabytes.
            masks = [(resize_logits(one[None], seen.height, seen.width)[0] > 0).cpu().numpy() for one in logits]
        return Detections(boxes.cpu().numpy(), scores[order].cpu().numpy(), np.array(masks, bool).reshape(-1, seen.height, seen.width))

    def drop_text_encoder(self) -> None:
        """Encode all words that can be asked for, and free the encoder, which has two fifths of the weights."""
        for text in WORDS:
            self._word(text)
        self.net.detector_model.text_encoder = None

    def _look_for(self, seen: Seen, words: Tensor, mask: Tensor):
        """The detector's raw answer to words (1, L, C) with a mask (1, L)."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling
        from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

        detector = self.net.detector_model
        maps = network.pyramid(detector.vision_encoder.neck, seen.hidden.view(1, self.config.grid, self.config.grid, -1).permute(0, 3, 1, 2), 3)
        where = [network.places(detector.vision_encoder.neck, m) for m in maps]
        words = torch.cat((words, _no_drawing(detector.geometry_encoder, maps[2], where[2])), 1)
        # The library drops the last, coarsest map unread.
        vision = Sam3VisionEncoderOutput(last_hidden_state=seen.hidden, fpn_hidden_states=(*maps, None), fpn_position_encoding=(*where, None))
        return detector(vision_embeds=vision, text_embeds=BaseModelOutputWithPooling(pooler_output=words), attention_mask=F.pad(mask, (0, 1), value=1))

    def _word(self, text: str):
        """The text encoder's answer, computed once per word."""
        if text not in self._words:
            numbers, mask = (torch.tensor([row], device=self.device) for row in tokens(text))
            with self.computing():
                self._words[text] = self.net.detector_model.get_text_features(input_ids=numbers, attention_mask=mask).pooler_output, mask
        return self._words[text]


def _no_drawing(encoder, picture_map: Tensor, where: Tensor) -> Tensor:
    """What the detector is told when nobody drew a box: (1, 1, C). The published code tells it so on every picture; the library leaves it out."""
    told = encoder.prompt_layer_norm(encoder.final_proj(encoder.cls_embed.weight[None]))
    for layer in encoder.layers:
        told = layer(prompt_feats=told, vision_feats=picture_map.flatten(2).transpose(1, 2), vision_pos_encoding=where.flatten(2).transpose(1, 2),
                     prompt_mask=None)
    return encoder.output_layer_norm(told)


def _without_repeats(masks: Tensor) -> list[int]:
    """Of masks (N, h, w) bool, the surest first: those that overlap no kept one by more than SAME (IoU)."""
    flat = masks.flatten(1).float()
    both = flat @ flat.T
    area = flat.sum(1)
    iou = (both / (area[:, None] + area[None] - both).clamp(min=1)).tolist()
    kept: list[int] = []
    for i in range(len(masks)):
        if all(iou[i][k] <= SAME for k in kept):
            kept.append(i)
    return kept
