# SPDX-License-Identifier: Apache-2.0
"""What a person's fingers do and how the palms are turned: as measured where the hands could be read, relaxed and alive elsewhere.

Everything here reaches at most windows.MARGIN_S before and after a sample and never over a cut, so that the result does not depend on which samples are
asked for at once.
"""

import zlib
from dataclasses import dataclass

import numpy as np

from ..models.anny.hands import ANGLES, LIMITS, RELAXED, HandRig
from .head import towards
from .windows import Windows, blend, looks_every, nearest_rotation

USED = 0.5  # least score of a hand that counts as read
PALM = [0, 5, 9, 13, 17]  # hand landmarks: wrist and knuckles
CHAINS = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16], [17, 18, 19, 20]])
STEPS, DAMPING = 6, 1e-3
PHALANX_WEIGHT = np.array([1.0, 1.0, 0.6])
# Pull towards the relaxed hand per squared radian, against directions of unit length; spreading is seen worst.
STIFFNESS = np.array((0.05, 0.05, 0.3, 0.05, 0.05, *((0.03, 0.15, 0.03) * 4)))
MISFIT = 0.35  # rms error of the bones' directions at which a hand counts exp(-1) as much
SPEED_S = 0.4  # half width of the window over which a wrist's speed is taken
CURL_AT_SPEED, FAST_M_S = np.radians(9), 2.0  # how much farther fingers bend in a moving hand, and where that levels off
SWAY = np.radians(3.5)  # amplitude of the slow wandering of a relaxed hand's joints
SWAY_HZ = (0.13, 0.37)
WRIST_LANDMARKS, HIPS = (15, 16), (23, 24)


@dataclass
class Hands:
    """angles (N, 2, 17) of both hands (see HandRig); palms (N, 2, 3, 3) rotations of the wrist bones from rest, camera axes; weight (N, 2) 0..1,
    how far palms and angles are measured."""

    angles: np.ndarray
    palms: np.ndarray
    weight: np.ndarray


class HandMotion:
    """One person's hands over the take."""

    def __init__(self, take, person: int, rig: HandRig, doubted: np.ndarray | None = None):
        """doubted (T, 2) bool, optional: where what was read of which hand is not to be used."""
        self._take, self._group, self._rig, self._doubted = take, f"people/{person}", rig, doubted
        self._measured = take.has(self._group, "hands_px", "detail")
        self._camera = take.camera() if self._measured else None
        self._spacing_s = take.frames.step * take.clip["fps"][1] / take.clip["fps"][0]
        self._cuts = np.searchsorted(take.frames, take.clip.get("shots", [])[1:])
        seed = zlib.crc32(f"{take.clip['fingerprint']} {person}".encode())
        random = np.random.default_rng(seed)
        self._phases = random.uniform(0, 2 * np.pi, (2, 2, ANGLES))
        self._rates = 2 * np.pi * random.uniform(*SWAY_HZ, (2, 2, ANGLES))
        self._known: tuple[int, int, tuple] | None = None  # the fits of the last samples asked for

    def at(self, samples: np.ndarray) -> Hands:
        """samples: consecutive indices."""
        low, high = Windows.margin(samples, self._take.samples, self._spacing_s)
        around = np.arange(low, high)
        out = Hands(self._relaxed(samples, around), np.tile(np.eye(3), (len(samples), 2, 1, 1)), np.zeros((len(samples), 2)))
        if self._measured:
            angles, palms, score = self._fits(low, high)
            for hand in range(2):
                weight, palm, measured = blend(samples, around, self._spacing_s, self._cuts, looks_every(1 / self._spacing_s), score[:, hand],
                                               palms[:, hand], angles[:, hand])
                out.weight[:, hand], out.palms[:, hand] = weight, palm
                out.angles[:, hand] += weight[:, None] * (measured - out.angles[:, hand])
        return out

    def _fits(self, low: int, high: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Angles, palms and weights of the samples by themselves; those of the last call are not made again."""
        begin, stop, kept = self._known or (low, low, (np.zeros((0, 2, ANGLES)), np.zeros((0, 2, 3, 3)), np.zeros((0, 2))))
        if not begin <= low <= stop:
            begin, stop, kept = low, low, tuple(part[:0] for part in kept)
        kept = tuple(part[low - begin :] for part in kept)
        if high > stop:
            kept = tuple(np.concatenate(parts) for parts in zip(kept, self._fit(slice(max(low, stop), high)), strict=True))
        self._known = low, max(high, stop), kept
        return tuple(part[: high - low] for part in kept)

    def _fit(self, part: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        px, metres = (np.array(self._take.by_sample(self._group, name, "detail")[part], np.float64) for name in ("hands_px", "hands_m"))
        focal, centre = self._camera["focal_px"][part], self._camera["principal_px"][part]
        score = px[:, :, 0, 2] * (px[:, :, 0, 2] >= USED)
        if self._doubted is not None:
            score *= ~self._doubted[part]
        angles, palms = np.tile(RELAXED, (len(px), 2, 1)), np.tile(np.eye(3), (len(px), 2, 1, 1))
        for hand in range(2):
            read = np.flatnonzero(score[:, hand])
            if len(read):
                points = in_space(px[read, hand, :, :2], metres[read, hand])
                turn = palm_rotation(self._rig.palm(hand), points[:, PALM])
                angles[read, hand], error = fit_fingers(self._rig, hand, np.einsum("nji,nkj->nki", turn, points))
                palms[read, hand] = towards(px[read, hand, 0, :2], focal[read], centre[read]) @ turn
                score[read, hand] *= np.exp(-((error / MISFIT) ** 2))
        return angles, palms, score

    def _relaxed(self, samples: np.ndarray, around: np.ndarray) -> np.ndarray:
        """(n, 2, 17): bent a little more where the arm moves, and wandering slowly, each joint in its own time."""
        seconds = samples * self._spacing_s
        sway = np.sin(seconds[:, None, None, None] * self._rates + self._phases).mean(1)
        px, metres = (self._take.read(self._group, name, "track")[around[0] : around[-1] + 1] for name in ("landmarks_px", "landmarks_m"))
        usable = (np.array(px)[:, :, 2].max(1) > 0) & np.isfinite(metres).all((1, 2))
        points = np.nan_to_num(np.array(metres, np.float64))
        wrists = points[:, WRIST_LANDMARKS] - points[:, HIPS].mean(1)[:, None]
        windows = Windows(samples, around, self._spacing_s, self._cuts)
        kernel, apart = windows.hann(SPEED_S) * usable, windows.apart_s
        total = np.maximum(kernel.sum(1), 1e-9)[:, None]
        when = (kernel * apart).sum(1)[:, None] / total
        spread = (kernel * (apart - when) ** 2).sum(1)[:, None] / total
        slope = np.einsum("nm,mhi->nhi", kernel * (apart - when), wrists) / (total * np.maximum(spread, 1e-6))[:, None]
        speed = np.linalg.norm(slope, axis=-1)  # (n, 2) of a straight line through the neighbourhood
        curl = CURL_AT_SPEED * np.tanh(speed / FAST_M_S)
        return np.clip(RELAXED + SWAY * sway * SWAYING + curl[..., None] * CURLING, *LIMITS.T)


CURLING = np.array((0.3, 0, 0, 0.5, 0.5, *((1.0, 0, 1.2) * 4)))  # how much of the curl each joint takes
SWAYING = np.array((0.6, 0.6, 0.3, 0.8, 0.8, *((1.0, 0.4, 1.3) * 4)))


def in_space(px: np.ndarray, metres: np.ndarray) -> np.ndarray:
    """(N, 21, 3) metres from the wrist along the picture's axes: across the picture from the pixels (N, 21, 2), which are the more exact, in
    depth from the network's landmarks in metres (N, 21, 3)."""
    flat = px - px[:, :1]
    metres = metres - metres[:, :1]
    a, b = flat - flat.mean(1, keepdims=True), (metres - metres.mean(1, keepdims=True))[..., :2]
    scale = (a * a).sum((1, 2)) / np.maximum((a * b).sum((1, 2)), 1e-9)
    return np.concatenate([flat / scale[:, None, None], metres[..., 2:]], 2)


def palm_rotation(rest: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N, 3, 3) rotations that best turn the rest points (K, 3) to points (N, K, 3), both about their centroids (Kabsch 1976)."""
    return nearest_rotation(np.einsum("nki,kj->nij", points - points.mean(1, keepdims=True), rest - rest.mean(0)))


def fit_fingers(rig: HandRig, hand: int, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angles (N, 17) whose finger bones point as those of hand landmarks (N, 21, 3) in the wrist's frame do, and the rms error of the directions.

    Damped Gauss-Newton with numerical derivatives; the fingers do not depend on one another, so all take a step of their k-th angle at once.
    """
    bones = np.diff(points[:, CHAINS], axis=2)
    wanted = bones / np.maximum(np.linalg.norm(bones, axis=-1, keepdims=True), 1e-9)  # (N, 5, 3, 3)
    weight = np.sqrt(PHALANX_WEIGHT)[:, None]
    owner = np.array([0] * 5 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3)
    order = np.array([0, 1, 2, 3, 4, *([0, 1, 2] * 4)])
    angles, step = np.tile(RELAXED, (len(points), 1)), 1e-4
    both = np.zeros((len(points), 2, ANGLES))

    def error_of(angles: np.ndarray) -> np.ndarray:
        both[:, hand] = angles
        return rig.directions(both)[:, hand] - wanted

    for _ in range(STEPS):
        error = error_of(angles)
        slopes = np.zeros((len(points), 5, 5, 3, 3))  # (N, finger, its k-th angle, bone, xyz)
        for k in range(5):
            moved = angles + step * (order == k)
            slopes[:, :, k] = (error_of(moved) - error) / step
        for finger in range(5):
            own = owner == finger
            count = own.sum()
            j = (weight * slopes[:, finger, :count]).reshape(len(points), count, 9)
            r = (weight * error[:, finger]).reshape(len(points), 9)
            normal = j @ j.transpose(0, 2, 1) + np.diag(STIFFNESS[own] + DAMPING)
            gradient = np.einsum("nka,na->nk", j, r) + STIFFNESS[own] * (angles[:, own] - RELAXED[own])
            angles[:, own] = np.clip(angles[:, own] - np.linalg.solve(normal, gradient[..., None])[..., 0], *LIMITS[own].T)
    return angles, np.sqrt((error_of(angles) ** 2).sum(-1).mean((1, 2)))
