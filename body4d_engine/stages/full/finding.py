# SPDX-License-Identifier: Apache-2.0
"""Whom the word "person" finds: who of them is new, and who was there long and large enough."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from ...events import Notice
from . import masklets

COVERED = 0.5  # of a detection's mask: where those who are followed have more of it, it is one of them
SAME = 0.7  # overlap (IoU) of two prompts' masks that are one body
SHORTEST_S, SMALLEST_PX = 0.5, 60.0


class Newcomers(NamedTuple):
    """`masks`: (H, W) bool each, without overlap; `too_small`: whether somebody else is new, but not SMALLEST_PX tall."""

    masks: list[np.ndarray]
    too_small: bool


def newcomers(masks: np.ndarray, taken: np.ndarray) -> Newcomers:
    """Those of detections' masks (N, H, W) bool, the surest first, that are nobody's in taken (H, W) bool. Who is too small now is found when nearer."""
    new, too_small, taken = [], False, taken.copy()
    for mask in masks:
        rest = mask & ~taken
        if not rest.any() or rest.sum() < (1 - COVERED) * mask.sum():
            continue
        rows = np.flatnonzero(mask.any(1))
        if rows[-1] + 1 - rows[0] < SMALLEST_PX:
            too_small = True
            continue
        new.append(rest)
        taken |= rest
    return Newcomers(new, too_small)


def same_body(masks: dict) -> Iterator[tuple[int, int]]:
    """Pairs of people whose masks (H, W), bool tensors or arrays, are one body's."""
    people = sorted(masks)
    for k, other in enumerate(people):
        for one in people[:k]:
            if int((masks[one] & masks[other]).sum()) > SAME * int((masks[one] | masks[other]).sum()):
                yield one, other


def worth_keeping(take, seconds: float, passed_over: int | None, same: dict[int, int]) -> Iterator[Notice]:
    """A notice for each person in the rows who is left out. Returns {id in the rows: id}, numbered by how much of the clip's pixels they are. same: of people
    in the rows the one in them that they are the same as."""
    seen: dict[int, list] = {}  # person -> sightings, sum of heights, sum of areas, first sample, last sample
    for _, (sample, person, area, box) in masklets.blocks(take, "sample", "person", "area", "box"):
        for row in np.unique(person).tolist():
            mine, number = person == row, same.get(row, row)
            count, tall, pixels, first, last = seen.get(number, [0, 0.0, 0, take.samples, 0])
            seen[number] = [count + int(mine.sum()), tall + float((box[mine, 3] - box[mine, 1]).sum()), pixels + int(area[mine].sum(dtype=np.int64)),
                            min(first, int(sample[mine].min())), max(last, int(sample[mine].max()))]
    shortest = min(SHORTEST_S, 0.5 * take.samples * seconds)
    kept = []
    for number, (count, tall, pixels, first, last) in sorted(seen.items(), key=lambda entry: (entry[1][3], entry[0])):
        notice = partial(Notice, "track", frame=take.frames[first], last_frame=take.frames[last])
        if count * seconds < shortest:
            yield notice(code="track_too_short", message=f"Somebody seen for {count * seconds:.2f} s was left out (under {shortest:.2g} s).")
        elif tall / count < SMALLEST_PX:
            yield notice(code="track_too_small", message=f"Somebody {tall / count:.0f} px tall was left out (under {SMALLEST_PX:.0f} px).")
        else:
            kept.append((-pixels, first, number))
    if passed_over is not None:
        yield Notice("track", "track_too_small", f"Somebody under {SMALLEST_PX:.0f} px tall was left out. Click them if they are wanted.",
                     frame=take.frames[passed_over])
    places = {number: place for place, (_, _, number) in enumerate(sorted(kept), 1)}
    return places | {row: places[number] for row, number in same.items() if number in places}
