# SPDX-License-Identifier: Apache-2.0
"""What the user corrects: which landmarks are swapped, mirrored in depth or not believed, on top of what was found to be wrong without being told.

Corrections change the samples that they name, and of the others only what the neighbourhood of these has a say in: the body's shape and the samples
before and after are what they were.
"""

from dataclasses import replace

import numpy as np

from ..people import LIMBS, Correction
from ..runs import runs
from ..take import State
from ..take_arrays import Earlier
from . import trust

SIDES, DEPTH, BODY = 1, 2, 4
LOST = {limb: 8 << i for i, limb in enumerate(LIMBS)}
MIRRORED = {limb: 128 << i for i, limb in enumerate(LIMBS)}
TURNED = SIDES | DEPTH | sum(MIRRORED.values())  # a pose from before the correction is no start
_ROOTS = dict(zip(LIMBS, (11, 12, 23, 24), strict=True))  # landmark at which each limb hangs
_HANDS = (SIDES | DEPTH | BODY | LOST["left arm"] | MIRRORED["left arm"], SIDES | DEPTH | BODY | LOST["right arm"] | MIRRORED["right arm"])


def flags(corrections: list[Correction], frames: range) -> np.ndarray:
    """(T,) uint16: what is corrected in each sample, whose clip frames are given."""
    out, clip_frames = np.zeros(len(frames), np.uint16), np.asarray(frames)
    bits = {"sides": lambda limb: SIDES, "body": lambda limb: BODY, "limb": LOST.get, "depth": lambda limb: MIRRORED[limb] if limb else DEPTH}
    for said in corrections:
        out[(clip_frames >= said.first_frame) & (clip_frames <= said.last_frame)] |= bits[said.kind](said.limb)
    return out


def survey(known, asked: np.ndarray):
    """The Survey as it is with the corrections."""
    if not asked.any():
        return known
    hidden = asked & BODY > 0
    state = np.where(hidden & (known.state == State.VISIBLE), State.OCCLUDED, known.state).astype(known.state.dtype)
    return replace(known, asked=asked, seen=known.seen & ~hidden, state=state, flipped=known.flipped ^ (asked & SIDES > 0))


def apply(asked: np.ndarray, image: np.ndarray, space: np.ndarray, metres: np.ndarray) -> None:
    """Mirror and disbelieve landmarks of N samples in place, whose sides are in order: image, space (N, 33) of `trust.measure`; metres (N, 33, 3)."""
    metres[asked & DEPTH > 0, :, 2] *= -1
    for limb, points in trust.LIMBS.items():
        mirrored = np.flatnonzero(asked & MIRRORED[limb])[:, None]
        metres[mirrored, points, 2] = 2 * metres[mirrored, _ROOTS[limb], 2] - metres[mirrored, points, 2]
        lost = np.flatnonzero(asked & LOST[limb])[:, None]
        image[lost, points] = space[lost, points] = 0


def hands(asked: np.ndarray) -> np.ndarray:
    """(T, 2) bool: where what was read of left and right hand is not believed."""
    return np.stack([asked & bits > 0 for bits in _HANDS], 1)


def changed(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """(T,) bool: samples that `recover` solves differently under the flags `now` than under those `before`. Corrected samples in a row are solved one
    from the other, so they change together."""
    out = before != now
    for begin, stop in runs(now > 0):
        out[begin:stop] |= out[max(begin - 1, 0) : stop].any()
    return out


def said_in(earlier: Earlier, person: int) -> list[Correction] | None:
    """What was corrected of the person in an earlier result; None where that cannot be read."""
    try:
        return [Correction.from_json(entry) for entry in earlier.corrections(person)]
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
