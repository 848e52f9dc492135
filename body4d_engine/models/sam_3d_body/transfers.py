# SPDX-License-Identifier: Apache-2.0
"""Copies between this program and a device for which nobody waits: CUDA copies from and to pinned memory by itself, all other devices copy at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


class Transfers:
    """To and from one device.

    Pinned memory comes from torch's own cache, which keeps a block until the copy that uses it has been made."""

    def __init__(self, device: torch.device | str):
        self.device = torch.device(device)
        self._pinned = self.device.type == "cuda"
        self._lane = torch.cuda.Stream(self.device) if self._pinned else None

    def host(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Memory of this program, to be filled and uploaded, or downloaded into."""
        return torch.empty(tuple(shape), dtype=dtype, pin_memory=self._pinned)

    def up(self, tensors: list[Tensor]) -> list[Tensor]:
        """Tensors made with `host`, on the device; not to be changed any more. On CUDA they go on a stream of their own, while others compute, and what is
        queued from now on waits for them."""
        if self._lane is None:
            return [tensor.to(self.device) for tensor in tensors]
        with torch.cuda.stream(self._lane):
            moved = [tensor.to(self.device, non_blocking=True) for tensor in tensors]
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self._lane)
        for tensor in moved:
            tensor.record_stream(computing)  # its memory is the lane's: not to be given away there while it is used here
        return moved

    def down(self, tensors: dict[str, Tensor]) -> "Download":
        """Begins to copy what is being computed: the copies are made when that is done, before what is queued after them."""
        if self._lane is None:
            return Download({name: tensor.cpu() for name, tensor in tensors.items()}, None)
        copies = {name: self.host(tensor.shape, tensor.dtype).copy_(tensor, non_blocking=True) for name, tensor in tensors.items()}
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(self.device))
        return Download(copies, done)


@dataclass(frozen=True)
class Download:
    """Copies on the way. `arrays` waits for these alone, whatever was queued since."""

    copies: dict[str, Tensor]
    done: "torch.cuda.Event | None"

    def arrays(self) -> dict[str, np.ndarray]:
        if self.done is not None:
            self.done.synchronize()
        return {name: copy.numpy() for name, copy in self.copies.items()}
