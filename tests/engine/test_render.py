# SPDX-License-Identifier: Apache-2.0
"""The renderer against a ray caster that is slow and plain, and against what must never happen: cracks, wrong order, wrong side."""

import time

import numpy as np
import pytest

from body4d_engine.render.rasterize import NEAR_M, Mesh, draw, rasterize, vertex_normals

from .bodies import ball, volume

W, H, F, C = 96, 64, 90.0, (50.3, 29.8)


def cast_rays(vertices, faces):
    """Nearest front face and depth of every pixel centre, by intersecting every ray with every triangle."""
    row, column = np.mgrid[0:H, 0:W]
    ray = np.stack([(column + 0.5 - C[0]) / F, (row + 0.5 - C[1]) / F, np.ones((H, W))], -1).reshape(-1, 3)
    nearest, which = np.full(len(ray), np.inf), np.full(len(ray), -1)
    for index, (a, b, c) in enumerate(vertices[faces]):
        normal = np.cross(b - a, c - a)
        facing = ray @ normal
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (a @ normal) / facing
        point = ray * t[:, None]
        inside = facing < 0
        for p, q in ((a, b), (b, c), (c, a)):
            inside &= np.cross(q - p, point - p) @ normal >= 0
        better = inside & (t < nearest)
        nearest[better], which[better] = t[better], index
    return nearest.reshape(H, W), which.reshape(H, W)


def buffers(fragments):
    depth, face = np.full(W * H, np.inf), np.full(W * H, -1)
    depth[fragments.pixel], face[fragments.pixel] = fragments.depth, fragments.face
    return depth.reshape(H, W), face.reshape(H, W)


def two_balls():
    a, faces = ball()
    return np.vstack([a + [0.1, 0, 1.2], a * 1.5 + [-0.15, 0.05, 1.7]]), np.vstack([faces, faces + len(a)])


@pytest.mark.parametrize("move", [(0, 0, 0), (0.5, 0.3, 0), (-0.7, -0.5, -0.2), (0, 0, 40)])
def test_equals_a_ray_caster(move):
    vertices, faces = two_balls()
    vertices = vertices + move
    fragments = rasterize(vertices, faces, F, C, W, H)
    depth, face = buffers(fragments)
    expected_depth, expected_face = cast_rays(vertices, faces)
    different = face != expected_face
    assert different.mean() < 2e-4  # a centre on an edge may fall to either side
    np.testing.assert_allclose(depth[~different], expected_depth[~different], rtol=1e-6)
    assert (expected_face >= 0).sum() > (300 if move[2] < 1 else 0)


def test_weights_are_perspective_correct():
    vertices, faces = two_balls()
    seen = rasterize(vertices, faces, F, C, W, H)
    points = (vertices[faces[seen.face]] * seen.weights[..., None]).sum(1)
    row, column = np.divmod(seen.pixel, W)
    np.testing.assert_allclose(points[:, :2] / points[:, 2:] * F + C, np.stack([column, row], 1) + 0.5, atol=1e-4)


def test_no_cracks_where_edges_run_through_pixel_centres():
    """A wall of triangles whose corners all lie on pixel centres."""
    x, y = np.meshgrid(np.arange(-8, W + 9, 8) + 0.5, np.arange(-8, H + 9, 8) + 0.5)
    vertices = np.stack([(x - C[0]) / F, (y - C[1]) / F, np.ones_like(x)], -1).reshape(-1, 3) * 2
    n = x.shape[1]
    corner = (np.arange(x.shape[0] - 1)[:, None] * n + np.arange(n - 1)).ravel()
    faces = np.vstack([np.stack([corner, corner + n, corner + 1], 1), np.stack([corner + 1, corner + n, corner + n + 1], 1)])
    for order in (1, -1):
        assert len(rasterize(vertices, faces[:, ::order], F, C, W, H).pixel) == (W * H if order == 1 else 0)


def test_shared_edges_leave_no_pixel_out():
    rng = np.random.default_rng(0)
    a, faces = ball(rings=40, sectors=60)
    for _ in range(20):
        vertices = a + [*rng.normal(0, 0.2, 2), rng.uniform(0.7, 2)]
        _, face = buffers(rasterize(vertices, faces, F, C, W, H))
        outside = np.pad(face < 0, 1, constant_values=True)
        holes = ~outside[1:-1, 1:-1]
        # A convex outline: in every row what is covered is one run.
        starts = (np.diff(np.pad(holes, ((0, 0), (1, 1))).astype(int), axis=1) == 1).sum(1)
        assert starts.max() <= 1


@pytest.mark.parametrize("offset", [(0, 0, -5), (0, 0, 0), (0, 0, 0.1), (50, 0, 3), (0, -1e6, 1), (0, 0, 1e6)])
def test_behind_around_beside_and_far_away_is_harmless(offset):
    vertices, faces = ball()
    seen = rasterize(vertices + np.array(offset, float), faces, F, C, W, H)
    assert (seen.depth > NEAR_M).all() and np.isfinite(seen.weights).all()
    assert draw(np.zeros((H, W, 3), np.uint8), [Mesh(vertices + np.array(offset, float), faces, (1, 1, 1))], F, C).shape == (H, W, 3)


def test_people_hide_each_other_by_depth_not_by_order():
    vertices, faces = ball()
    red, blue = Mesh(vertices + [0, 0, 2], faces, (1, 0, 0)), Mesh(vertices + [0.1, 0, 1.5], faces, (0, 0, 1))
    image = np.zeros((H, W, 3), np.uint8)
    one, other = draw(image, [red, blue], F, C), draw(image, [blue, red], F, C)
    np.testing.assert_array_equal(one, other)
    middle = one[H // 2, 55]
    assert middle[2] > 2 * middle[0]


def test_hatched_lets_more_through_and_the_footage_is_kept_elsewhere():
    vertices, faces = ball()
    image = np.full((H, W, 3), 100, np.uint8)
    solid, hatched = (draw(image, [Mesh(vertices + [0, 0, 2], faces, (1, 1, 0), flag)], F, C).astype(int) for flag in (False, True))
    assert 0.2 < np.abs(hatched - 100).sum() / np.abs(solid - 100).sum() < 0.8
    assert (solid[:, :20] == 100).all() and (image == 100).all()
    across = hatched[30, 42:58, 0]
    assert np.abs(np.diff(across)).max() > 15  # stripes


def test_the_outline_is_soft():
    vertices, faces = ball(rings=30, sectors=40)
    picture = draw(np.zeros((H, W, 3), np.uint8), [Mesh(vertices + [0, 0, 2], faces, (1, 1, 1))], F, C, opacity=1.0).astype(int)
    row = picture[30, :, 0]
    edge = np.flatnonzero(row)[0]
    assert 0 < row[edge] < 0.7 * row[edge + 2]


def test_normals_point_outwards():
    vertices, faces = ball()
    assert volume(vertices, faces) > 0
    normals = vertex_normals(vertices, faces)
    assert (normals * vertices).sum(1).min() > 0.25
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)


def test_real_people_lie_where_their_keypoints_say_and_are_drawn_fast(shared):
    folder = shared / "data" / "sam_3d_body"
    faces = np.load(folder / "mhr_topology.npz")["faces"]
    meshes = []
    for name, color in (("img_subj00", (0.3, 0.7, 0.9)), ("img_subj01", (0.9, 0.6, 0))):
        data = np.load(folder / f"{name}.npz")
        meshes.append(Mesh((data["pred_vertices"] + data["pred_cam_t"]).astype(np.float64), faces, color))
        seen = rasterize(meshes[-1].vertices, faces, 2535.27, (960, 445), 1920, 890)
        row, column = np.divmod(seen.pixel, 1920)
        x0, y0, x1, y1 = data["bbox"]
        assert np.abs(np.array([column.min(), row.min(), column.max(), row.max()]) - [x0, y0, x1, y1]).max() < 25
    image = np.zeros((1080, 1920, 3), np.uint8)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        draw(image, meshes, 2535.27, (960, 445))
        seconds.append(time.process_time() - start)
    assert min(seconds) / 2 < 0.25  # 0.03 of processor time where nothing else runs
