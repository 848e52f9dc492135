# SPDX-License-Identifier: Apache-2.0
"""Lite recover: each person's shape from key frames, then a body per sample, each fitted from the one before, streamed as it comes."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ..events import Committed, Event, Notice, Progress
from ..fit import flips, observations, trust
from ..fit.observations import Observations, Survey
from ..fit.record import Recorder, from_params, image_error, read_shape, to_params
from ..fit.residuals import Poses, about_hips, energy
from ..fit.shape import Shape, average_shape, key_samples, solve_shape
from ..fit.solver import FRESH, WARM, Before, fit_samples
from ..fit.start import rough_poses
from ..models.anny.pose import TORSO, Rig, pose_model
from ..runs import runs

LONGEST_LINK_S = 0.5  # over a longer gap, and over a cut, the sample before says nothing
DOUBTFUL_IMAGE_M, DOUBTFUL_TRUNK_M = 0.07, 0.15  # beyond these a warm start may sit in a wrong minimum
JUMP_M, FASTEST_M_S = 0.3, 10.0  # who moves farther than this in the image was not followed but found anew
NEVER_SEEN_DEPTH_M = 4.0
CHUNK = 30
DOUBT_S, DOUBT_APART_S, MOST_DOUBTS = 0.1, 0.25, 12  # shorter doubts are not told, near ones are one, and so many are told at most


class Recover:
    """heights: metres by person id; 0 stands for everyone not named. chunk: samples between commits; the result does not depend on it."""

    name = "recover"
    version = 3
    needs = ("track", "camera", "detail")

    def __init__(self, heights: dict[int, float] | None = None, chunk: int = CHUNK):
        self.settings = {"heights": {str(person): float(metres) for person, metres in sorted((heights or {}).items())}}
        self.chunk = chunk

    def run(self, clip, people, take, cursor) -> Iterator[Event]:
        shaped = list((cursor or {}).get("shaped", []))
        for person in people:
            known = observations.survey(take, person.id, clip.shots)
            if person.id in shaped:
                shape = read_shape(take, person.id, self.name)
            else:
                height = self.settings["heights"].get(str(person.id), person.height_m or self.settings["heights"].get("0"))
                shape = yield from self._shape(take, person, known, height)
            recorder = Recorder(take, person.id, self.name, shape)
            if person.id not in shaped:
                shaped.append(person.id)
                recorder.write_body()
                take.commit({"shaped": shaped})
            yield from self._poses(take, person, known, recorder, {"shaped": shaped})

    def _shape(self, take, person, known: Survey, height: float | None) -> Iterator[Event]:
        """Yields progress, returns the person's Shape."""
        if height is None:
            yield Notice(self.name, "scale_assumed", f"The size of {person.name} is assumed to be an average person's. "
                         "Give --height for true metres.", person=person.id)
        parts = {f" of the {part}": here for part, here in zip(flips.PARTS, known.swapped.T, strict=True)}
        for part, swapped in {"": known.flipped, **parts}.items():
            for begin, stop in runs(swapped):
                yield Notice(self.name, "sides_swapped", f"Left and right{part} of {person.name} were taken for each other for a moment; put right.",
                             person=person.id, frame=take.frames[begin], last_frame=take.frames[stop - 1])
        yield from self._doubts(take, person, known)
        chosen = key_samples(known.visibility, known.seen & ~known.flipped)
        if not len(chosen):
            chosen = key_samples(known.visibility, known.seen)
        if not len(chosen):
            yield Notice(self.name, "person_never_seen", f"{person.name} was never seen well enough to fit a body.", person=person.id)
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

    def _poses(self, take, person, known: Survey, recorder: Recorder, cursor: dict) -> Iterator[Event]:
        total, start = take.samples, recorder.count
        last = None  # params (1, 60) of the sample before
        if start:
            last = np.array(take.read(recorder.group, "params", self.name)[start - 1 : start])
        elif total:
            last = self._first(take, person, known, recorder)
        shot = known.shot_of()
        seen_before = np.maximum.accumulate(np.where(known.seen, np.arange(total), -1))  # the latest seen sample up to each
        for begin in range(start, total, self.chunk):
            samples = np.arange(begin, min(begin + self.chunk, total))
            seen = observations.read(take, person.id, samples, known)
            params, confidence = np.empty((len(samples), last.shape[1]), np.float32), np.zeros(len(samples))
            for row, i in enumerate(samples):
                if known.seen[i]:
                    link = seen_before[i - 1] if i else -1
                    gap_s = (i - link) * known.spacing_s
                    linked = link >= 0 and gap_s <= LONGEST_LINK_S + 1e-9 + known.spacing_s and shot[link] == shot[i]
                    one = seen[row : row + 1]
                    last = to_params(fit_one(recorder.rig, one, recorder.shape, from_params(last) if linked else None, gap_s))
                    confidence[row] = recorder.confidence(from_params(last), one)[0]
                params[row] = last[0]
            recorder.append(params, known.state[samples], confidence, seen)
            take.commit(cursor)
            yield Committed(self.name, person.id, int(begin), int(samples[-1] + 1))
            yield Progress(self.name, int(samples[-1] + 1), total, person.id)

    def _first(self, take, person, known: Survey, recorder: Recorder) -> np.ndarray:
        """Params (1, 60) that samples before the first seen one show: the pose in it; the rest pose where there is none."""
        first = np.flatnonzero(known.seen)[:1]
        if len(first):
            return to_params(fit_one(recorder.rig, observations.read(take, person.id, first, known), recorder.shape, None, 0.0))
        params = np.zeros((1, 60), np.float32)
        params[0, 2] = NEVER_SEEN_DEPTH_M
        return params


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
