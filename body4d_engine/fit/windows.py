# SPDX-License-Identifier: Apache-2.0
"""Weighted means over the samples around a sample: zero phase, finite, within a shot, so that it does not matter which samples are asked for at once."""

import numpy as np

SMOOTH_S, AROUND_S = 0.1, 0.3  # half widths of the windows over which measurements are averaged and over which they fade
MARGIN_S = SMOOTH_S + 2 * AROUND_S  # how far a result reaches: gaps are filled, and measurements compared with those around them
LEAST = 0.05  # a score below this, after the comparison, is no measurement
ENOUGH = 0.35  # share of what was looked at that must be measured for the measurement to count fully
MOST_PER_S = 30.0  # looks per second: hands and faces of a 60 fps clip are read in every other sample
STRANGE = 0.7  # radians a rotation may differ from those around it to count exp(-1) as much


def looks_every(samples_per_s: float) -> int:
    """Of how many samples hands and faces are looked for in one."""
    return max(1, int(np.ceil(samples_per_s / MOST_PER_S - 0.01)))


class Windows:
    """`samples` (n,) to be known, from what is known at `around` (m,); cuts: first samples of shots."""

    def __init__(self, samples: np.ndarray, around: np.ndarray, spacing_s: float, cuts: np.ndarray):
        self.apart_s = (around - samples[:, None]) * spacing_s
        self.same = np.searchsorted(cuts, samples, side="right")[:, None] == np.searchsorted(cuts, around, side="right")

    def hann(self, half_s: float) -> np.ndarray:
        """(n, m) weights of that half width."""
        return np.where(self.same & (np.abs(self.apart_s) < half_s), np.cos(np.pi * self.apart_s / (2 * half_s)) ** 2, 0.0)

    @staticmethod
    def margin(samples: np.ndarray, total: int, spacing_s: float) -> tuple[int, int]:
        """The range [low, high) of samples that means at consecutive `samples` may depend on."""
        margin = int(np.ceil(MARGIN_S / spacing_s))
        return max(0, int(samples[0]) - margin), min(total, int(samples[-1]) + 1 + margin)


def blend(samples: np.ndarray, around: np.ndarray, spacing_s: float, cuts: np.ndarray, every: int, score: np.ndarray,
          rotations: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What was measured now and then as smooth curves.

    score (m,), 0 where there is nothing; rotations (m, 3, 3) and values (m, k) measured at `around`, of which every `every`-th sample was looked at
    -> weight (n,) 0..1, rotations (n, 3, 3), values (n, k) at `samples`; without weight they are the identity and 0. A rotation unlike those
    around it counts little.
    """
    near, wanted = Windows(around, around, spacing_s, cuts), Windows(samples, around, spacing_s, cuts)
    weight, turned, mean = np.zeros(len(samples)), np.tile(np.eye(3), (len(samples), 1, 1)), np.zeros((len(samples), values.shape[1]))
    if not score.any():
        return weight, turned, mean
    trace = np.einsum("nij,nij->n", mean_rotation(near.hann(AROUND_S) * score, rotations), rotations)
    score = score * np.exp(-((np.arccos(np.clip((trace - 1) / 2, -1, 1)) / STRANGE) ** 2)) * (score > 0)
    filling = between(near, score > LEAST)
    kernel = wanted.hann(SMOOTH_S) * (filling @ score)
    total = kernel.sum(1)
    there = total > 0
    wide = wanted.hann(AROUND_S)
    weight[there] = smoothstep(every * (wide * score).sum(1) / wide.sum(1) / ENOUGH)[there]
    kernel = kernel[there] @ filling
    turned[there], mean[there] = mean_rotation(kernel, rotations), kernel @ values / total[there, None]
    return weight, turned, mean


def between(near: Windows, measured: np.ndarray) -> np.ndarray:
    """(m, m) shares of the measured (m,) bool samples in every sample: of the nearest before and after, both within AROUND_S and the shot, in
    proportion to their distance; zero where there are none."""
    reached = near.same & (np.abs(near.apart_s) < AROUND_S) & measured
    after, before = reached & (near.apart_s >= 0), reached & (near.apart_s <= 0)
    rows, shares = np.arange(len(measured)), np.zeros(reached.shape)
    first, last = after.argmax(1), len(measured) - 1 - before[:, ::-1].argmax(1)
    ahead, behind = near.apart_s[rows, first], -near.apart_s[rows, last]
    forward = np.where(after.any(1), np.where(before.any(1), behind / np.maximum(ahead + behind, 1e-9), 1.0), 0.0)
    shares[rows, first] += forward
    shares[rows, last] += np.where(before.any(1), 1 - forward, 0.0)
    return shares


def mean_rotation(weight: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """(n, 3, 3) rotations nearest to the weighted (n, m) sums of rotations (m, 3, 3)."""
    return nearest_rotation((weight @ rotations.reshape(-1, 9)).reshape(-1, 3, 3))


def nearest_rotation(matrices: np.ndarray) -> np.ndarray:
    """The rotations (..., 3, 3) nearest to matrices (Kabsch 1976)."""
    u, _, vt = np.linalg.svd(matrices)
    u[..., 2] *= np.linalg.det(u @ vt)[..., None]
    return u @ vt


def smoothstep(x: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, without corners between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)
