# SPDX-License-Identifier: Apache-2.0
"""Smoothing by local regression: at every sample a weighted parabola through its neighbourhood (Cleveland 1979), on SO(3) in the tangent space of the sample.

It looks both ways alike, so nothing is delayed; a steady acceleration passes unchanged; outliers lose their weight; and a sample's result depends on nothing
beyond its window, so that it does not matter which samples are asked for at once."""

import numpy as np
from scipy.spatial.transform import Rotation

ROUNDS = 2  # of taking weight from outliers
STEADY = 1e-4  # of the weights: what holds slope and bend back where too few samples tell of them


class Neighbourhoods:
    """The windows around samples [begin, stop) of T. half: half width in samples. segment (T,): samples of different numbers say nothing of each other. weight
    (T,): how far each is believed, above 0 for all that may be used."""

    def __init__(self, begin: int, stop: int, half: float, segment: np.ndarray, weight: np.ndarray):
        reach = int(np.ceil(half)) - 1 if half > 1 else 0
        around = np.arange(begin, stop)[:, None] + np.arange(-reach, reach + 1)
        inside = (around >= 0) & (around < len(segment))
        self.around = np.clip(around, 0, len(segment) - 1)
        self.time = np.arange(-reach, reach + 1) / max(half, 1.0)
        near = inside & (segment[self.around] == segment[begin:stop, None])
        self.alone = reach == 0  # there is nothing to smooth with
        self.weight = near * (1 - np.abs(self.time) ** 3) ** 3 * weight[self.around]
        self.span = int(self.around.min()), int(self.around.max()) + 1

    def smooth(self, values: np.ndarray, scale: float, turns: bool = False) -> np.ndarray:
        """values (m, D) of the samples of `span` -> (n, D). scale: a value that far off counts half. turns: they are angles."""
        return self._centre(values) if self.alone else self._centre(values) + self._shift(self._apart(values, turns), scale)

    def smooth_rotations(self, rotations: Rotation, groups: int, scale: float) -> Rotation:
        """m * groups rotations of the samples of `span` -> n * groups."""
        quaternions = rotations.as_quat().reshape(-1, groups, 4)
        centre = Rotation.from_quat(self._centre(quaternions).reshape(-1, 4))
        if self.alone:
            return centre
        around = quaternions[self.around - self.span[0]]  # (n, w, groups, 4)
        width = around.shape[1]
        start = Rotation.from_quat(np.repeat(self._centre(quaternions)[:, None], width, axis=1).reshape(-1, 4))
        apart = (start.inv() * Rotation.from_quat(around.reshape(-1, 4))).as_rotvec().reshape(-1, width, groups, 3)
        joints = apart.transpose(0, 2, 1, 3).reshape(-1, width, 3)
        return centre * Rotation.from_rotvec(self._shift(joints, scale, groups))

    def _centre(self, values: np.ndarray) -> np.ndarray:
        return values[self.around[:, len(self.time) // 2] - self.span[0]]

    def _apart(self, values: np.ndarray, turns: bool) -> np.ndarray:
        apart = values[self.around - self.span[0]] - self._centre(values)[:, None]
        return np.angle(np.exp(1j * apart)) if turns else apart

    def _shift(self, apart: np.ndarray, scale: float, groups: int = 1) -> np.ndarray:
        """How far the parabola passes from the sample itself: apart (n * groups, w, D) -> (n * groups, D). What belongs together is doubted together."""
        powers = self.time[:, None] ** np.arange(3)
        weight = given = np.repeat(self.weight, groups, axis=0)
        for _ in range(1 + ROUNDS):
            normal = np.einsum("nw,wi,wj->nij", weight, powers, powers)
            normal += weight.sum(1)[:, None, None] * np.diag([1e-9, STEADY, STEADY]) + 1e-12 * np.eye(3)
            right = np.einsum("nw,wi,nwd->nid", weight, powers, apart)
            curve = np.linalg.solve(normal, right)
            off = np.linalg.norm(apart - powers @ curve, axis=2)
            weight = given / (1 + (off / scale) ** 2)
        return curve[:, 0]
