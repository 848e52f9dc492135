# SPDX-License-Identifier: Apache-2.0
"""Crops of many frames, one frame after another, through the network in batches that are always full: nothing is padded to the frame with the most people.

A frame is uploaded once, however its people fall into batches. While the device works on one batch the next one is put together."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ...errors import Body4DError, is_out_of_memory
from ...memory import Batches
from .crops import CropInput, Packed, pack
from .figure import Figure
from .inference import Sam3dBody

# What a person's record is made of, and the network's name for it.
_KEPT = {"translation": "pred_cam_t", "params": "mhr_model_params", "shape": "shape_params", "scale": "scale_params", "hands": "hand_pose_params"}


class Stream:
    """size: crops in a batch; halved, for good, where there is not enough memory. mode: see `Sam3dBody.infer`."""

    def __init__(self, network: Sam3dBody, figure: Figure, mode: str, size: int):
        self.network, self.figure, self.mode, self._batches = network, figure, mode, Batches(size, "one person in one frame")
        self._held: list[Packed] = []  # crops that wait, by frame
        self._labels: list = []
        self._running: tuple[list, dict[str, Tensor]] | None = None

    def feed(self, crops: list[CropInput], labels: list) -> Iterator[tuple[list, dict[str, np.ndarray]]]:
        """The crops of one frame, with a label each. Yields the batches that were finished by now: labels, in the order of feeding, and arrays of as many
        rows: those of `Figure.in_person_space` and translation (3,), params (204,), shape (45,), scale (28,), hands (108,).

        Raises Body4DError `out_of_memory` where not even one crop fits, `device_lost` where the device has failed."""
        with _device_errors():
            self._held.append(pack(crops, self.network.mean.device))
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
        rows = torch.arange(len(waiting), device=waiting.side.device)
        labels, self._labels = self._labels[:count], self._labels[count:]
        results = self._infer(waiting.take(rows[:count]))
        self._held = [_of_last_frame(waiting.take(rows[count:]))] if self._labels else []
        yield from self._finish()
        self._running = labels, results

    def _finish(self) -> Iterator[tuple[list, dict[str, np.ndarray]]]:
        if self._running is not None:
            (labels, results), self._running = self._running, None
            with _device_errors():
                found = {name: value.cpu().numpy() for name, value in results.items()}
            yield labels, found

    def _infer(self, crops: Packed) -> dict[str, Tensor]:
        def work(part: range) -> dict[str, Tensor]:
            rows = torch.arange(part.start, part.stop, device=crops.side.device)
            with _device_errors():
                found, = self.network.infer_in_batches(crops.take(rows), self.mode, self._batches.size)
            return self._kept(found)

        parts = list(self._batches.run(work, range(len(crops))))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _kept(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.inference_mode():
            points = (found[name] for name in ("pred_vertices", "pred_joint_coords", "pred_keypoints_3d"))
            return {ours: found[theirs] for ours, theirs in _KEPT.items()} | self.figure.in_person_space(*points, found["mhr_model_params"])


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
    """The same crops without the frames that none of them needs: all are of the last one."""
    return replace(crops, frames=crops.frames[-1:].clone(), frame_of=torch.zeros_like(crops.frame_of))


@contextmanager
def _device_errors() -> Iterator[None]:
    """Inside, a device that has failed is told in words."""
    try:
        yield
    except torch.AcceleratorError as error:
        if is_out_of_memory(error):
            raise
        raise Body4DError(f"The device that computes has failed: {str(error).splitlines()[0]}", "Run it again: it goes on where it stopped. If it fails again, "
                          "restart the computer or look for a newer driver.", "device_lost") from error
