# SPDX-License-Identifier: Apache-2.0
"""How people move: at a constant velocity but for white accelerations, across the picture and in depth.

A state is (3,) for hips x, y in px of the picture and the logarithm of px per metre, which is minus that of the depth but for a constant; all
spreads are in metres, or 1 for the logarithm, and become px by the px per metre. So neither the focal length nor the camera's place has to be known.
The filter is Kalman's with Bar-Shalom's continuous white noise acceleration model.
"""

from dataclasses import dataclass

import numpy as np

PUSH = np.array([5.0, 5.0, 0.5])  # white acceleration from frame to frame, per s^1.5: somersaults too
NOISE = np.array([0.025, 0.025, 0.03])  # of one sighting
GAP_PUSH = np.array([3.0, 3.0, 0.5])  # the same over gaps, in which jerks even out
FIRST_SPEED = np.array([2.0, 2.0, 0.5])  # spread of the speed of somebody new, per s
SLACK = np.array([0.2, 0.2, 0.12])  # landmarks of somebody half hidden, or in another pose, are off by so much without being somebody else's
END_PLACE, END_SPEED = np.array([0.25, 0.25, 0.1]), np.array([0.7, 0.7, 0.4])  # spread of what the end of a track says


def scale_of(landmarks_px: np.ndarray, landmarks_m: np.ndarray) -> float:
    """Px of the picture per metre of body, as far as the landmarks (33, 3) of a pose tell."""
    pixels, metres = (np.sqrt(points[:, :2].var(0).sum()) for points in (landmarks_px, landmarks_m))
    return float(pixels / max(metres, 1e-6))


def place_of(landmarks_px: np.ndarray, scale: float) -> np.ndarray:
    """(3,) the state of somebody with these landmarks (33, 3) and px per metre."""
    return np.array([*landmarks_px[[23, 24], :2].mean(0, dtype=np.float64), np.log(max(scale, 1e-3))])


def units(place: np.ndarray) -> np.ndarray:
    """(3,) what a metre is of each part of a state."""
    scale = np.exp(place[..., 2:])
    return np.concatenate([scale, scale, np.ones_like(scale)], -1)


def pushed(push: np.ndarray, seconds) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Variance of place, covariance of place and speed, variance of speed that a white acceleration brings in this time."""
    return push**2 * seconds**3 / 3, push**2 * seconds**2 / 2, push**2 * seconds


@dataclass
class Motion:
    """Kalman filter of one person. place (3,), speed (3,) per s; the spreads (3, 3) are variance of place, covariance, variance of speed."""

    place: np.ndarray
    speed: np.ndarray
    spread: np.ndarray

    @classmethod
    def begin(cls, place: np.ndarray) -> "Motion":
        unit = units(place)
        return cls(place.copy(), np.zeros(3), np.stack([(NOISE * unit) ** 2, np.zeros(3), (FIRST_SPEED * unit) ** 2], 1))

    def advance(self, seconds: float) -> None:
        self.place = self.place + self.speed * seconds
        p, c, v = self.spread.T
        qp, qc, qv = pushed(PUSH * units(self.place), seconds)
        self.spread = np.stack([p + 2 * seconds * c + seconds**2 * v + qp, c + seconds * v + qc, v + qv], 1)

    def surprise(self, place: np.ndarray) -> float:
        """How far a place (3,) is from the expected one, in standard deviations (Mahalanobis)."""
        variance = self.spread[:, 0] + ((NOISE**2 + SLACK**2) * units(self.place) ** 2)
        return float(np.sqrt((((place - self.place) ** 2) / variance).sum()))

    def update(self, place: np.ndarray) -> None:
        p, c, v = self.spread.T
        total = p + (NOISE * units(self.place)) ** 2
        error, gain_p, gain_v = place - self.place, p / total, c / total
        self.place, self.speed = self.place + gain_p * error, self.speed + gain_v * error
        self.spread = np.stack([(1 - gain_p) * p, (1 - gain_p) * c, v - gain_v * c], 1)

    def to_json(self) -> list:
        return [self.place.tolist(), self.speed.tolist(), self.spread.tolist()]

    @classmethod
    def from_json(cls, data: list) -> "Motion":
        return cls(*(np.array(part, np.float64) for part in data))


def end_state(seconds: np.ndarray, places: np.ndarray, at: float) -> tuple[np.ndarray, np.ndarray]:
    """Place (3,) at the time `at` and speed (3,) per s of the line through places (n, 3) at `seconds` (n,)."""
    time = seconds - at
    if len(time) < 2 or np.ptp(time) <= 0:
        return places.mean(0), np.zeros(3)
    centred = time - time.mean()
    speed = (centred[:, None] * places).sum(0) / (centred**2).sum()
    return places.mean(0) - speed * time.mean(), speed


def bridge(place_a, speed_a, place_b, speed_b, seconds) -> np.ndarray:
    """Chi square (6 degrees of freedom) of going from one end to another within `seconds`: the likeliest white acceleration that does it.

    places and speeds (..., 3), seconds (...).
    """
    seconds = np.asarray(seconds, np.float64)[..., None]
    unit = units((place_a + place_b) / 2)
    off, change = (place_b - place_a - speed_a * seconds) / unit, (speed_b - speed_a) / unit
    qp, qc, qv = pushed(GAP_PUSH, seconds)
    p = qp + 2 * END_PLACE**2 + (END_SPEED * seconds) ** 2
    c, v = qc + END_SPEED**2 * seconds, qv + 2 * END_SPEED**2
    return ((v * off**2 - 2 * c * off * change + p * change**2) / (p * v - c**2)).sum(-1)
