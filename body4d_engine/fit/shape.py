# SPDX-License-Identifier: Apache-2.0
"""One person's body shape: six phenotypes from key frames, together with the poses in them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..models.anny.pose import PoseModel, Rig, neutral_phenotypes
from .observations import Observations
from .residuals import Poses, about_hips, clipped, energy, linearize
from .solver import FRESH, D, fit_samples
from .start import rough_poses

KEY_FRAMES = 24
ITERATIONS = 14
ROBUST_M = 0.25  # so wide that landmarks in space count fully: they say how large somebody is
STRENGTH = 3.0 * np.array([0.5, 2, 1, 1, 1, 1])  # per key frame: pull of the phenotypes towards the average
STEP, PROBE = 0.25, 1e-3
HEIGHT_STRENGTH = 2000.0  # per key frame and square metre


@dataclass
class Shape:
    """phenotypes (6,), the scale of the body, and how much larger than BlazePose's average person the landmarks in space must be read."""

    phenotypes: np.ndarray
    scale: float = 1.0
    landmark_scale: float = 1.0

    def rig(self, model: PoseModel) -> Rig:
        return Rig(model, model.body.rest(self.phenotypes, self.scale))


def key_samples(visibility: np.ndarray, seen: np.ndarray, count: int = KEY_FRAMES) -> np.ndarray:
    """Up to `count` samples spread over the clip, from each stretch the one whose landmarks are most visible. visibility (T,), seen (T,)."""
    candidates = np.flatnonzero(seen)
    parts = np.array_split(candidates, min(count, len(candidates))) if len(candidates) else []
    return np.array([part[np.argmax(visibility[part])] for part in parts], np.int64)


def average_shape(model: PoseModel, height_m: float | None = None) -> Shape:
    """The average adult; with a height, a body that naturally has it (a child where it must be), scaled to it exactly."""
    phenotypes = neutral_phenotypes(model.body)
    if height_m is None:
        return Shape(phenotypes)
    body, age, height = model.body, model.body.phenotypes.index("age"), model.body.phenotypes.index("height")
    turns_to = height if height_m >= 1.4 else age  # below, a short adult is less likely than a child
    low, high = (0.08, 0.8) if turns_to == height else (float(body.bounds[age, 0]), float(phenotypes[age]))
    for _ in range(20):
        phenotypes[turns_to] = (low + high) / 2
        low, high = (phenotypes[turns_to], high) if body.rest(phenotypes).height < height_m else (low, phenotypes[turns_to])
    scale = body.scale_for_height(phenotypes, height_m)
    return Shape(phenotypes, scale, scale if turns_to == age else height_m / 1.70)


def solve_shape(model: PoseModel, seen: Observations, height_m: float | None = None) -> Iterator[tuple[int, int]]:
    """A generator of (steps done, steps) that returns the Shape which fits the key frames `seen` best.

    With height_m the body stands exactly so tall. Without, size comes from BlazePose's idea of metres: an average person's.
    """
    shape = average_shape(model, height_m)
    mean = shape.phenotypes.copy()
    bounds = np.clip(model.body.bounds, 0, 1)
    bounds[:, 0] = np.minimum(bounds[:, 0], mean)
    total_steps = ITERATIONS + 2
    rig = shape.rig(model)
    poses = fit_samples(rig, rough_poses(rig, seen, shape.landmark_scale), seen, shape.landmark_scale, FRESH[:2])
    yield 1, total_steps
    poses = fit_samples(rig, poses, seen, shape.landmark_scale, FRESH[2:])
    yield 2, total_steps
    damping, shape_of = 1e-3, lambda values: Shape(values, shape.scale, shape.landmark_scale)
    strength = STRENGTH * len(seen)
    tall = HEIGHT_STRENGTH * len(seen) if height_m is not None else 0.0

    def penalty(values: np.ndarray, candidate: Rig) -> float:
        return float(strength @ (values - mean) ** 2) + (tall * (candidate.rest.height - height_m) ** 2 if tall else 0.0)

    for iteration in range(ITERATIONS):
        if height_m is not None:
            shape.landmark_scale = _landmark_scale(rig, poses, seen)
        base, probes = rig.keypoints(*rig.pose(poses.rotation, poses.theta)), []
        slopes = np.zeros(len(mean))
        for i in range(len(mean)):
            aside = shape.phenotypes.copy()
            step = PROBE if aside[i] + PROBE <= bounds[i, 1] else -PROBE
            aside[i] += step
            other = shape_of(aside).rig(model)
            probes.append((other.keypoints(*other.pose(poses.rotation, poses.theta)) - base) / step)
            slopes[i] = (other.rest.height - rig.rest.height) / step
        linear = linearize(rig, poses, seen, ROBUST_M, shape.landmark_scale, np.stack(probes, -1))
        before = float(linear.energy.sum()) + penalty(shape.phenotypes, rig)
        hessian, gradient = linear.hessian, linear.gradient
        border = hessian[:, D:, D:].sum(0) + np.diag(strength)
        pull = gradient[:, D:].sum(0) + strength * (shape.phenotypes - mean)
        if tall:
            border += tall * np.outer(slopes, slopes)
            pull += tall * (rig.rest.height - height_m) * slopes
        gained = 0.0
        for _ in range(5):  # raise the damping until a step lowers the energy
            inner = hessian[:, :D, :D].copy()
            inner[:, range(D), range(D)] = inner[:, range(D), range(D)] * (1 + damping) + 1e-6
            solved = np.linalg.solve(inner, np.concatenate([hessian[:, :D, D:], gradient[:, :D, None]], 2))
            coupling = hessian[:, D:, :D]
            reduced = border + np.diag(np.diag(border)) * damping - (coupling @ solved[..., :-1]).sum(0)
            change = -np.linalg.solve(reduced, pull - (coupling @ solved[..., -1:]).sum(0)[:, 0])
            values = np.clip(shape.phenotypes + np.clip(change, -STEP, STEP), *bounds.T)
            step = -solved[..., -1] - solved[..., :-1] @ (values - shape.phenotypes)
            trial, trial_rig = poses.moved(clipped(step)), shape_of(values).rig(model)
            after = float(energy(trial_rig, trial, seen, ROBUST_M, shape.landmark_scale).sum()) + penalty(values, trial_rig)
            if after < before:
                gained, damping = (before - after) / before, damping / 5
                shape, rig, poses = shape_of(values), trial_rig, trial
                break
            damping = max(damping * 8, 1e-4)
        yield iteration + 3, total_steps
        if gained < 1e-4:
            break
    if height_m is not None:
        shape.scale = model.body.scale_for_height(shape.phenotypes, height_m)
        rig = shape.rig(model)
        shape.landmark_scale = _landmark_scale(rig, poses, seen)
    return shape


def _landmark_scale(rig: Rig, poses: Poses, seen: Observations) -> float:
    """The factor that brings the landmarks in space closest to the fitted body, in size: least squares over the visible ones' distances."""
    keypoints = about_hips(rig.keypoints(*rig.pose(poses.rotation, poses.theta)))
    weight = seen.visibility
    body = np.sqrt((weight * (keypoints**2).sum(-1)).sum())
    return float(np.clip(body / max(np.sqrt((weight * (seen.world**2).sum(-1)).sum()), 1e-6), 0.3, 2.0))
