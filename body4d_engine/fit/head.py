# SPDX-License-Identifier: Apache-2.0
"""How a person's head is turned, from the landmarks of the face where it could be read."""

import numpy as np

from ..models.anny.pose import exp
from .windows import Windows, blend, looks_every, nearest_rotation

USED = 0.5  # least score of a face that counts as read
# Landmarks of MediaPipe's face mesh that do not move with the expression, and where they are on the head: root mean square distance from their centre
# 1, axes x right, y down, z forward, of a head that faces the camera. Measured: what the network says of renders of the bundled body (three genders,
# two ages, turned by up to 29 degrees sideways and 14 up and down), turned back, averaged and made symmetric. On single renders the rotation found with
# them is right to 4.7 (up and down), 3.7 (sideways) and 2.3 degrees (tilt), one standard deviation.
_MIDDLE = {10: (-0.861, -0.416), 9: (-0.259, -0.443), 8: (-0.123, -0.403), 168: (-0.015, -0.378), 6: (0.115, -0.429), 197: (0.239, -0.489),
           195: (0.355, -0.553), 5: (0.477, -0.622), 4: (0.619, -0.646), 2: (0.805, -0.344)}
_PAIRS = {(33, 263): (0.728, 0.006, -0.014), (133, 362): (0.292, 0.043, -0.105), (127, 356): (1.123, -0.011, 0.765),
          (234, 454): (1.105, 0.221, 0.870), (93, 323): (1.086, 0.460, 0.914), (21, 251): (1.071, -0.433, 0.345), (54, 284): (0.969, -0.601, 0.128),
          (103, 332): (0.807, -0.732, -0.089), (67, 297): (0.567, -0.816, -0.276), (109, 338): (0.306, -0.855, -0.384),
          (50, 280): (0.764, 0.547, -0.028), (116, 345): (1.003, 0.258, 0.226), (123, 352): (0.991, 0.481, 0.231), (98, 327): (0.270, 0.757, -0.221)}
POINTS = [*_MIDDLE, *(point for pair in _PAIRS for point in pair)]
FACE = np.array([*((0, y, z) for y, z in _MIDDLE.values()), *((side * x, y, z) for x, y, z in _PAIRS.values() for side in (-1, 1))])


class HeadMotion:
    """One person's head over the take."""

    def __init__(self, take, person: int, doubted: np.ndarray | None = None):
        """doubted (T,) bool, optional: where what was read of the face is not to be used."""
        self._take, self._group, self._doubted = take, f"people/{person}", doubted
        self._measured = take.has(self._group, "face_px", "detail")
        self._camera = take.camera() if self._measured else None
        self._spacing_s = take.frames.step * take.clip["fps"][1] / take.clip["fps"][0]
        self._cuts = np.searchsorted(take.frames, take.clip.get("shots", [])[1:])

    def at(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """samples: consecutive indices -> rotations of the head from rest (N, 3, 3), camera axes, and how far they are measured (N,) 0..1."""
        if not self._measured:
            return np.tile(np.eye(3), (len(samples), 1, 1)), np.zeros(len(samples))
        low, high = Windows.margin(samples, self._take.samples, self._spacing_s)
        score = np.array(self._take.by_sample(self._group, "face_score", "detail")[low:high], np.float64)
        score[score < USED] = 0
        if self._doubted is not None:
            score *= ~self._doubted[low:high]
        points = np.array(self._take.by_sample(self._group, "face_px", "detail")[low:high], np.float64)
        turned = face_rotation(points, self._camera["focal_px"][low:high], self._camera["principal_px"][low:high])
        weight, turned, _ = blend(samples, np.arange(low, high), self._spacing_s, self._cuts, looks_every(1 / self._spacing_s), score, turned,
                                  np.zeros((high - low, 0)))
        return turned, weight


def face_rotation(points: np.ndarray, focal_px: np.ndarray, principal_px: np.ndarray) -> np.ndarray:
    """(N, 3, 3) rotations from a head that faces the camera to one with the landmarks POINTS at (N, K, 3): x, y px and depth in px."""
    centred = points - points.mean(1, keepdims=True)
    return towards(points[:, :, :2].mean(1), focal_px, principal_px) @ nearest_rotation(np.einsum("nki,kj->nij", centred, FACE))


def towards(px: np.ndarray, focal_px: np.ndarray, principal_px: np.ndarray) -> np.ndarray:
    """(N, 3, 3) the smallest rotations that turn the camera's axis to the rays through px (N, 2): what lies there is seen along them."""
    ray = (px - principal_px) / focal_px[:, None]
    length = np.linalg.norm(ray, axis=1)
    axis = np.stack([-ray[:, 1], ray[:, 0], np.zeros(len(ray))], 1) / np.maximum(length, 1e-12)[:, None]
    return exp(axis * np.arctan(length)[:, None])
