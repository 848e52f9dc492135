# SPDX-License-Identifier: Apache-2.0
"""What the tracker finds, one row per person and frame, kept in the take while tracking; and each person's arrays, gathered from it."""

from dataclasses import dataclass

import numpy as np

from ..masks import decode_mask
from ..take import State, Take
from . import appearance
from .edges import at_edges
from .imagined import imagined
from .leaving import squeezed
from .motion import place_of
from .tracker import Seen

BLOCK = 4096
ARRAYS = {"state": ("u1", ()), "confidence": ("f4", ()), "box": ("f4", (4,)), "landmarks_px": ("f4", (33, 3)), "landmarks_m": ("f4", (33, 3))}
ROW_ARRAYS = {"sample": ("i4", ()), "track": ("i4", ()), "looks": ("f4", (appearance.SIZE,)), "area": ("f4", ()),
              "scale": ("f4", ()), "doubted": ("u1", ()), "crowded": ("u1", ()), **ARRAYS}
MASK_ARRAYS = {"mask_bytes": ("u1", ()), "mask_index": ("i8", (6,))}  # as Take.append_mask writes them
BRIDGED_S = 1.0  # somebody unseen for less, between two sightings, is hidden and not gone
BEHIND_S = 4.0  # the same for somebody who passes behind other people
BEHIND = 0.4  # of somebody's box that others cover on the way, on average, to be behind them
PROBES = (0.25, 0.5, 0.75)  # of a gap: where to look for those others
REACH, SPEED = 0.6, 1.5  # body heights: how far people get hidden, at once and per second


def group_of(number: int) -> str:
    """Where the rows of a pass over the clip are."""
    return f"tracklets/{number}"


def person_group(person: int) -> str:
    return f"people/{person}"


def create(take: Take, group: str, arrays: dict) -> None:
    for name, (dtype, shape) in {**arrays, **MASK_ARRAYS}.items():
        take.create_array(group, name, dtype, shape)


def append(take: Take, group: str, sample: int, seen: list[Seen]) -> None:
    """Keep what was found in one sample."""
    for person in seen:
        state = State.OCCLUDED if person.occluded else State.VISIBLE
        values = {"sample": sample, "track": person.track, "looks": person.looks, "area": person.mask.sum(), "scale": person.scale, "doubted": person.doubted,
                  "crowded": person.crowded,
                  "state": state, "confidence": person.confidence, "box": person.box,
                  "landmarks_px": person.pose.landmarks_px, "landmarks_m": person.pose.landmarks_m}
        for name, value in values.items():
            take.append(group, name, np.asarray(value)[None])
        take.append_mask(group, person.mask)


def _covered(box: np.ndarray, other: np.ndarray) -> float:
    """Share of a box (4,) that another one covers."""
    sides = np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None)
    return float(sides.prod() / max((box[2:] - box[:2]).prod(), 1e-9))


def blocks(take: Take, group: str, names: tuple[str, ...]):
    """The rows' arrays of these names, BLOCK rows at a time, with the number of the first row."""
    arrays = [take.read(group, name, "track") for name in names]
    for start in range(0, len(arrays[0]), BLOCK):
        yield start, [np.array(array[start : start + BLOCK]) for array in arrays]


@dataclass
class Picks:
    """Per sample of one person: from which pass (T,) and which row of it (T,) the person's data comes; row -1 where there is none."""

    passes: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, take: Take, tracks: list[list[int]], anchors: list[int]) -> "Picks":
        """Of a person made of these [pass, track, first sample, last], pass 0 forward, 1 backward in time, with prompts at these samples.

        After a prompt what was tracked forward from it counts more, before the first prompt what was tracked backward.
        """
        picks = cls(np.zeros(take.samples, np.uint8), np.full(take.samples, -1, np.int32))
        samples = np.arange(take.samples)
        forward = samples >= min(anchors, default=0)
        for number in sorted({n for n, *_ in tracks}):
            mine = [(t, first, last) for n, t, first, last in tracks if n == number]
            preferred = forward if number == 0 else ~forward
            for start, (sample, track) in blocks(take, group_of(number), ("sample", "track")):
                found = np.flatnonzero(np.any([(track == t) & (first <= sample) & (sample <= last) for t, first, last in mine], 0))
                found = found[(picks.rows[sample[found]] < 0) | preferred[sample[found]]]
                picks.rows[sample[found]], picks.passes[sample[found]] = found + start, number
        return picks


def neighbours(there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The last sample that is there (T,) up to each sample (-1: none), and the first one from it on (T: none)."""
    samples = np.arange(len(there))
    before = np.maximum.accumulate(np.where(there, samples, -1))
    after = np.minimum.accumulate(np.where(there, samples, len(samples))[::-1])[::-1]
    return before, after


class Assembler:
    """Writes each person's arrays for a stretch of samples, bridging short gaps between sightings. What was only imagined is left out; where
    landmarks are squeezed into the visible rest of a body, nobody saw them."""

    def __init__(self, take: Take, picks: dict[int, Picks], cuts: list[int], seconds_per_sample: float):
        self.take, self.picks, self.seconds = take, picks, seconds_per_sample
        self._size = take.clip["width"], take.clip["height"]
        self.shot = np.searchsorted(np.array(cuts), np.arange(take.samples), side="right")
        passes = sorted({int(n) for p in picks.values() for n in np.unique(p.passes[p.rows >= 0])})
        names = [*ROW_ARRAYS, *MASK_ARRAYS]
        self.rows = {n: {name: take.read(group_of(n), name, "track") for name in names} for n in passes}
        for person, mine in picks.items():
            mine.rows[self._imagined(person)] = -1
        self.squeezed = {person: self._squeezed(person) for person in picks}
        self.neighbours = {person: neighbours((p.rows >= 0) & ~self.squeezed[person]) for person, p in picks.items()}
        self.gaps = {person: self._gaps(person) for person in picks}

    def write(self, start: int, stop: int) -> None:
        for person in self.picks:
            self._write_arrays(person, np.arange(start, stop))
        for sample in range(start, stop):
            self._write_masks(sample)

    def _gather(self, person: int, name: str, samples: np.ndarray) -> np.ndarray:
        """An array's rows at samples where the person has data."""
        dtype, shape = ROW_ARRAYS[name]
        out = np.zeros((len(samples), *shape), dtype)
        picks = self.picks[person]
        for number, arrays in self.rows.items():
            here = picks.passes[samples] == number
            out[here] = arrays[name][picks.rows[samples[here]]]
        return out

    def _imagined(self, person: int) -> np.ndarray:
        """The samples at which the person is only imagined."""
        samples = np.flatnonzero(self.picks[person].rows >= 0)
        doubted = (self._gather(person, "doubted", samples) & self._gather(person, "crowded", samples)).astype(bool)
        places = np.zeros((len(samples), 3))
        for start in range(0, len(samples), BLOCK):
            part = np.s_[start : start + BLOCK]
            points, scales = (self._gather(person, name, samples[part]) for name in ("landmarks_px", "scale"))
            places[part] = [place_of(p, scale) for p, scale in zip(points, scales, strict=True)]
        return samples[imagined(samples, places, doubted, self.shot[samples], self.seconds)]

    def _squeezed(self, person: int) -> np.ndarray:
        """(T,) where the person's landmarks are of no use because the person is nearly out of sight."""
        samples = np.arange(self.take.samples)
        seen = self.picks[person].rows >= 0
        area, scale, box = (np.zeros((len(samples), *ROW_ARRAYS[name][1]), np.float32) for name in ("area", "scale", "box"))
        for name, out in (("area", area), ("scale", scale), ("box", box)):
            out[seen] = self._gather(person, name, samples[seen])
        return squeezed(seen, area, scale, at_edges(box, self._size)[:, :2].any(1), self.shot, self.seconds)

    def _gaps(self, person: int) -> np.ndarray:
        """(T,) where the person is hidden between sightings, those that are squeezed on the way in and out included."""
        seen = self.picks[person].rows >= 0
        before, after = neighbours(seen)
        empty = ~seen & (before >= 0) & (after < self.take.samples)
        bridged = empty.copy()
        bridged[empty] = self._bridged(person, before[empty], after[empty])
        before, after = self.neighbours[person]
        between = (~seen | self.squeezed[person]) & (before >= 0) & (after < self.take.samples)
        all_of, bridged_of = (np.bincount(before[between & part], minlength=len(seen)) for part in (empty, bridged))
        return between & ((all_of == bridged_of) & (all_of > 0))[before]

    def _write_arrays(self, person: int, samples: np.ndarray) -> None:
        before, after = (n[samples] for n in self.neighbours[person])
        gap = self.gaps[person][samples]
        there = (self.picks[person].rows[samples] >= 0) & ~gap
        unseen = gap | self.squeezed[person][samples]
        weight = (samples - before)[gap] / np.maximum(after - before, 1)[gap]
        for name, (dtype, shape) in ARRAYS.items():
            out = np.zeros((len(samples), *shape), dtype)
            out[there] = self._gather(person, name, samples[there])
            if name == "state":
                out[unseen] = State.OCCLUDED
            elif name == "confidence":
                out[unseen] = 0
            else:
                w = weight.reshape(-1, *[1] * len(shape))
                out[gap] = (1 - w) * self._gather(person, name, before[gap]) + w * self._gather(person, name, after[gap])
            if name == "landmarks_px":
                out[unseen, :, 2] = 0
            self.take.append(person_group(person), name, out)

    def _bridged(self, person: int, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Which gaps between two sightings are somebody hidden: short, or behind others; within a shot, not too far to go, not out of the picture
        and back."""
        old, new = self._gather(person, "box", before), self._gather(person, "box", after)
        out_and_back = (at_edges(old, self._size) & at_edges(new, self._size)).any(1)
        seconds = (after - before) * self.seconds
        way = np.linalg.norm((old[:, :2] + old[:, 2:] - new[:, :2] - new[:, 2:]) / 2, axis=1)
        near = way <= (REACH + SPEED * seconds) * np.maximum(old[:, 3] - old[:, 1], new[:, 3] - new[:, 1])
        short = seconds <= BRIDGED_S
        long = np.flatnonzero(~short & (seconds <= BEHIND_S))
        gaps, which = np.unique(np.stack([before[long], after[long]], 1), axis=0, return_inverse=True)
        behind = np.array([self._behind(person, *gap) for gap in gaps], bool)
        short[long] = behind[which.ravel()] if len(gaps) else False
        return short & (self.shot[before] == self.shot[after]) & near & ~out_and_back

    def _behind(self, person: int, before: int, after: int) -> bool:
        """Whether other people cover somebody on the straight way through a gap."""
        old, new = self._gather(person, "box", np.array([before, after]))
        covered = []
        for part in PROBES:
            at, sample = (1 - part) * old + part * new, np.array([round(before + part * (after - before))])
            boxes = [self._gather(p, "box", sample)[0] for p, picks in self.picks.items() if p != person and picks.rows[sample[0]] >= 0]
            covered.append(max((_covered(at, box) for box in boxes), default=0.0))
        return float(np.mean(covered)) >= BEHIND

    def _write_masks(self, sample: int) -> None:
        seen = {p: int(picks.passes[sample]) for p, picks in self.picks.items() if picks.rows[sample] >= 0}
        mixed = len(set(seen.values())) > 1  # two passes do not know of each other's masks
        taken = np.zeros((self.take.clip["height"], self.take.clip["width"]), bool) if mixed else None
        for person, picks in self.picks.items():
            if person not in seen:
                self._append_mask(person, np.zeros(0, np.uint8), [0, 0, 0, 0])
                continue
            arrays = self.rows[seen[person]]
            offset, length, *box = (int(v) for v in arrays["mask_index"][picks.rows[sample]])
            data = np.array(arrays["mask_bytes"][offset : offset + length])
            if mixed:
                mask = decode_mask(data.tobytes(), box, *taken.shape) & ~taken
                taken |= mask
                self.take.append_mask(person_group(person), mask)
            else:
                self._append_mask(person, data, box)

    def _append_mask(self, person: int, data: np.ndarray, box: list[int]) -> None:
        group = person_group(person)
        self.take.append(group, "mask_index", np.array([[self.take.count(group, "mask_bytes", "track"), len(data), *box]]))
        self.take.append(group, "mask_bytes", data)
