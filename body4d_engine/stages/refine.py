# SPDX-License-Identifier: Apache-2.0
"""Lite refine: the whole clip as one smooth, robust least-squares problem, solved in overlapping windows so that memory stays flat."""

from collections.abc import Iterator

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from ..camera_motion import Turns, turns
from ..events import Committed, Event, Notice, Progress
from ..fit import contact, observations
from ..fit.feet import Held, disagreeing, find_places, firmness, planted
from ..fit.observations import Survey
from ..fit.record import Recorder, from_params, read_shape, to_params
from ..fit.residuals import NEAREST_M, Poses
from ..fit.solver import SEQUENCE, D, fit_sequence
from ..runs import runs
from ..take import State

LONGEST_FILL_S, LONGEST_COAST_S = 4.0, 0.5  # who is hidden: between two sightings, as long as tracking bridges; before the first and after the last
COAST_S = 0.3  # in this time a body out of sight loses most of its speed; over it the speed is measured
OVERLAP_S = 2.5  # what lies further away changes a pose by less than 1e-4 m
LEAST_OVERLAP, MOST_OVERLAP = 20, 360  # samples: the denser they lie, the less time it takes until that holds, and so memory has a bound
MOST_HIDDEN = 3  # times as many samples are solved at most where most are hidden
CORE = 160  # samples a window gives its result for
FREE, HELD = SEQUENCE[:-1], SEQUENCE[-1:]
FILLED_CONFIDENCE = 0.5  # of its neighbours'


class Refine:
    """Replaces what `recover` left, with the same shape. core: samples per window; the result depends on it by less than 1e-4 m.

    All windows are solved twice: at first as if nothing were under the feet (array `free`, which says where each contact stands on the whole),
    then with planted feet held at these places.
    """

    name = "refine"
    version = 4
    needs = ("recover",)

    def __init__(self, core: int = CORE):
        self.settings = {"core": core}

    def run(self, clip, people, take, cursor) -> Iterator[Event]:
        fps = take.clip["fps"]
        camera = turns(take, take.frames.step * fps[1] / fps[0])
        if cursor is None and people:
            for begin, stop in runs(~camera.known):
                yield Notice(self.name, "feet_not_held", "The camera moves along (it does not only turn), so feet are not held in place here.",
                             frame=take.frames[begin], last_frame=take.frames[stop - 1])
        for person in people:
            known = observations.survey(take, person.id, clip.shots)
            recorder = Recorder(take, person.id, self.name, read_shape(take, person.id, "recover"))
            take.create_array(recorder.group, "free", "f4", (D,))
            take.create_array(recorder.group, "contact", "f4", (len(contact.POINTS),))
            if not recorder.count:
                recorder.write_body()
            stretches, filled = find_stretches(known)
            yield from self._free(take, person.id, known, recorder, stretches)
            yield from self._held(take, person.id, known, recorder, stretches, filled, camera)

    def _free(self, take, person: int, known: Survey, recorder: Recorder, stretches) -> Iterator[Event]:
        """Solve all windows without contacts. Samples that are not solved hold what `recover` left."""
        total, core = take.samples, self.settings["core"]
        before = take.read(recorder.group, "params", "recover")
        for begin in range(take.count(recorder.group, "free", self.name), total, core):
            stop = min(begin + core, total)
            params = np.array(before[begin:stop])
            for first, last in _within(stretches, begin, stop):
                params[first - begin : last - begin] = self._window(take, person, known, recorder, before, first, last, stretches)[0]
            take.append(recorder.group, "free", params)
            take.commit({})
            yield Progress(self.name, stop, 2 * total, person)

    def _held(self, take, person: int, known: Survey, recorder: Recorder, stretches, filled, camera: Turns) -> Iterator[Event]:
        """Solve all windows with planted feet held, and write the result."""
        total, core, done = take.samples, self.settings["core"], recorder.count
        if done == total:
            return
        free = take.read(recorder.group, "free", self.name)
        probability, held = self._contacts(take, person, known, recorder.rig, free, stretches, camera)
        last = self._before(take, person, known, recorder, stretches, held, done)
        for begin in range(done, total, core):
            samples = np.arange(begin, min(begin + core, total))
            seen = observations.read(take, person, samples, known)
            params, confidence = np.empty((len(samples), D), np.float32), np.zeros(len(samples))
            fitted = np.zeros(len(samples), bool)
            for first, stop in _within(stretches, begin, begin + core):
                part = slice(first - begin, stop - begin)
                params[part], confidence[part] = self._window(take, person, known, recorder, free, first, stop, stretches, held)
                fitted[part] = True
            for row in range(len(samples)):
                last = params[row : row + 1] if fitted[row] else last
                params[row] = last[0]
            take.append(recorder.group, "contact", probability[samples])
            recorder.append(params, np.where(filled[samples], State.FILLED, known.state[samples]), confidence, seen)
            take.commit({})
            yield Committed(self.name, person, int(begin), int(samples[-1] + 1))
            yield Progress(self.name, total + int(samples[-1] + 1), 2 * total, person)

    def _contacts(self, take, person: int, known: Survey, rig, free, stretches, camera: Turns) -> tuple[np.ndarray, Held]:
        """(T, 4) how likely each heel and toe stands, and what holds it."""
        evidence = contact.gather(take, person, known, camera)
        probability = contact.probabilities(evidence, known.spacing_s, stretches)
        contacts = contact.stands(probability, evidence, known.spacing_s, stretches)
        places = find_places(rig, free, contacts, camera.rotation)
        contacts[disagreeing(rig, contacts, places)] = 0
        probability = np.where(contacts > 0, probability, np.minimum(probability, contact.LIKELY))
        return probability, Held(firmness(contacts, known.spacing_s), places)

    def _window(self, take, person: int, known: Survey, recorder: Recorder, before, first: int, stop: int, stretches,
                held: Held | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Params and confidence of samples [first, stop), solved together with their neighbourhood within the stretch from the params before."""
        stretch = next(s for s in stretches if s[0] <= first < s[1])
        overlap = int(np.clip(np.ceil(OVERLAP_S / known.spacing_s), LEAST_OVERLAP, MOST_OVERLAP))
        low, high = neighbourhood(known.seen, stretch, first, stop, overlap)
        samples = np.arange(low, high)
        seen = observations.read(take, person, samples, known)
        sighted = slice(int(seen.seen.argmax()), len(samples) - int(seen.seen[::-1].argmax()))
        inner = slice(low + sighted.start, low + sighted.stop)
        start, scale = from_params(before[inner]), recorder.shape.landmark_scale
        if held is None:
            poses = fit_sequence(recorder.rig, bridged(start, seen.seen[sighted]), seen[sighted], scale, known.spacing_s, FREE)
        else:
            poses = fit_sequence(recorder.rig, start, seen[sighted], scale, known.spacing_s, HELD, held[inner])
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
        if done:
            return np.array(take.read(recorder.group, "params", self.name)[done - 1 : done])
        if not stretches:
            return np.array(take.read(recorder.group, "params", "recover")[:1])
        first = stretches[0][0]
        stop = min(stretches[0][1], first - first % self.settings["core"] + self.settings["core"])
        return self._window(take, person, known, recorder, take.read(recorder.group, "free", self.name), first, stop, stretches, held)[0][:1]


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
