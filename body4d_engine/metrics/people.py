# SPDX-License-Identifier: Apache-2.0
"""The motion of a take's person."""

from dataclasses import dataclass

import numpy as np

from ..errors import Body4DError
from ..fit import flips, observations
from ..models.anny.pose import KEYPOINTS, LANDMARKS
from ..take import State, Take
from ..take_arrays import BySample
from .base import Motion
from .feet import FEET

STILL_PX = 0.5  # rms px per frame by which a picture's background may move while its camera stands still: compression and people do so


@dataclass(frozen=True)
class TakeVertices:
    """A person's vertices in the camera frame, read when asked for: `vertices[sample]` (V, 3) float64 metres."""

    stored: BySample
    root: np.ndarray

    def __len__(self) -> int:
        return len(self.root)

    def __getitem__(self, sample: int) -> np.ndarray:
        return self.stored[sample].astype(np.float64) + self.root[sample]


def motion_of(take: Take, person: int) -> Motion:
    """The person's motion, absent samples NaN. Raises Body4DError where there is none yet.

    Joints are the take's keypoints, numbered where the take has no names for them. A take without keypoints (some imports) has no joints
    (T, 0, 3), so that only its mesh can be judged.
    """
    group, stage = f"people/{person}", take.result_stage(person)
    if stage is None:
        raise Body4DError(f"{take.path.name} has no body for person {person} yet.", "Run it again to complete it.", "take_incomplete")
    body = take.body(person)
    vertices, state = (take.by_sample(group, name, stage) for name in ("vertices", "state"))
    count = min(len(vertices), len(state))
    root = np.asarray(take.by_sample(group, "root", stage)[:count], np.float64)
    there = state[:count] != State.ABSENT
    joints, names = np.empty((count, 0, 3)), ()
    if take.has(group, "keypoints_m", stage):
        joints = np.where(there[:, None, None], np.asarray(take.by_sample(group, "keypoints_m", stage)[:count], np.float64) + root[:, None], np.nan)
        names = tuple(str(name) for name in body.get("keypoint_names", [f"keypoint_{i}" for i in range(joints.shape[1])]))
    camera = take.camera()
    optional = {"focal_px": camera["focal_px"][:count].astype(np.float64), "principal_px": camera["principal_px"][:count].astype(np.float64)}
    if take.has(group, "keypoints_px", stage):
        optional["keypoints_px"] = np.where(there[:, None, None], np.asarray(take.by_sample(group, "keypoints_px", stage)[:count], np.float64), np.nan)
    if take.has(group, "landmarks_px", "track") and names == KEYPOINTS:
        optional["landmarks_px"] = _landmarks(take, person)[:count, LANDMARKS].astype(np.float64)
    rest = body.get("rest_vertices_m")
    if rest is not None:
        optional["height_px"] = np.ptp(rest[:, 1]) * optional["focal_px"] / np.where(there & (root[:, 2] > 0), root[:, 2], np.nan)
    if take.has(group, "contact", stage):
        optional["contact"] = np.where(there[:, None], np.asarray(take.by_sample(group, "contact", stage)[:count], np.float64), np.nan)
        optional["contact_names"] = FEET
    clip, frames = take.clip, np.array(take.frames[:count])
    cuts = tuple(int(c) for c in np.unique(np.searchsorted(frames, clip.get("shots") or [clip["start"]])) if 0 < c < count)
    return Motion(joints, clip["fps"][0] / clip["fps"][1] / clip["step"], names, frames, cuts, TakeVertices(vertices, root), body.get("faces"), rest,
                  still=_still(take, count), **optional)


def _landmarks(take: Take, person: int) -> np.ndarray:
    """(T, 33, 3) as tracked, but with left and right put right where the fit did so: it did not follow them where they were exchanged."""
    known = observations.survey(take, person, take.clip.get("shots") or ())
    pixels, metres = (np.array(take.read(f"people/{person}", name, "track")) for name in ("landmarks_px", "landmarks_m"))
    pixels, metres = flips.repair_parts(pixels, metres, known.swapped)
    pixels[known.flipped] = flips.repair(pixels[known.flipped], metres[known.flipped])[0]
    return pixels


def _still(take: Take, count: int) -> np.ndarray:
    """(count,) bool: whether the camera stood still since the sample before; assumed where the take does not know."""
    if not take.has("camera_motion", "moving"):
        return np.ones(count, bool)
    moving = np.asarray(take.read("camera_motion", "moving")[:count], np.float64)
    still = np.ones(count, bool)
    still[: len(moving)] = ~(np.nan_to_num(moving, nan=0.0) > STILL_PX)
    return still
