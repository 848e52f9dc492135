# SPDX-License-Identifier: Apache-2.0
"""Lite recover: each person's shape from key frames, then a body per sample, each fitted from the one before, streamed as it comes."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ..events import Committed, Event, Notice, Progress
from ..fit import corrected, flips, observations, trust
from ..fit.observations import Observations, Survey
from ..fit.record import Recorder, from_params, image_error, read_shape, to_params
from ..fit.residuals import Poses, about_hips, energy
from ..fit.shape import Shape, average_shape, key_samples, solve_shape
from ..fit.solver import FRESH, WARM, Before, D, fit_samples
from ..fit.start import rough_poses
from ..fit.windows import Windows
from ..models.anny.pose import TORSO, Rig, pose_model
from ..runs import pieces, runs
from ..take_arrays import Earlier

LONGEST_LINK_S = 0.5  # over a longer gap, and over a cut, the sample before says nothing
DOUBTFUL_IMAGE_M, DOUBTFUL_TRUNK_M = 0.07, 0.15  # beyond these a warm start may sit in a wrong minimum
JUMP_M, FASTEST_M_S = 0.3, 10.0  # who moves farther than this in the image was not followed but found anew
NEVER_SEEN_DEPTH_M = 4.0
CHUNK, COPIED = 30, 240  # samples between commits
DOUBT_S, DOUBT_APART_S, MOST_DOUBTS = 0.1, 0.25, 12  # shorter doubts are not told, near ones are one, and so many are told at most


class Recover:
    """heights: metres by person id; 0 stands for everyone not named. chunk: samples between commits; the result does not depend on it.

    What the user corrects is solved by itself, from the sample before it; all other samples are what they were without corrections (kept as the array
    `base`, where anything is corrected). So a correction costs what it covers, and it does not matter when it is given. What lies before the first and
    after the last sample in which somebody is not absent costs nothing: there are no records of it.
    """

    name = "recover"
    version = 6
    needs = ("track", "camera", "detail")
    heeds = "body"

    def __init__(self, heights: dict[int, float] | None = None, chunk: int = CHUNK):
        self.settings = {"heights": {str(person): float(metres) for person, metres in sorted((heights or {}).items())}}
        self.chunk = chunk

    def run(self, clip, people, take, cursor) -> Iterator[Event]:
        shaped = list((cursor or {}).get("shaped", []))
        for person in people:
            known = observations.survey(take, person.id, clip.shots)
            asked = corrected.flags(person.corrections, take.frames)
            if person.id in shaped:
                shape = read_shape(take, person.id, self.name)
            else:
                height = self.settings["heights"].get(str(person.id), person.height_m or self.settings["heights"].get("0"))
                yield from self._notices(take, person, known, height)
                earlier = take.earlier(self.name)
                shape = read_shape(earlier, person.id, self.name) if earlier else (yield from self._shape(take, person, known, height))
            recorder = Recorder(take, person.id, self.name, shape, known.span, asked=asked)
            if person.id not in shaped:
                shaped.append(person.id)
                recorder.write_body()
                take.commit({"shaped": shaped})
            yield from self._poses(take, person, known, asked, recorder, {"shaped": shaped})

    def _notices(self, take, person, known: Survey, height: float | None) -> Iterator[Notice]:
        """What is assumed, what was put right, and what is not to be believed."""
        if height is None:
            yield Notice(self.name, "scale_assumed", f"The size of {person.name} is assumed to be an average person's. "
                         "Give --height for true metres.", person=person.id)
        parts = {f" of the {part}": here for part, here in zip(flips.PARTS, known.swapped.T, strict=True)}
        for part, swapped in {"": known.flipped, **parts}.items():
            for begin, stop in runs(swapped):
                yield Notice(self.name, "sides_swapped", f"Left and right{part} of {person.name} were taken for each other for a moment; put right.",
                             person=person.id, frame=take.frames[begin], last_frame=take.frames[stop - 1])
        yield from self._doubts(take, person, known)
        if not known.seen.any():
            yield Notice(self.name, "person_never_seen", f"{person.name} was never seen well enough to fit a body.", person=person.id)

    def _shape(self, take, person, known: Survey, height: float | None) -> Iterator[Event]:
        """Yields progress, returns the person's Shape."""
        chosen = key_samples(known.visibility, known.seen & ~known.flipped)
        if not len(chosen):
            chosen = key_samples(known.visibility, known.seen)
        if not len(chosen):
            return average_shape(pose_model(), height)
        steps = solve_shape(pose_model(), observations.read(take, person.id, chosen, known), height)
        while True:
            try:
                done, total = next(steps)
            except StopIteration as end:
                return end.value
            yield Progress(self.name, done, total, person.id, "step", "body shape")

    def _doubts(self, take, person, known: Survey) -> Iterator[Notice]:
        """Where which limb is not to be believed."""
        least, apart = DOUBT_S / known.spacing_s, int(DOUBT_APART_S / known.spacing_s)
        found = []
        for limb, doubtful in [("body", known.doubtful.all(1)), *zip(trust.LIMBS, (known.doubtful & ~known.doubtful.all(1, keepdims=True)).T)]:
            found += [(stop - begin, begin, stop, limb) for begin, stop in runs(doubtful, apart) if stop - begin >= least]
        found.sort(key=lambda entry: (-entry[0], entry[1:]))
        for _, begin, stop, limb in sorted(found[:MOST_DOUBTS], key=lambda entry: entry[1:]):
            text = f"{person.name} is hardly seen" if limb == "body" else f"The {limb} of {person.name} is doubtful"
            yield Notice(self.name, "body_doubtful" if limb == "body" else "limb_doubtful",
                         f"{text} and follows neighbouring frames and a usual pose.", person.id, take.frames[begin], take.frames[stop - 1])
        if len(found) > MOST_DOUBTS:
            yield Notice(self.name, "limb_doubtful", f"Limbs of {person.name} are doubtful {len(found) - MOST_DOUBTS} more times, more briefly.", person.id)

    def _poses(self, take, person, known: Survey, asked: np.ndarray, recorder: Recorder, cursor: dict) -> Iterator[Event]:
        (first, end), start, group = known.span, recorder.next(), recorder.group
        if start == end:
            return
        told, parted = corrected.survey(known, asked), bool(asked.any())
        if parted:
            recorder.declare("base", (D,))
        earlier = _earlier(take, person.id, recorder)
        if earlier is None:
            base, changed, anew = None, asked > 0, np.ones(take.samples, bool)
        else:
            base = earlier.by_sample(group, "base" if earlier.has(group, "base") else "params")
            changed = corrected.changed(corrected.flags(corrected.said_in(earlier, person.id), take.frames), asked)
            anew = _spread(changed, told)
        plain, told_chain = Chain(known, recorder), Chain(told, recorder)
        if start > first:
            own, last = (np.array(take.by_sample(group, name, self.name)[start - 1 : start]) for name in ("base" if parted else "params", "params"))
        else:
            own = last = np.array(base[first : first + 1]) if base is not None else self._first(take, person, known, recorder)
        for begin, stop, solve in pieces(anew, self.chunk, COPIED, known.span):
            if stop <= start:
                continue
            begin = max(begin, start)
            samples = np.arange(begin, stop)
            if solve:
                seen = observations.read(take, person.id, samples, told)
                plainly = observations.read(take, person.id, samples, known) if asked[samples].any() else seen
                unsaid = np.array(base[samples]) if base is not None else plain.fit(samples, plainly, own)
                params = unsaid.copy()
                for one, other in runs(asked[samples] > 0):
                    here = slice(one, other)
                    if changed[samples[one]]:
                        before = params[one - 1 : one] if one else last
                        params[here] = told_chain.fit(samples[here], seen[here], before, asked[samples[here]])
                    else:
                        params[here] = earlier.by_sample(group, "params")[samples[here]]
                confidence = [recorder.confidence(from_params(params[row : row + 1]), seen[row : row + 1])[0] for row in range(len(samples))]
                recorder.append(params, told.state[samples], np.array(confidence), seen)
            else:
                unsaid, params = np.array(base[samples]), np.array(earlier.by_sample(group, "params")[samples])
                recorder.copy(earlier, begin, stop)
            if parted:
                take.append(group, "base", unsaid)
            own, last = unsaid[-1:], params[-1:]
            take.commit(cursor)
            yield Committed(self.name, person.id, int(begin), int(stop))
            yield Progress(self.name, int(stop) - first, end - first, person.id)

    def _first(self, take, person, known: Survey, recorder: Recorder) -> np.ndarray:
        """Params (1, 60) that samples before the first seen one show: the pose in it; the rest pose where there is none."""
        first = np.flatnonzero(known.seen)[:1]
        if len(first):
            return to_params(fit_one(recorder.rig, observations.read(take, person.id, first, known), recorder.shape, None, 0.0))
        params = np.zeros((1, 60), np.float32)
        params[0, 2] = NEVER_SEEN_DEPTH_M
        return params


class Chain:
    """A person's samples, each fitted from the one before."""

    def __init__(self, known: Survey, recorder: Recorder):
        self._known, self._recorder, self._shot = known, recorder, known.shot_of()
        self._seen_before = np.maximum.accumulate(np.where(known.seen, np.arange(len(known.seen)), -1))  # the latest seen sample up to each

    def fit(self, samples: np.ndarray, seen: Observations, last: np.ndarray, asked: np.ndarray | None = None) -> np.ndarray:
        """Params (N, 60) of successive samples; `last` (1, 60): of the one before; who is not seen repeats it. asked (N,): what the user corrects."""
        known, rig, shape = self._known, self._recorder.rig, self._recorder.shape
        out = np.empty((len(samples), last.shape[1]), np.float32)
        for row, i in enumerate(samples):
            if known.seen[i]:
                link = self._seen_before[i - 1] if i else -1
                gap_s = (i - link) * known.spacing_s
                linked = link >= 0 and gap_s <= LONGEST_LINK_S + 1e-9 + known.spacing_s and self._shot[link] == self._shot[i]
                turned = asked is not None and bool(asked[row] & corrected.TURNED)
                last = to_params((fit_turned if turned else fit_one)(rig, seen[row : row + 1], shape, from_params(last) if linked else None, gap_s))
            out[row] = last[0]
        return out


def _earlier(take, person: int, recorder: Recorder) -> Earlier | None:
    """The earlier result, where it can be gone on from."""
    earlier = take.earlier(recorder.stage)
    whole = earlier is not None and recorder.has_all(earlier) and corrected.said_in(earlier, person) is not None
    base = not whole or not earlier.has(recorder.group, "base") or earlier.covers(recorder.group, "base", recorder.span, (D,))
    return earlier if whole and base else None


def _spread(changed: np.ndarray, known: Survey) -> np.ndarray:
    """(T,) bool: the samples that show something else where those `changed` are solved anew: as far as hands and head are averaged, and on to where the
    person is seen again."""
    out = changed.copy()
    for begin, stop in runs(changed):
        low, high = Windows.margin(np.arange(begin, stop), len(changed), known.spacing_s)
        out[low:high] = True
    for begin, stop in runs(~known.seen):
        first = begin + int(out[begin:stop].argmax()) if out[begin:stop].any() else stop
        out[begin if begin and out[begin - 1] else first : stop] = True
    return out


def fit_one(rig: Rig, seen: Observations, shape: Shape, before: Poses | None, gap_s: float) -> Poses:
    """Fit one sample: from the pose `gap_s` seconds before, or from a rough start where there is none or it leads to a poor fit."""
    scale = shape.landmark_scale
    if before is None:
        return fit_samples(rig, rough_poses(rig, seen, scale), seen, scale, FRESH)
    strength = 1 / (30 * gap_s)
    link = Before(rig.keypoints(*rig.pose(before.rotation, before.theta)), before.position, strength, strength)
    warm = fit_samples(rig, before, seen, scale, WARM, link)
    keypoints = rig.keypoints(*rig.pose(warm.rotation, warm.theta))
    trunk = np.linalg.norm(about_hips(keypoints)[:, TORSO] - scale * seen.world[:, TORSO], axis=-1).mean()
    if image_error(keypoints, warm, seen)[0] < DOUBTFUL_IMAGE_M and trunk < DOUBTFUL_TRUNK_M:
        return warm
    fresh = fit_samples(rig, rough_poses(rig, seen, scale), seen, scale, FRESH)
    moved = fresh.position[0, :2] / fresh.position[0, 2] - before.position[0, :2] / before.position[0, 2]
    if np.linalg.norm(moved) * before.position[0, 2] < JUMP_M + FASTEST_M_S * gap_s:  # still there, so no farther or nearer either
        fresh = fit_samples(rig, fresh, seen, scale, WARM, replace(link, body=0.0))
    final = FRESH[-1][0]
    return min((warm, fresh), key=lambda poses: energy(rig, poses, seen, final, scale)[0])


def fit_turned(rig: Rig, seen: Observations, shape: Shape, before: Poses | None, gap_s: float) -> Poses:
    """`fit_one` where the user says that the body was seen from the wrong side: of the ways to get there the one that meets the landmarks in space best."""
    scale = shape.landmark_scale
    fresh = fit_samples(rig, rough_poses(rig, seen, scale), seen, scale, FRESH)
    if before is None:
        return fresh
    return min((fit_one(rig, seen, shape, before, gap_s), fresh), key=lambda poses: energy(rig, poses, seen, FRESH[0][0], scale)[0])
