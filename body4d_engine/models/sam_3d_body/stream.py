# SPDX-License-Identifier: Apache-2.0
"""Crops of many frames, one frame after another, through the network in batches that are always full: nothing is padded to the frame with the most people.

A frame is uploaded once, however its people fall into batches. While the device works on one batch the next one is put together and uploaded, and the last one
is copied back: nothing waits for the device but the reading of results, and that with the next batch already queued."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ...memory import Batches
from .crops import CropInput, Packed, pack
from .figure import Figure
from .inference import Sam3dBody
from .transfers import Download, Transfers

# What a person's record is made of, and the network's name for it.
_KEPT = {"translation": "pred_cam_t", "params": "mhr_model_params", "shape": "shape_params", "scale": "scale_params", "hands": "hand_pose_params"}


class Stream:
    """size: crops in a batch; halved, for good, where there is not enough memory. mode: see `Sam3dBody.infer`."""

    def __init__(self, network: Sam3dBody, figure: Figure, mode: str, size: int):
        self.network, self.figure, self.mode, self._batches = network, figure, mode, Batches(size, "one person in one frame")
        self._held: list[Packed] = []  # crops that wait, by frame
        self._labels: list = []
        self._transfers = Transfers(network.mean.device)
        self._running: tuple[list, Download] | None = None

    def feed(self, crops: list[CropInput], labels: list) -> Iterator[tuple[list, dict[str, np.ndarray]]]:
        """The crops of one frame, with a label each. Yields the batches that were finished by now: labels, in the order of feeding, and arrays of as many
        rows: those of `Figure.in_person_space` and translation (3,), params (204,), shape (45,), scale (28,), hands (108,).

        Raises Body4DError `out_of_memory` where not even one crop fits."""
        self._held.append(pack(crops, self._transfers))
        self._labels += labels
        while len(self._labels) >= self._batches.size:
            yield from self._start(self._batches.size)

    def rest(self) -> Iterator[tuple[list, dict[str, np.ndarray]]]:
        """What is still to come after the last frame, or before a pause."""
        while self._labels:
            yield from self._start(len(self._labels))
        yield from self._finish()

    def _start(self, count: int) -> Iterator[tuple[list, dict[str, np.ndarray]]]:
        waiting = join(self._held)
        labels, self._labels = self._labels[:count], self._labels[count:]
        coming = self._infer(waiting.take(slice(count)))
        self._held = [_of_last_frame(waiting.take(slice(count, None)))] if self._labels else []
        yield from self._finish()
        self._running = labels, coming

    def _finish(self) -> Iterator[tuple[list, dict[str, np.ndarray]]]:
        if self._running is not None:
            (labels, coming), self._running = self._running, None
            yield labels, coming.arrays()

    def _infer(self, crops: Packed) -> Download:
        def work(part: range) -> dict[str, Tensor]:
            found, = self.network.infer_in_batches(crops.take(slice(part.start, part.stop)), self.mode, self._batches.size)
            return record(found, self.figure)

        parts = list(self._batches.run(work, range(len(crops))))
        return self._transfers.down({name: torch.cat([part[name] for part in parts]) for name in parts[0]})


@torch.inference_mode()
def record(found: dict[str, Tensor], figure: Figure) -> dict[str, Tensor]:
    """What `Stream.feed` gives of people, from what the network said of them."""
    points = (found[name] for name in ("pred_vertices", "pred_joint_coords", "pred_keypoints_3d"))
    return {ours: found[theirs] for ours, theirs in _KEPT.items()} | figure.in_person_space(*points, found["mhr_model_params"])


def join(parts: list[Packed]) -> Packed:
    """Crops of several calls of `pack`, on one device and of frames of one size, as one list."""
    if len(parts) == 1:
        return parts[0]
    before = np.cumsum([0] + [len(part.frames) for part in parts]).tolist()
    height, width = parts[0].frames.shape[1:3]
    masks = None
    if any(part.masks is not None for part in parts):
        masks = torch.cat([part.side.new_zeros((len(part), height, width, 1), dtype=torch.uint8) if part.masks is None else part.masks for part in parts])
    frame_of = torch.cat([part.frame_of + first for part, first in zip(parts, before)])
    return Packed(frames=torch.cat([part.frames for part in parts]), frame_of=frame_of, masks=masks,
                  **{name: torch.cat([getattr(part, name) for part in parts]) for name in ("box", "centre", "side", "K", "has_mask")})


def _of_last_frame(crops: Packed) -> Packed:
    """The same crops without the frames that none of them needs, and without holding those: all are of the last one."""
    return replace(crops, frames=crops.frames[-1:].clone(), masks=None if crops.masks is None else crops.masks.clone(),
                   frame_of=torch.zeros_like(crops.frame_of))
