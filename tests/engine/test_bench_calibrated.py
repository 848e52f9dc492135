# SPDX-License-Identifier: Apache-2.0
"""The truth of scripts/bench_calibrated.py, from made-up views."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import bench_calibrated as bench  # noqa: E402

from body4d_engine.models.anny.pose import exp  # noqa: E402


@pytest.fixture
def views():
    """Four cameras 4 m around the origin, at their height."""
    matrix = np.array([[1000.0, 0, 500], [0, 1000, 400], [0, 0, 1]])
    return [bench.View(n + 1, exp(np.array([0, n * np.pi / 2 + 0.1, 0.0])), np.array([0, 0, 4.0]), matrix) for n in range(4)]


@pytest.fixture
def joints():
    time = np.arange(30)[:, None, None] / 30
    return 0.5 * np.random.default_rng(0).normal(size=(1, 12, 3)) + 0.1 * np.sin(time)


def test_a_view_that_is_wrong_is_left_out(views, joints):
    pixels = np.stack([view.pixels(joints) for view in views])
    pixels[2, :, 3] += 60
    found, used = bench.triangulate(pixels, np.ones(pixels.shape[:3]), views)
    assert found == pytest.approx(joints, abs=1e-6)
    assert (used[:, 3] == 3).all() and (np.delete(used, 3, 1) == 4).all()


def test_views_that_do_not_see_a_joint_are_not_used(views, joints):
    trust = np.ones((4, 30, 12))
    trust[:3, 5, 0] = 0
    found, used = bench.triangulate(np.stack([view.pixels(joints) for view in views]), trust, views)
    assert np.isnan(found[5, 0]).all() and used[5, 0] == 0 and used.sum() == 4 * (30 * 12 - 1)


def test_swapped_sides_of_a_view_are_found(views, joints):
    pixels = np.stack([view.pixels(joints) for view in views])
    pixels[1, 10:20] = pixels[1, 10:20][:, bench.SWAP]
    rough, _ = bench.triangulate(pixels, np.ones(pixels.shape[:3]), views)
    wrong = bench.swapped_sides(pixels, rough, views)
    assert [bench.JOINTS[i] for i in bench.SWAP][:2] == ["right_shoulder", "left_shoulder"]
    assert np.argwhere(wrong).tolist() == [[1, frame] for frame in range(10, 20)]


def test_short_gaps_are_bridged_and_long_ones_are_not(joints):
    gappy = joints.copy()
    gappy[4:7, 2], gappy[10:25, 5], gappy[:3, 7], gappy[:, 8] = np.nan, np.nan, np.nan, np.nan
    filled = bench.without_gaps(gappy)
    assert filled[4:7, 2] == pytest.approx(joints[4:7, 2], abs=1e-3)
    assert np.isnan(filled[10:25, 5]).all() and np.isnan(filled[:3, 7]).all() and np.isnan(filled[:, 8]).all()


def test_a_calibration_is_read_in_metres_and_pixels(tmp_path):
    turn = " ".join(f'r{i}{j}="{float(i == j)}"' for i in (1, 2, 3) for j in (1, 2, 3))
    (tmp_path / "c.txt").write_text(f'''<calibration><cameras><camera><transform {turn} x="100" y="200" z="3000"/>
        <intrinsic focalLengthU="64000" focalLengthV="64000" centerPointU="32000" centerPointV="16000" model="none"/></camera></cameras></calibration>''')
    (view,) = bench.read_views(tmp_path / "c.txt")
    assert view.focal_px == 1000 and view.pixels(np.array([0.1, 0.2, 0.0])) == pytest.approx([500, 250])
    assert view.pixels(np.array([0.4, 0.5, 0.0])) == pytest.approx([600, 150])  # y is up in the file
