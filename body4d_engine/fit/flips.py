# SPDX-License-Identifier: Apache-2.0
"""Finding short bursts in which the landmarker swapped left with right: of the whole body, whose front it took for the back, or of a pair of limbs.

Reprojection does not show such a burst, because the swapped body fits the image as well. What shows it: from one sample to the next the
landmarks jump, and jump less if left and right are swapped. Samples are swapped where that makes the whole motion smoothest: so a burst is
found though the landmarks at one of its ends are neither the one nor the other.
"""

import numpy as np

from ..runs import runs

BURST_S = 0.5  # the longest burst
JUMP = 0.08  # of the body's size: what swapping must gain at the two ends of a burst together
RATIO = 0.5  # of its jump, which is more than JUMP: what is left of it where part of a body is swapped

_PAIRS = [(1, 4), (2, 5), (3, 6), (7, 8), (9, 10), *[(i, i + 1) for i in range(11, 32, 2)]]
SWAP = np.arange(33)
for _a, _b in _PAIRS:
    SWAP[[_a, _b]] = _b, _a
CORE = np.array([11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28])
# part of the body: its landmarks, those that show that it is swapped, the two by which it hangs where these are swapped too. First the larger
PARTS = {
    "upper body": (np.arange(23), np.arange(11, 17), [11, 12]),
    "lower body": (np.arange(23, 33), np.arange(23, 29), [23, 24]),
    "arms": (np.arange(13, 23), np.arange(13, 17), None),
    "legs": (np.arange(25, 33), np.arange(25, 29), None),
}
BESIDE = 3  # samples on either side of a burst to compare it with
BLOCK = 4096


def find(landmarks_px, seen: np.ndarray, spacing_s: float, cuts: frozenset[int] = frozenset(), part: str | None = None) -> np.ndarray:
    """landmarks_px (T, 33, 3), read in blocks; seen (T,); seconds between samples; cuts: samples that begin a shot; part: of PARTS, or the
    whole body -> (T,) bool, in a burst."""
    points, roots = PARTS[part][1:] if part else (CORE, None)
    jumps, swapped = np.zeros(len(seen)), np.zeros(len(seen))
    for start in range(0, len(seen), BLOCK):
        block = np.nan_to_num(np.asarray(landmarks_px[max(start - 1, 0) : start + BLOCK], np.float64)[:, :, :2], posinf=0, neginf=0)
        before, after = block[:-1], block[1:]
        size = np.ptp(after[:, CORE], axis=1).max(1) + 1e-6
        mine = slice(max(start, 1), max(start, 1) + len(after))
        jumps[mine] = _distance(before, after, points) / size
        swapped[mine] = _distance(before, after[:, SWAP], points) / size
        if part:  # a limb jumps for many a reason
            swapped[mine][(jumps[mine] <= JUMP) | (swapped[mine] >= RATIO * jumps[mine])] = np.inf
        if roots is not None:
            swapped[mine][_distance(before, after[:, SWAP], roots) >= _distance(before, after, roots)] = np.inf
    longest = BURST_S / spacing_s
    flipped = np.zeros(len(seen), bool)
    starts = [i for i in range(len(seen)) if seen[i] and (i == 0 or not seen[i - 1] or i in cuts)]
    for begin in starts:
        stop = begin + 1
        while stop < len(seen) and seen[stop] and stop not in cuts:
            stop += 1
        for first, last in runs(_smoothest(jumps[begin:stop], swapped[begin:stop], 2 * JUMP / longest)):
            if last - first <= longest and first > 0 and last < stop - begin:  # both ends were seen
                flipped[begin + first : begin + last] = True
    return flipped


def _smoothest(jumps: np.ndarray, swapped: np.ndarray, dear: float) -> np.ndarray:
    """(N,) bool: which samples to swap so that the sum of jumps is least (dynamic programming, Viterbi 1967). jumps,
    swapped (N,): from the sample before if both or neither are swapped, and if one is. A change costs JUMP / 2, a swapped sample `dear`."""
    count = len(jumps)
    plain, other = 0.0, 0.0
    from_other = np.zeros((count, 2), bool)  # best way into (plain, swapped) comes from the other state
    for i in range(1, count):
        change = swapped[i] + JUMP / 2
        from_other[i] = other + change < plain + jumps[i], plain + change < other + jumps[i]
        plain, other = min(plain + jumps[i], other + change), min(other + jumps[i], plain + change) + dear
    out = np.zeros(count, bool)
    out[-1] = other < plain
    for i in range(count - 1, 0, -1):
        out[i - 1] = out[i] ^ from_other[i, int(out[i])]
    return out


def repair(landmarks_px: np.ndarray, landmarks_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Swap left and right of (N, 33, 3) landmarks and mirror their depth."""
    return landmarks_px[:, SWAP], landmarks_m[:, SWAP] * np.array([1, 1, -1], landmarks_m.dtype)


def find_parts(landmarks_px, seen: np.ndarray, spacing_s: float, cuts: frozenset[int] = frozenset()) -> np.ndarray:
    """(T, 4) bool: which of PARTS are in a burst; as `find`. A part of what is swapped already is not said again.

    Half a body is swapped only where shoulders and hips are more at odds than beside the burst: else what lies beside it is wrong.
    """
    out = np.stack([find(landmarks_px, seen, spacing_s, cuts, part) for part in PARTS], 1)
    for half in (0, 1):
        for begin, stop in runs(out[:, half]):
            around = np.arange(max(begin - BESIDE, 0), min(stop + BESIDE, len(seen)))
            twisted = _twisted(np.asarray(landmarks_px[around], np.float64)[seen[around]])
            inside = ((around >= begin) & (around < stop))[seen[around]]
            if inside.all() or twisted[inside].mean() <= twisted[~inside].mean():
                out[begin:stop, half] = False
    out[:, 2:] &= ~out[:, :2]
    return out


def repair_parts(landmarks_px: np.ndarray, landmarks_m: np.ndarray, swapped: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Swap the parts of (N, 33, 3) landmarks that `swapped` (N, 4) names. Half a body that was seen from the wrong side is mirrored in depth."""
    pixels, metres = landmarks_px.copy(), landmarks_m.copy()
    for (points, _, roots), here in zip(PARTS.values(), swapped.T, strict=True):
        rows = np.ix_(here, points)
        pixels[rows], metres[rows] = landmarks_px[np.ix_(here, SWAP[points])], landmarks_m[np.ix_(here, SWAP[points])]
        if roots is not None:
            metres[rows] *= np.array([1, 1, -1], metres.dtype)
    return pixels, metres


def _twisted(landmarks_px: np.ndarray) -> np.ndarray:
    """(N,) -1..1: how far the shoulders point the other way than the hips, where both are as wide as they get; less where one is narrow and may
    point anywhere."""
    shoulders, hips = (landmarks_px[:, b, :2] - landmarks_px[:, a, :2] for a, b in ((11, 12), (23, 24)))
    return -(shoulders * hips).sum(1) / (np.linalg.norm(shoulders, axis=1).max(initial=1e-6) * np.linalg.norm(hips, axis=1).max(initial=1e-6))


def _distance(a: np.ndarray, b: np.ndarray, points) -> np.ndarray:
    return np.linalg.norm(a[:, points] - b[:, points], axis=-1).mean(1)
