# SPDX-License-Identifier: Apache-2.0
"""What tracking knows of a person, as the networks of `recover` need it: where there is a mask to cut a crop from, and whose mask lies where."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...masks import decode_mask
from ...take import State, Take, span_of

BODY = slice(0, 21)  # of the 70 keypoints those of head, trunk, limbs and feet
MARGIN = 0.02  # of the mask's longer side: a keypoint this near to the mask lies on it


class Sightings:
    """One person's track. state (T,): as tracked, but who has no mask is OCCLUDED, not VISIBLE; measured (T,) bool: there is a crop; span: [begin, stop) of
    the samples from the first to the last in which the person is not absent."""

    def __init__(self, take: Take, person: int):
        self.person, self._take, self._group = person, take, f"people/{person}"
        self.state = np.array(take.read(self._group, "state", "track"))
        self._index = take.read(self._group, "mask_index", "track")
        self._confidence = take.read(self._group, "confidence", "track")
        seen = (self.state == State.VISIBLE) | (self.state == State.FILLED)
        self.measured = seen & (self._index[:, 1] > 0)
        self.state[seen & ~self.measured] = State.OCCLUDED
        self.span = span_of(self.state)

    def shape(self, sample: int) -> "Shape | None":
        """The mask in one sample, None where it is empty."""
        offset, length, x, y, width, height = (int(value) for value in self._index[sample])
        if not length:
            return None
        data = self._take.read(self._group, "mask_bytes", "track")[offset : offset + length].tobytes()
        return Shape(x, y, decode_mask(data, (0, 0, width, height), height, width))

    def confidence(self, sample: int) -> float:
        return float(self._confidence[sample])


@dataclass
class Shape:
    """A mask's bounding box: its corner in px, and the mask in it (h, w) bool."""

    x: int
    y: int
    inside: np.ndarray

    @property
    def box(self) -> np.ndarray:
        """(4,) x0, y0, x1, y1, right and bottom exclusive."""
        height, width = self.inside.shape
        return np.array([self.x, self.y, self.x + width, self.y + height], np.float64)

    def mask(self, width: int, height: int) -> np.ndarray:
        """(height, width) bool, of the whole frame."""
        whole = np.zeros((height, width), bool)
        h, w = self.inside.shape
        whole[self.y : self.y + h, self.x : self.x + w] = self.inside
        return whole

    def holds(self, points: np.ndarray, margin: int = 0) -> np.ndarray:
        """(N,) bool: whether points (N, 2) px lie on the mask, or so many px beside it."""
        size = self.inside.shape[::-1]
        corner = np.floor(points - [self.x, self.y]).clip(-margin - 2, np.add(size, margin + 1)).astype(int)
        (x0, y0), (x1, y1) = (corner - margin).clip(0, size).T, (corner + margin + 1).clip(0, size).T
        return self._before[y1, x1] - self._before[y0, x1] - self._before[y1, x0] + self._before[y0, x0] > 0

    @cached_property
    def _before(self) -> np.ndarray:
        """(h + 1, w + 1): how many of its pixels lie above and left of each corner of a pixel."""
        return np.pad(self.inside.cumsum(0, np.int32).cumsum(1, np.int32), ((1, 0), (1, 0)))


def trusted(pixels: np.ndarray, own: Shape, others: list[Shape], width: int, height: int) -> tuple[np.ndarray, float]:
    """Keypoints (70, 2) px of a body -> (70,) 1 where they can be seen, 0 outside the frame and where somebody else is in front; and the share of the body's
    keypoints, 0 to 1, that can be seen and lie on the person's mask."""
    seen = ((pixels >= 0) & (pixels < [width, height])).all(1)
    mine = own.holds(pixels, max(1, round(MARGIN * max(own.inside.shape))))
    for other in others:
        seen &= mine | ~other.holds(pixels)
    return seen.astype(np.float32), float((seen & mine)[BODY].mean())
