# SPDX-License-Identifier: GPL-3.0-or-later
"""The arithmetic of picking: between a view and the clip's pixels, masks as areas with an outline, who is under the cursor. No bpy.

Positions are px of the upright clip, from its top left corner; view coordinates run from 0 to 1 over the picture, from its bottom left.
"""

from dataclasses import dataclass, field

import numpy as np

LARGEST_TEXTURE = 1024


@dataclass(eq=False)
class Area:
    """One person on one frame: the part of the mask that is not empty, and its outline.

    x, y: px of the upper left corner; mask: (h, w) bool; lines: (2n, 2) float32 px, ends of n lines around it; owner: free for who draws it.
    """

    x: int
    y: int
    mask: np.ndarray
    lines: np.ndarray
    owner: dict = field(default_factory=dict)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 px, the last two exclusive."""
        return self.x, self.y, self.x + self.mask.shape[1], self.y + self.mask.shape[0]

    def holds(self, x: float, y: float) -> bool:
        """Whether this position is on the person."""
        column, row = int(np.floor(x)) - self.x, int(np.floor(y)) - self.y
        return 0 <= row < self.mask.shape[0] and 0 <= column < self.mask.shape[1] and bool(self.mask[row, column])


def to_clip(u: float, v: float, width: int, height: int) -> tuple[float, float] | None:
    """The position in the clip at a view's (u, v); None beside the picture."""
    if not (0 <= u < 1 and 0 <= v < 1):
        return None
    return u * width, (1 - v) * height


def to_view(x: float, y: float, width: int, height: int) -> tuple[float, float]:
    """The inverse of `to_clip`."""
    return x / width, 1 - y / height


def area_of(mask: np.ndarray) -> Area | None:
    """The area of a mask (H, W) bool; None of an empty one."""
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    part = np.ascontiguousarray(mask[y : rows[-1] + 1, x : columns[-1] + 1])
    return Area(x, y, part, outline(part) + np.float32([x, y]))


def outline(mask: np.ndarray) -> np.ndarray:
    """Lines between what is in a mask and what is not, (2n, 2) float32: ends x, y of n lines, neighbours in a row as one."""
    padded = np.pad(mask, 1)
    across = _runs(padded[1:, :] != padded[:-1, :])[:, [1, 0, 2, 0]]  # edges above or below pixels
    down = _runs((padded[:, 1:] != padded[:, :-1]).T)[:, [0, 1, 0, 2]]  # edges left or right of pixels
    lines = np.concatenate([across - [[1, 0, 1, 0]], down - [[0, 1, 0, 1]]])
    return lines.reshape(-1, 2).astype(np.float32)


def _runs(edges: np.ndarray) -> np.ndarray:
    """(n, 3): row, start, stop of every run of True."""
    turns = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(turns == 1)
    return np.stack([rows, starts, np.nonzero(turns == -1)[1]], 1)


def texture_of(area: Area) -> np.ndarray:
    """The area's mask as white with alpha (h, w, 4) float32, its first row at the bottom as on the GPU, at most LARGEST_TEXTURE a side."""
    stride = -(-max(area.mask.shape) // LARGEST_TEXTURE)
    alpha = area.mask[::stride, ::stride][::-1]
    pixels = np.ones((*alpha.shape, 4), np.float32)
    pixels[..., 3] = alpha
    return pixels


def under_cursor(areas: list[Area], x: float, y: float) -> int | None:
    """The index of the area at this position; of several the smallest, which is likely in front."""
    there = [i for i, area in enumerate(areas) if area.holds(x, y)]
    return min(there, key=lambda i: np.count_nonzero(areas[i].mask), default=None)


def overlap(one: Area, other: Area) -> float:
    """Intersection over union of two areas."""
    x0, y0 = max(one.x, other.x), max(one.y, other.y)
    x1, y1 = min(one.box[2], other.box[2]), min(one.box[3], other.box[3])
    if x0 >= x1 or y0 >= y1:
        return 0.0
    parts = [area.mask[y0 - area.y : y1 - area.y, x0 - area.x : x1 - area.x] for area in (one, other)]
    common = np.count_nonzero(parts[0] & parts[1])
    return common / (np.count_nonzero(one.mask) + np.count_nonzero(other.mask) - common)


def unpicked(found: list[Area], picked: list[Area], clicks: list[tuple[float, float]]) -> list[int]:
    """Indices of the people found that nobody stands for yet: no click on them, and no picked person's mask is theirs."""
    return [i for i, area in enumerate(found)
            if not any(area.holds(x, y) for x, y in clicks) and not any(overlap(area, other) > 0.5 for other in picked)]
