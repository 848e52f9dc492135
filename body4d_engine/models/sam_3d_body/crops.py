# SPDX-License-Identifier: Apache-2.0
"""Square crops of people and hands, cut from the original pixels on the device, any number of frames and people in one flat list.

A crop is a centre and a side in pixels of its frame. Pixel indices are coordinates (the centre of the first pixel is 0), the crop's own pixel x shows the
frame at (x - S/2) * side/S + centre, sampled bilinearly with black outside the frame and rounded to whole levels: that is what the published network is fed."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...errors import Body4DError
from .transfers import Transfers

BODY_PADDING, HAND_PADDING = 1.25, 0.9
ASPECT = 0.75                          # a box is first widened to this width over height, then to a square
SMALLEST_HAND = 1.0                    # pixels; hands this small are never accepted, but must not divide by zero


@dataclass
class CropInput:
    """One person in one frame.

    image: (H, W, 3) uint8 RGB, upright. Frames shared by several crops are kept once if they are the same object.
    box: (4,) x0, y0, x1, y1 in pixels, right and bottom exclusive.
    K: (3, 3) intrinsics in pixels. mask: (H, W), nonzero where the person is, or None."""

    image: np.ndarray
    box: np.ndarray
    K: np.ndarray
    mask: np.ndarray | None = None


@dataclass
class Packed:
    """Crops of many frames in one flat list, on the device. N crops of F frames, all of one size.

    frames (F, H, W, 3) uint8 RGB; frame_of (N,) int64; centre (N, 2), side (N,) float32 pixels; K (N, 3, 3) float32;
    masks (N, H, W, 1) uint8 0/1 or None where no crop has one; has_mask (N,) bool; box (N, 4) float32."""

    frames: Tensor
    frame_of: Tensor
    box: Tensor
    centre: Tensor
    side: Tensor
    K: Tensor
    masks: Tensor | None
    has_mask: Tensor

    def __len__(self) -> int:
        return len(self.frame_of)

    def take(self, rows: Tensor | slice) -> "Packed":
        """The crops of these rows, (M,) int64 on the device, or of a slice, which copies nothing; frames are shared, not copied."""
        return Packed(self.frames, *(None if part is None else part[rows] for part in
                                     (self.frame_of, self.box, self.centre, self.side, self.K, self.masks, self.has_mask)))


@dataclass
class View:
    """What the network knows about where its crops are. centre (N, 2), side (N,) in pixels; K (N, 3, 3); size: pixels per side of the crop."""

    centre: Tensor
    side: Tensor
    K: Tensor
    size: int

    @property
    def scale(self) -> Tensor:
        """(N,) crop pixels per frame pixel."""
        return self.size / self.side

    def to_crop(self, points: Tensor) -> Tensor:
        """(N, P, 2) pixels of the frame -> of the crop, -0.5 to 0.5 inside it."""
        return (points - self.centre[:, None]) / self.side[:, None, None]

    def to_frame(self, points: Tensor) -> Tensor:
        """The inverse of `to_crop`."""
        return points * self.side[:, None, None] + self.centre[:, None]


def checked(items: list[CropInput]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 4) and cameras (N, 3, 3). Raises Body4DError `empty_crop` where there is none, one is empty, or a camera has no focal length."""
    if not items:
        raise Body4DError("No crop was given.", "Skip frames in which nobody is visible.", "empty_crop")
    boxes = np.stack([np.asarray(item.box, dtype=np.float64).reshape(4) for item in items])
    cameras = np.stack([np.asarray(item.K, dtype=np.float64).reshape(3, 3) for item in items])
    _refuse(~(np.isfinite(boxes).all(axis=1) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])), "has an empty box",
            "Leave out frames in which the person's mask is empty.")
    _refuse(~(np.isfinite(cameras).all(axis=(1, 2)) & (cameras[:, 0, 0] > 0) & (cameras[:, 1, 1] > 0)), "has a camera without a focal length",
            "Give a camera matrix in pixels.")
    return boxes, cameras


def pack(items: list[CropInput], device: torch.device | str | Transfers) -> Packed:
    """Puts crops together on a device, in three copies at most: frames, masks, and numbers. Whoever packs often keeps its `Transfers`, and waits for nothing.

    Raises Body4DError for an empty box or a camera without focal length (`empty_crop`) and for frames of two sizes (`frame_sizes`)."""
    boxes, cameras = checked(items)
    known: dict[int, tuple[int, np.ndarray]] = {}
    frame_of = [known.setdefault(id(item.image), (len(known), item.image))[0] for item in items]
    images = [image for _, image in known.values()]
    if any(image.shape != images[0].shape or image.dtype != np.uint8 or image.shape[2:] != (3,) for image in images):
        raise Body4DError("The frames of one call must be RGB of eight bits and of one size.", "Give one clip at a time.", "frame_sizes")
    transfers = device if isinstance(device, Transfers) else Transfers(device)
    height, width, _ = images[0].shape
    centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    sides = np.maximum(sizes[:, :1] / ASPECT, sizes[:, 1:]) * BODY_PADDING
    masked = np.array([[item.mask is not None] for item in items])
    columns = np.concatenate([boxes, centres, sides, cameras.reshape(-1, 9), np.array(frame_of)[:, None], masked], axis=1)
    frames, numbers = transfers.host((len(images), height, width, 3), torch.uint8), transfers.host(columns.shape, torch.float32)
    for row, image in zip(frames.numpy(), images):
        row[...] = image
    numbers.numpy()[...] = columns
    up = [frames, numbers]
    if masked.any():
        up.append(transfers.host((len(items), height, width, 1), torch.uint8))
        for row, item in zip(up[2].numpy(), items):
            mask = np.zeros((), bool) if item.mask is None else np.asarray(item.mask).reshape(height, width, 1)
            row[...] = mask if mask.dtype == bool else mask != 0  # to compare takes ten times as long as to copy
    frames, numbers, *masks = transfers.up(up)
    box, centre, side, K, frame_of, has_mask = numbers.split((4, 2, 1, 9, 1, 1), dim=1)
    return Packed(frames=frames, frame_of=frame_of[:, 0].long(), box=box, centre=centre, side=side[:, 0], K=K.unflatten(1, (3, 3)),
                  masks=masks[0] if masks else None, has_mask=has_mask[:, 0] > 0)


def hand_side(box_size: Tensor) -> Tensor:
    """The side of the square crop round a square hand box, in pixels."""
    return box_size.clamp(min=SMALLEST_HAND) * (HAND_PADDING / ASPECT)


def cut(images: Tensor, image_of: Tensor, centre: Tensor, side: Tensor, size: int, mirrored: Tensor | None = None) -> Tensor:
    """(F, H, W, C) uint8 and N crops -> (N, C, size, size) float32 of whole levels, 0 to 255. Where a crop lies nowhere (NaN) it is of a corner.

    mirrored (N,) bool: those crops are given in the coordinates of the frame flipped left to right."""
    height, width = images.shape[1:3]
    exact = precise(images.device)
    steps = (torch.arange(size, device=images.device, dtype=exact) - size / 2) / size
    x, y = (steps * side.to(exact)[:, None] + centre[:, axis, None].to(exact) for axis in (0, 1))
    if mirrored is not None:
        x = torch.where(mirrored[:, None], width - 1 - x, x)
    columns, rows = _taps(x, width), _taps(y, height)
    image_of = image_of[:, None, None]
    total = torch.zeros(1, dtype=torch.float32, device=images.device)
    for row, row_weight in rows:
        for column, column_weight in columns:
            weight = row_weight[:, :, None] * column_weight[:, None, :]
            total = total + images[image_of, row[:, :, None], column[:, None, :]] * weight[..., None]
    return total.round().permute(0, 3, 1, 2)


def precise(device: torch.device) -> torch.dtype:
    """The most exact type of floating point that a device has."""
    return torch.float32 if device.type == "mps" else torch.float64


def _taps(x: Tensor, length: int) -> list[tuple[Tensor, Tensor]]:
    """The two samples next to each coordinate and their weights, which are zero outside."""
    low = x.floor()
    after = (x - low).float()
    return [(index.clamp(0, length - 1).nan_to_num().long(), weight * ((index >= 0) & (index < length)))
            for index, weight in ((low, 1 - after), (low + 1, after))]


def _refuse(bad: np.ndarray, what: str, hint: str) -> None:
    if bad.any():
        raise Body4DError(f"Crop {', '.join(str(index) for index in np.flatnonzero(bad)[:8])} {what}.", hint, "empty_crop")
