# SPDX-License-Identifier: Apache-2.0
"""Lite refine: the whole clip as one smooth, robust least-squares problem, solved in overlapping windows so that memory stays flat.

Where an earlier result differs in corrections only, the windows around these are solved and the rest is copied.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from ..camera_motion import Turns, turns
from ..events import Committed, Event, Notice, Progress
from ..fit import contact, corrected, observations
from ..fit.feet import Held, firmness, planted
from ..fit.observations import Survey
from ..fit.places import find_places
from ..fit.record import Recorder, from_params, read_shape, to_params
from ..fit.residuals import NEAREST_M, Poses
from ..fit.solver import SEQUENCE, D, fit_sequence
from ..fit.tilt import tilted
from ..runs import pieces, runs
from ..take import State
from ..take_arrays import BySample, Earlier

LONGEST_FILL_S, LONGEST_COAST_S = 4.0, 0.5  # who is hidden: between two sightings, as long as tracking bridges; before the first and after the last
COAST_S = 0.3  # in this time a body out of sight loses most of its speed; over it the speed is measured
OVERLAP_S = 2.5  # what lies further away changes a pose by less than 1e-4 m
LEAST_OVERLAP, MOST_OVERLAP = 20, 360  # samples: the denser they lie, the less time it takes until that holds, and so memory has a bound
LEAST_SMOOTHING = 0.1  # of the setting: what was not seen must be held together
SAME_M = 2e-5  # contacts whose places are nearer to each other than this are the same
MOST_HIDDEN = 3  # times as many samples are solved at most where most are hidden
CORE = 160  # samples a window gives its result for
FREE, HELD = SEQUENCE[:-1], SEQUENCE[-1:]
MORE = {"free": (D,), "contact": (len(contact.POINTS),), "firm": (len(contact.POINTS),), "places": (len(contact.POINTS), 3)}  # beside `Recorder`'s arrays
FILLED_CONFIDENCE = 0.5  # of its neighbours'


class Refine:
    """Replaces what `recover` left, with the same shape. core: samples per window; the result depends on it by less than 1e-4 m. smoothing: 0 to 4; the
    frequency above which motion is damped goes down with its square root. foot_lock: whether planted feet are held.

    All windows are solved twice: at first as if nothing were under the feet (array `free`, which says where each contact stands on the whole),
    then with planted feet held at these places.
    """

    name = "refine"
    version = 9
    needs = ("recover",)

    def __init__(self, core: int = CORE, smoothing: float = 1.0, foot_lock: bool = True):
        self.settings = {"core": core, "smoothing": float(smoothing), "foot_lock": foot_lock}

    def run(self, clip, people, take, cursor) -> Iterator[Event]:
        fps = take.clip["fps"]
        camera = turns(take, take.frames.step * fps[1] / fps[0])
        if cursor is None and people and self.settings["foot_lock"]:
            for begin, stop in runs(~camera.known):
                yield Notice(self.name, "feet_not_held", "The camera moves along (it does not only turn), so feet are not held in place here.",
                             frame=take.frames[begin], last_frame=take.frames[stop - 1])
        for person in people:
            asked = corrected.flags(person.corrections, take.frames)
            known = corrected.survey(observations.survey(take, person.id, clip.shots), asked)
            recorder = Recorder(take, person.id, self.name, read_shape(take, person.id, "recover"), known.span, asked=asked)
            for name, dims in MORE.items():
                recorder.declare(name, dims)
            if recorder.next() == known.span[0]:
                recorder.write_body()
            stretches, filled = find_stretches(known)
            earlier = _earlier(take, person.id, recorder, known)
            yield from self._free(take, person.id, known, recorder, stretches, earlier)
            yield from self._held(take, person.id, known, recorder, stretches, filled, camera, earlier)

    def _free(self, take, person: int, known: Survey, recorder: Recorder, stretches, earlier: "_Changed | None") -> Iterator[Event]:
        """Solve all windows without contacts. Samples that are not solved hold what `recover` left."""
        (low, high), done = known.span, recorder.next("free")
        before = take.by_sample(recorder.group, "params", "recover")
        anew = np.ones(take.samples, bool) if earlier is None else self._touched(earlier.samples, earlier.seen, known.spacing_s)
        for begin, stop, solve in self._pieces(anew, known.span, earlier):
            if stop <= done:
                continue
            if solve:
                params = np.array(before[begin:stop])
                for first, last in _within(stretches, begin, stop):
                    params[first - begin : last - begin] = self._window(take, person, known, recorder, before, first, last, stretches)[0]
            else:
                params = earlier.result.by_sample(recorder.group, "free")[begin:stop]
            take.append(recorder.group, "free", params)
            take.commit({})
            yield Progress(self.name, stop - low, 2 * (high - low), person)

    def _held(self, take, person: int, known: Survey, recorder: Recorder, stretches, filled, camera: Turns, earlier: "_Changed | None") -> Iterator[Event]:
        """Solve all windows with planted feet held, and write the result."""
        (low, high), group, done = known.span, recorder.group, recorder.next()
        if done == high:
            return
        free = take.by_sample(group, "free", self.name)
        probability, held = self._contacts(take, person, known, recorder.rig, free, stretches, camera)
        anew = np.ones(take.samples, bool)
        if earlier is not None:
            changed = earlier.samples | moved(earlier.result, group, held)
            anew = _with_held(self._touched(changed, earlier.seen, known.spacing_s), stretches)
        last = None
        for begin, stop, solve in self._pieces(anew, known.span, earlier):
            if stop <= done:
                continue
            samples = np.arange(begin, stop)
            if solve:
                last = self._before(take, person, known, recorder, stretches, held, begin) if last is None else last
                seen = observations.read(take, person, samples, known)
                params, confidence = np.empty((len(samples), D), np.float32), np.zeros(len(samples))
                fitted = np.zeros(len(samples), bool)
                for first, end in _within(stretches, begin, stop):
                    part = slice(first - begin, end - begin)
                    params[part], confidence[part] = self._window(take, person, known, recorder, free, first, end, stretches, held)
                    fitted[part] = True
                for row in range(len(samples)):
                    last = params[row : row + 1] if fitted[row] else last
                    params[row] = last[0]
                recorder.append(params, np.where(filled[samples], State.FILLED, known.state[samples]), confidence, seen)
            else:
                recorder.copy(earlier.result, begin, stop)
                last = np.array(earlier.result.by_sample(group, "params")[stop - 1 : stop])
            for name, values in {"contact": probability, "firm": held.firm, "places": held.places}.items():
                take.append(group, name, values[samples])
            take.commit({})
            yield Committed(self.name, person, int(begin), int(stop))
            yield Progress(self.name, high + int(stop) - 2 * low, 2 * (high - low), person)

    def _pieces(self, anew: np.ndarray, span: tuple[int, int], earlier: "_Changed | None") -> list[tuple[int, int, bool]]:
        core = self.settings["core"]
        return pieces(anew, core if earlier is None else core + core // 2, core, span)  # what one correction touches is best solved at once

    def _overlap(self, spacing_s: float) -> int:
        """How many sightings away something must be to have no say: the stronger the smoothing, the more."""
        wider = max(1.0, self.settings["smoothing"]) ** 0.5
        return int(wider * np.clip(np.ceil(OVERLAP_S / spacing_s), LEAST_OVERLAP, MOST_OVERLAP))

    def _touched(self, changed: np.ndarray, seen: np.ndarray, spacing_s: float) -> np.ndarray:
        """(T,) bool: in whose neighbourhood something has changed. seen (T,): as it was and is."""
        out, whole = changed.copy(), (0, len(changed))
        for begin, stop in runs(changed):
            low, high = neighbourhood(seen, whole, begin, stop, self._overlap(spacing_s))
            out[low:high] = True
        return out

    def _contacts(self, take, person: int, known: Survey, rig, free: BySample, stretches, camera: Turns) -> tuple[np.ndarray, Held]:
        """(T, 4) how likely each heel and toe stands, and what holds it."""
        evidence = contact.gather(take, person, known, camera)
        probability = contact.probabilities(evidence, known.spacing_s, stretches)
        contacts = contact.stands(probability, evidence, known.spacing_s, stretches)
        places, span = np.zeros((*contacts.shape, 3), np.float32), slice(*known.span)
        places[span] = find_places(rig, free[span], contacts[span], camera.rotation[span], known.shot_of()[span], known.spacing_s)
        probability = np.where(contacts > 0, probability, np.minimum(probability, contact.LIKELY))
        firm = firmness(contacts, known.spacing_s)
        return probability, Held(firm if self.settings["foot_lock"] else np.zeros_like(firm), places)

    def _window(self, take, person: int, known: Survey, recorder: Recorder, before, first: int, stop: int, stretches,
                held: Held | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Params and confidence of samples [first, stop), solved together with their neighbourhood within the stretch from the params before."""
        stretch = next(s for s in stretches if s[0] <= first < s[1])
        low, high = neighbourhood(known.seen, stretch, first, stop, self._overlap(known.spacing_s))
        samples = np.arange(low, high)
        seen = observations.read(take, person, samples, known)
        sighted = slice(int(seen.seen.argmax()), len(samples) - int(seen.seen[::-1].argmax()))
        inner = slice(low + sighted.start, low + sighted.stop)
        start, scale = from_params(before[inner]), recorder.shape.landmark_scale
        strength = max(self.settings["smoothing"], LEAST_SMOOTHING) ** 2
        if held is None:
            start = tilted(recorder.rig, bridged(start, seen.seen[sighted]), seen[sighted], scale, known.spacing_s, strength)
            poses = fit_sequence(recorder.rig, start, seen[sighted], scale, known.spacing_s, FREE, smoothing=strength)
        else:
            poses = fit_sequence(recorder.rig, start, seen[sighted], scale, known.spacing_s, HELD, held[inner], strength)
            poses = planted(recorder.rig, poses, held[inner], known.spacing_s)
        params = to_params(coasting(poses, sighted.start, len(samples) - sighted.stop, known.spacing_s))
        confidence = recorder.confidence(from_params(params), seen)
        if not seen.seen.all():
            measured = np.flatnonzero(seen.seen)
            gaps = np.flatnonzero(~seen.seen)
            confidence[gaps] = FILLED_CONFIDENCE * np.interp(gaps, measured, confidence[measured])
        return params[first - low : stop - low], confidence[first - low : stop - low]

    def _before(self, take, person: int, known: Survey, recorder: Recorder, stretches, held: Held, done: int) -> np.ndarray:
        """Params (1, 60) that a sample without a pose of its own repeats at the point where the work goes on."""
        begin, core = known.span[0], self.settings["core"]
        if done > begin:
            return np.array(take.by_sample(recorder.group, "params", self.name)[done - 1 : done])
        if not stretches:
            return np.array(take.by_sample(recorder.group, "params", "recover")[begin : begin + 1])
        first = stretches[0][0]
        stop = min(stretches[0][1], first - (first - begin) % core + core)
        if first == begin:  # it has one
            return np.zeros((1, D), np.float32)
        return self._window(take, person, known, recorder, take.by_sample(recorder.group, "free", self.name), first, stop, stretches, held)[0][:1]


@dataclass
class _Changed:
    """An earlier result, the samples (T,) bool that `recover` has solved anew since, and (T,) bool those that were seen then and are now."""

    result: Earlier
    samples: np.ndarray
    seen: np.ndarray


def _earlier(take, person: int, recorder: Recorder, known: Survey) -> _Changed | None:
    result = take.earlier(recorder.stage)
    if result is None or not recorder.has_all(result) or any(
            not result.covers(recorder.group, name, recorder.span, dims) for name, dims in MORE.items()):
        return None
    said = corrected.said_in(result, person)
    if said is None:
        return None
    before, now = corrected.flags(said, take.frames), np.zeros(take.samples, np.uint16) if known.asked is None else known.asked
    return _Changed(result, corrected.changed(before, now), known.seen & (before & corrected.BODY == 0))


def moved(result: Earlier, group: str, held: Held) -> np.ndarray:
    """(T,) bool: where feet are held otherwise than in an earlier result."""
    firm, places = (np.asarray(result.by_sample(group, name)) for name in ("firm", "places"))
    return ((firm != held.firm) | ((held.firm > 0) & (np.linalg.norm(places - held.places, axis=-1) > SAME_M))).any(1)


def _with_held(anew: np.ndarray, stretches) -> np.ndarray:
    """(T,) bool: with the samples between stretches, which repeat the last pose (or the first) of one."""
    solved = np.zeros(len(anew), bool)
    for begin, stop in stretches:
        solved[begin:stop] = True
    out = anew.copy()
    for begin, stop in runs(~solved):
        source = begin - 1 if begin else min(stop, len(anew) - 1)
        out[begin:stop] |= anew[begin:stop].any() or anew[source]
    return out


def _within(stretches: list[tuple[int, int]], begin: int, stop: int) -> list[tuple[int, int]]:
    """The parts of the stretches in [begin, stop)."""
    return [(max(a, begin), min(b, stop)) for a, b in stretches if max(a, begin) < min(b, stop)]


def neighbourhood(seen: np.ndarray, stretch: tuple[int, int], first: int, stop: int, overlap: int) -> tuple[int, int]:
    """The range of a stretch that is to be solved so that [first, stop) comes out the same whatever lies beyond: `overlap` sightings more on either
    side, for what was not seen keeps nothing apart, but no more than MOST_HIDDEN times as many samples. seen (T,)."""
    low, high = max(stretch[0], first - MOST_HIDDEN * overlap), min(stretch[1], stop + MOST_HIDDEN * overlap)
    earlier, later = np.flatnonzero(seen[low:first]), np.flatnonzero(seen[stop:high])
    return (low + int(earlier[-overlap]) if len(earlier) >= overlap else low), (stop + int(later[overlap - 1]) + 1 if len(later) >= overlap else high)


def find_stretches(known: Survey) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Stretches [begin, stop) to be solved as one, and (T,) which of their samples are not seen and to be filled.

    Filled is who is hidden for up to four seconds between two sightings of a shot, or for less than half a second before the first or after the
    last, where the motion dies away. Somebody absent was told to be gone and is left so.
    """
    shot, count = known.shot_of(), len(known.seen)
    hidden = ~known.seen & (known.state == State.OCCLUDED)
    stretches = []
    for i in np.flatnonzero(known.seen):
        last = stretches[-1][1] if stretches else 0
        if stretches and shot[i] == shot[last - 1] and (i - last) * known.spacing_s < LONGEST_FILL_S + 1e-9 and hidden[last:i].all():
            stretches[-1][1] = int(i + 1)
        else:
            stretches.append([int(i), int(i + 1)])
    for stretch in stretches:
        begin, stop = first, last = tuple(stretch)
        while stop < count and hidden[stop] and shot[stop] == shot[last - 1]:
            stop += 1
        while begin > 0 and hidden[begin - 1] and shot[begin - 1] == shot[first]:
            begin -= 1
        if (stop - last) * known.spacing_s < LONGEST_COAST_S - 1e-9:
            stretch[1] = stop
        if (first - begin) * known.spacing_s < LONGEST_COAST_S - 1e-9:
            stretch[0] = begin
    filled = np.zeros(count, bool)
    for begin, stop in stretches:
        filled[begin:stop] = ~known.seen[begin:stop]
    return [(begin, stop) for begin, stop in stretches], filled


def coasting(poses: Poses, before: int, after: int, spacing_s: float) -> Poses:
    """The poses with so many samples more before and after them: the pose is held, the way goes on and dies away."""
    index = np.arange(-before, len(poses) + after)
    inside = np.clip(index, 0, len(poses) - 1)
    steps = min(max(1, round(COAST_S / spacing_s)), len(poses) - 1)
    position = poses.position[inside]
    if steps:
        for end, speed in ((0, poses.position[steps] - poses.position[0]), (len(poses) - 1, poses.position[-1] - poses.position[-1 - steps])):
            beyond = np.minimum(index, 0) if end == 0 else np.maximum(index - end, 0)  # samples
            lasting = COAST_S / spacing_s
            position += (np.sign(beyond) * lasting * (1 - np.exp(-np.abs(beyond) / lasting)))[:, None] * speed / steps
        position[:, 2] = np.maximum(position[:, 2], NEAREST_M)
    return Poses(position, poses.rotation[inside], poses.theta[inside])


def bridged(poses: Poses, seen: np.ndarray) -> Poses:
    """Poses with the samples that were not seen interpolated between those that were (rotations on SO(3))."""
    if seen.all() or seen.sum() < 2:
        return poses
    known, index = np.flatnonzero(seen), np.arange(len(seen))
    inside = np.clip(index, known[0], known[-1])

    def straight(values: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(index, known, column) for column in values[known].T], 1)

    turned = Slerp(known, Rotation.from_matrix(poses.rotation[known]))(inside).as_matrix()
    return Poses(straight(poses.position), turned, straight(poses.theta))
