# SPDX-License-Identifier: Apache-2.0
"""MHR's 204 parameters as what they are: rotations of joints, angles about one axis, and lengths. So poses are blended on SO(3), never angle by angle."""

import warnings

import numpy as np
from scipy.spatial.transform import Rotation

from .heads import FULL_POSE

_XYZ, _XZY = "xyz", "XZY"  # as scipy writes Rz Ry Rx, MHR's joints, and Rx Rz Ry, the wrists', which are two joints


class Angles:
    """joints (J, 3): places of a joint's angles about x, y, z; wrists (W, 3): about x, z, y; single (K,): angles that stand alone. All else is lengths."""

    def __init__(self, joints, wrists, single):
        self._triples = [(order, np.array(places)) for order, places in ((_XYZ, joints), (_XZY, wrists)) if len(places)]
        self.single = np.array(single, int)
        taken = {*self.joints.ravel().tolist(), *self.single.tolist()}
        self.lengths = np.array([place for place in range(FULL_POSE) if place not in taken])

    @property
    def joints(self) -> np.ndarray:
        """(G, 3) the places of all joints' angles, in the order of `rotations`."""
        return np.concatenate([places for _, places in self._triples])

    def rotations(self, params: np.ndarray) -> Rotation:
        """(N, 204) -> N * G rotations, sample after sample."""
        turned = [Rotation.from_euler(order, params[:, places].reshape(-1, 3).astype(np.float64)).as_quat().reshape(len(params), -1, 4)
                  for order, places in self._triples]
        return Rotation.from_quat(np.concatenate(turned, axis=1).reshape(-1, 4))

    def with_rotations(self, params: np.ndarray, rotations: Rotation) -> np.ndarray:
        """The parameters (N, 204) with these N * G rotations."""
        out, quaternions, done = params.copy(), rotations.as_quat().reshape(len(params), -1, 4), 0
        for order, places in self._triples:
            turned = Rotation.from_quat(quaternions[:, done : done + len(places)].reshape(-1, 4))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of two angles about one axis the second is 0: the rotation is the same
                out[:, places] = turned.as_euler(order).reshape(len(params), len(places), 3)
            done += len(places)
        return out

    def between(self, before: np.ndarray, after: np.ndarray, share: np.ndarray) -> np.ndarray:
        """Parameters (n, 204) that lie so far (n,), 0 to 1, on the way from those before (204,) to those after: joints turn the shortest way."""
        first, last = np.asarray(before, np.float64), np.asarray(after, np.float64)
        out = first + share[:, None] * (last - first)
        apart = np.angle(np.exp(1j * (last - first)[self.single]))
        out[:, self.single] = first[self.single] + share[:, None] * apart
        start = self.rotations(first[None])
        way = (start.inv() * self.rotations(last[None])).as_rotvec()
        turned = Rotation.concatenate([start * Rotation.from_rotvec(part * way) for part in share])
        return self.with_rotations(out, turned).astype(np.float32)
