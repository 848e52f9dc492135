# SPDX-License-Identifier: Apache-2.0
"""What somebody looks like: colours under the mask, above and below the hips apart, so that shirt and trousers both count."""

import cv2
import numpy as np

HUES, SATURATIONS, VALUES = 12, 4, 8
HALF = HUES * SATURATIONS + VALUES
SIZE = 2 * HALF
FEWEST = 20  # px of the thinned crop: fewer say nothing


def describe(crop: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(SIZE,) float32 colour histogram of a picture (H, W, 3) uint8 under a mask (H, W) bool; each half sums to 1, or to 0 where it is unseen."""
    hsv = cv2.cvtColor(np.ascontiguousarray(crop[::2, ::2]), cv2.COLOR_RGB2HSV)
    mask = mask[::2, ::2]
    middle = len(hsv) // 2
    return np.concatenate([_half(hsv[:middle], mask[:middle]), _half(hsv[middle:], mask[middle:])])


def _half(hsv: np.ndarray, mask: np.ndarray) -> np.ndarray:
    pixels = hsv[mask].astype(np.int32)
    if len(pixels) < FEWEST:
        return np.zeros(HALF, np.float32)
    hue, saturation, value = pixels.T
    colour = np.bincount(hue * HUES // 180 * SATURATIONS + saturation * SATURATIONS // 256, minlength=HUES * SATURATIONS)
    colour = colour.reshape(HUES, SATURATIONS).astype(np.float32)
    colour = (np.roll(colour, 1, 0) + 2 * colour + np.roll(colour, -1, 0)) / 4  # light shifts hues a little
    light = np.bincount(value * VALUES // 256, minlength=VALUES).astype(np.float32)
    light = np.convolve(light, [0.25, 0.5, 0.25], "same")
    return (np.concatenate([0.7 * colour.ravel() / colour.sum(), 0.3 * light / light.sum()])).astype(np.float32)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Hellinger distance 0..1 of two descriptions, over the halves that both show; 0.5 (says nothing) where there is none."""
    total, halves = 0.0, 0
    for half in (slice(0, HALF), slice(HALF, SIZE)):
        if a[half].any() and b[half].any():
            total += float(np.sqrt(a[half].astype(np.float64) * b[half]).sum() / np.sqrt(a[half].sum(dtype=np.float64) * b[half].sum(dtype=np.float64)))
            halves += 1
    return float(np.sqrt(max(0.0, 1 - total / halves))) if halves else 0.5


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m) `distance` of all pairs of descriptions (n, SIZE) and (m, SIZE)."""
    total, halves = np.zeros((len(a), len(b))), np.zeros((len(a), len(b)))
    for half in (slice(0, HALF), slice(HALF, SIZE)):
        one, other = (np.sqrt(np.asarray(looks[:, half], np.float64)) for looks in (a, b))
        sizes = np.linalg.norm(one, axis=1)[:, None] * np.linalg.norm(other, axis=1)
        total += np.where(sizes > 0, one @ other.T / np.maximum(sizes, 1e-12), 0)
        halves += sizes > 0
    return np.where(halves > 0, np.sqrt(np.clip(1 - total / np.maximum(halves, 1), 0, None)), 0.5)
