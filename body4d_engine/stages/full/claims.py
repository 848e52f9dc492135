# SPDX-License-Identifier: Apache-2.0
"""Who has which pixel of a picture. torch is used through the tensors that come in, and loaded only then."""

from dataclasses import dataclass, field

import numpy as np

SURE = 288  # rows and columns of the map of how sure a pixel is: the network's own masks have no more
STEP = 8  # parts of a logit that this map tells apart, up to 31.875


@dataclass
class Owned:
    """The mask of everybody on one picture, without overlap.

    owner (H, W) int16: a pixel's person as a place in `people`, from 1 on; 0 is nobody. sure (h, w) uint8: the owner's logit, in eighths. Per person id:
    `claimed`, the pixels with a logit above 0; `area`, those of them where nobody's is higher; `box`, x0, y0, x1, y1 px around these; `score`, the
    probability 0..1 of being seen."""

    owner: np.ndarray
    sure: np.ndarray
    people: list[int]
    claimed: dict[int, int] = field(default_factory=dict)
    area: dict[int, int] = field(default_factory=dict)
    box: dict[int, tuple[int, int, int, int]] = field(default_factory=dict)
    score: dict[int, float] = field(default_factory=dict)

    def mask(self, person: int) -> np.ndarray:
        """The person's mask within the person's box, bool."""
        x0, y0, x1, y1 = self.box[person]
        return self.owner[y0:y1, x0:x1] == 1 + self.people.index(person)

    @classmethod
    def nobody(cls, height: int, width: int) -> "Owned":
        return cls(np.zeros((height, width), np.int16), np.zeros((min(SURE, height), min(SURE, width)), np.uint8), [])


class Claims:
    """Takes people's logits on one picture bit by bit, and holds no more of them than the highest. Of equal ones the first has the pixel."""

    def __init__(self):
        self._best = self._owner = None
        self._claimed, self._score = {}, {}

    def add(self, logits: dict, scores: dict[int, float]) -> None:
        """`logits`: person id -> (H, W) tensor. Doing it again for the same people changes nothing."""
        import torch

        for person, own in logits.items():
            if self._best is None:
                self._best, self._owner = torch.zeros_like(own), torch.zeros_like(own, dtype=torch.int16)
            place = list(self._claimed).index(person) if person in self._claimed else len(self._claimed)
            self._claimed[person], self._score[person] = (own > 0).sum(), scores[person]
            self._owner = torch.where(own > self._best, 1 + place, self._owner).to(torch.int16)
            self._best = torch.maximum(self._best, own)

    def settled(self, height: int, width: int) -> Owned:
        """What came of it, on the CPU."""
        import torch
        from torch.nn.functional import interpolate

        if self._best is None:
            return Owned.nobody(height, width)
        people, owner = list(self._claimed), self._owner
        across, down = (torch.stack([(owner == 1 + place).any(axis) for place in range(len(people))]) for axis in (0, 1))
        area = torch.bincount(owner.flatten().to(torch.int32), minlength=len(people) + 1)[1:]
        claimed = torch.stack([self._claimed[person] for person in people])
        size = min(SURE, height), min(SURE, width)
        sure = interpolate(self._best[None, None].float(), size, mode="bilinear")[0, 0]
        found = Owned(owner.cpu().numpy(), (sure * STEP).clamp(0, 255).to(torch.uint8).cpu().numpy(), people,
                      dict(zip(people, claimed.tolist())), dict(zip(people, area.tolist())), score=self._score)
        for person, columns, rows in zip(people, across.cpu().numpy(), down.cpu().numpy()):
            x, y = np.flatnonzero(columns), np.flatnonzero(rows)
            found.box[person] = (int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1) if len(x) else (0, 0, 0, 0)
        return found
