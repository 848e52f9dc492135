# SPDX-License-Identifier: Apache-2.0
"""Full refine: one body per person, its joints smoothed on SO(3), put where it covers what was seen, with planted feet held. It needs no GPU."""

from collections.abc import Callable, Iterator

import numpy as np

from ...camera_motion import Turns, turns
from ...events import Committed, Event, Notice, Progress
from ...fit import contact
from ...fit.feet import Held, firmness, foot_shifts
from ...fit.local import Neighbourhoods
from ...fit.places import places_of
from ...imports.mhr70 import MHR70
from ...memory import release
from ...runs import runs
from ...take import State
from ..refine import FILLED_CONFIDENCE, find_stretches
from .legs import FEET, reach
from .motion import BLOCK, Motion
from .records import Records
from .recover import load

CHUNK = 32  # samples between commits
HALF_S = 0.15  # half width of the window at smoothing 1
DEPTH_WIDER = 2.0  # times as wide a window for the distance from the camera
STRANGE, STRANGE_LENGTH, STRANGE_RAY, STRANGE_DEPTH = 0.2, 0.2, 0.02, 0.05  # radians, dm, and of the direction and logarithm of depth: so far off counts half
NEAREST_M = 0.05
MORE = {"free": (207,), "feet": (5, 3), "contact": (4,), "firm": (4,), "places": (4, 3)}
TOP, BOTTOM = ([MHR70.index(f"{side}_{part}") for side in ("left", "right")] for part in ("shoulder", "ankle"))


class Refine:
    """Replaces what `recover` left. smoothing: 0 to 4, see `settings`; foot_lock: whether planted feet are held; the others as for `Recover`. Its two passes
    over a person read and write in chunks; of the whole person it holds some 3 kB a sample.

    The array `free` holds parameters and root before feet are held, `feet` heels, toes and the way from ankles to shoulders of these.
    """

    name = "refine"
    version = 1
    needs = ("recover",)

    def __init__(self, smoothing: float = 1.0, foot_lock: bool = True, body: str = "dinov3", folder=None, networks: Callable | None = None, chunk: int = CHUNK):
        self.settings = {"smoothing": float(smoothing), "foot_lock": foot_lock}
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
                yield from self._person(take, person.id, motion, figure, camera)

    def _person(self, take, person: int, motion: Motion, figure, camera: Turns) -> Iterator[Event]:
        shape, scale = motion.identity()
        stretches, filled = find_stretches(motion)
        state = np.where(filled & ~motion.measured, State.FILLED, motion.state).astype(np.uint8)
        records = Records(take, person, self.name, figure, motion.span, state, np.zeros(0, int), motion.focal, motion.centre)
        for name, dims in MORE.items():
            take.create_array(records.group, name, "f4", dims, span=motion.span)
        if records.next == motion.span[0]:
            records.write_body(figure.with_scale(figure.average[None], scale)[0], shape)
        yield from self._free(take, person, motion, figure, shape, scale)
        yield from self._held(take, person, motion, records, stretches, filled, camera, shape, scale)

    def _free(self, take, person: int, motion: Motion, figure, shape: np.ndarray, scale: np.ndarray) -> Iterator[Event]:
        """Smooth the joints, then put the body where it covers what was seen."""
        (first, end), half = motion.span, self._half(motion)
        done = first + take.count(motion.group, "free", self.name)
        for begin in range(done, end, self.chunk):
            stop = min(begin + self.chunk, end)
            near = Neighbourhoods(begin, stop, half, motion.segment, motion.weight)
            params = self._smooth(near, figure.with_scale(motion.params(*near.span), scale), figure.angles, begin, stop)
            keypoints = figure.keypoints(params, shape[None])
            take.append(motion.group, "free", np.concatenate([params, motion.placed(begin, stop, keypoints)], axis=1))
            upright = keypoints[:, TOP].mean(1) - keypoints[:, BOTTOM].mean(1)
            take.append(motion.group, "feet", np.concatenate([keypoints[:, FEET], upright[:, None]], axis=1))
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

    def _held(self, take, person: int, motion: Motion, records: Records, stretches, filled: np.ndarray, camera: Turns, shape: np.ndarray,
              scale: np.ndarray) -> Iterator[Event]:
        """Smooth the way, hold planted feet, and write the result."""
        (first, end), group, figure = motion.span, motion.group, motion.figure
        if records.next == end:
            return
        free = take.by_sample(group, "free", self.name)
        root = self._way(motion, free, take)
        found = motion.evidence(camera)
        probability = contact.probabilities(found, motion.spacing_s, stretches)
        contacts = contact.stands(probability, found, motion.spacing_s, stretches)
        feet = np.array(take.by_sample(group, "feet", self.name)[:], np.float64)
        points = feet[:, :4] + root[:, None]
        rest = figure.keypoints(figure.with_scale(figure.average[None], scale), shape[None])[0, FEET, 1]
        places = places_of((points @ camera.rotation).astype(np.float32), (feet[:, 4:] @ camera.rotation)[:, 0].astype(np.float32), rest.max() - rest, contacts,
                           camera.rotation, motion.shot, motion.spacing_s)
        probability = np.where(contacts > 0, probability, np.minimum(probability, contact.LIKELY))
        firm = firmness(contacts, motion.spacing_s)
        held = Held(firm if self.settings["foot_lock"] else np.zeros_like(firm), places)
        shifts = np.zeros(points.shape)
        for begin, stop in stretches:
            if held.firm[begin:stop].any():
                shifts[begin:stop] = foot_shifts(points[begin:stop], held[begin:stop], motion.spacing_s)
        confidence = self._confidence(motion, filled)
        shown = np.maximum.accumulate(np.where(motion.state == State.ABSENT, first, np.arange(take.samples)))  # who is absent stays as they were
        for begin in range(records.next, end, self.chunk):
            part = slice(begin, min(begin + self.chunk, end))
            params, place = reach(figure, np.array(free[shown[part]])[:, :204], shape, root[shown[part]], shifts[shown[part]])
            count = len(params)
            result = figure.posed(params, np.tile(shape, (count, 1))) | {
                "root": place, "params": params, "shape": np.tile(shape, (count, 1)), "scale": np.tile(scale, (count, 1)),
                "hands": np.array(take.by_sample(group, "hands", "recover")[shown[part]])}
            trust = np.array(take.by_sample(group, "keypoints_px", "recover")[part])[..., 2] * motion.measured[part, None]
            records.write(result, records.state[part], confidence[part], trust)
            for name, values in {"contact": probability, "firm": held.firm, "places": held.places}.items():
                take.append(group, name, values[part])
            take.commit({})
            yield Committed(self.name, person, begin, part.stop)
            yield Progress(self.name, end + part.stop - 2 * first, 2 * (end - first), person)

    def _way(self, motion: Motion, free, take) -> np.ndarray:
        """(T, 3) the root's way: what was not measured moves along with what was around it; then direction and distance are smoothed."""
        solved = np.array(free[:], np.float64)[:, 204:]
        shift = solved - np.array(take.by_sample(motion.group, "root", "recover")[:], np.float64)
        for segment in np.unique(motion.segment):
            inside = np.flatnonzero(motion.segment == segment)
            known = inside[motion.measured[inside]]
            if len(known):
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


def _body_of(body: str, folder):
    """The network with MHR and what reads it on the best device there is; its large parts stay in their file."""
    from ...memory import best_device

    network, device = load(body, folder), best_device()
    network.mhr.to(device)
    network.body.pose_head.to(device)
    return network
