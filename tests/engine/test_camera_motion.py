# SPDX-License-Identifier: Apache-2.0
"""The camera's motion: found behind people, true to a tenth of a pixel, and told apart into turning and moving along."""

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from body4d_engine.background import CameraMotion
from body4d_engine.camera_motion import GROUP, moved, turns
from body4d_engine.clip import open_clip
from body4d_engine.stages.prepare import Prepare
from body4d_engine.take import Take

from .test_shots import Scenery, write
from .tracked import real_walk, tracked_take, visible

SIZE = (960, 540)
LENS = np.array([[900.0, 0, 480], [0, 900, 270], [0, 0, 1]])


def texture(seed, width, height):
    """A picture (height, width, 3) with detail of every size."""
    rng = np.random.default_rng(seed)
    return sum(cv2.resize(rng.uniform(0, 60, (height // s, width // s, 3)), (width, height), interpolation=cv2.INTER_CUBIC) for s in (8, 16, 40, 100))


def picture(warp, people=0.0, i=0):
    """The scene as seen through a homography from the first picture, with a textured patch that covers a share of it and moves on its own."""
    to_wide = np.array([[1.0, 0, 400], [0, 1, 230], [0, 0, 1]])
    rgb = cv2.warpPerspective(picture.wide, warp @ np.linalg.inv(to_wide), SIZE, flags=cv2.INTER_LINEAR)
    if people:
        w, h = int(SIZE[0] * people), int(SIZE[1] * 0.9)
        x = int(300 - 6 * i)
        rgb[30 : 30 + h, x : x + w] = picture.patch[:h, : rgb[30 : 30 + h, x : x + w].shape[1]]
    return np.clip(rgb, 0, 255).astype(np.uint8)


picture.wide, picture.patch = texture(1, 1760, 1000), texture(2, *SIZE)


def turning(degrees):
    """The homography of a camera that has turned by these angles (x, y, z)."""
    return LENS @ Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ np.linalg.inv(LENS)


@pytest.mark.parametrize("people", [0.0, 0.35])
def test_a_turn_is_followed_behind_people(people):
    motion, path, corners = CameraMotion(*SIZE), np.eye(3), np.array([[50.0, 50], [900, 60], [70, 480], [880, 500]])
    for i in range(25):
        warp = turning([0.05 * i, 0.25 * i, 0.1 * i])
        step = motion.see(picture(warp, people, i))
        path = step.warp @ path
        assert np.linalg.norm(moved(path, corners) - moved(warp, corners), axis=1).max() < 0.1 * (i + 1)
        assert i == 0 or 2 < step.moving < 8


def test_people_who_fill_the_picture_do_not_move_a_still_camera():
    motion = CameraMotion(*SIZE)
    assert all(motion.see(picture(np.eye(3), 0.6, i)).moving < 0.15 for i in range(12))


def test_nothing_to_see_is_not_known():
    motion = CameraMotion(*SIZE)
    motion.see(np.full((*SIZE[::-1], 3), 90, np.uint8))
    step = motion.see(np.full((*SIZE[::-1], 3), 120, np.uint8))
    assert np.isnan(step.moving) and (step.warp == np.eye(3)).all()


@pytest.mark.parametrize("size", [(2, 2), (16, 16), (7, 300)])
def test_tiny_pictures(size):
    motion, rng = CameraMotion(*size), np.random.default_rng(0)
    assert all(np.isfinite(motion.see(rng.integers(0, 255, (*size[::-1], 3), np.uint8)).warp).all() for _ in range(3))


def test_prepare_keeps_a_step_per_sample_and_none_over_cuts(tmp_path):
    clip = write(tmp_path / "cut.mp4", (Scenery(i // 30, pan=2)(i) for i in range(60)))
    clip.use(0, 60, 3)
    take = Take.create(tmp_path / "a.take", clip.describe(), "lite")
    take.begin("prepare", "k" * 8)
    list(Prepare().run(clip, [], take, None))
    take.finish()
    warp, moving = take.read(GROUP, "warp"), take.read(GROUP, "moving")
    assert clip.shots == (0, 30) and len(warp) == len(moving) == 20
    assert moving[[0, 10]].tolist() == [0, 0] and (warp[[0, 10]] == np.eye(3)).all()
    others = np.delete(np.arange(20), [0, 10])
    np.testing.assert_allclose(warp[others, 0, 2], -6, atol=0.3)  # three frames' pan to the right
    take.close()


def test_a_camera_on_a_stand(demo_clip):
    with open_clip(demo_clip) as clip:
        motion = CameraMotion(clip.width, clip.height)
        steps = [motion.see(rgb) for _, rgb in clip.iterate(range(20))]
    assert max(step.moving for step in steps) < 0.5


def with_motion(path, warps, fps=30):
    walk = real_walk(1)
    count = len(warps)
    take, _, _ = tracked_take(path, [(walk.px[:1].repeat(count, 0), walk.metres[:1].repeat(count, 0), visible(count))], 900, (480, 270), SIZE, fps)
    take.begin("prepare", "k" * 8)
    take.create_array(GROUP, "warp", "f4", (3, 3))
    take.create_array(GROUP, "moving", "f4", ())
    steps = np.array([np.eye(3), *(after @ np.linalg.inv(before) for before, after in zip(warps[:-1], warps[1:], strict=True))])
    take.append(GROUP, "warp", steps)
    take.append(GROUP, "moving", np.zeros(count))
    take.finish()
    return take


def test_turning_is_told_from_moving_along(tmp_path):
    warps = [np.eye(3)] * 40 + [turning([0, 0.4 * i, 0.1 * i]) for i in range(40)]
    take = with_motion(tmp_path / "turns.take", warps)
    found = turns(take, 1 / 30)
    assert found.known.all() and (found.rotation[:20] == np.eye(3)).all()
    last = Rotation.from_matrix(found.rotation[-1]).as_euler("xyz", degrees=True)
    np.testing.assert_allclose(last, Rotation.from_euler("xyz", [0, 0.4 * 39, 0.1 * 39], degrees=True).as_euler("xyz", degrees=True), atol=0.1)
    take.close()
    nearer = [np.eye(3)] * 40 + [np.array([[1 + 0.004 * i, 0, -2 * i], [0, 1 + 0.004 * i, -1 * i], [0, 0, 1]]) for i in range(40)]
    take = with_motion(tmp_path / "along.take", nearer)
    found = turns(take, 1 / 30)
    assert found.known[:20].all() and not found.known[60:].any()
    take.close()


def test_without_pictures_the_camera_stands(tmp_path):
    walk = real_walk(1)
    take, _, _ = tracked_take(tmp_path / "a.take", [(walk.px, walk.metres, visible(100))], walk.focal, walk.centre, walk.size, 60)
    found = turns(take, 1 / 60)
    assert found.known.all() and (found.rotation == np.eye(3)).all()
    take.close()
