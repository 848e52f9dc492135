# SPDX-License-Identifier: Apache-2.0
"""Which tracks are one person, decided for the whole clip at once: by how people move over a gap, and by looks."""

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from . import appearance
from .motion import bridge, end_state

END_S = 0.4  # of a track's end say how it moved there
LEAST_END, MOST_END = 4, 12  # sightings kept of an end, spread over that time
LIGHT_S = 1.0  # of clear sight at a track's end say what the person looked like there: people go from shade into light
NEAR_S = 2.5  # up to this gap motion counts
MOST_CHI2 = 18.0  # of a motion over a gap that is believed; nor is it likelier that somebody stays unseen inside the picture for longer
OUTSIDE_CHI2 = 3.0  # who went out of the picture may turn round there: how they move says no more than this
LOOKS_NEAR, LOOKS_FAR, LOOKS_CUT = 0.45, 0.25, 0.2  # greatest difference in looks: after a short gap, a long one, a cut
LOOKS_SPREAD = 0.12  # usual difference in looks of one person
NO_LINK = 30.0  # what it costs to call somebody new; any two that are not one person cost more
CLEAR = 1.5  # cost by which a link must beat every other way to join the tracks
FOLLOWED_CHI2 = 4.0  # of parts of one track at most: there was no jump, or the tracker would not have followed
AGAIN_PER_S = 0.01  # cost of each second unseen, so that of equals the nearer in time wins


@dataclass
class Tracklet:
    """A track, or a part of one, in numbers. Samples in time order whichever way it was tracked; heights px, `area` px^2 summed over its rows."""

    number: int
    track: int
    seconds: float = 1 / 30  # per sample
    part: int = 0  # of a track that was cut, in the order of tracking
    count: int = 0
    area: float = 0.0
    height: float = 0.0
    looks: np.ndarray = field(default_factory=lambda: np.zeros(appearance.SIZE, np.float64))  # on the whole, at the first rows, at the last
    head_looks: np.ndarray = field(default_factory=lambda: np.zeros(appearance.SIZE, np.float64))
    tail_looks: np.ndarray = field(default_factory=lambda: np.zeros(appearance.SIZE, np.float64))
    clear: float = 0.0  # seconds of clear sight so far, in LIGHT_S
    head: list = field(default_factory=list)  # (sample, place) of the first rows and of the last, as they were found
    tail: list = field(default_factory=list)
    sure_tail: tuple[list, np.ndarray] | None = None  # tail and looks there before the detector looked and did not see the person
    entering: bool = False  # was at the picture's edge when first found
    leaving: bool = False  # and when last found
    person: int | None = None
    bans: set = field(default_factory=set)

    def add(self, sample: int, box: np.ndarray, looks: np.ndarray, place: np.ndarray, doubted: bool = False, leaving: bool = False) -> None:
        """The next sighting. looks (SIZE,), as heavy as they count; place (3,) as in `motion`."""
        w, h = float(box[2] - box[0]), float(box[3] - box[1])
        self.count, self.area = self.count + 1, self.area + w * h
        self.height += (h - self.height) / self.count
        self.looks += (looks - self.looks) / self.count
        clear = min(1.0, float(looks.reshape(2, -1).sum(1).max())) * self.seconds / LIGHT_S
        self.head_looks += np.exp(-self.clear) * looks
        self.tail_looks = np.exp(-clear) * self.tail_looks + looks
        self.clear += clear
        most = max(LEAST_END, round(END_S / self.seconds))
        if len(self.head) < most:
            self.head.append((int(sample), place))
        self.tail.append((int(sample), place))
        if len(self.tail) > most:
            del self.tail[0]
        self.entering, self.leaving = (leaving if self.count == 1 else self.entering), leaving
        if not doubted:
            self.sure_tail = self.tail.copy(), self.tail_looks

    def settle(self, ends: set[int] = frozenset()) -> None:
        """Call when all rows are in. Whom the detector no longer saw before they were lost inside the picture was only imagined then; not so where
        the last sample is one of `ends`, at which tracking stopped. Rows of a backward pass are put in the order of time."""
        if self.sure_tail and not self.leaving and self.tail[-1][0] not in ends:
            self.tail, self.tail_looks = self.sure_tail
            self.head = [row for row in self.head if abs(row[0] - self.head[0][0]) <= abs(self.tail[-1][0] - self.head[0][0])]
        if self.head[0][0] > self.tail[-1][0]:
            self.head, self.tail, self.entering, self.leaving = self.tail[::-1], self.head[::-1], self.leaving, self.entering
            self.head_looks, self.tail_looks = self.tail_looks, self.head_looks

    @property
    def first(self) -> int:
        return self.head[0][0]

    @property
    def last(self) -> int:
        return self.tail[-1][0]

    def end(self, last: bool) -> tuple[np.ndarray, np.ndarray]:
        """Place (3,) and speed (3,) per second at one end."""
        part = self.tail if last else self.head
        part = part[:: max(1, len(part) // MOST_END)]
        times = np.array([sample for sample, _ in part]) * self.seconds
        return end_state(times, np.array([place for _, place in part]), (self.last if last else self.first) * self.seconds)


def link_costs(order: list[Tracklet], seconds: float, cuts: list[int]) -> np.ndarray:
    """(n, n) cost of saying that the second goes on where the first ended; infinite where that is not plausible."""
    first, last = (np.array([getattr(t, name) for t in order]) for name in ("first", "last"))
    gap = (first[None] - last[:, None]) * seconds
    shots = [np.searchsorted(np.array(cuts), samples, side="right") for samples in (first, last)]
    cut = shots[0][None] != shots[1][:, None]
    whole, heads, tails = (np.array([getattr(t, name) for t in order]) for name in ("looks", "head_looks", "tail_looks"))
    looks = appearance.distances(whole, whole)
    (place_a, speed_a), (place_b, speed_b) = (map(np.array, zip(*(t.end(at_last) for t in order), strict=True)) for at_last in (True, False))
    near = ~cut & (gap > 0) & (gap <= NEAR_S)
    looks = np.where(near, np.minimum(looks, appearance.distances(tails, heads)), looks)
    chi2 = np.where(cut, 0.0, MOST_CHI2)
    i, j = np.nonzero(near)
    chi2[i, j] = bridge(place_a[i], speed_a[i], place_b[j], speed_b[j], gap[i, j])
    number, track, part = (np.array([getattr(t, name) for t in order]) for name in ("number", "track", "part"))
    followed = (number[:, None] == number) & (track[:, None] == track) & (np.abs(part[:, None] - part) == 1)
    chi2 = np.where(followed, np.minimum(chi2, FOLLOWED_CHI2), chi2)
    outside = np.array([t.leaving for t in order])[:, None] & np.array([t.entering for t in order])
    chi2 = np.where(outside, np.minimum(chi2, OUTSIDE_CHI2), chi2)
    most = np.where(cut, LOOKS_CUT, np.where(near & ~outside, LOOKS_NEAR, LOOKS_FAR))
    costs = chi2 + (looks / LOOKS_SPREAD) ** 2 + AGAIN_PER_S * gap
    apart = (gap <= 0) | (looks >= most) | (chi2 > MOST_CHI2)
    for i, a in enumerate(order):
        for j, b in enumerate(order):
            if not apart[i, j] and ((a.person and b.person and a.person != b.person) or a.person in b.bans or b.person in a.bans):
                apart[i, j] = True
    return np.where(apart, np.inf, np.minimum(costs, NO_LINK - 0.01))


def link(tracklets: list[Tracklet], seconds: float, cuts: list[int]) -> list[list[Tracklet]]:
    """Chains of tracks that are one person each, in time order: the joint choice of links of least cost. Where another choice is nearly as good,
    the tracks concerned stay apart."""
    order = sorted(tracklets, key=lambda t: (t.first, t.track))
    if not order:
        return []
    costs = link_costs(order, seconds, cuts)
    count = len(order)
    padded = np.full((count, 2 * count), 1e6)
    padded[:, :count] = np.where(np.isfinite(costs), costs, 1e6)
    padded[np.arange(count), count + np.arange(count)] = NO_LINK
    follower = linear_sum_assignment(padded)[1]
    follower = np.where(follower < count, follower, -1)
    chain_of = {i: [i] for i in range(count)}
    chosen = np.flatnonzero(follower >= 0)
    for i in chosen[np.lexsort((chosen, costs[chosen, follower[chosen]]))].tolist():
        before, after = chain_of[i], chain_of[int(follower[i])]
        asked = {order[k].person for k in [*before, *after]} - {None}
        banned = set().union(*(order[k].bans for k in [*before, *after]))
        if len(asked) > 1 or asked & banned or not _clear(i, follower, costs):
            continue
        before += after
        for k in after:
            chain_of[k] = before
    chains = {id(chain): chain for chain in chain_of.values()}
    return [[order[k] for k in chain] for chain in chains.values()]


def spans(chain: list[Tracklet]) -> list[list[int]]:
    """[pass, track, first sample, last] of which a chain is made; where a track goes on as the same person after all, also what lies between."""
    out: list[list[int]] = []
    before = None
    for piece in chain:
        if before and (before.number, before.track) == (piece.number, piece.track) and abs(before.part - piece.part) == 1:
            out[-1][3] = piece.last
        else:
            out.append([piece.number, piece.track, piece.first, piece.last])
        before = piece
    return out


def _clear(i: int, follower: np.ndarray, costs: np.ndarray) -> bool:
    """Whether every other way to join the tracks at both ends of the link from `i` costs clearly more. Tracks that may be the same person are no
    other way: who comes and goes many times is like themselves each time."""
    j, alike = follower[i], np.isfinite(costs) | np.isfinite(costs.T)
    leader = np.full(len(follower), -1)
    leader[follower[follower >= 0]] = np.flatnonzero(follower >= 0)
    for j2 in np.flatnonzero(np.isfinite(costs[i])):  # i goes on as j2; whoever did so takes j, or nobody
        if j2 != j and not alike[j, j2]:
            i2 = leader[j2]
            now, then = (costs[i2, j2], min(costs[i2, j], 2 * NO_LINK)) if i2 >= 0 else (NO_LINK, NO_LINK)
            if costs[i, j2] + then - costs[i, j] - now < CLEAR:
                return False
    return all(i2 == i or alike[i, i2] or follower[i2] >= 0 or costs[i2, j] - costs[i, j] >= CLEAR for i2 in np.flatnonzero(np.isfinite(costs[:, j])))
