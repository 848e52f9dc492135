# SPDX-License-Identifier: Apache-2.0
"""Who is seen in several shots: those whom the word "person" finds after a cut are told by their looks, as the lite backend does it."""

from collections.abc import Iterator

import numpy as np

from ...events import Notice
from ...take import Take
from ...tracking.edges import at_edges
from ...tracking.linking import Tracklet, link
from . import masklets

AVERAGE_M = 1.7  # how tall a body in the picture is taken to be: places are compared within a shot only, where nobody is joined


def joined(take: Take, shots: list[range], seconds: float) -> dict[int, int]:
    """Person in the rows -> the first person in them who is the same one: two of different shots whose looks are alike, and like nobody else's nearly as
    much. `tracking.linking` decides; seconds: per sample. Within a shot the tracker has decided already."""
    samples, numbers, boxes, looks = (take.read(masklets.ROWS, name, "track") for name in ("sample", "person", "box", "looks"))
    people, size = [], (take.clip["width"], take.clip["height"])
    order = np.lexsort((samples, numbers))  # rows of a way back come after those of the way forward that they lead up to
    for rows in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
        tracklet = Tracklet(0, int(numbers[rows[0]]), seconds)
        for row in rows:
            box = boxes[row].astype(np.float64)
            place = np.array([*(box[:2] + box[2:]) / 2, np.log(max(box[3] - box[1], 1.0) / AVERAGE_M)])
            tracklet.add(samples[row], box, looks[row].astype(np.float64), place, leaving=bool(at_edges(box, size).any()))
        people.append(tracklet)
    out, shot = {}, np.repeat(np.arange(len(shots)), [len(shot) for shot in shots])
    for chain in link(people, seconds, [shot[0] for shot in shots[1:]]):
        first = None
        for before, piece in zip([None, *chain], chain):
            first = piece.track if before is None or shot[before.last] == shot[piece.first] else first
            out[piece.track] = first
    return out


def told(take: Take, ids: dict[int, int], shots: list[range]) -> Iterator[Notice]:
    """What was found of people in several shots. ids: the id of each person in the rows."""
    shot = np.repeat(np.arange(len(shots)), [len(shot) for shot in shots])
    seen: dict[int, set[int]] = {}
    for _, (samples, numbers) in masklets.blocks(take, "sample", "person"):
        for number in set(numbers.tolist()) & ids.keys():
            seen.setdefault(ids[number], set()).update(shot[samples[numbers == number]].tolist())
    for number, where in sorted(seen.items()):
        if len(where) > 1:
            starts = " and ".join(f"frame {take.frames[shots[k][0]]}" for k in sorted(where))
            yield Notice("track", "shots_joined", f"Person {number} is taken for the same one in the shots that begin with {starts}, by looks. If that is "
                         "wrong, click people in each shot.", number)
    alone = sum(len(where) == 1 for where in seen.values())
    if alone and len(set().union(*seen.values())) > 1:
        who = "1 person was" if alone == 1 else f"{alone} people were"
        yield Notice("track", "shots_apart", f"{who} seen in one shot only, or not recognised in another: who has no sure likeness gets a new number. Click "
                     "the same person in several shots to make them one.")
