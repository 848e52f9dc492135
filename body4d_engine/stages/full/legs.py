# SPDX-License-Identifier: Apache-2.0
"""Legs that reach: MHR's hips, knees and feet turned so that heels and toes come where they are to be."""

import numpy as np

from ...fit.contact import POINTS
from ...fit.feet import MOST, ROOT_STIFF, ROUNDS, STAY
from ...imports.mhr70 import MHR70
from .whole import Body

FEET = [MHR70.index(name) for name in POINTS]
TRUNK = [[MHR70.index(f"{side}_{part}") for side in ("left", "right")] for part in ("shoulder", "ankle")]  # the way between says how upright somebody is
LEGS = np.arange(50, 68)  # MHR's parameters of both legs, from hip to toes: 44 to 61 of the pose
STEP = 0.02  # radians by which they are moved to see what that does


def reach(body: Body, params: np.ndarray, root: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The body's parameters (N, 204) and root (N, 3) with heels and toes where they were plus shifts (N, 4, 3): Gauss-Newton on the legs' angles and, stiffly,
    the root's place. What a step does is measured once, for corrections are small."""
    out, place = params.copy(), root.astype(np.float64)
    busy = np.flatnonzero(np.abs(shifts).max((1, 2)) > 1e-6)
    if not len(busy):
        return out, place

    def feet(params: np.ndarray) -> np.ndarray:
        return body.keypoints(params)[:, FEET].astype(np.float64)

    began, count = params[busy].astype(np.float64), len(busy)
    at = feet(began)
    moved = [feet((began[:, None] + step * np.eye(params.shape[1])[LEGS]).reshape(-1, params.shape[1])) for step in (STEP, -STEP)]
    slopes = (moved[0] - moved[1]).reshape(count, len(LEGS), 12) / (2 * STEP)
    rows = np.concatenate([np.tile(np.eye(3), (count, 4, 1)), slopes.transpose(0, 2, 1)], axis=2)
    stiff = STAY * np.concatenate([np.full(3, ROOT_STIFF), np.ones(len(LEGS))])
    goal, away, error, across = at + shifts[busy], np.zeros((count, len(stiff))), shifts[busy].reshape(count, 12, 1), rows.transpose(0, 2, 1)
    for _ in range(ROUNDS):
        step = np.linalg.solve(across @ rows + np.diag(stiff), across @ error - (stiff * away)[..., None])[..., 0]
        away += step / np.maximum(np.abs(step).max(1) / MOST, 1)[:, None]
        turned = began.copy()
        turned[:, LEGS] += away[:, 3:]
        error = (goal - feet(turned) - away[:, None, :3]).reshape(count, 12, 1)
    away[(error**2).sum((1, 2)) >= (shifts[busy] ** 2).sum((1, 2))] = 0  # too far for a leg
    out[np.ix_(busy, LEGS)] += away[:, 3:].astype(out.dtype)
    place[busy] += away[:, :3]
    return out, place
