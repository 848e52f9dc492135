# SPDX-License-Identifier: Apache-2.0
"""How far each landmark can be believed, from facts that the landmarker's own visibility does not know.

Of a body that is cut by the picture, hidden or hardly resolved, BlazePose often squeezes the whole into what it sees, and is sure of it. Four
facts show that: landmarks outside the picture were seen by nobody; a bone much shorter than a person's bends into depth that is only guessed;
when most bones are short at once the body was squeezed; a limb that leaps away from the body and back within a moment did not move.
"""

import numpy as np

from .flips import SWAP

# landmarks at the two ends of a bone, and its length in BlazePose's average person in metres (medians over clips of whole, well seen people)
_RIGHT = [(12, 14, 0.25), (14, 16, 0.22), (24, 26, 0.39), (26, 28, 0.37), (12, 24, 0.48)]
_BONES = [*((SWAP[a], SWAP[b], length) for a, b, length in _RIGHT), *_RIGHT]
_ENDS, _LENGTHS = np.array([bone[:2] for bone in _BONES]), np.array([bone[2] for bone in _BONES])
_CHAINS = [(0, 1), (5, 6), (2, 3), (7, 8)]  # upper and lower bone of each limb
_GROUPS = [[0, 1, 5, 6], [2, 3, 7, 8], [4, 9]]  # bones of arms, legs, trunk
# limb: its landmarks from the second joint on
LIMBS = {"left arm": [13, 15, 17, 19, 21], "right arm": [14, 16, 18, 20, 22], "left leg": [25, 27, 29, 31], "right leg": [26, 28, 30, 32]}
_LEGS = [*LIMBS["left leg"], *LIMBS["right leg"]]

SHORT, LONG = 0.45, 0.75  # of a bone's length: below the first its direction in depth is not known at all, from the second on it is
SQUEEZED, WHOLE = 0.68, 0.86  # the same for the middle one of arms, legs and trunk: arms or legs alone may point at the camera, a body is not short
SQUEEZED_CUT, WHOLE_CUT = 0.8, 0.95  # and for who reaches the picture's edge, where squeezing is to be expected
LEAST = 0.05  # what a squeezed body still counts, so that it stays in its place
GUESSED = 0.15  # what a landmark outside the picture still counts in space
EDGE = 0.03  # of the picture's longer side: so near its edge landmarks are guessed more and more
TOUCHING = 0.005  # a box so near the edge goes on beyond it
LEAP_S = 0.17  # a limb that leaps and is back within twice this did not move
LEAP_M, SURE_LEAP_M = 0.15, 0.3  # so far from where it is before and after: doubtful, certain
CLEAR, DIM = 0.9, 0.7  # visibility of a limb at its worst in that time: it did leap, it did not
MOST_LIMBS = 3  # where so many leap, the body does
DOUBTFUL = 0.5


def measure(pixels: np.ndarray, metres: np.ndarray, box: np.ndarray, steady: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """How far landmarks are to be believed in the image and in space: two arrays (N, 33) 0..1.

    pixels (N, 33, 2 or more); metres (N, 33, 3); box (N, 4) px; steady (N, 33) of `steadiness`; size: (width, height) of the picture.
    """
    ratio = np.linalg.norm(metres[:, _ENDS[:, 0]] - metres[:, _ENDS[:, 1]], axis=-1) / _LENGTHS
    bone = np.clip((ratio - SHORT) / (LONG - SHORT), 0, 1)
    inside = _inside(pixels[..., :2], size)
    there = (inside[:, _ENDS] > 0).all(-1)
    there |= ~there.any(1, keepdims=True)
    shares = np.stack([_mean(np.minimum(ratio[:, group], 1), there[:, group]) for group in _GROUPS], 1)
    whole = np.nanmedian(shares, 1)
    cut = _touching(box, size)
    body = np.where(cut, (whole - SQUEEZED_CUT) / (WHOLE_CUT - SQUEEZED_CUT), (whole - SQUEEZED) / (WHOLE - SQUEEZED)).clip(LEAST, 1)
    image = inside * steady * body[:, None]
    space = np.maximum(inside, GUESSED) * steady * body[:, None]
    for points, (upper, lower) in zip(LIMBS.values(), _CHAINS, strict=True):
        space[:, points[0]] *= bone[:, upper]
        space[:, points[1:]] *= np.minimum(bone[:, upper], bone[:, lower])[:, None]
    legs = np.clip((shares[:, 1] - SHORT) / (LONG - SHORT), LEAST, 1)  # four short bones were squeezed, they do not all point at the camera
    image[:, _LEGS] *= np.where(np.isnan(legs), 1, legs)[:, None]
    return image, space


def steadiness(pixels: np.ndarray, metres: np.ndarray, seen: np.ndarray, spacing_s: float) -> np.ndarray:
    """(N, 33) 0..1: less where one limb leaps away from the hips, comes back at once, and was not well visible meanwhile.

    Limbs that stay visible do move so fast, and where most limbs leap the body does. Looks `reach(spacing_s)` samples either way.
    """
    steps = reach(spacing_s)
    out = np.ones(pixels.shape[:2])
    if steps < 1 or len(pixels) < 2 * steps + 1:
        return out
    pixels, metres = (np.asarray(values, np.float64) for values in (pixels, metres))
    hips = pixels[:, 23:25, :2].mean(1, keepdims=True)
    place = (pixels[..., :2] - hips) / scale_of(pixels, metres)[:, None, None]
    inner = slice(steps, -steps)

    def around(values: np.ndarray) -> np.ndarray:
        return np.lib.stride_tricks.sliding_window_view(values, 2 * steps + 1, 0)

    leap = np.linalg.norm(place[inner] - np.median(around(place), -1), axis=-1)
    usable = around(seen).all(1) & (sum((leap[:, points] > LEAP_M).any(1) for points in LIMBS.values()) < MOST_LIMBS)
    for points in LIMBS.values():
        dim = np.clip((CLEAR - around(pixels[:, points, 2].mean(1)).min(1)) / (CLEAR - DIM), 0, 1) * usable
        out[inner, points] = 1 - np.clip((leap[:, points] - LEAP_M) / (SURE_LEAP_M - LEAP_M), 0, 1) * dim[:, None]
    return out


def scale_of(pixels: np.ndarray, metres: np.ndarray) -> np.ndarray:
    """(N,) px per metre of body, of landmarks (N, 33, 2 or more) px and (N, 33, 3) metres."""
    return np.maximum(np.sqrt(pixels[..., :2].var(1).sum(-1)) / np.maximum(np.sqrt(metres[..., :2].var(1).sum(-1)), 1e-6), 1e-6)


def reach(spacing_s: float) -> int:
    """How many samples either way `steadiness` looks."""
    return int(LEAP_S / spacing_s + 1e-9)


def _mean(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """(N,) means of values (N, n) where `there` (N, n) says so; NaN where it nowhere does."""
    count = there.sum(1)
    return np.where(count > 0, (values * there).sum(1) / np.maximum(count, 1), np.nan)


def _touching(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N,) bool: whether boxes reach an edge of the picture."""
    margin = TOUCHING * max(size)
    return (box[:, :2] < margin).any(1) | (box[:, 2:] > np.array(size) - margin).any(1)


def _inside(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """0 outside the picture, 1 well inside it, in between near its edge, of pixels (..., 2)."""
    inward = np.minimum(pixels, np.array(size) - pixels).min(-1)
    return np.clip(inward / (EDGE * max(size)), 0, 1)


def doubtful_limbs(image: np.ndarray) -> np.ndarray:
    """(N, 4) bool in the order of LIMBS: most of the limb is not to be believed in the image. image (N, 33) of `measure`."""
    return np.stack([image[:, points].mean(1) < DOUBTFUL for points in LIMBS.values()], 1)
