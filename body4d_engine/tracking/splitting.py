# SPDX-License-Identifier: Apache-2.0
"""Where a track goes over from one person to another without noticing: among others, and its looks change for good.

Such a track is cut there, and `linking`, which sees before and after, decides what belongs together.
"""

from array import array
from collections import deque

import numpy as np

from ..take import Take
from . import appearance, rows
from .edges import at_edges
from .linking import Tracklet
from .motion import place_of

SPAN_S = 0.5  # of a track on either side whose looks are compared
LEAST = 4  # sightings on either side
CHANGED = 0.3  # difference in looks that is a change: those of one person differ by less than half of it from one half second to the next
UNSURE_S = 0.1  # before and after a change nobody knows whom the track is on
SHORTEST_S = 0.25  # parts shorter than this say nothing
CROWDED_LOOKS = 0.05  # how much looks count that may be partly somebody else's


class Changes:
    """Watches one track, sighting by sighting in the order it was tracked. Keeps the looks of one second, and a number per sighting."""

    def __init__(self, seconds_per_sample: float):
        self.span = max(LEAST, round(SPAN_S / seconds_per_sample))
        self._recent: deque = deque(maxlen=2 * self.span)  # (sample, looks, crowded)
        self._judged, self._changed = array("i"), array("f")  # samples, and how much looks change there

    def see(self, sample: int, looks: np.ndarray, crowded: bool) -> None:
        """looks (SIZE,), as heavy as they count; crowded: others are so near that they may be taken for this person."""
        self._recent.append((int(sample), looks, bool(crowded)))
        self._judge(self.span)

    def end(self) -> list[int]:
        """When all is seen: the samples at which another person begins, in the order of tracking. Of less than a second nothing can be said."""
        if len(self._recent) < 2 * self.span:
            return []
        for after in range(self.span - 1, LEAST - 1, -1):
            self._judge(after)
        changed = np.array(self._changed)
        cuts: list[int] = []
        for k in np.flatnonzero(changed > CHANGED).tolist():
            if changed[k] == changed[max(0, k - self.span) : k + self.span + 1].max() and (not cuts or k - cuts[-1] > self.span):
                cuts.append(k)
        return [self._judged[k] for k in cuts]

    def _judge(self, after: int) -> None:
        """How much looks change at the sighting that is followed, itself included, by so many."""
        at = len(self._recent) - after
        if at < LEAST:
            return
        recent = list(self._recent)
        before, now = recent[max(0, at - self.span) : at], recent[at:]
        self._judged.append(recent[at][0])
        self._changed.append(appearance.distance(*(np.sum([looks for _, looks, _ in part], 0) for part in (before, now))) if recent[at][2] else 0.0)


def tracklets_of(take: Take, number: int, said: dict, seconds: float, cuts: list[int]) -> list[Tracklet]:
    """All tracks of a pass (its number: 0 forward in time, 1 backward) in numbers, read from its rows; in parts where they go over from one person to
    another.

    said: `labels` and `bans`, as the tracker has them; cuts: the first samples of later shots.
    """
    group, unsure = rows.group_of(number), round(UNSURE_S / seconds)
    changes: dict[int, Changes] = {}
    for _, block in rows.blocks(take, group, ("sample", "track", "looks", "crowded")):
        for sample, track, looks, crowded in zip(*block, strict=True):
            changes.setdefault(int(track), Changes(seconds)).see(sample, _weighed(looks, crowded), crowded)
    prompted = [(track, sample) for track, _, sample in said["labels"]]
    breaks = {track: [at for at in change.end() if all(abs(at - sample) > unsure for t, sample in prompted if t == track)] for track, change in changes.items()}

    def part_of(track: int, sample: int) -> int:
        return sum(sample >= at if number == 0 else sample <= at for at in breaks[track])

    parts = {track: [Tracklet(number, track, seconds, part) for part in range(len(at) + 1)] for track, at in breaks.items()}
    names = ("sample", "track", "box", "looks", "landmarks_px", "scale", "doubted", "crowded")
    for _, (samples, tracks, boxes, *block) in rows.blocks(take, group, names):
        leaving = at_edges(boxes, (take.clip["width"], take.clip["height"])).any(1)
        for sample, track, box, looks, points, scale, doubted, crowded, edge in zip(samples.tolist(), tracks.tolist(), boxes, *block, leaving, strict=True):
            if all(abs(sample - at) > unsure for at in breaks[track]):
                parts[track][part_of(track, sample)].add(sample, box, _weighed(looks, crowded), place_of(points, scale), doubted, edge)
    for track, person, sample in said["labels"]:
        if track in parts:
            parts[track][part_of(track, sample)].person = person
    for track, person, sample in said["bans"]:
        if track in parts:
            parts[track][part_of(track, sample)].bans.add(person)
    kept = [part for track in parts.values() for part in track if len(track) == 1 or part.person or part.count * seconds >= SHORTEST_S]
    for part in kept:
        part.settle({0, take.samples - 1, *cuts, *(cut - 1 for cut in cuts)})
    return kept


def _weighed(looks: np.ndarray, crowded: bool) -> np.ndarray:
    return CROWDED_LOOKS * looks if crowded else looks
