# SPDX-License-Identifier: Apache-2.0
"""A z-buffered renderer of triangle meshes in numpy.

Camera axes are OpenCV's (x right, y down, z forward), metres; pixels span 0..W and 0..H, so pixel (row, column) is sampled at its centre
(column + 0.5, row + 0.5). Faces wind counter-clockwise seen from outside; the others are culled. Every triangle is cut into its pixel rows and
these into pixels, all triangles at once, and the nearest one wins each pixel.
"""

from dataclasses import dataclass

import cv2
import numpy as np

NEAR_M = 0.05  # triangles that reach nearer are left out: on a body they are far smaller than what that hides
OPACITY, HATCH_OPACITY = 0.78, (0.50, 0.22)
SUN = np.array([-0.35, -0.85, -0.40]) / np.linalg.norm([-0.35, -0.85, -0.40])  # towards the light: above, left, on the camera's side


@dataclass(frozen=True)
class Mesh:
    """One person as drawn: vertices (V, 3) camera space in metres, faces (F, 3), sRGB colour 0..1, hatched where it was not seen."""

    vertices: np.ndarray
    faces: np.ndarray
    color: tuple[float, float, float]
    hatched: bool = False


@dataclass(frozen=True)
class Fragments:
    """The pixels a scene covers: flat index row * width + column (n,), face (n,), perspective-correct weights (n, 3), depth (n,) in m."""

    pixel: np.ndarray
    face: np.ndarray
    weights: np.ndarray
    depth: np.ndarray


def rasterize(vertices: np.ndarray, faces: np.ndarray, focal_px: float, principal_px, width: int, height: int) -> Fragments:
    """What is seen of a mesh: vertices (V, 3) camera space in metres, faces (F, 3). Exact to the pixel centre, without cracks or overlaps."""
    points = np.asarray(vertices, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse_z = 1 / points[:, 2]
        x = points[:, 0] * inverse_z * focal_px + (principal_px[0] - 0.5)  # -0.5: whole numbers are pixel centres from here on
        y = points[:, 1] * inverse_z * focal_px + (principal_px[1] - 0.5)
        front = points[:, 2] > NEAR_M
        # Which vertex decides a face's fate is a question of few gathers: a face is kept if no corner is behind and its box meets the picture.
        out = np.where(front, (x < 0) * 1 + (x > width - 1) * 2 + (y < 0) * 4 + (y > height - 1) * 8, 16 + 15).astype(np.uint8)
    f0, f1, f2 = (np.ascontiguousarray(faces[:, k]) for k in range(3))
    kept = np.flatnonzero((out[f0] & out[f1] & out[f2] == 0) & ((out[f0] | out[f1] | out[f2]) < 16))
    corners = np.stack([f0[kept], f1[kept], f2[kept]])
    px, py = x[corners], y[corners]
    area = (px[1] - px[0]) * (py[2] - py[0]) - (px[2] - px[0]) * (py[1] - py[0])  # y points down: negative where seen from outside
    top, bottom = np.maximum(np.ceil(py.min(0)), 0), np.minimum(np.floor(py.max(0)), height - 1)
    seen = np.flatnonzero((area < 0) & (bottom >= top))
    corners, px, py, area, kept = corners[:, seen], px[:, seen], py[:, seen], area[seen], kept[seen]
    top, rows = top[seen].astype(np.int64), (bottom - top + 1)[seen].astype(np.int64)

    # Edge k lies opposite corner k: inside where a x + b y + c >= 0. Both triangles at an edge compute the same numbers with opposite signs,
    # so that no pixel falls between them.
    i, j = (1, 2, 0), (2, 0, 1)
    a, b = py[j, :] - py[i, :], px[i, :] - px[j, :]
    c = px[j, :] * py[i, :] - px[i, :] * py[j, :]
    owner, line = _expand(rows)
    line += top[owner]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = -(b[:, owner] * line + c[:, owner]) / a[:, owner]
    slope = a[:, owner]
    level = (slope == 0) & (b[:, owner] * line + c[:, owner] < 0)
    first = np.where(slope > 0, crossing, -np.inf).max(0)
    last = np.where(slope < 0, crossing, np.inf).min(0)
    first, last = np.maximum(np.ceil(first), 0), np.minimum(np.floor(last), width - 1)
    spans = np.flatnonzero((last >= first) & ~level.any(0))
    owner, line, first = owner[spans], line[spans], first[spans].astype(np.int64)
    span, column = _expand((last[spans] - first + 1).astype(np.int64))
    column += first[span]

    # 1/z is a plane over the picture.
    iz = inverse_z[corners]
    scale = -1 / area
    da, db, dc = ((iz * part).sum(0) * scale for part in (a, b, c))
    value = (db[owner] * line + dc[owner])[span] + da[owner][span] * column
    low, high = iz.min(0)[owner][span], iz.max(0)[owner][span]
    value = np.clip(value, low, high).astype(np.float32)  # slivers have steep planes
    pixel = (line * width)[span] + column
    key = value.view(np.int32).astype(np.int64) << 32 | span  # positive floats sort like their bits: the nearest has the largest
    base, size = (int(pixel.min()), int(np.ptp(pixel)) + 1) if len(pixel) else (0, 0)
    best = np.full(size, -1, np.int64)
    np.maximum.at(best, pixel - base, key)
    pixel = np.flatnonzero(best >= 0)
    best = best[pixel]
    triangle = owner[best & 0xFFFFFFFF]
    pixel += base
    row, column = np.divmod(pixel, width)
    weights = np.stack([(a[k][triangle] * column + b[k][triangle] * row + c[k][triangle]) * (scale * iz[k])[triangle] for k in range(3)], 1)
    weights = np.maximum(weights, 0)
    weights /= weights.sum(1, keepdims=True)
    return Fragments(pixel, kept[triangle], weights, 1 / (best >> 32).astype(np.int32).view(np.float32))


def _expand(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which item each of its `counts` parts belongs to, and the part's number within it."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Outward unit normals (V, 3), weighted by area."""
    corner = np.asarray(vertices, np.float64)[faces]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    total = np.stack([np.bincount(faces.ravel(), np.repeat(normal[:, k], 3), len(vertices)) for k in range(3)], 1)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-20)


def shade(vertices: np.ndarray, faces: np.ndarray, color) -> np.ndarray:
    """Lit colour per vertex (V, 3), 0..255 sRGB: sky and ground, a soft light from above, one at the camera, and a pale rim."""
    normal = vertex_normals(vertices, faces)
    view = -np.asarray(vertices, np.float64)
    view /= np.maximum(np.linalg.norm(view, axis=1, keepdims=True), 1e-9)
    facing = np.clip((normal * view).sum(1), 0, 1)
    sky = 0.5 - 0.5 * normal[:, 1]
    light = 0.16 + 0.16 * sky + 0.42 * np.clip(normal @ SUN, 0, 1) + 0.46 * facing**1.5
    rim = 0.28 * (1 - facing) ** 4 * (0.3 + 0.7 * sky)
    gleam = 0.10 * np.clip(normal @ ((SUN + np.array([0, 0, -1])) / np.linalg.norm(SUN + np.array([0, 0, -1]))), 0, 1) ** 24
    base = np.asarray(color, np.float64)
    return 255 * np.clip(base * light[:, None] + (rim + gleam)[:, None], 0, 1)


def draw(image: np.ndarray, meshes: list[Mesh], focal_px: float, principal_px, opacity: float = OPACITY) -> np.ndarray:
    """The picture (H, W, 3) uint8 RGB with the meshes over it; they hide each other by depth. Returns a new array."""
    height, width = image.shape[:2]
    image = image.copy()
    if not meshes:
        return image
    offsets = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    faces = np.concatenate([mesh.faces + offset for mesh, offset in zip(meshes, offsets)])
    owner = np.repeat(np.arange(len(meshes)), [len(mesh.faces) for mesh in meshes])
    seen = rasterize(np.concatenate([mesh.vertices for mesh in meshes]), faces, focal_px, principal_px, width, height)
    if not len(seen.pixel):
        return image
    lit = np.concatenate([shade(mesh.vertices, mesh.faces, mesh.color) for mesh in meshes]).astype(np.float32)
    corners, weights = faces[seen.face], seen.weights.astype(np.float32)
    color = sum(lit[corners[:, k]] * weights[:, k, None] for k in range(3))

    row, column = np.divmod(seen.pixel, width)
    y0, y1, x0, x1 = max(row.min() - 1, 0), row.max() + 2, max(column.min() - 1, 0), column.max() + 2
    region = image[y0:y1, x0:x1]
    layer = np.zeros((*region.shape[:2], 4), np.float32)  # colour times cover, and cover
    row, column = row - y0, column - x0
    layer[row, column, :3] = color
    layer[row, column, 3] = 1
    soft = cv2.GaussianBlur(layer, (3, 3), 0.8)
    edge = soft[..., 3] < 0.999  # only the outline is softened
    cover = np.where(edge, soft[..., 3], 1)
    color = np.where(edge[..., None], soft[..., :3] / np.maximum(soft[..., 3:], 1e-3), layer[..., :3])
    alpha = _opacity(meshes, owner[seen.face], row, column, region.shape[:2], opacity, height) * cover
    region[:] = np.clip(region + alpha[..., None] * (color - region) + 0.5, 0, 255).astype(np.uint8)
    return image


def _opacity(meshes, person: np.ndarray, row: np.ndarray, column: np.ndarray, shape, opacity: float, height: int) -> np.ndarray:
    """Opacity per pixel; diagonal stripes for those that were not seen."""
    hatched = np.array([mesh.hatched for mesh in meshes])
    if not hatched.any():
        return np.full(shape, opacity, np.float32)
    width = max(3, height // 180)
    stripe = np.where((np.add.outer(np.arange(shape[0]), np.arange(shape[1])) // width) % 2 == 0, *HATCH_OPACITY) * (opacity / OPACITY)
    mask = np.zeros(shape, np.uint8)
    mask[row, column] = hatched[person]
    mask = cv2.dilate(mask, np.ones((3, 3), np.uint8)) if hatched.all() else mask
    return np.where(mask > 0, stripe, opacity).astype(np.float32)
