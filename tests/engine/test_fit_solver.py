# SPDX-License-Identifier: Apache-2.0
"""The solvers against made-up truth, against derivatives taken numerically, and against themselves in windows."""

import numpy as np
import pytest

from body4d_engine.fit import residuals, solver
from body4d_engine.fit.observations import Observations
from body4d_engine.fit.residuals import Poses
from body4d_engine.fit.start import rough_poses
from body4d_engine.models.anny.body import load
from body4d_engine.models.anny.pose import KEYPOINTS, Rig, exp, neutral_phenotypes, pose_model


@pytest.fixture(scope="module")
def rig():
    return Rig(pose_model(), load().rest(neutral_phenotypes(load())))


@pytest.fixture(autouse=True)
def landmarks_in_space_are_good(monkeypatch):
    """What is made up here is as exact along the line of sight as across it; the landmarker's is not, and the weights say so."""
    monkeypatch.setattr(residuals, "SPACE", residuals.ROUGH_SPACE)
    monkeypatch.setattr(residuals, "LEGS_SPACE", residuals.ROUGH_SPACE)
    monkeypatch.setattr(residuals, "DEPTH", 1.0)


def motion(count, fps=30, seed=0, hertz=0.5):
    """Smooth random poses of someone who walks about and turns; theta holds `hertz` and its first two multiples."""
    random = np.random.default_rng(seed)
    time = np.arange(count)[:, None] / fps
    waves = sum(random.normal(0, 0.3 / k, 54) * np.sin(2 * np.pi * hertz * k * time + random.uniform(0, 6, 54)) for k in (1, 2, 3))
    theta = np.clip(waves / np.maximum(pose_model().stiffness, 0.6), *(0.8 * pose_model().limits.T))
    position = np.array([0.2, 0.1, 4.0]) + np.array([0.5, 0.05, 0.8]) * np.sin(0.7 * time + [0, 1, 2])
    return Poses(position, exp(np.array([0.1, 1.0, 0.05]) * np.sin(0.9 * time + 0.5)), theta)


def seen_by_camera(rig, poses, focal=1500.0, centre=(960.0, 540.0), noise_px=0.0, noise_m=0.0, seed=1):
    random = np.random.default_rng(seed)
    keypoints = rig.keypoints(*rig.pose(poses.rotation, poses.theta))
    points = keypoints + poses.position[:, None]
    pixels = focal * points[..., :2] / points[..., 2:] + centre
    n = len(poses)
    world = residuals.about_hips(keypoints)
    return Observations(pixels + random.normal(0, noise_px, pixels.shape), np.ones(pixels.shape[:2]), world + random.normal(0, noise_m, world.shape),
                        np.ones(pixels.shape[:2]), np.ones(n, bool), np.ones(n), np.full(n, focal), np.tile(np.array(centre), (n, 1)))


def apart(rig, ours, theirs):
    """(N, K) distance of keypoints in camera space."""
    a, b = (rig.keypoints(*rig.pose(p.rotation, p.theta)) + p.position[:, None] for p in (ours, theirs))
    return np.linalg.norm(a - b, axis=-1)


def joined(parts):
    return Poses(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("position", "rotation", "theta")))


def test_known_poses_are_found_from_scratch_to_a_few_millimetres(rig):
    truth = motion(40)
    seen = seen_by_camera(rig, truth)
    fitted = solver.fit_samples(rig, rough_poses(rig, seen, 1.0), seen, 1.0)
    shapes = [residuals.about_hips(rig.keypoints(*rig.pose(p.rotation, p.theta))) for p in (fitted, truth)]
    assert np.linalg.norm(shapes[0] - shapes[1], axis=-1).mean() < 0.008
    assert apart(rig, fitted, truth).mean() < 0.015  # with the depth, which the pull towards the rest pose moves a little


def test_without_the_prior_known_poses_are_found_exactly(rig, monkeypatch):
    monkeypatch.setattr(residuals, "PRIOR", 0.0)
    truth = motion(40)
    seen = seen_by_camera(rig, truth)
    fitted = solver.fit_samples(rig, rough_poses(rig, seen, 1.0), seen, 1.0, (*solver.FRESH, (0.12, 60)))
    assert np.median(apart(rig, fitted, truth)) < 0.0005 and apart(rig, fitted, truth).mean() < 0.001


def test_a_whole_clip_is_found_through_noise_more_closely_than_frame_by_frame(rig):
    truth = motion(120)
    seen = seen_by_camera(rig, truth, noise_px=4.0, noise_m=0.03)
    single = solver.fit_samples(rig, rough_poses(rig, seen, 1.0), seen, 1.0)
    whole = solver.fit_sequence(rig, single, seen, 1.0, 1 / 30)
    assert apart(rig, whole, truth).mean() < 0.7 * apart(rig, single, truth).mean()
    assert apart(rig, whole, truth).mean() < 0.03


def test_outliers_do_not_pull_a_limb_away(rig):
    truth = motion(60)
    seen = seen_by_camera(rig, truth)
    wrist = KEYPOINTS.index("left_wrist")
    seen.xy[20:24, wrist] += 250
    whole = solver.fit_sequence(rig, solver.fit_samples(rig, rough_poses(rig, seen, 1.0), seen, 1.0), seen, 1.0, 1 / 30)
    assert apart(rig, whole, truth)[20:24, wrist].max() < 0.08


def test_a_gap_is_bridged_along_the_motion(rig):
    truth = motion(90, hertz=0.2)
    seen = seen_by_camera(rig, truth)
    gap = np.arange(40, 52)  # 0.4 s
    for name in ("seen", "weight", "visibility", "xy", "world"):
        getattr(seen, name)[gap] = 0
    start = solver.fit_samples(rig, truth, seen, 1.0)
    start.theta[gap], start.position[gap], start.rotation[gap] = start.theta[39], start.position[39], start.rotation[39]
    whole = solver.fit_sequence(rig, start, seen, 1.0, 1 / 30)
    assert apart(rig, whole, truth)[gap].mean() < 0.06 < apart(rig, start, truth)[gap].mean()


def test_the_gradient_is_the_energys(rig):
    truth = motion(3)
    seen = seen_by_camera(rig, truth, noise_px=20, noise_m=0.05)
    poses = truth.moved(np.random.default_rng(2).normal(0, 0.05, (3, 60)))
    poses.theta[0, :5] = 1.5  # over a limit
    linear = residuals.linearize(rig, poses, seen, 0.12, 1.1)
    np.testing.assert_allclose(linear.energy, residuals.energy(rig, poses, seen, 0.12, 1.1))
    for column in [c for c in range(60) if c != 2]:  # root depth: its part in the metres per pixel is held constant on purpose
        step = np.zeros((3, 60))
        step[:, column] = 1e-6
        slope = (residuals.energy(rig, poses.moved(step), seen, 0.12, 1.1) - residuals.energy(rig, poses.moved(-step), seen, 0.12, 1.1)) / 2e-6
        np.testing.assert_allclose(2 * linear.gradient[:, column], slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_banded_solver_solves(count):
    random = np.random.default_rng(count)
    size = count * solver.D
    root = random.normal(0, 1, (size, size))
    matrix = root @ root.T + size * np.eye(size)
    blocks = matrix.reshape(count, solver.D, count, solver.D)
    columns = np.zeros((count, solver.D, 4, solver.D))
    for i in range(count):
        for d in range(3):
            if i + d < count:
                columns[i, :, d] = blocks[i + d, :, i].T
            for j in range(count):
                if abs(i - j) > 2:
                    blocks[i, :, j] = 0
    right = random.normal(0, 1, (count, solver.D))
    np.testing.assert_allclose(solver._solve_banded(columns, right), np.linalg.solve(matrix, right.ravel()).reshape(count, -1), atol=1e-10)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_short_stretches_work(rig, count):
    truth = motion(count)
    seen = seen_by_camera(rig, truth, noise_px=2)
    assert apart(rig, solver.fit_sequence(rig, truth, seen, 1.0, 1 / 30), truth).mean() < 0.03


def test_windows_agree_with_the_whole(rig):
    truth = motion(300)
    seen = seen_by_camera(rig, truth, noise_px=5.0, noise_m=0.04)
    seen.xy[150:153] += np.random.default_rng(5).normal(0, 120, (3, 25, 2))  # trouble right at a seam
    start = solver.fit_samples(rig, rough_poses(rig, seen, 1.0), seen, 1.0)
    whole = solver.fit_sequence(rig, start, seen, 1.0, 1 / 30)
    parts = []
    for begin in range(0, 300, 50):
        low, high = max(0, begin - 60), min(300, begin + 110)
        parts.append(solver.fit_sequence(rig, start[low:high], seen[low:high], 1.0, 1 / 30)[begin - low : begin - low + 50])
    assert apart(rig, joined(parts), whole).max() < 1e-4


def test_smoothing_means_the_same_at_every_frame_rate(rig):
    """The same motion sampled at 60, 30 and 15 per second comes out equally smooth."""
    truth = motion(121, fps=60)
    errors = []
    for every in (1, 2, 4):
        poses = truth[::every]
        seen = seen_by_camera(rig, poses, noise_px=0)
        errors.append(apart(rig, solver.fit_sequence(rig, poses, seen, 1.0, every / 60), poses).mean())
    assert max(errors) < 1.3 * min(errors) and max(errors) < 0.015


def test_landmarks_squeezed_along_the_line_of_sight_do_little_harm(rig, monkeypatch):
    truth = motion(40)
    seen = seen_by_camera(rig, truth)
    seen.world[..., 2] *= 0.7  # as BlazePose does: flatter than life
    errors = []
    for space, depth in ((residuals.ROUGH_SPACE, 1.0), (1.0, 0.2)):
        monkeypatch.setattr(residuals, "SPACE", space)
        monkeypatch.setattr(residuals, "DEPTH", depth)
        fitted = solver.fit_samples(rig, rough_poses(rig, seen, 1.0), seen, 1.0)
        shapes = [residuals.about_hips(rig.keypoints(*rig.pose(p.rotation, p.theta))) for p in (fitted, truth)]
        errors.append(np.linalg.norm(shapes[0] - shapes[1], axis=-1).mean())
    assert errors[1] < 0.8 * errors[0]


def test_noise_of_close_samples_does_not_pass_for_fast_motion():
    random = np.random.default_rng(0)
    noise = 0.002 * random.standard_normal((400, 25, 3))
    calm = [np.median(solver._calm(noise[::step], rate, residuals.FAST_MS2)) for step, rate in ((1, 120.0), (4, 30.0))]
    assert calm[0] > 0.8 * calm[1] and calm[0] > 0.4


def test_fast_motion_is_not_smoothed_at_any_rate():
    for rate in (30.0, 60.0, 240.0):
        time = np.arange(0, 2, 1 / rate)[:, None, None]
        points = np.tile(0.5 * np.maximum(time - 1, 0) ** 2 * 60, (1, 25, 3))  # from rest to 60 m/s^2 at once
        calm = solver._calm(points, rate, residuals.FAST_MS2)
        assert len(calm) == len(points) - 2
        assert calm[: int(0.9 * rate)].min() > 0.99 and calm[int(rate) : -2].max() < 0.1


def test_arms_are_compared_joint_by_joint_and_legs_from_the_hips():
    points = np.zeros((1, len(KEYPOINTS), 3))

    def told(*moved):
        there = points.copy()
        there[:, [KEYPOINTS.index(name) for name in moved], 2] = 0.1
        return {name for name, value in zip(KEYPOINTS, residuals.about_parents(there)[0, :, 2]) if abs(value) > 1e-9}

    assert told(*(name for name in KEYPOINTS if name.split("_")[-1] not in ("hip", "knee", "ankle", "heel", "toe"))) == {"left_shoulder", "right_shoulder"}
    assert told("left_elbow") == {"left_elbow", "left_wrist"}
    assert told("left_knee") == {"left_knee"}
