# SPDX-License-Identifier: Apache-2.0
"""Takes of the full backend whose `recover` is a known motion, seen with noise."""

import numpy as np

from body4d_engine.stages.full.records import Records
from body4d_engine.stages.full.refine import Refine
from body4d_engine.take import State

from .masked import CENTRE, FOCAL, Pictures, masked_take, states

NAMES = ("params", "root", "rotations", "vertices", "state", "confidence", "shape", "scale", "hands", "keypoints_m", "keypoints_px", "contact", "places")


def seen_take(path, figure, truth, text: str | None = None, noise=0.03, far=None, shots=(0,), people=(1,), seen=None):
    """A take whose `recover` is the truth (parameters, root, identity, scale; or that by person) with noise in angles, shape, proportions, and distance (far),
    and with a wrong shape where nothing was measured; its keypoints in the picture are the true ones. seen: other parameters (N, 204) that are recovered, and
    which keypoint (N, 70) each was taken for. Returns take, people and clip."""
    count = len((truth[people[0]] if isinstance(truth, dict) else truth)[0])
    text = text or "v" * count
    clip, random = Pictures(count, shots=shots), np.random.default_rng(1)
    take, persons = masked_take(path, clip, {person: states(text) for person in people})
    take.begin("recover", "k" * 8)
    for person in people:
        params, root, shape, scale = truth[person] if isinstance(truth, dict) else truth
        truly = figure.keypoints(params, shape[None]) + root[:, None]
        if seen is not None:
            params, truly = seen[0], np.take_along_axis(truly, seen[1][..., None], axis=1)
        state = np.array(states(text), np.uint8)
        measured = state == State.VISIBLE
        records = Records(take, person, "recover", figure, (0, count), state, np.zeros(0, int), np.full(count, FOCAL), np.tile(CENTRE, (count, 1)))
        records.write_body(figure.rest(figure.average, np.zeros(45, np.float32)))
        noisy, turns = params.copy(), np.concatenate([figure.angles.joints.ravel(), figure.angles.single])
        noisy[:, turns] += noise * random.normal(size=(count, len(turns)))
        noisy = figure.angles.with_rotations(noisy, figure.angles.rotations(noisy))  # as a network writes them: with the seams of angles
        scales = scale + noise * random.normal(size=(count, 28)).astype(np.float32)
        shapes = shape + noise * random.normal(size=(count, 45)).astype(np.float32) + np.float32(2) * ~measured[:, None]
        found = {"params": np.stack([figure.with_scale(row[None], one)[0] for row, one in zip(noisy, scales)]), "scale": scales, "shape": shapes,
                 "hands": np.zeros((count, 108), np.float32),
                 "root": (root * (1 + (noise if far is None else far) * random.normal(size=(count, 1)))).astype(np.float32)}
        found |= figure.posed(found["params"], found["shape"])
        trust = np.tile(measured[:, None], (1, 70)).astype(np.float32)
        records.write({**found, "keypoints_m": truly - found["root"][:, None]}, state, 0.9 * measured, trust)
    take.commit({})
    take.finish()
    return take, persons, clip


def stage(net, **options) -> Refine:
    return Refine(networks=lambda: net, **options)


def arrays(take) -> dict[str, np.ndarray]:
    return {name: np.array(take.by_sample("people/1", name, "refine")) for name in NAMES}
