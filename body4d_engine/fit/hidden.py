# SPDX-License-Identifier: Apache-2.0
"""When somebody is half hidden, and what the landmarker takes for that person is a squeezed body, or somebody else's.

Of a body behind another BlazePose squeezes the whole into what it sees, or borrows legs, and is as sure of it as ever: no landmark shows it by
itself. What shows it is the motion: the trunk leaps into its wrong place and out of it, faster than bodies do. So where people meet a
track is believed only in such pieces as go on without a leap from where the person was in the clear, or last.
"""

from collections.abc import Iterable

import numpy as np

BESIDE = 0.1  # of somebody's height: people whose boxes are nearer than this may hide each other
LEAP_M, LEAP_M_S = 0.1, 1.0  # how far hips or shoulders may be from where their usual way leads: at once, and per second
USUAL_S = 0.5  # half width of the time whose median motion is the usual one
GAP_S = 0.25  # a longer gap parts pieces
CLEAR_S, LASTING_S = 0.1, 0.6  # a piece is believed that is so long in the clear, or so long in all
LINK_S = 0.5  # and any other where no leap parts it from those so near before and after it


def meeting(box: np.ndarray, others: Iterable[np.ndarray]) -> np.ndarray:
    """(T,) bool: where somebody's box (T, 4) meets one of the others', each (T, 4); who is not there has an empty one."""
    margin = BESIDE * (box[:, 3:] - box[:, 1:2])
    low, high, out = box[:, :2] - margin, box[:, 2:] + margin, np.zeros(len(box), bool)
    for other in others:
        there = (other[:, 2:] > other[:, :2]).all(1)
        out |= there & (np.minimum(high, other[:, 2:]) > np.maximum(low, other[:, :2])).all(1)
    return out


def squeezed(trunk: np.ndarray, scale: np.ndarray, seen: np.ndarray, suspect: np.ndarray, shot: np.ndarray, spacing_s: float) -> np.ndarray:
    """(T,) bool: which of the suspect samples are not to be believed at all.

    trunk (T, P, 2) px: points of the trunk; scale (T,) px per metre of body; seen, suspect (T,) bool; shot (T,) numbers. None where no
    piece is sure.
    """
    out, there = np.zeros(len(seen), bool), np.flatnonzero(seen)
    if len(there) < 2 or not suspect[there].any() or spacing_s > GAP_S:  # so far apart motion says nothing
        return out
    before, after = there[:-1], there[1:]
    apart_s = (after - before) * spacing_s
    speeds = (trunk[after] - trunk[before]) / (np.maximum(scale[before], scale[after]) * apart_s)[:, None, None]  # metres per second
    half = USUAL_S / spacing_s

    def leaps(first: int, then: int) -> bool:
        near = slice(*np.searchsorted(after, (first + then) / 2 + np.array([-half, half])))
        usual, seconds = np.median(speeds[near][shot[after[near]] == shot[then]], axis=0), (then - first) * spacing_s
        moved = (trunk[then] - trunk[first]) / max(scale[first], scale[then])
        return np.linalg.norm(moved - usual * seconds, axis=-1).max() > LEAP_M + LEAP_M_S * seconds

    parted = (shot[before] != shot[after]) | (apart_s > GAP_S + 1e-9)
    for pair in np.flatnonzero((suspect[before] | suspect[after]) & ~parted):
        parted[pair] = leaps(before[pair], after[pair])
    pieces = np.split(there, np.flatnonzero(parted) + 1)
    sure = [(~suspect[piece]).sum() * spacing_s > CLEAR_S - 1e-9 or len(piece) * spacing_s > LASTING_S - 1e-9 for piece in pieces]
    ends = np.array([[piece[0], piece[-1]] for piece, good in zip(pieces, sure) if good]).reshape(-1, 2)
    for piece, good in zip(pieces, sure):
        if not good and len(ends):
            links = [*((end, piece[0]) for end in ends[ends[:, 1] < piece[0], 1][-1:]), *((piece[-1], end) for end in ends[ends[:, 0] > piece[-1], 0][:1])]
            links = [(a, b) for a, b in links if shot[a] == shot[b] and (b - a) * spacing_s < LINK_S]
            out[piece] = not links or any(leaps(a, b) for a, b in links)
    return out & suspect
