# SPDX-License-Identifier: Apache-2.0
"""Whom a click or a box means."""

import numpy as np

from ..models.blazepose import Pose, Roi
from ..people import BoxPrompt, Person, Prompt
from . import search
from .asked import hits_nobody, one_body, where, within
from .tracker import MIN_PRESENCE, Hint, distinct, roi_of, same_body, sureness

BONES = ((11, 12), (11, 13), (13, 15), (12, 14), (14, 16), (11, 23), (12, 24), (23, 24), (23, 25), (25, 27), (24, 26), (26, 28), (0, 11), (0, 12))
NEAR_BONE = 0.12  # body radii from a bone that still count as a click on the person: masks miss thin limbs
MIN_OVERLAP = 0.3  # of a prompt's box with a person's
ZOOMS = (1.0, 0.5, 0.25)  # parts of the picture, around a prompt, in which the detector looks for people too small for it


def hints_of(people: list[Person], frame: int, sample: int, rgb: np.ndarray, detector, landmarker) -> list[Hint]:
    """What all prompts of this frame, which is a sample or near one, say: one hint per person. Raises Body4DError where a prompt hits nobody."""
    hints, taken = [], []
    for person in people:
        prompts = [p for p in person.prompts if p.frame == frame]
        elsewhere = [(p.x, p.y) for p in prompts if isinstance(p, Prompt) and not p.positive]
        wanted = [p for p in prompts if isinstance(p, BoxPrompt) or p.positive]
        pose = _find(person, wanted, elsewhere, rgb, detector, landmarker) if wanted else None
        for other, earlier in taken:
            if pose is not None and same_body(earlier, pose):
                raise one_body(other, person, frame)
        if pose is not None:
            taken.append((person, pose))
        if prompts:
            hints.append(Hint(person.id, sample, pose.next_roi if pose is not None else None, elsewhere))
    return hints


def _find(person: Person, wanted: list, elsewhere: list, rgb: np.ndarray, detector, landmarker) -> Pose:
    height, width = rgb.shape[:2]
    cut = [within(person, prompt, width, height) for prompt in wanted]
    wanted = [BoxPrompt(prompt.frame, *corners) if isinstance(prompt, BoxPrompt) else prompt for prompt, corners in zip(wanted, cut, strict=True)]
    for zoom in ZOOMS:
        poses = _poses(rgb, zoom, wanted[0], detector, landmarker)
        fitting = [(score, pose) for pose in poses if (score := _fit(pose, wanted, elsewhere, width, height)) is not None]
        if fitting:
            return min(fitting, key=lambda pair: pair[0])[1]
    raise hits_nobody(person, where(wanted[0]))


def _poses(rgb: np.ndarray, zoom: float, prompt, detector, landmarker) -> list[Pose]:
    """Everybody in the part of the picture around a prompt; where no one is found in a box, whoever the landmarker sees in it."""
    height, width = rgb.shape[:2]
    box = isinstance(prompt, BoxPrompt)
    x, y = ((prompt.x0 + prompt.x1) / 2, (prompt.y0 + prompt.y1) / 2) if box else (prompt.x, prompt.y)
    w, h = max(1, round(width * zoom)), max(1, round(height * zoom))
    left, top = int(np.clip(x - w / 2, 0, width - w)), int(np.clip(y - h / 2, 0, height - h))
    if zoom == 1:
        found = search.widely(detector, rgb, [], [], [look for look in search.looks_for_newcomers(width, height) if look.turns])
    else:
        found = detector.detect(rgb, (left, top, left + w, top + h))
    squares = [roi_of(d) for d in found]
    if box and not any(_overlap(d.box, [prompt.x0, prompt.y0, prompt.x1, prompt.y1]) >= MIN_OVERLAP for d in found):
        squares.append(Roi(x, y, 1.25 * max(abs(prompt.x1 - prompt.x0), abs(prompt.y1 - prompt.y0))))
    poses = []
    for square in squares:
        pose = landmarker.detect(rgb, square)
        poses.append(max(pose, landmarker.detect(rgb, pose.next_roi), key=sureness))
    return distinct([pose for pose in poses if pose.presence >= MIN_PRESENCE])


def _fit(pose: Pose, wanted: list, elsewhere: list, width: int, height: int) -> float | None:
    """How far a pose is from what the prompts say, smaller is better; None where it contradicts them."""
    if any(pose.mask_at(x, y) > 0 for x, y in elsewhere):
        return None
    total = 0.0
    for prompt in wanted:
        if isinstance(prompt, BoxPrompt):
            overlap = _overlap(pose.box(width, height), [prompt.x0, prompt.y0, prompt.x1, prompt.y1])
            if overlap < MIN_OVERLAP:
                return None
            total += 1 - overlap
        else:
            distance = _to_bones(pose, prompt.x, prompt.y)
            if pose.mask_at(prompt.x, prompt.y) <= 0 and distance > NEAR_BONE:
                return None
            total += distance
    return total


def _to_bones(pose: Pose, x: float, y: float) -> float:
    """Distance of a point from the nearest bone, in body radii."""
    a, b = (pose.landmarks_px[[bone[k] for bone in BONES], :2].astype(np.float64) for k in (0, 1))
    along = np.clip(((np.array([x, y]) - a) * (b - a)).sum(1) / np.maximum(((b - a) ** 2).sum(1), 1e-9), 0, 1)
    return float(np.linalg.norm(a + along[:, None] * (b - a) - [x, y], axis=1).min() / (pose.next_roi.size / 2.5))


def _overlap(a, b) -> float:
    """Intersection over union of two boxes x0, y0, x1, y1 (corners of b in any order)."""
    b = [min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])]
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, w) * max(0.0, h)
    return shared / max((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared, 1e-9)
