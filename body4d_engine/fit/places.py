# SPDX-License-Identifier: Apache-2.0
"""Where each contact stands: one place in space for as long as it lasts, worked out once over the whole motion from few numbers per sample.

A single view says well where a foot is across the line of sight and badly how far away it is. But the feet of somebody who walks about stand on one
ground, which is known well where many steps are: the places are moved along their lines of sight towards it.
"""

from dataclasses import dataclass

import numpy as np

from ..models.anny.pose import KEYPOINTS, Rig
from ..runs import runs
from .contact import INDEX
from .record import from_params
from .residuals import robust

BLOCK = 240  # samples worked on at once
LONE_M = 0.15  # robust scale of the mean that a place is: a foot that is not held drifts by half of that
DEEP_M = 0.25  # standard deviation of a place along the line of sight, where nothing but the fit without contacts speaks of it
FLAT_M = 0.02  # and of the ground, with what landmarks are off it
UPRIGHT = 0.15  # radians from the ground's normal that bodies are on average
NEAR_S = 2.0  # contacts whose middles are further apart say nothing of each other's ground: it may have steps, and a correction has to stay local
ROUNDS = 12
TOP = [KEYPOINTS.index(f"{side}_shoulder") for side in ("left", "right")]
BOTTOM = [KEYPOINTS.index(f"{side}_ankle") for side in ("left", "right")]


@dataclass
class _Stance:
    """Contacts of one foot that overlap. parts: (begin, stop, point, place (3,)) of each; upright (3,): from ankles to shoulders."""

    parts: list[tuple[int, int, int, np.ndarray]]
    upright: np.ndarray

    @property
    def span(self) -> tuple[int, int]:
        return min(begin for begin, *_ in self.parts), max(stop for _, stop, *_ in self.parts)


def find_places(rig: Rig, params: np.ndarray, contacts: np.ndarray, turned: np.ndarray, shot: np.ndarray, spacing_s: float) -> np.ndarray:
    """(T, 4, 3) float32: where each contact stands, in each sample's camera axes; 0 where there is none.

    params (T, 60): fitted without contacts. contacts (T, 4): numbers from 1. turned (T, 3, 3): the camera's rotation since the first sample of its shot;
    shot (T,): its number.
    """
    points, upright = np.zeros((*contacts.shape, 3), np.float32), np.zeros((len(contacts), 3), np.float32)
    for begin in range(0, len(points), BLOCK):
        part = slice(begin, begin + BLOCK)
        poses = from_params(params[part])
        body = (rig.keypoints(*rig.pose(poses.rotation, poses.theta)) + poses.position[:, None]) @ turned[part]  # each turned back
        points[part], upright[part] = body[:, INDEX], body[:, TOP].mean(1) - body[:, BOTTOM].mean(1)
    rest = rig.keypoints(*rig.pose(np.eye(3)[None], np.zeros((1, rig.model.angles))))[0, INDEX, 1]
    return places_of(points, upright, rest.max() - rest, contacts, turned, shot, spacing_s)


def places_of(points: np.ndarray, upright: np.ndarray, above: np.ndarray, contacts: np.ndarray, turned: np.ndarray, shot: np.ndarray,
              spacing_s: float) -> np.ndarray:
    """The same from heels and toes (T, 4, 3) and the way from ankles to shoulders (T, 3), both in the axes of the shot's first sample; above (4,): how high
    each of the four is over the ground where a foot stands flat, metres."""
    stances = [stance for foot in (0, 2) for stance in _stances(points, contacts, foot, upright)]
    out = np.zeros(points.shape)
    for stance, shift in zip(stances, _to_ground(above, stances, shot, spacing_s)):
        for begin, stop, point, place in stance.parts:
            out[begin:stop, point] = place + shift
    return (out @ turned.transpose(0, 2, 1)).astype(np.float32)


def _stances(points: np.ndarray, contacts: np.ndarray, foot: int, upright: np.ndarray) -> list[_Stance]:
    """The stances of the foot whose heel is point `foot` of points (T, 4, 3).

    Its parts are as far apart as heel and toe were while both stood, and all of them say where they are: if each had a place of its own, then where a
    fit without contacts drifts they would be farther apart than any foot is long.
    """
    groups, last = [], None  # of (begin, stop, point, where beside the group's first part), and which of them ends last
    for begin, stop, point in sorted((*span, foot + part) for part in (0, 1) for span in runs(contacts[:, foot + part])):
        if last is None or begin >= last[1]:
            groups.append([])
            beside = np.zeros(3)
        else:
            both = slice(begin, min(stop, last[1]))
            beside = last[3] + _middle(points[both, point] - points[both, last[2]])
        groups[-1].append((begin, stop, point, beside))
        last = max(groups[-1], key=lambda part: part[1])
    out = []
    for parts in groups:
        middle = _middle(np.concatenate([points[begin:stop, point] - beside for begin, stop, point, beside in parts]))
        top = np.concatenate([upright[begin:stop] for begin, stop, *_ in parts]).mean(0)
        out.append(_Stance([(begin, stop, point, middle + beside) for begin, stop, point, beside in parts], top / np.linalg.norm(top)))
    return out


def _to_ground(over: np.ndarray, stances: list[_Stance], shot: np.ndarray, spacing_s: float) -> list[np.ndarray]:
    """How far (3,) each stance is to be moved along its line of sight. over (4,): the points' heights over the ground."""
    if not stances:
        return []
    owner = np.repeat(np.arange(len(stances)), [len(stance.parts) for stance in stances])
    parts = [part for stance in stances for part in stance.parts]
    above = np.array([over[point] for _, _, point, _ in parts])
    places = np.array([place for *_, place in parts])
    sight = places / np.linalg.norm(places, axis=1, keepdims=True)
    spans, tops = np.array([stance.span for stance in stances]), np.array([stance.upright for stance in stances])
    out = []
    for number, (begin, stop) in enumerate(spans):
        near = (np.abs(spans.sum(1) - begin - stop) / 2 * spacing_s < NEAR_S) & (shot[spans[:, 0]] == shot[begin])
        around, mine = near[owner], owner == number
        up, level = _plane(places[around], above[around], sight[around], tops[near].mean(0))
        off, along = float((places[mine] @ up - above[mine]).mean() - level), sight[mine].mean(0)
        spread = FLAT_M**2 + (DEEP_M * (along @ up)) ** 2
        out.append(-along * (along @ up) * off * DEEP_M**2 / spread / (1 + off**2 / (4 * spread)))
    return out


def _plane(places: np.ndarray, above: np.ndarray, sight: np.ndarray, upright: np.ndarray) -> tuple[np.ndarray, float]:
    """(3,) the normal up and the level of the plane that places (N, 3) are `above` (N,) metres over: up @ place = level + above. Least squares with
    Cauchy's weights, where a place is unsure along its line of sight (N, 3); started from and held by how upright (3,) the body is."""
    up = upright / np.linalg.norm(upright)
    across = np.linalg.svd(up[None])[2][1:]  # two directions
    start, lean, level = up, np.zeros(2), float(np.median(places @ up - above))
    for _ in range(ROUNDS):
        spread = FLAT_M**2 + (DEEP_M * (sight @ up)) ** 2
        off = places @ up - above - level
        weight = 1 / (1 + off**2 / (4 * spread)) / spread
        design = np.column_stack([places @ across.T, -np.ones(len(places))])
        normal = design.T @ (design * weight[:, None]) + np.diag([UPRIGHT**-2, UPRIGHT**-2, 0])
        *lean, level = np.linalg.solve(normal, design.T @ (weight * (above - places @ start)))
        up = start + np.array(lean) @ across
    return up, level


def _middle(points: np.ndarray) -> np.ndarray:
    """Robust mean (3,) of points (N, 3)."""
    points = points.astype(np.float64)
    middle = np.median(points, axis=0)
    for _ in range(10):
        _, trust = robust(((points - middle) ** 2).sum(1), LONE_M)
        middle = (trust[:, None] * points).sum(0) / trust.sum()
    return middle
