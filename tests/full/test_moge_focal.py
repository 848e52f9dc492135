# SPDX-License-Identifier: Apache-2.0
"""The focal solve on point maps of known cameras. No torch."""
import math

import numpy as np
import pytest

from body4d_engine.errors import Body4DError
from body4d_engine.models.moge import focal as solve

SIZES = [(1920, 1080), (1080, 1920), (640, 640), (20, 30), (3840, 1600)]


def _relief(width, height, seed=0):
    """A room: depths from 2 to 9, smooth, different everywhere."""
    rows, columns = (np.linspace(0, 1, count) for count in (height, width))
    phase = np.random.default_rng(seed).uniform(0, 3, 2)
    return 5.5 + 2 * np.sin(4 * columns[None] + phase[0]) + 1.5 * np.cos(5 * rows[:, None] + phase[1])


def _scene(width, height, diagonal_degrees, shift=0.0, scale=1.0, noise=0.0, seed=0):
    """(64, 64, 3) samples of the point map that a perfect network would give, up to scale and z shift, and the focal length in pixels."""
    focal_px = math.hypot(width, height) / 2 / math.tan(math.radians(diagonal_degrees / 2))
    columns, rows = (solve.sample_rows(count) for count in (width, height))
    depth = _relief(width, height, seed)[np.ix_(rows, columns)]
    x, y = ((at + 0.5 - count / 2) / focal_px for at, count in ((columns, width), (rows, height)))
    points = np.stack([x[None] * depth, y[:, None] * depth, depth - shift], -1) * scale
    return points * (1 + noise * np.random.default_rng(seed).normal(size=points.shape)), focal_px


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("degrees", [15, 46, 70, 110])
def test_the_focal_length_of_a_perfect_map(size, degrees):
    # Fails if the plane's span is not the diagonal, if pixels are taken at their corners, or if width and height change places.
    points, true = _scene(*size, degrees, shift=0.4, scale=0.3)
    assert solve.focal_px(points, np.ones((64, 64), bool), *size) == pytest.approx(true, rel=1e-3)


def test_without_a_shift_it_is_exact():
    # Fails for a sample other than the one that the plane says: half a pixel in 64 is 1e-2 here.
    points, true = _scene(64, 48, 60)
    assert solve.focal_px(points, np.ones((64, 64), bool), 64, 48) == pytest.approx(true, rel=1e-12)


def test_the_shift_is_found():
    # Fails without the shift (focal wrong by a tenth) and with its sign turned.
    points, true = _scene(640, 480, 60, shift=1.2)
    plane = solve.view_plane(640, 480)[np.ix_(solve.sample_rows(480), solve.sample_rows(640))]
    focal, shift = solve.focal_and_shift(points.reshape(-1, 3), plane.reshape(-1, 2))
    assert shift == pytest.approx(1.2, abs=0.01) and focal * 400 == pytest.approx(true, rel=2e-3)
    unshifted = solve._residuals(points.reshape(-1, 3), plane.reshape(-1, 2), 0.0)[0]
    assert abs(unshifted / focal - 1) > 0.05


@pytest.mark.parametrize("shift", [-20.0, -3.0, 0.9, 1.4])
def test_the_solve_stops_where_the_cost_no_longer_falls(shift):
    # Fails for a solve that runs away, starts elsewhere or stops at its first step: the cost must be within the stated tolerance of the least.
    points, _ = _scene(640, 480, 60, shift=shift, noise=0.02)
    plane = solve.view_plane(640, 480)[np.ix_(solve.sample_rows(480), solve.sample_rows(640))]
    points, plane = points.reshape(-1, 3), plane.reshape(-1, 2)
    found = solve.focal_and_shift(points, plane)[1]
    costs = [(solve._residuals(points, plane, at)[1] ** 2).sum() for at in (found, *np.linspace(shift - 0.5, shift + 0.5, 401))]
    assert costs[0] <= 1.01 * min(costs)


def test_the_slope_is_the_derivative_of_the_residuals():
    # Fails for any wrong term in the closed form.
    points, _ = _scene(640, 480, 60, noise=0.05)
    points, plane = points.reshape(-1, 3), solve.view_plane(64, 64, 4 / 3).reshape(-1, 2)
    step = 1e-6
    numeric = (solve._residuals(points, plane, 0.3 + step)[1] - solve._residuals(points, plane, 0.3 - step)[1]) / (2 * step)
    np.testing.assert_allclose(solve._residuals(points, plane, 0.3)[2], numeric, atol=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_noise_and_a_mask(seed):
    # Fails if masked samples are read (they are wild here), or not matched with their own place on the plane.
    rng = np.random.default_rng(seed)
    points, true = _scene(1280, 720, 65, shift=0.5, noise=0.02, seed=seed)
    valid = rng.random((64, 64)) < 0.3
    points[~valid] = rng.normal(size=(int((~valid).sum()), 3)) * 50
    assert solve.focal_px(points, valid, 1280, 720) == pytest.approx(true, rel=0.02)


def test_points_that_are_not_finite_are_passed_over():
    points, true = _scene(1280, 720, 65, shift=0.5)
    points[::3, ::2, 2], points[5, 5] = np.inf, np.nan
    assert solve.focal_px(points, np.ones((64, 64), bool), 1280, 720) == pytest.approx(true, rel=1e-3)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_points_give_no_focal_length(count):
    # Fails for the published fallback, f = 1, which is a view of 90 degrees that nobody measured.
    points, _ = _scene(1280, 720, 65)
    valid = np.zeros((64, 64), bool)
    valid.flat[:count] = True
    assert math.isnan(solve.focal_px(points, valid, 1280, 720))
    assert all(math.isnan(value) for value in solve.focal_and_shift(points[valid], solve.view_plane(64, 64)[valid]))


def test_two_points_are_enough():
    points, true = _scene(1280, 720, 65)
    valid = np.zeros((64, 64), bool)
    valid[[3, 60], [5, 40]] = True
    assert solve.focal_px(points, valid, 1280, 720) == pytest.approx(true, rel=1e-3)


@pytest.mark.parametrize("mirror", [[-1, -1, 1], [1, 1, -1], [-1, -1, -1]])
def test_a_map_that_no_camera_sees_gives_no_focal_length(mirror):
    # Fails if a negative focal length gets out, or that of a scene behind the camera.
    points, _ = _scene(1280, 720, 65)
    assert math.isnan(solve.focal_px(points * mirror, np.ones((64, 64), bool), 1280, 720))


def test_a_flat_wall_keeps_its_shift():
    # Fails if a curvature of nothing but rounding is divided by.
    plane = solve.view_plane(64, 64).reshape(-1, 2)
    wall = np.concatenate([plane * 3, np.full((64 * 64, 1), 3.0)], 1)
    assert solve.focal_and_shift(wall, plane) == pytest.approx((1.0, 0.0), abs=1e-6)


def test_the_view_plane():
    plane = solve.view_plane(4, 3)
    assert plane.shape == (3, 4, 2)
    np.testing.assert_allclose(plane[0, 0], [-0.6, -2 / 3 * 0.6], atol=1e-15)         # centre of the first pixel: (-1.5, -1) of half a diagonal of 2.5
    np.testing.assert_allclose(plane, -plane[::-1, ::-1], atol=1e-15)
    np.testing.assert_allclose(solve.view_plane(2, 2, 16 / 9)[1, 1], np.array([16, 9]) / math.hypot(16, 9) / 2)


def test_samples_are_the_nearest_rows():
    assert list(solve.sample_rows(2)) == [0] * 32 + [1] * 32
    assert list(solve.sample_rows(2160)[[0, 1, 63]]) == [0, 33, 2126]


def test_one_focal_for_a_shot():
    # Fails for a mean, for a median of the focal lengths themselves where their number is even, and for a deviation in pixels.
    focal, spread = solve.one_focal([1000, 1100, np.nan, 900, 1000, 40000, 1000 * 1.21])
    assert focal == pytest.approx(1000 * math.sqrt(1.1)) and spread == pytest.approx(1.4826 * np.log(1.1), rel=1e-2, abs=0.03)
    assert solve.one_focal([1000, 4000])[0] == pytest.approx(2000)
    doubled = solve.one_focal(np.array([1000, 1100, 900, 1210]) * 2)
    assert doubled[1] == pytest.approx(solve.one_focal([1000, 1100, 900, 1210])[1])
    rng = np.random.default_rng(0)
    assert solve.one_focal(1500 * np.exp(0.1 * rng.normal(size=4000)))[1] == pytest.approx(0.1, rel=0.05)


def test_one_frame_says_nothing_about_the_spread():
    focal, spread = solve.one_focal([1234.5, np.nan])
    assert focal == pytest.approx(1234.5) and math.isnan(spread)


@pytest.mark.parametrize("frames", [[], [np.nan, np.nan], [np.inf, -1, 0]])
def test_no_frame_with_a_focal_length(frames):
    with pytest.raises(Body4DError) as error:
        solve.one_focal(frames)
    assert error.value.code == "no_focal"
