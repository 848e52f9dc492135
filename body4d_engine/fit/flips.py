# SPDX-License-Identifier: Apache-2.0
"""Finding short bursts in which the landmarker took a person's front for the back, and swapped left with right.

Reprojection does not show such a burst, because the swapped body fits the image as well. What shows it: from one sample to the next the
landmarks jump, and hardly jump if left and right are swapped. Two such events close to each other bracket a burst.
"""

import numpy as np

BURST_S = 0.5  # the longest burst
RATIO, JUMP = 0.5, 0.08  # swapping must halve a jump of more than this share of the body's size

_PAIRS = [(1, 4), (2, 5), (3, 6), (7, 8), (9, 10), *[(i, i + 1) for i in range(11, 32, 2)]]
SWAP = np.arange(33)
for _a, _b in _PAIRS:
    SWAP[[_a, _b]] = _b, _a
_CORE = np.array([11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28])
BLOCK = 4096


def find(landmarks_px, seen: np.ndarray, spacing_s: float, cuts: frozenset[int] = frozenset()) -> np.ndarray:
    """landmarks_px (T, 33, 3), read in blocks; seen (T,); seconds between samples; cuts: samples that begin a shot -> (T,) bool, in a burst."""
    events = []
    for start in range(0, len(seen), BLOCK):
        block = np.nan_to_num(np.asarray(landmarks_px[max(start - 1, 0) : start + BLOCK], np.float64)[:, :, :2], posinf=0, neginf=0)
        before, after = block[:-1], block[1:]
        size = np.ptp(after[:, _CORE], axis=1).max(1) + 1e-6
        jump = _distance(before, after) / size
        swapped = _distance(before, after[:, SWAP]) / size
        hit = (jump > JUMP) & (swapped < RATIO * jump)
        first = max(start, 1)
        events += [i for i in first + np.flatnonzero(hit) if seen[i] and seen[i - 1] and i not in cuts]
    longest = BURST_S / spacing_s
    flipped = np.zeros(len(seen), bool)
    while len(events) > 1:
        begin, end = events[0], events[1]
        if end - begin <= longest and not any(begin < cut <= end for cut in cuts):
            flipped[begin:end] = True
            events = events[2:]
        else:
            events = events[1:]
    return flipped & seen


def bursts(flipped: np.ndarray) -> list[tuple[int, int]]:
    """[begin, stop) of each run in flipped (T,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flipped.astype(np.int8), [0]])))
    return [(int(begin), int(stop)) for begin, stop in edges.reshape(-1, 2)]


def repair(landmarks_px: np.ndarray, landmarks_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Swap left and right of (N, 33, 3) landmarks and mirror their depth."""
    return landmarks_px[:, SWAP], landmarks_m[:, SWAP] * np.array([1, 1, -1], landmarks_m.dtype)


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a[:, _CORE] - b[:, _CORE], axis=-1).mean(1)
