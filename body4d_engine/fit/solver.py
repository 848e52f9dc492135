# SPDX-License-Identifier: Apache-2.0
"""The two solvers: samples one by one (Levenberg-Marquardt), and a stretch of samples coupled by smoothness (banded Gauss-Newton)."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solveh_banded

from ..models.anny.pose import KEYPOINT_WEIGHTS, Rig
from .observations import Observations
from .residuals import (
    BODY_CUTOFF_HZ,
    BODY_SMOOTH,
    FAST_MS2,
    FAST_ROOT_MS2,
    FAST_STEP_S,
    ROOT_CUTOFF_HZ,
    ROOT_SMOOTH,
    VELOCITY,
    Poses,
    clipped,
    energy,
    linearize,
)

D = 60
FRESH = ((0.5, 6), (0.25, 5), (0.12, 8))  # robust scale in metres, iterations at most: from a rough start
WARM = ((0.12, 6),)  # from the sample before
SEQUENCE = ((0.5, 4), (0.25, 2), (0.12, 4), (0.12, 6))
FOLLOW, FOLLOW_ROOT = 4.0, np.array([4.0, 4.0, 20.0])  # a pull towards the sample before, where samples are fitted one by one
GAIN = 1e-4
BLOCK = 64  # samples whose derivatives are worked out at once: bounds the memory


@dataclass
class Before:
    """The sample before: keypoints (N, K, 3) in person space and root position (N, 3), and how strongly to follow both (1 at 30 per second)."""

    keypoints: np.ndarray
    position: np.ndarray
    body: float = 1.0
    root: float = 1.0


def fit_samples(rig: Rig, start: Poses, seen: Observations, landmark_scale: float, stages=FRESH, before: Before | None = None) -> Poses:
    """Fit N samples, each for itself. `before` (optional) pulls each towards a known neighbour."""
    poses = start
    diagonal = np.arange(D)
    for scale, iterations in stages:
        damping = np.full(len(poses), 1e-3)
        linear, total = _linear_with(rig, poses, seen, scale, landmark_scale, before)
        for _ in range(iterations):
            hessian = linear.hessian.copy()
            hessian[:, diagonal, diagonal] *= 1 + damping[:, None]
            hessian[:, diagonal, diagonal] += 1e-6
            trial = poses.moved(clipped(-np.linalg.solve(hessian, linear.gradient[..., None])[..., 0]))
            trial_total = energy(rig, trial, seen, scale, landmark_scale) + _follow_energy(rig, trial, before)
            better = trial_total < total
            damping = np.where(better, damping / 5, np.maximum(damping * 8, 1e-4))
            gained = better & (total - trial_total > GAIN * total)
            poses = poses.chosen(better, trial)
            if not gained.any() and better.all():
                break
            if damping.min() > 1e3:
                break
            if better.any():
                linear, total = _linear_with(rig, poses, seen, scale, landmark_scale, before)
    return poses


def _linear_with(rig, poses, seen, scale, landmark_scale, before):
    linear = linearize(rig, poses, seen, scale, landmark_scale)
    total = linear.energy
    if before is not None:
        body, root = FOLLOW * before.body * KEYPOINT_WEIGHTS, FOLLOW_ROOT * before.root
        rows = (np.sqrt(body)[:, None, None] * linear.jacobian).reshape(len(poses), -1, D - 3)
        apart = (np.sqrt(body)[:, None] * (linear.keypoints - before.keypoints)).reshape(len(poses), -1, 1)
        across = rows.transpose(0, 2, 1)
        linear.hessian[:, 3:, 3:] += across @ rows
        linear.gradient[:, 3:] += (across @ apart)[..., 0]
        shift = poses.position - before.position
        linear.hessian[:, range(3), range(3)] += root
        linear.gradient[:, :3] += root * shift
        total = total + (apart**2).sum((1, 2)) + (root * shift**2).sum(1)
    return linear, total


def _follow_energy(rig: Rig, poses: Poses, before: Before | None):
    if before is None:
        return 0.0
    keypoints = rig.keypoints(*rig.pose(poses.rotation, poses.theta))
    body = ((keypoints - before.keypoints) ** 2).sum(-1) @ KEYPOINT_WEIGHTS
    return before.body * FOLLOW * body + before.root * ((poses.position - before.position) ** 2) @ FOLLOW_ROOT


def fit_sequence(rig: Rig, start: Poses, seen: Observations, landmark_scale: float, spacing_s: float, stages=SEQUENCE, held=None,
                 smoothing: float = 1.0) -> Poses:
    """Fit N successive samples, `spacing_s` seconds apart, with smoothness of keypoints and root between them, `smoothing` times as strong as usual.

    held (feet.Held, optional): places of planted feet, for a start that has been smoothed already.
    Everything that decides about a sample (damping, step length, robust and smoothness weights) looks at its near neighbours only, and the
    number of iterations is fixed. So what happens far away changes a sample exponentially little, and overlapping windows agree.
    """
    poses, n = start, len(start)
    rate = 1 / spacing_s
    body = smoothing * BODY_SMOOTH * (rate / (2 * np.pi * BODY_CUTOFF_HZ)) ** 4 * np.repeat(KEYPOINT_WEIGHTS, 3)
    root = smoothing * ROOT_SMOOTH * (rate / (2 * np.pi * ROOT_CUTOFF_HZ)) ** 4
    velocity = VELOCITY * (rate / 30) ** 2 * np.sqrt(rig.model.stiffness)
    calm = calm_root = np.ones(max(n - 2, 0))  # per inner sample
    damping = np.full(n, 1e-3)
    diagonal = np.arange(D)
    for number, (scale, iterations) in enumerate(stages):
        merit = None
        for iteration in range(iterations):
            columns = np.zeros((n, D, 4, D))  # [sample, column, distance, row] of the lower triangle; room for _solve_banded to shear
            band = columns.transpose(0, 2, 3, 1)  # [sample, distance]: Hessian block (sample + distance, sample)
            keypoints, jacobian = np.empty((n, len(body))), np.empty((n, len(body), D - 3))
            gradient, local = np.empty((n, D)), np.empty(n)
            for first in range(0, n, BLOCK):
                part = slice(first, first + BLOCK)
                linear = linearize(rig, poses[part], seen[part], scale, landmark_scale)
                if held is not None:
                    held[part].add(linear, poses[part])
                count = len(linear.energy)
                band[part, 0], gradient[part], local[part] = linear.hessian, linear.gradient, linear.energy
                keypoints[part], jacobian[part] = linear.keypoints.reshape(count, -1), linear.jacobian.reshape(count, -1, D - 3)
            if (number or held is not None) and not iteration:
                calm = _calm(keypoints.reshape(n, -1, 3), rate, FAST_MS2)
                calm_root = _calm(poses.position[:, None], rate, FAST_ROOT_MS2)
            local += _add_smoothness(band, gradient, keypoints, jacobian, body, poses.position, root, calm, calm_root)
            local += _add_velocity(band, gradient, poses.theta, velocity)
            total = _near(local, 3)
            if merit is not None:
                damping = np.where(total <= merit * (1 + 1e-6), np.maximum(damping / 4, 1e-5), np.minimum(damping * 8, 1e2))
            merit = total
            del jacobian
            band[:, 0, diagonal, diagonal] *= 1 + damping[:, None]
            band[:, 0, diagonal, diagonal] += 1e-6
            poses = poses.moved(clipped(-_solve_banded(columns, gradient)))
    return poses


def _calm(points: np.ndarray, rate: float, limit: float) -> np.ndarray:
    """(N - 2,) how far smoothing holds around each inner sample: little where points (N, K, 3) accelerate more than `limit` (m/s^2)."""
    if len(points) < 3:
        return np.ones(0)
    step = max(1, min(round(FAST_STEP_S * rate), (len(points) - 1) // 2))
    second = points[: -2 * step] - 2 * points[step:-step] + points[2 * step :]
    fast = np.pad(np.sqrt((second**2).sum(-1).mean(1)) * (rate / step) ** 2, 2 * step - 1, mode="edge")
    fast = np.lib.stride_tricks.sliding_window_view(fast, 2 * step + 1).max(1)
    return 1 / (1 + (fast / limit) ** 2)


def _add_smoothness(band, gradient, keypoints, jacobian, body, position, root, calm, calm_root) -> np.ndarray:
    """Add weighted squared second differences of keypoints (N, 3K) and position (N, 3); returns their energy at the middle samples (N,).

    Scales the jacobian (N, 3K, 57) in place.
    """
    n = len(keypoints)
    out = np.zeros(n)
    if n < 3:
        return out
    weights = np.array([1.0, -2.0, 1.0])
    bends = keypoints[:-2] - 2 * keypoints[1:-1] + keypoints[2:]
    turns = position[:-2] - 2 * position[1:-1] + position[2:]
    out[1:-1] = calm * ((bends**2) @ body) + calm_root * ((turns**2) @ root)
    jacobian *= np.sqrt(body)[:, None]
    across = jacobian.transpose(0, 2, 1)
    for distance in range(3):
        factor, factor_root = np.zeros(n - distance), np.zeros(n - distance)  # sums of products of both samples' weights
        for a in range(3 - distance):
            factor[a : a + n - 2] += calm * weights[a] * weights[a + distance]
            factor_root[a : a + n - 2] += calm_root * weights[a] * weights[a + distance]
        for first in range(0, n - distance, BLOCK):
            part = slice(first, min(first + BLOCK, n - distance))
            ahead = slice(part.start + distance, part.stop + distance)
            band[part, distance, 3:, 3:] += factor[part, None, None] * (across[ahead] @ jacobian[part])
            band[part, distance, range(3), range(3)] += factor_root[part, None] * root
    force, push = np.zeros_like(keypoints), np.zeros_like(position)
    for a in range(3):
        force[a : a + n - 2] += weights[a] * calm[:, None] * bends
        push[a : a + n - 2] += weights[a] * calm_root[:, None] * turns
    gradient[:, 3:] += (across @ (np.sqrt(body) * force)[..., None])[..., 0]
    gradient[:, :3] += root * push
    return out


def _add_velocity(band, gradient, theta, weight) -> np.ndarray:
    """Add weighted squared first differences of theta; returns their energy (N,)."""
    n, out = len(theta), np.zeros(len(theta))
    change = np.diff(theta, axis=0)
    out[1:] = (change**2) @ weight
    angles = np.arange(6, D)
    band[1:, 0, angles, angles] += weight
    band[:-1, 0, angles, angles] += weight
    band[: n - 1, 1, angles, angles] -= weight
    gradient[1:, 6:] += weight * change
    gradient[:-1, 6:] -= weight * change
    return out


def _near(values: np.ndarray, reach: int) -> np.ndarray:
    """Sums over each sample's neighbourhood of +-reach."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    return total[np.minimum(index + reach + 1, len(values))] - total[np.maximum(index - reach, 0)]


def _solve_banded(columns: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Solve the block-pentadiagonal system: columns[i, c, d] is column c of block (i + d, i), for d = 0, 1, 2. Uses up `columns`."""
    n, strides, size = len(columns), columns.strides, 3 * D * D
    sheared = np.lib.stride_tricks.as_strided(columns, (n, D, 3 * D), (strides[0], strides[1] + strides[3], strides[3]))
    packed = columns.reshape(-1)
    for i in range(n):  # in place, for this is most of the memory: what is written lies before what is still to be read
        packed[i * size : (i + 1) * size] = sheared[i].copy().ravel()
    lower = packed[: n * size].reshape(n * D, 3 * D).T  # LAPACK's lower band form, in Fortran order
    return solveh_banded(lower, gradient.ravel(), lower=True, overwrite_ab=True, check_finite=False).reshape(n, D)
