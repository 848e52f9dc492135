# SPDX-License-Identifier: Apache-2.0
"""What `recover` found of one person over the whole clip and the user corrected, as `refine` uses it: how far each sample is believed, one identity, and where
bodies stand."""

from collections.abc import Iterator

import numpy as np

from ...fit import corrected
from ...fit.contact import LEAST_TRUST, Evidence
from ...imports.mhr70 import MHR70
from ...people import LIMBS
from ...runs import runs
from ...take import State
from .legs import FEET
from .sightings import Sightings
from .turned import SWAP, turned
from .whole import LENGTHS, Body

BLOCK = 512  # samples read at once
POSE = 136  # so many of MHR's parameters are a pose
BELIEVED = [*range(21), *range(63, 70)]  # of the keypoints: body and feet, elbows, shoulders and neck; fingers would outvote them
UNMEASURED = 0.05  # weight of a sample that was interpolated, beside a confidence up to 1
HIPS = [MHR70.index(f"{side}_hip") for side in ("left", "right")]
# MHR's parameters of each limb, from the collar bone or the hip; fingers go with their arm.
_LIMBS = {"left arm": [*range(40, 50)], "right arm": [*range(30, 40)], "left leg": [*range(59, 68), *range(122, 126)],
          "right leg": [*range(50, 59), *range(126, 130)]}
_ARM, _LEG = ("elbow", "wrist", "olecranon", "cubital_fossa", "tip", "joint"), ("knee", "ankle", "toe", "heel")
# Keypoints that are lost with a limb: all of it beyond shoulder or hip.
_POINTS = {limb: [MHR70.index(name) for name in MHR70 if name.startswith(limb.split()[0]) and name.endswith(_ARM if limb.endswith("arm") else _LEG)]
           for limb in LIMBS}
FAR_PX, FAR_M = 8.0, 0.5  # a keypoint that far off counts half; how far depth may go from where `recover` has it


class Motion:
    """Arrays (T,) of a person: measured, state, weight, segment (over a cut and past an absence it is another one), shot, asked (what is corrected, see
    `fit.corrected`)."""

    def __init__(self, take, person, cuts: np.ndarray, figure, camera: dict):
        self._track = Sightings(take, person.id)
        self._take, self.group, self.figure = take, f"people/{person.id}", figure
        self.asked = corrected.flags(person.corrections, take.frames)
        self.span, self.measured = self._track.span, self.measured_under(self.asked)
        hidden = self._track.measured & ~self.measured
        self.state = np.where(hidden, State.OCCLUDED, self._track.state).astype(np.uint8)
        confidence = np.asarray(self._read("confidence")[:])
        self.confidence = np.where(self.measured, confidence, 0)
        self._trusted = np.where(self._track.measured, confidence, 0)
        self.weight = UNMEASURED + self.confidence
        absent = self.state == State.ABSENT
        self.shot = np.isin(np.arange(take.samples), cuts).cumsum()
        self.segment = np.where(absent, -1 - np.arange(take.samples), self.shot + np.cumsum(absent))
        self.spacing_s = take.frames.step * take.clip["fps"][1] / take.clip["fps"][0]
        self.focal, self.centre = (camera[name].astype(np.float64) for name in ("focal_px", "principal_px"))
        self._replaced = self._doubted()

    # what `fit` and `find_stretches` of lite ask a survey for
    @property
    def seen(self) -> np.ndarray:
        return self.measured

    def shot_of(self) -> np.ndarray:
        return self.shot

    def measured_under(self, asked: np.ndarray) -> np.ndarray:
        """(T,) bool: which samples are measured and, under these corrections, believed."""
        return self._track.measured & (asked & corrected.BODY == 0)

    def _read(self, name: str):
        return self._take.by_sample(self.group, name, "recover")

    def _doubted(self) -> list[tuple[int, int, np.ndarray]]:
        """(begin, stop, parameters) of what is not believed: all of a body, or a limb, because the user says so; and what `recover` put between two samples of
        which one is corrected so. Each lies within one segment."""
        hands, gaps = self.figure.head, ~self._track.measured
        fingers = {"left arm": hands.left_hand.tolist(), "right arm": hands.right_hand.tolist()}
        places = {limb: np.array([*_LIMBS[limb], *fingers.get(limb, [])]) for limb in LIMBS}
        around, body = self.asked & (corrected.TURNED | corrected.BODY) > 0, self.asked & corrected.BODY > 0
        self.spread(around, gaps)
        body |= around & gaps
        doubted, walls = [(body, np.arange(POSE))], np.flatnonzero(np.diff(self.segment)) + 1
        for limb in LIMBS:
            lost = self.asked & corrected.LOST[limb] > 0
            if lost.any():
                self.spread(lost, gaps)
                doubted.append((lost | body, places[limb]))
        return [(begin, stop, where) for flags, where in doubted for begin, stop in runs(flags & (self.state != State.ABSENT), cuts=walls)]

    def _righted(self, low: int, high: int) -> np.ndarray:
        """(high - low, 204) float64 as recovered; what was seen from the wrong side put right."""
        out, asked = np.array(self._read("params")[low:high], np.float64), self.asked[low:high] & corrected.TURNED
        return turned(self.figure, out, np.array(self._read("root")[low:high], np.float64), asked) if asked.any() else out

    def params(self, low: int, high: int) -> np.ndarray:
        """(high - low, 204) float64 as recovered and corrected; what is not believed lies between the nearest samples around it."""
        out = self._righted(low, high)
        for samples, where, share, first, last in self._to_replace(low, high):
            before, after = (self._righted(end, end + 1)[0] for end in (first, last))
            out[np.ix_(samples - low, where)] = self.figure.angles.between(before, after, share)[:, where]
        return out

    def root(self, low: int, high: int) -> np.ndarray:
        """(high - low, 3) float64 as recovered; that of a body which is not believed lies between those of the nearest samples around it."""
        out = np.array(self._read("root")[low:high], np.float64)
        for samples, where, share, first, last in self._to_replace(low, high):
            if len(where) == POSE:
                before, after = (np.array(self._read("root")[end], np.float64) for end in (first, last))
                out[samples - low] = before + share[:, None] * (after - before)
        return out

    def _to_replace(self, low: int, high: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, int, int]]:
        """Of [low, high): samples, the parameters that are not believed there, how far (0 to 1) they are on the way between two samples, and these. Where one
        of the two is in another segment, the other one counts twice."""
        for begin, stop, where in self._replaced:
            samples = np.arange(max(begin, low), min(stop, high))
            ends = [end for end in (begin - 1, stop) if 0 <= end < len(self.segment) and self.segment[end] == self.segment[begin]]
            if len(samples) and ends:
                yield samples, where, (samples - begin + 1) / (stop - begin + 1), ends[0], ends[-1]

    def keypoints_px(self, low: int, high: int) -> np.ndarray:
        """(high - low, 70, 3) px and how far each is trusted, as recovered and corrected."""
        out, asked = np.array(self._read("keypoints_px")[low:high], np.float64), self.asked[low:high]
        sides = asked & corrected.SIDES > 0
        out[sides] = out[sides][:, SWAP]
        for limb in LIMBS:
            out[np.ix_(np.flatnonzero(asked & corrected.LOST[limb]), _POINTS[limb], [2])] = 0
        out[..., 2] *= self.measured[low:high, None]
        return out

    def body(self) -> Body:
        """One body: of every number of shape, scale and lengths the median over the samples that were measured, each as much as it is trusted. Corrections do
        not change it."""
        chosen = np.flatnonzero(self._track.measured)
        if not len(chosen):
            chosen = np.arange(*self.span)[:1]
        parts = (("shape", slice(None)), ("scale", slice(None)), ("params", LENGTHS))
        weight = UNMEASURED + self._trusted[chosen]
        return Body(self.figure, *(_median(np.concatenate([np.array(self._read(name)[chosen[first : first + BLOCK]])[:, part]
                                                           for first in range(0, len(chosen), BLOCK)]), weight) for name, part in parts))

    def changed_from(self, before: np.ndarray) -> np.ndarray:
        """(T,) bool: which samples are corrected otherwise than under the flags (T,) before, and all that is interpolated with them as an end."""
        out = before != self.asked
        self.spread(out, ((before | self.asked) > 0) | ~self._track.measured)
        return out

    def spread(self, changed: np.ndarray, parts: np.ndarray) -> None:
        """Marks in changed (T,) bool all of each run of parts (T,) bool that has something changed in it or next to it."""
        for begin, stop in runs(parts):
            changed[begin:stop] |= changed[max(begin - 1, 0) : stop + 1].any()

    def placed(self, low: int, high: int, keypoints: np.ndarray) -> np.ndarray:
        """(high - low, 3) root: where the keypoints (high - low, 70, 3) in person space cover those that were seen best. Robust least squares of
        u z = f x + c z, which is linear in the root; depth is held loosely where `recover` has it. As recovered where nothing was measured."""
        root, seen = self.root(low, high), self.keypoints_px(low, high)
        points, trust = keypoints[:, BELIEVED].astype(np.float64), seen[:, BELIEVED, 2]
        focal, rays = self.focal[low:high, None], seen[:, BELIEVED, :2] - self.centre[low:high, None]
        out = root.copy()
        for _ in range(4):
            depth = np.maximum(points[..., 2] + out[:, None, 2], 0.05)
            rows = np.zeros((*points.shape[:2], 2, 3))
            rows[..., 0, 0] = rows[..., 1, 1] = focal
            rows[..., 2] = -rays
            off = rays * depth[..., None] - focal[..., None] * (points[..., :2] + out[:, None, :2])
            weight = trust / depth**2 / (1 + ((off / depth[..., None]) ** 2).sum(-1) / FAR_PX**2)
            right = np.einsum("nk,nkij,nki->nj", weight, rows, rays * points[..., 2:] - focal[..., None] * points[..., :2])
            hold = trust.sum(1)[:, None] * np.array([1e-6, 1e-6, 1 / FAR_M**2]) + 1e-9
            normal = np.einsum("nk,nkij,nkil->njl", weight, rows, rows) + hold[:, :, None] * np.eye(3)
            out = np.linalg.solve(normal, (right + hold * root)[..., None])[..., 0]
        return np.where((trust.sum(1) > 0)[:, None], out, root)

    def evidence(self, camera, size: float) -> Evidence:
        """What heels and toes do, for `fit.contact`, of a body so many times as large as `recover` has it."""
        count = self._take.samples
        found = Evidence(np.zeros((count, 4, 3)), np.zeros((count, 4, 3)), np.zeros((count, 3)), np.zeros((count, 4)), np.ones(count))
        for low in range(self.span[0], self.span[1], BLOCK):
            part = slice(low, min(low + BLOCK, self.span[1]))
            back = camera.rotation[part].transpose(0, 2, 1)[:, None]
            root, pixels = self.root(part.start, part.stop), self.keypoints_px(part.start, part.stop)
            rays = np.concatenate([(pixels[:, FEET, :2] - self.centre[part][:, None]) / self.focal[part][:, None, None], np.ones((len(root), 4, 1))], axis=2)
            found.rays[part] = (back @ (rays / np.linalg.norm(rays, axis=2, keepdims=True))[..., None])[..., 0]
            body = size * (back @ (self._points(part) + root[:, None])[..., None])[..., 0]
            found.points[part], found.hips[part] = body[:, FEET], body[:, HIPS].mean(1)
            trust = pixels[:, FEET, 2] * (self.confidence[part] * camera.known[part])[:, None]
            found.trust[part] = np.where(trust < LEAST_TRUST, 0, trust)
            found.distance[part] = size * np.linalg.norm(root, axis=1)
        return found

    def _points(self, part: slice) -> np.ndarray:
        """(n, 70, 3) keypoints in person space as recovered; what was seen from the wrong side put right."""
        out = np.array(self._read("keypoints_m")[part], np.float64)
        rows = np.flatnonzero(self.asked[part] & corrected.TURNED)
        if len(rows):
            params = self._righted(part.start, part.stop)[rows]
            out[rows] = self.figure.keypoints(params, np.array(self._read("shape")[part.start + rows]))
        return out


def _median(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Of each column of values (N, D) the weighted median."""
    order = np.argsort(values, axis=0, kind="stable")
    total = np.cumsum(weight[order], axis=0)
    middle = (total >= total[-1] / 2).argmax(0)
    return values[order[middle, np.arange(values.shape[1])], np.arange(values.shape[1])]
