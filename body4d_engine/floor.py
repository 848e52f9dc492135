# SPDX-License-Identifier: Apache-2.0
"""The floor under the people of a take, from where their feet stand: how the camera is tilted and how high it is. numpy and the standard library only.

How large somebody is may be a guess, and whoever is taken for larger than true is put further away, on the same rays. So everybody stands on a plane of
their own, and all these planes are parallel. How upright bodies are says roughly where up is, where feet say little.
"""

from dataclasses import dataclass

import numpy as np

from .errors import Body4DError
from .runs import runs
from .take import State, Take

FEET = ("left_heel", "left_big_toe", "right_heel", "right_big_toe")
STANDS = 0.5  # probability of a contact
SEEN = (State.VISIBLE, State.FILLED)
LEAST_CONTACTS = 4
NOISE_M = 0.03  # standing feet from their plane at least; a robust scale too
UPRIGHT = np.radians(6.0)  # how far from upright bodies are on average
UNSURE = np.radians(6.0)  # feet that say less than this are on a line
SOLE_M = 0.07  # the skin that belongs to a heel or toe
MOVES = 0.05  # of the picture's longer side
ROUNDS = 30
HINT = "Set pitch, roll and height by hand, or click two points of the floor."


@dataclass(frozen=True)
class Floor:
    """pitch: radians, positive where the camera looks up; roll: radians, positive where it is turned clockwise, seen from behind; height_m: of the camera
    over the floor. spread_m: rms distance of standing feet from the floor, outliers left out; pitch_error, roll_error: one standard deviation, radians;
    contacts: how often a heel or toe stood somewhere."""

    pitch: float
    roll: float
    height_m: float
    spread_m: float
    pitch_error: float
    roll_error: float
    contacts: int

    @property
    def up(self) -> np.ndarray:
        """(3,) against gravity, in camera axes (x right, y down, z forward)."""
        return np.array([-np.cos(self.pitch) * np.sin(self.roll), -np.cos(self.pitch) * np.cos(self.roll), np.sin(self.pitch)])

    def matrix(self) -> np.ndarray:
        """See `floor_matrix`."""
        return floor_matrix(self.pitch, self.roll, self.height_m)


def floor_matrix(pitch: float, roll: float, height_m: float) -> np.ndarray:
    """(4, 4) from Blender's axes of the camera at the origin (x right, y forward, z up) to a world whose floor is z = 0: what an object that parents
    camera and people needs. Rotated about y by roll, then about x by pitch, then lifted."""
    (cp, sp), (cr, sr) = ((np.cos(angle), np.sin(angle)) for angle in (pitch, roll))
    out = np.eye(4)
    out[:3, :3] = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]]) @ np.array([[cr, 0, sr], [0, 1, 0], [-sr, 0, cr]])
    out[2, 3] = height_m
    return out


@dataclass
class _Standing:
    """One person's feet: places (N, 3) metres in camera axes where a heel or toe stands, skins: N times the vertices (V, 3) around it; upright (3,): where
    the body's top is on average. sized: the user says how tall this person is."""

    places: np.ndarray
    skins: list[np.ndarray]
    upright: np.ndarray
    sized: bool


def find_floor(take: Take) -> Floor:
    """The floor of a take that was refined. Raises Body4DError: floor_few_feet, floor_line, floor_camera_moves, or what reading a take raises."""
    _refuse_moving(take)
    people = [found for person in take.people if (found := _standing(take, person)) is not None]
    count = sum(len(person.places) for person in people)
    if count < LEAST_CONTACTS:
        raise Body4DError(f"A floor cannot be found: feet stand still only {count} times in this take.", HINT, "floor_few_feet")
    up, covariance, weight = _solve(people)
    pitch, roll = float(np.arcsin(np.clip(up[2], -1, 1))), float(np.arctan2(-up[0], -up[1]))
    flat = up[0] ** 2 + up[1] ** 2
    slopes = np.array([[0, 0, 1 / max(np.sqrt(flat), 1e-6)], [up[1] / max(flat, 1e-6), -up[0] / max(flat, 1e-6), 0]])
    errors = np.sqrt(np.diag(slopes @ covariance @ slopes.T))
    heights = [-np.average(person.places @ up, weights=trust) for person, trust in zip(people, weight)]
    off = np.concatenate([person.places @ up + height for person, height in zip(people, heights)])
    trust = np.concatenate(weight)
    believed = [person.sized for person in people] if any(person.sized for person in people) else [True] * len(people)
    share = np.array([one.sum() * good for one, good in zip(weight, believed)])
    soles = np.median([((place - skin) @ up).max() for person in people for place, skin in zip(person.places, person.skins)])
    return Floor(pitch, roll, _middle(np.array(heights), share) + float(soles), float(np.sqrt(np.average(off**2, weights=trust))), *map(float, errors), count)


def _solve(people: list[_Standing]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """(3,) up, its covariance (3, 3), and per person how far (N,) each place is believed: least squares with Cauchy's weights, started from upright bodies.
    Raises Body4DError where the feet alone do not say which way up is."""
    upright = np.mean([person.upright for person in people], axis=0)
    upright /= np.linalg.norm(upright)
    up, weight = upright, [np.ones(len(person.places)) for person in people]
    for number in range(ROUNDS):
        basis = np.linalg.svd(up[None])[2][1:]  # two directions across
        middle = [np.average(person.places, axis=0, weights=trust) for person, trust in zip(people, weight)]
        if not number:
            middle = [up * np.median(person.places @ up) + (m - up * (m @ up)) for person, m in zip(people, middle)]
        apart = np.concatenate([person.places - m for person, m in zip(people, middle)])
        off, across = apart @ up, apart @ basis.T
        scale = max(NOISE_M, 1.48 * float(np.median(np.abs(off))))
        trust = 1 / (1 + (off / scale) ** 2)
        feet = across.T @ (across * trust[:, None]) / scale**2
        normal = feet + np.eye(2) / UPRIGHT**2
        step = np.linalg.solve(normal, basis @ upright / UPRIGHT**2 - across.T @ (trust * off) / scale**2)
        weight = np.split(trust, np.cumsum([len(person.places) for person in people])[:-1])
        up = up + step @ basis
        up /= np.linalg.norm(up)
    if np.linalg.eigvalsh(feet)[0] < 1 / UNSURE**2:
        raise Body4DError("A floor cannot be found: all feet stand on one line, which may be tilted to either side.", HINT, "floor_line")
    return up, basis.T @ np.linalg.inv(normal) @ basis, weight


def _standing(take: Take, person: dict) -> _Standing | None:
    """What is known of a person's feet; None where they never stand."""
    group = f"people/{person['id']}"
    if not take.has(group, "contact", "refine"):
        return None
    names = list(take.body(person["id"])["keypoint_names"])
    feet = [names.index(name) for name in FEET]
    down = (np.asarray(take.read(group, "contact", "refine")) > STANDS) & np.isin(take.read(group, "state", "refine"), SEEN)[:, None]
    points, root, mesh = (take.read(group, name, "refine") for name in ("keypoints_m", "root", "vertices"))  # all of the same samples
    places, skins, tops = [], [], []
    for foot in range(len(FEET)):
        for begin, stop in runs(down[:, foot]):
            stood = np.asarray(points[begin:stop, feet[foot]], np.float64) + root[begin:stop]
            places.append(np.median(stood, axis=0))
            sample = (begin + stop) // 2
            skin = np.asarray(mesh[sample], np.float64)
            skins.append(places[-1] + (skin - points[sample, feet[foot]])[np.linalg.norm(skin - points[sample, feet[foot]], axis=1) < SOLE_M])
            body = np.asarray(points[sample], np.float64)
            ends = [np.mean([body[names.index(f"{side}_{part}")] for side in ("left", "right")], axis=0) for part in ("shoulder", "ankle")]
            tops.append((ends[0] - ends[1]) / np.linalg.norm(ends[0] - ends[1]))
    if not places:
        return None
    heights = take.settings.get("heights", {})
    sized = bool(person.get("height_m") or heights.get(str(person["id"])))
    return _Standing(np.array(places), skins, np.mean(tops, axis=0), sized)


def _refuse_moving(take: Take) -> None:
    """Raises Body4DError where the picture's background moves away: then every frame has another floor."""
    if not take.has("camera_motion", "warp", "prepare"):
        return
    width, height = take.clip["width"], take.clip["height"]
    middle = np.array([width / 2, height / 2, 1.0])
    ends = np.asarray(take.read("camera_motion", "warp", "prepare"), np.float64) @ middle
    path = np.cumsum(ends[:, :2] / ends[:, 2:] - middle[:2], axis=0)
    if len(path) and np.ptp(path, axis=0).max() > MOVES * max(width, height):
        raise Body4DError("A floor cannot be found: the camera moves, so that it is another one in every frame.", HINT, "floor_camera_moves")


def _middle(values: np.ndarray, weight: np.ndarray) -> float:
    """The weighted median."""
    order = np.argsort(values)
    total = np.cumsum(weight[order])
    return float(np.interp(total[-1] / 2, total - weight[order] / 2, values[order]))
