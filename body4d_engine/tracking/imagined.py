# SPDX-License-Identifier: Apache-2.0
"""Somebody who passes behind others is lost for a moment, and the landmarker sees them in a piece of those others."""

import numpy as np

from .motion import GAP_PUSH, units

OFF = np.array([0.3, 0.3, 0.2])  # metres, and logarithm of size: so far off the way, nobody saw it right
LONGEST_S = 2.5  # of which the way is known from both ends


def imagined(samples: np.ndarray, places: np.ndarray, doubted: np.ndarray, shot: np.ndarray, seconds: float) -> np.ndarray:
    """(n,) bool: the sightings of a person that are none: those that the detector does not confirm, among others, and that lie off the straight way
    from the confirmed sighting before to the next one.

    samples (n,) in order; places (n, 3) as in `motion`; doubted (n,) bool: among others, and not confirmed; shot (n,): its number.
    """
    out = np.zeros(len(samples), bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], doubted, [False]]).astype(int)))
    for begin, stop in edges.reshape(-1, 2).tolist():
        if begin == 0 or stop == len(samples) or shot[begin - 1] != shot[stop]:
            continue
        time, whole = (samples[begin:stop] - samples[begin - 1]) * seconds, (samples[stop] - samples[begin - 1]) * seconds
        if whole > LONGEST_S:
            continue
        part = (time / whole)[:, None]
        way = (1 - part) * places[begin - 1] + part * places[stop]
        strays = GAP_PUSH * np.sqrt(whole**3 / 3) * part * (1 - part)  # standard deviation of a path pushed by white accelerations, its ends known
        off = np.flatnonzero((((places[begin:stop] - way) / units(way)) ** 2 / (OFF**2 + strays**2)).sum(1) > 1)
        if len(off):
            out[begin + off[0] : begin + off[-1] + 1] = True
    return out
