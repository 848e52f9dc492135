# SPDX-License-Identifier: Apache-2.0
"""Full refine: one body per person, its joints smoothed on SO(3), put where it covers what was seen, with planted feet held. It needs no GPU.

Where an earlier result differs in corrections only, what these have a say in is solved and the rest is copied.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ...camera_motion import Turns, turns
from ...events import Committed, Event, Notice, Progress
from ...fit import contact, corrected
from ...fit.feet import Held, firmness, foot_shifts
from ...fit.local import Neighbourhoods
from ...fit.places import places_of
from ...memory import release
from ...runs import pieces, runs
from ...take import State
from ...take_arrays import Earlier
from ..refine import FILLED_CONFIDENCE, find_stretches, moved
from .legs import FEET, TRUNK, reach
from .motion import BLOCK, Motion
from .records import Records
from .recover import body_of
from .whole import Body

CHUNK, COPIED = 32, 128  # samples between commits: solved, and copied
HALF_S = 0.15  # half width of the window at smoothing 1
DEPTH_WIDER = 2.0  # times as wide a window for the distance from the camera
FEET_S = 1.0  # what a foot is held by has no say (1e-4 m) in what it does so much earlier or later
STRANGE, STRANGE_LENGTH, STRANGE_RAY, STRANGE_DEPTH = 0.2, 0.2, 0.02, 0.05  # radians, dm, and of the direction and logarithm of depth: so far off counts half
NEAREST_M = 0.05
MORE = {"free": (207,), "feet": (5, 3), "contact": (4,), "firm": (4,), "places": (4, 3)}


class Refine:
    """Replaces what `recover` left. smoothing: 0 to 4, see `settings`; foot_lock: whether planted feet are held; heights: metres by person id, 0 stands for
    everyone not named; the others as for `Recover`. Its two passes over a person read and write in chunks; of the whole person it holds some 3 kB a sample.

    The array `free` holds parameters and root before feet are held, `feet` heels, toes and the way from ankles to shoulders of these.
    """

    name = "refine"
    version = 2
    needs = ("recover",)
    heeds = "body"

    def __init__(self, smoothing: float = 1.0, foot_lock: bool = True, heights: dict[int, float] | None = None, body: str = "dinov3", folder=None,
                 networks: Callable | None = None, chunk: int = CHUNK):
        self.settings = {"smoothing": float(smoothing), "foot_lock": foot_lock,
                         "heights": {str(person): float(metres) for person, metres in sorted((heights or {}).items())}}
        self._networks = networks or (lambda: _body_of(body, folder))
        self.chunk = chunk

    def run(self, clip, people, take, cursor: dict | None) -> Iterator[Event]:
        if not any(len(take.read(f"people/{person.id}", "root", "recover")) for person in people):
            return
        try:
            yield from self._refine(clip, take, people, self._networks(), cursor is None)
        finally:
            release()

    def _refine(self, clip, take, people, network, begins: bool) -> Iterator[Event]:
        from ...models.sam_3d_body.figure import Figure

        figure, known = Figure(network), take.camera()
        del network  # of which no more than the body is needed
        camera = turns(take, take.frames.step * take.clip["fps"][1] / take.clip["fps"][0])
        if begins and self.settings["foot_lock"]:
            for begin, stop in runs(~camera.known):
                yield Notice(self.name, "feet_not_held", "The camera moves along (it does not only turn), so feet are not held in place here.",
                             frame=take.frames[begin], last_frame=take.frames[stop - 1])
        cuts = np.searchsorted(clip.frames, clip.shots)
        for person in people:
            motion = Motion(take, person, cuts[(cuts > 0) & (cuts < take.samples)], figure, known)
            if motion.span[0] < motion.span[1]:
                heights = self.settings["heights"]
                body = motion.body().of_height(heights.get(str(person.id), person.height_m or heights.get("0")))
                yield from self._person(take, person.id, motion, body, camera)

    def _person(self, take, person: int, motion: Motion, body: Body, camera: Turns) -> Iterator[Event]:
        stretches, filled = find_stretches(motion)
        state = np.where(filled & ~motion.measured, State.FILLED, motion.state).astype(np.uint8)
        records = Records(take, person, self.name, body.figure, motion.span, state, np.zeros(0, int), motion.focal, motion.centre)
        for name, dims in MORE.items():
            take.create_array(records.group, name, "f4", dims, span=motion.span)
        if records.next == motion.span[0]:
            records.write_body(body.at_rest())
        earlier = _earlier(take, person, records, motion)
        yield from self._free(take, person, motion, body, earlier)
        yield from self._held(take, person, motion, body, records, stretches, filled, camera, earlier)

    def _free(self, take, person: int, motion: Motion, body: Body, earlier: "_Changed | None") -> Iterator[Event]:
        """Smooth the joints, then put the body where it covers what was seen."""
        (first, end), half = motion.span, self._half(motion)
        anew = np.ones(take.samples, bool) if earlier is None else _wider(earlier.samples, half)
        done = first + take.count(motion.group, "free", self.name)
        for begin, stop, solve in pieces(anew, self.chunk, COPIED, motion.span):
            if stop <= done:
                continue
            begin = max(begin, done)
            if solve:
                near = Neighbourhoods(begin, stop, half, motion.segment, motion.weight)
                params = self._smooth(near, body.own(motion.params(*near.span)), body.figure.angles, begin, stop)
                keypoints = body.keypoints(params)
                root = body.size * motion.placed(begin, stop, keypoints / body.size)
                found = {"free": np.concatenate([params, root], axis=1),
                         "feet": np.concatenate([keypoints[:, FEET], (keypoints[:, TRUNK[0]].mean(1) - keypoints[:, TRUNK[1]].mean(1))[:, None]], axis=1)}
            else:
                found = {name: earlier.result.by_sample(motion.group, name)[begin:stop] for name in ("free", "feet")}
            for name, values in found.items():
                take.append(motion.group, name, values)
            take.commit({})
            yield Progress(self.name, stop - first, 2 * (end - first), person)

    @staticmethod
    def _smooth(near: Neighbourhoods, params: np.ndarray, angles, begin: int, stop: int) -> np.ndarray:
        out = params[begin - near.span[0] : stop - near.span[0]].copy()
        if near.alone:
            return out.astype(np.float32)
        out[:, angles.single] = near.smooth(params[:, angles.single], STRANGE, turns=True)
        out[:, angles.lengths] = near.smooth(params[:, angles.lengths], STRANGE_LENGTH)
        return angles.with_rotations(out, near.smooth_rotations(angles.rotations(params), len(angles.joints), STRANGE)).astype(np.float32)

    def _held(self, take, person: int, motion: Motion, body: Body, records: Records, stretches, filled: np.ndarray, camera: Turns,
              earlier: "_Changed | None") -> Iterator[Event]:
        """Smooth the way, hold planted feet, and write the result."""
        (first, end), group, figure = motion.span, motion.group, body.figure
        if records.next == end:
            return
        free = take.by_sample(group, "free", self.name)
        root = self._way(motion, free, body.size)
        found = motion.evidence(camera, body.size)
        probability = contact.probabilities(found, motion.spacing_s, stretches)
        contacts = contact.stands(probability, found, motion.spacing_s, stretches)
        feet = np.array(take.by_sample(group, "feet", self.name)[:], np.float64)
        points = feet[:, :4] + root[:, None]
        at_rest = body.keypoints(body.own(figure.average[None]))[0, FEET, 1]
        places = places_of((points @ camera.rotation).astype(np.float32), (feet[:, 4:] @ camera.rotation)[:, 0].astype(np.float32),
                           at_rest.max() - at_rest, contacts, camera.rotation, motion.shot, motion.spacing_s)
        probability = np.where(contacts > 0, probability, np.minimum(probability, contact.LIKELY))
        firm = firmness(contacts, motion.spacing_s)
        held = Held(firm if self.settings["foot_lock"] else np.zeros_like(firm), places)
        shifts = np.zeros(points.shape)
        for begin, stop in stretches:
            if held.firm[begin:stop].any():
                shifts[begin:stop] = foot_shifts(points[begin:stop], held[begin:stop], motion.spacing_s)
        confidence, more = self._confidence(motion, filled), {"contact": probability, "firm": held.firm, "places": held.places}
        shown = np.maximum.accumulate(np.where(motion.state == State.ABSENT, first, np.arange(take.samples)))  # who is absent stays as they were
        for begin, stop, solve in pieces(self._anew(motion, earlier, held, shown), self.chunk, COPIED, motion.span):
            if stop <= records.next:
                continue
            part = slice(max(begin, records.next), stop)
            if solve:
                params, place = reach(body, np.array(free[shown[part]])[:, :204], root[shown[part]], shifts[shown[part]])
                result = body.posed(params) | {"root": place, "params": params, "hands": figure.hand_codes(params)}
                result |= {name: np.tile(value, (len(params), 1)) for name, value in (("shape", body.shape), ("scale", body.scale))}
                records.write(result, records.state[part], confidence[part], motion.keypoints_px(part.start, part.stop)[..., 2])
            else:
                records.copy(earlier.result, part.start, part.stop)
            for name, values in more.items():
                take.append(group, name, values[part] if solve else earlier.result.by_sample(group, name)[part])
            take.commit({})
            yield Committed(self.name, person, part.start, part.stop)
            yield Progress(self.name, end + part.stop - 2 * first, 2 * (end - first), person)

    def _anew(self, motion: Motion, earlier: "_Changed | None", held: Held, shown: np.ndarray) -> np.ndarray:
        """(T,) bool: which samples corrections have a say in, by smoothing, by what is interpolated, or by where feet are held."""
        if earlier is None:
            return np.ones(len(shown), bool)
        half = self._half(motion)
        changed = _wider(earlier.samples, half)
        motion.spread(changed, ~motion.measured)
        feet = moved(earlier.result, motion.group, held)
        changed = _wider(changed, DEPTH_WIDER * half) | feet
        changed = _wider(changed, FEET_S / motion.spacing_s) if held.firm.any() or feet.any() else changed
        return changed | changed[shown]

    def _way(self, motion: Motion, free, size: float) -> np.ndarray:
        """(T, 3) the root's way: what was not measured moves along with what was around it; then direction and distance are smoothed."""
        solved = np.array(free[:][:, 204:], np.float64)
        shift = solved - size * motion.root(0, len(solved))
        for segment in np.unique(motion.segment[motion.measured]):
            inside = np.flatnonzero(motion.segment == segment)
            known = inside[motion.measured[inside]]
            moved = np.stack([np.interp(inside, known, column) for column in shift[known].T], axis=1)
            solved[inside] += moved - shift[inside]
        depth = np.maximum(solved[:, 2:], NEAREST_M)
        ray, far, out = solved[:, :2] / depth, np.log(depth), np.empty_like(solved)
        for begin in range(0, len(out), BLOCK):
            part = begin, min(begin + BLOCK, len(out))
            near, wide = (Neighbourhoods(*part, half, motion.segment, motion.weight) for half in (self._half(motion), DEPTH_WIDER * self._half(motion)))
            depth = np.exp(wide.smooth(far[slice(*wide.span)], STRANGE_DEPTH))
            out[slice(*part)] = np.concatenate([near.smooth(ray[slice(*near.span)], STRANGE_RAY) * depth, depth], axis=1)
        return out

    def _half(self, motion: Motion) -> float:
        return HALF_S * self.settings["smoothing"] ** 0.5 / motion.spacing_s

    @staticmethod
    def _confidence(motion: Motion, filled: np.ndarray) -> np.ndarray:
        measured = np.flatnonzero(motion.measured)
        if not len(measured):
            return np.zeros(len(filled))
        between = FILLED_CONFIDENCE * np.interp(np.arange(len(filled)), measured, motion.confidence[measured])
        return np.where(motion.measured, motion.confidence, np.where(filled, between, 0))


@dataclass
class _Changed:
    """An earlier result, and (T,) bool the samples that are corrected otherwise since."""

    result: Earlier
    samples: np.ndarray


def _earlier(take, person: int, records: Records, motion: Motion) -> _Changed | None:
    result = take.earlier(records.stage)
    if result is None or not all(result.covers(records.group, name, records.span, dims) for name, dims in (records.shapes | MORE).items()):
        return None
    said = corrected.said_in(result, person)
    return None if said is None else _Changed(result, motion.changed_from(corrected.flags(said, take.frames)))


def _wider(flags: np.ndarray, samples: float) -> np.ndarray:
    """flags (T,) bool with so many samples more on either side of each run."""
    out, reach = flags.copy(), int(np.ceil(samples))
    for begin, stop in runs(flags):
        out[max(begin - reach, 0) : stop + reach] = True
    return out


def _body_of(body: str, folder):
    """What `Figure` needs, on the best device there is."""
    from ...memory import best_device

    return body_of(body, folder, best_device())
