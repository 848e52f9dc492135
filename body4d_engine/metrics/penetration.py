# SPDX-License-Identifier: Apache-2.0
"""How much of a body is inside itself."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from ..render.rasterize import vertex_normals
from .base import Metric, Motion, Result

CELLS = 192  # along the longest side of the grid in which triangles and points meet
GENERIC = np.linalg.qr(np.array([[0.61, -0.37, 0.71], [0.29, 0.93, 0.17], [-0.74, 0.11, 0.66]]))[0]  # axes along which no mesh has its edges


def winding_numbers(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(N,) int: how many times a closed mesh goes round each of the points (N, 3): 0 outside, 1 inside, more where it overlaps itself.

    vertices (V, 3), faces (F, 3) counter-clockwise from outside, every edge in two faces. Exact: a ray from each point goes out through the
    surface as often as the number says more than it comes in. Triangles are looked up in a grid across the ray, so that N = 14,000 and F = 27,000
    take a fraction of a second instead of the 4e8 solid angles of the sum over all faces (Jacobson et al. 2013), which gives the same for closed meshes.
    """
    points, vertices = points @ GENERIC, vertices @ GENERIC
    faces = np.asarray(faces, np.int64)
    corners = vertices[faces]
    low, high, top = corners[..., :2].min(1), corners[..., :2].max(1), corners[..., 2].max(1)
    origin = np.minimum(low.min(0), points[:, :2].min(0))
    size = max(float((np.maximum(high.max(0), points[:, :2].max(0)) - origin).max()), 1e-12) / CELLS
    cell_of = lambda xy: np.minimum(((xy - origin) / size).astype(np.int64), CELLS - 1)  # noqa: E731
    mine = cell_of(points[:, :2])
    order = np.argsort(mine[:, 0] * CELLS + mine[:, 1], kind="stable")
    begins = np.searchsorted((mine[:, 0] * CELLS + mine[:, 1])[order], np.arange(CELLS * CELLS + 1))

    (x0, y0), (x1, y1) = cell_of(low).T, cell_of(high).T
    face, place = _expanded((x1 - x0 + 1) * (y1 - y0 + 1))
    wide = (y1 - y0 + 1)[face]
    cell = (x0[face] + place // wide) * CELLS + y0[face] + place % wide
    pair, place = _expanded(begins[cell + 1] - begins[cell])
    face, point = face[pair], order[begins[cell[pair]] + place]
    for limit, sign, axis in ((top, 1, 2), (low[:, 0], -1, 0), (high[:, 0], 1, 0), (low[:, 1], -1, 1), (high[:, 1], 1, 1)):
        kept = np.flatnonzero(sign * limit[face] >= (sign * points[:, axis])[point])  # most are sorted out here, cheaply
        face, point = face[kept], point[kept]

    sides = [_side(vertices, faces[face, i], faces[face, (i + 1) % 3], points[point]) for i in range(3)]
    hit = np.flatnonzero((sides[0][0] == sides[1][0]) & (sides[1][0] == sides[2][0]))
    face, point, turn = face[hit], point[hit], np.where(sides[0][0][hit], 1, -1)
    areas = np.stack([side[1][hit] for side in sides])  # of the triangles with the point, twice: barycentric weights of the opposite corner
    above = (areas[[1, 2, 0]] * corners[face, :, 2].T).sum(0) / areas.sum(0) > points[point, 2]
    return np.bincount(point[above], turn[above], len(points)).astype(np.int64)


def _expanded(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each index as often as its count says, and the place of each repetition."""
    index = np.repeat(np.arange(len(counts)), counts)
    return index, np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)


def _side(vertices: np.ndarray, a: np.ndarray, b: np.ndarray, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether points lie left of the edges from a to b in x, y, and twice the signed area. Computed from the smaller index to the larger, so that
    the two faces at an edge never both claim a point, or neither."""
    swap = a > b
    p, q = vertices[np.where(swap, b, a)], vertices[np.where(swap, a, b)]
    area = (q[:, 0] - p[:, 0]) * (point[:, 1] - p[:, 1]) - (q[:, 1] - p[:, 1]) * (point[:, 0] - p[:, 0])
    return (area > 0) != swap, np.where(swap, -area, area)


def closed(faces: np.ndarray, count: int) -> tuple[np.ndarray, sparse.csr_matrix]:
    """faces (F', 3) that close a mesh of `count` vertices with H new ones in the middles of its holes, and their weights (H, count).

    A mesh that is closed comes back as it is, with H = 0.
    """
    faces = np.asarray(faces, np.int64)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    rim = edges[~np.isin(edges[:, 0] * count + edges[:, 1], edges[:, 1] * count + edges[:, 0])]
    if not len(rim):
        return faces, sparse.csr_matrix((0, count))
    _, hole = connected_components(sparse.coo_matrix((np.ones(len(rim)), (rim[:, 0], rim[:, 1])), shape=(count, count)), directed=False)
    _, number = np.unique(hole[rim[:, 0]], return_inverse=True)
    middles = sparse.csr_matrix((np.ones(len(rim)), (number, rim[:, 0])), shape=(number.max() + 1, count))
    middles = sparse.diags(1 / np.asarray(middles.sum(1)).ravel()) @ middles
    return np.concatenate([faces, np.column_stack([rim[:, 1], rim[:, 0], count + number])]), sparse.csr_matrix(middles)


def buried(vertices: np.ndarray, faces: np.ndarray, middles: sparse.csr_matrix, skin_m: float) -> np.ndarray:
    """(V,) bool: which vertices are inside another part of the body: the winding number is 1 or more at skin_m outside of their own skin.

    faces, middles: of `closed`.
    """
    return winding_numbers(vertices + skin_m * vertex_normals(vertices, faces[(faces < len(vertices)).all(1)]),
                           np.concatenate([vertices, middles @ vertices]), faces) > 0


@dataclass(frozen=True)
class SelfPenetration(Metric):
    """share of the vertices that are inside the body by the winding number, in %; those that are so in the rest pose already do not count.

    samples: as many are looked at, evenly spread (0.04 s each for 13,718 vertices); skin_m: a vertex is asked about this far outside of its own
    skin, so that neither it nor its neighbours are in the way. Vertices lie closest on hands and face, which therefore count most; folds of the
    skin at a bent joint count too. Source: winding numbers as in Jacobson et al. 2013.
    """

    samples: int = 60
    skin_m: float = 0.001
    name: ClassVar[str] = "self_penetration"
    unit: ClassVar[str] = "% of skin"
    meaning: ClassVar[str] = "How much of the skin is inside the body: an arm in the chest, a leg in the other."

    def __call__(self, motion: Motion) -> Result:
        if motion.vertices_m is None or motion.faces is None or motion.rest_vertices_m is None:
            return self.undefined("the body's rest pose is not known")
        there = np.flatnonzero(motion.present if motion.joints_m.shape[1] else np.ones(len(motion), bool))
        if not len(there):
            return self.undefined("nobody is there")
        picked = there[np.unique(np.linspace(0, len(there) - 1, min(self.samples, len(there))).round().astype(int))]
        rest = np.asarray(motion.rest_vertices_m, np.float64)
        faces, middles = closed(motion.faces, len(rest))
        whole = np.concatenate([rest, middles @ rest])[faces]
        if (whole[:, 0] * np.cross(whole[:, 1], whole[:, 2])).sum() < 0:  # the volume: this mesh's faces are clockwise
            faces = faces[:, ::-1]
        free = ~buried(rest, faces, middles, self.skin_m)
        per_sample = np.full(len(motion), np.nan)
        for i in picked:
            per_sample[i] = 100 * (buried(np.asarray(motion.vertices_m[i], np.float64), faces, middles, self.skin_m) & free).mean()
        return self.mean_of(per_sample, note=f"at {len(picked)} of {len(there)} samples")
