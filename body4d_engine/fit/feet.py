# SPDX-License-Identifier: Apache-2.0
"""Planted feet stay where they are: each contact has one place in space, which the whole body is fitted to and the legs then reach exactly.

The places are known before (`places`); all here looks at near neighbours only, so that overlapping windows agree.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solveh_banded

from ..models.anny.pose import Rig
from ..runs import runs
from .contact import INDEX
from .residuals import Linear, Poses, robust

HOLD = 500.0  # per squared metre, beside an image weight of 40
HOLD_M = 0.2  # a foot much farther than this from its place is not held
RAMP_S = 0.05  # a contact takes hold and lets go within this time
BLEND_S = 0.06  # a correction comes and goes over about twice this time
FIRM = 1e4  # a planted point's correction beside that of a free one
STAY, DAMPING = 5e-4, 1e-1  # per squared radian from the start, and of a step at damping 1, beside squared metres of the feet
ROOT_STIFF = 30.0  # per squared metre of the root's step, beside the legs' stiffness per squared radian
MOST = 0.3  # radians or metres at a time
ROUNDS = 5


@dataclass
class Held:
    """N samples. firm (N, 4) 0..1: how firmly each heel and toe is held, 0 where it is free. places (N, 4, 3): where, metres in the sample's
    camera axes."""

    firm: np.ndarray
    places: np.ndarray

    def __getitem__(self, index) -> "Held":
        return Held(self.firm[index], self.places[index])

    def add(self, linear: Linear, poses: Poses) -> None:
        """Add the pull towards the places to a fit's linear form."""
        apart = linear.keypoints[:, INDEX] + poses.position[:, None] - self.places
        energy, trust = robust((apart**2).sum(-1), HOLD_M)
        linear.energy += HOLD * (energy * self.firm).sum(1)
        weight = np.sqrt(HOLD * trust * self.firm)[..., None, None]
        n = len(poses)
        turn = (weight * linear.jacobian[:, INDEX]).reshape(n, 12, -1)
        rows = np.concatenate([(weight * np.eye(3)).reshape(n, 12, 3), turn], 2)
        across = rows.transpose(0, 2, 1)
        linear.hessian += across @ rows
        linear.gradient += (across @ (weight[..., 0] * apart).reshape(n, 12, 1))[..., 0]


def firmness(contacts: np.ndarray, spacing_s: float) -> np.ndarray:
    """(T, 4) float32: each contact (T, 4: its number, 0 for none) takes hold and lets go within RAMP_S."""
    out = np.zeros(contacts.shape, np.float32)
    for point in range(contacts.shape[1]):
        for begin, stop in runs(contacts[:, point]):
            inside = (np.arange(stop - begin) + 0.5) * spacing_s / RAMP_S
            ramp = np.minimum(np.minimum(inside, inside[::-1]), 1)
            out[begin:stop, point] = ramp**2 * (3 - 2 * ramp)
    return out


def planted(rig: Rig, poses: Poses, held: Held, spacing_s: float) -> Poses:
    """Successive poses with each contact at its place: legs reach for it, and the root follows where they cannot."""
    if not held.firm.any():
        return poses
    points = rig.keypoints(*rig.pose(poses.rotation, poses.theta))[:, INDEX] + poses.position[:, None]
    return reach(rig, poses, foot_shifts(points, held, spacing_s))


def foot_shifts(points: np.ndarray, held: Held, spacing_s: float) -> np.ndarray:
    """(N, 4, 3) what to add to heels and toes (N, 4, 3) so that each contact stays at its place.

    A least-squares spline: exact in contact, smooth in between. A free point goes along with the other one of its foot; where both are free the
    correction fades.
    """
    n = len(points)
    bend = (BLEND_S / spacing_s) ** 4
    out = np.empty_like(points)
    for foot in range(2):
        both = slice(2 * foot, 2 * foot + 2)
        firm = FIRM * held.firm[:, both].astype(np.float64) ** 2  # (N, 2)
        band = np.zeros((5, 2 * n))  # lower form: band[d, column] = matrix[column + d, column]
        for distance, factors in enumerate(_bending(n)):
            band[2 * distance, : 2 * (n - distance)] = bend * np.repeat(factors, 2)
        band[0] += firm.ravel() + np.repeat(1 - held.firm[:, both].max(1), 2) + 1.0
        band[1, ::2] -= 1.0  # of |heel's - toe's|^2
        asked = firm[..., None] * (held.places[:, both] - points[:, both])
        out[:, both] = solveh_banded(band, asked.reshape(2 * n, 3), lower=True, check_finite=False).reshape(n, 2, 3)
    return out


def _bending(n: int) -> list[np.ndarray]:
    """Diagonals 0, 1, 2 of D2' D2, where D2 takes the second differences of n samples."""
    out, weights = [np.zeros(n - d) for d in range(min(3, n))], (1.0, -2.0, 1.0)
    for distance in range(len(out) if n > 2 else 0):
        for a in range(3 - distance):
            out[distance][a : a + n - 2] += weights[a] * weights[a + distance]
    return out


def reach(rig: Rig, poses: Poses, shifts: np.ndarray) -> Poses:
    """Poses with heels and toes where they are plus shifts (N, 4, 3): Levenberg-Marquardt on nine angles per leg and, stiffly, the root's place."""
    busy = np.flatnonzero(np.abs(shifts).max((1, 2)) > 1e-6)
    if not len(busy):
        return poses
    model, n, rotation = rig.model, len(busy), poses.rotation[busy]
    legs = np.array([i for i, name in enumerate(model.names) if name.startswith(("leg.", "knee.", "foot."))])
    stiff = np.concatenate([np.full(3, ROOT_STIFF), model.stiffness[legs]])
    place, theta = poses.position[busy], poses.theta[busy]
    low, high = np.minimum(model.limits[:, 0], theta), np.maximum(model.limits[:, 1], theta)  # a fit may lie a little over its limits: not further

    def look(place, theta):
        keypoints, jacobian = rig.keypoints_and_jacobian(rotation, theta)
        rows = np.concatenate([np.broadcast_to(np.eye(3), (n, 4, 3, 3)), jacobian[:, INDEX][..., 3 + legs]], -1).reshape(n, 12, -1)
        return keypoints[:, INDEX] + place[:, None], rows

    feet, rows = look(place, theta)
    goal, began = feet + shifts[busy], np.concatenate([place, theta[:, legs]], 1)
    error, away, damping = (goal - feet).reshape(n, 12, 1), np.zeros_like(began), np.full(n, 1e-2)
    best = (error**2).sum((1, 2))
    for _ in range(ROUNDS):
        across = rows.transpose(0, 2, 1)
        hessian = across @ rows + (STAY + damping * DAMPING)[:, None, None] * np.diag(stiff)
        step = np.linalg.solve(hessian, across @ error - STAY * (stiff * away)[..., None])[..., 0]
        step = step / np.maximum(np.abs(step).max(1) / MOST, 1)[:, None]
        trial = theta.copy()
        trial[:, legs] += step[:, 3:]
        trial, trial_place = np.clip(trial, low, high), place + step[:, :3]
        feet, trial_rows = look(trial_place, trial)
        left, trial_away = (goal - feet).reshape(n, 12, 1), np.concatenate([trial_place, trial[:, legs]], 1) - began
        total = (left**2).sum((1, 2)) + STAY * (trial_away**2 @ stiff)
        better = total < best
        for kept, new in ((place, trial_place), (theta, trial), (error, left), (rows, trial_rows), (away, trial_away), (best, total)):
            kept[better] = new[better]
        damping = np.where(better, damping / 4, damping * 8)
    out = Poses(poses.position.copy(), poses.rotation, poses.theta.copy())
    out.position[busy], out.theta[busy] = place, theta
    return out
