# SPDX-License-Identifier: Apache-2.0
"""The last moments before somebody is out of sight, and the first ones after.

Of a body that slips behind something or out of the picture the landmarker sees less and less, and squeezes the whole of it into what is left,
sure of every landmark. Those landmarks are of no use, but their time is short and the motion before is known.
"""

import numpy as np

LONGEST_S = 0.5  # such a moment is shorter; also the gap between sightings that are one visit
USUAL_S = 1.0  # before that, how large the person is usually
AREA, SCALE = 0.8, 0.9  # of the usual mask and of the usual px per metre: less of either is squeezed


def squeezed(seen: np.ndarray, area: np.ndarray, scale: np.ndarray, at_side: np.ndarray, shot: np.ndarray, seconds: float) -> np.ndarray:
    """(T,) bool: the samples of a person whose landmarks are squeezed.

    All (T,): seen; area of the mask in px^2; scale in px per metre of body; at_side: as far as the picture's left or right edge; shot: its number.
    Where the person is seen up to the end of a shot, only what reaches a side can be squeezed.
    """
    out = np.zeros(len(seen), bool)
    longest, usual = int(np.ceil(LONGEST_S / seconds - 1e-9)) - 1, int(np.ceil(USUAL_S / seconds))  # samples, in less than these times
    for begin, stop in visits(seen, shot, longest):
        lost = (begin > 0 and shot[begin - 1] == shot[begin], stop < len(seen) and shot[stop] == shot[stop - 1])
        for samples, vanished in ((np.arange(stop - 1, begin - 1, -1), lost[1]), (np.arange(begin, stop), lost[0])):
            before = samples[longest : longest + usual]
            before = before[seen[before]]
            if len(before) < max(2, longest // 2):
                continue
            small = (area < AREA * np.median(area[before])) | (scale < SCALE * np.median(scale[before]))
            large = None  # a single sample among the small ones in which the landmarker imagined the rest of the body
            for number, sample in enumerate(samples[:longest]):
                if seen[sample] and not (small[sample] and (vanished or at_side[sample])):
                    if large is not None or number == 0:
                        break
                    large = sample
                elif seen[sample]:
                    out[sample] = True
                    if large is not None:
                        out[large], large = True, None
    return out


def visits(seen: np.ndarray, shot: np.ndarray, longest: int) -> list[tuple[int, int]]:
    """[begin, stop) of the spans within a shot in which a person is seen, but for gaps of at most `longest` samples."""
    there = np.flatnonzero(seen)
    breaks = np.flatnonzero((np.diff(there) > longest + 1) | (np.diff(shot[there]) != 0))
    edges = [0, *(breaks + 1), len(there)]
    return [(int(there[a]), int(there[b - 1]) + 1) for a, b in zip(edges, edges[1:]) if b > a]
