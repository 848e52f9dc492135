# SPDX-License-Identifier: Apache-2.0
"""Which tracks are one person: by looks, and by where somebody was lost and found again. Only where it is clear."""

from dataclasses import dataclass, field

import numpy as np

from . import appearance

ENDS = 6  # sightings at each end of a track that say how it moved there
NEAR_S = 2.0  # up to this gap the place where somebody was lost says where to find them
REACH, SPEED = 0.6, 1.5  # body heights: reach at once, and per second
LOOKS_NEAR, LOOKS_FAR, LOOKS_CUT = 0.45, 0.25, 0.2  # greatest difference in looks: after a short gap, a long one, a cut
CLEAR = 0.3  # how much better than its best rival a link must be


@dataclass
class Tracklet:
    """A track in numbers. Samples in time order whichever way it was tracked; centres px, heights px, `area` px^2 summed over its rows."""

    number: int
    track: int
    count: int = 0
    area: float = 0.0
    height: float = 0.0
    looks: np.ndarray = field(default_factory=lambda: np.zeros(appearance.SIZE, np.float64))
    ends: list = field(default_factory=list)  # (sample, box) of the first and last rows
    person: int | None = None
    bans: set = field(default_factory=set)

    def add(self, sample: int, box: np.ndarray, looks: np.ndarray) -> None:
        w, h = float(box[2] - box[0]), float(box[3] - box[1])
        self.count, self.area = self.count + 1, self.area + w * h
        self.height += (h - self.height) / self.count
        self.looks += (looks - self.looks) / self.count
        self.ends.append((int(sample), box))
        if len(self.ends) > 2 * ENDS:
            del self.ends[ENDS]

    def settle(self) -> None:
        self.ends.sort(key=lambda end: end[0])

    @property
    def first(self) -> int:
        return self.ends[0][0]

    @property
    def last(self) -> int:
        return self.ends[-1][0]

    def overlaps(self, other: "Tracklet") -> bool:
        return self.first <= other.last and other.first <= self.last

    def end(self, last: bool) -> tuple[np.ndarray, np.ndarray, float]:
        """Centre (2,) px, velocity (2,) px per sample and height at one end."""
        part = self.ends[-ENDS:] if last else self.ends[:ENDS]
        at = part[-1] if last else part[0]
        centres = np.array([(box[:2] + box[2:]) / 2 for _, box in part], np.float64)
        span = part[-1][0] - part[0][0]
        velocity = (centres[-1] - centres[0]) / span if span else np.zeros(2)
        return (at[1][:2] + at[1][2:]).astype(np.float64) / 2, velocity, float(np.median([box[3] - box[1] for _, box in part]))


def link_cost(a: Tracklet, b: Tracklet, seconds: float, cuts: list[int]) -> float:
    """Of saying that `b` goes on where `a` ended: under 1 where plausible, else infinite."""
    if b.first <= a.last or (a.person and b.person and a.person != b.person) or a.person in b.bans or b.person in a.bans:
        return np.inf
    looks, gap = appearance.distance(a.looks, b.looks), (b.first - a.last) * seconds
    if any(a.last < cut <= b.first for cut in cuts):
        return looks / LOOKS_CUT if looks < LOOKS_CUT else np.inf
    if gap > NEAR_S:
        return looks / LOOKS_FAR if looks < LOOKS_FAR else np.inf
    (centre_a, velocity, height_a), (centre_b, _, height_b) = a.end(True), b.end(False)
    size = max(height_a, height_b, 1.0)
    expected = centre_a + velocity * min(b.first - a.last, 0.3 / seconds)
    distance = min(np.linalg.norm(centre_b - expected), np.linalg.norm(centre_b - centre_a)) / size
    reach = REACH + SPEED * gap
    if looks > LOOKS_NEAR or distance > reach or not 0.4 < height_a / max(height_b, 1.0) < 2.5:
        return np.inf
    return 0.5 * looks / LOOKS_NEAR + 0.5 * distance / reach


def link(tracklets: list[Tracklet], seconds: float, cuts: list[int]) -> list[list[Tracklet]]:
    """Chains of tracks that are one person each, in time order. Cheapest links first; where a rival is nearly as good, none."""
    order = sorted(tracklets, key=lambda t: (t.first, t.track))
    count = len(order)
    costs, overlap = np.full((count, count), np.inf), np.zeros((count, count), bool)
    for i, a in enumerate(order):
        for j, b in enumerate(order):
            if i != j:
                costs[i, j], overlap[i, j] = link_cost(a, b, seconds, cuts), a.overlaps(b)
    chain_of = {i: [i] for i in range(count)}
    begins, ends = np.ones(count, bool), np.ones(count, bool)  # whether a track is the first, the last of its chain
    rows, columns = np.nonzero(np.isfinite(costs))
    cheapest = np.lexsort((columns, rows, costs[rows, columns]))
    for i, j in zip(rows[cheapest].tolist(), columns[cheapest].tolist(), strict=True):
        if not (ends[i] and begins[j]) or chain_of[i] is chain_of[j]:
            continue
        before, after = chain_of[i], chain_of[j]
        rival = min(costs[i, overlap[j] & begins].min(initial=np.inf), costs[overlap[i] & ends, j].min(initial=np.inf))
        asked = {order[k].person for k in [*before, *after]} - {None}
        banned = set().union(*(order[k].bans for k in [*before, *after]))
        if rival < costs[i, j] + CLEAR or len(asked) > 1 or asked & banned:
            continue
        before += after
        ends[i] = begins[j] = False
        for k in after:
            chain_of[k] = before
    chains = {id(chain): chain for chain in chain_of.values()}
    return [[order[k] for k in chain] for chain in chains.values()]
