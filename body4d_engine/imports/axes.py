# SPDX-License-Identifier: Apache-2.0
"""Where other tools put a body, and where we do.

Person space has its origin at the root joint. SAM 3D Body's MHR meshes have theirs elsewhere: the root joint always lies at (0, -0.923987, 0) m.
SAM-Body4D writes meshes in OpenGL camera axes (x right, y up, z backward), which is a half turn about x from ours.
"""

import numpy as np

MHR_VERTICES = 18439
MHR_ROOT_M = np.array([0.0, -0.923987, 0.0])  # camera axes


def root_offset(vertices: int) -> np.ndarray:
    """From the origin of a mesh with that many vertices to its root joint, (3,) in camera axes, metres."""
    return MHR_ROOT_M if vertices == MHR_VERTICES else np.zeros(3)


def half_turn(points: np.ndarray) -> np.ndarray:
    """OpenGL camera axes to OpenCV's, and back. (..., 3)."""
    return points * np.array([1.0, -1.0, -1.0])


def split(points: np.ndarray, root: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Camera-space points (V, 3) as person space (V, 3) float32 and root (3,) float32, whose sum is the points to float32's rounding near 0."""
    root = np.asarray(root, np.float32)
    return (points - root.astype(np.float64)).astype(np.float32), root
