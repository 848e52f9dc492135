# SPDX-License-Identifier: Apache-2.0
"""Judges a take of the shipped clip by what is true of it. Limits are wide: another body model, another focal length and clothes all shift joints a little;
what is mixed up, of the wrong size, or another person's is far outside."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..examining import SET_UP, Check
from ..metrics.base import Motion
from ..metrics.people import motion_of
from ..metrics.reference import Reference, read_reference
from ..take import State, Take

SEEN = 0.9  # share of samples
OVERLAP = 0.75  # median overlap (IoU) of boxes
FILLED = 0.2, 0.8  # share of its box that a person's mask fills
OFF = 0.05  # of the person's height in the picture: distance of joints in it
APART_M = 0.15  # of joints in space, from the hips' middle
SIDES = 0.9  # share of samples in which a pair lies the right way round
GRASP_M = 0.3  # from a wrist to its fingers
HEIGHTS_M = 1.4, 2.1
TALLER = 0.8, 1.25  # times the true height
UNEVEN = 0.1  # of a bone's length: how much left and right differ
FOCAL, DISTANCE = (0.6, 1.6), (0.75, 1.33)  # times the true one; of the distance in focal lengths
PAIRS = ("eye", "shoulder", "elbow", "wrist", "hip", "knee", "ankle", "big_toe")
AHEAD = (("nose", ("left_ear", "right_ear")), ("left_big_toe", ("left_heel",)), ("right_big_toe", ("right_heel",)))
BONES = (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
FINGERS = ("thumb", "index", "middle", "ring", "pinky")
REPORT = f"Verify the weights ({SET_UP} --only weights); if their checksums are right, report this with what `body4d doctor --verify --json` prints."


@dataclass(frozen=True)
class Truth:
    """reference: joints and camera; boxes (T, 4) px; height_m."""

    reference: Reference
    boxes: np.ndarray
    height_m: float


def read_truth(file: Path) -> Truth:
    with np.load(file) as data:
        return Truth(read_reference(file), data["boxes"].astype(np.float64), float(data["height_m"]))


def tracked(name: str, take: Take, truth: Truth) -> Check:
    """Whether `track` found the person where they are."""
    person = _person(take, truth)
    overlap, seen = _overlap(take, person, truth), np.asarray(take.read(f"people/{person}", "state", "track")) == State.VISIBLE
    boxes = _boxes(take, person)[seen]
    filled = np.median([take.mask(person, sample, "track").sum() for sample in np.flatnonzero(seen)] / _area(boxes)) if seen.any() else 0.0
    found = f"seen in {seen.sum()} of {len(seen)} frames, boxes overlap by {overlap:.0%}, the mask fills {filled:.0%} of its box"
    if seen.mean() < SEEN or overlap < OVERLAP or not FILLED[0] <= filled <= FILLED[1]:
        return Check(name, "wrong", f"{found} (at least {SEEN:.0%} of frames, {OVERLAP:.0%}, and {FILLED[0]:.0%} to {FILLED[1]:.0%} are right)", REPORT)
    if len(take.people) > 1:
        return Check(name, "note", f"{found}; and {len(take.people) - 1} where nobody is", "Click people in clips where this happens.")
    return Check(name, "ok", found)


def bodies(take: Take, truth: Truth) -> Iterator[Check]:
    """Whether the person's bodies are right."""
    yield from judged(motion_of(take, _person(take, truth)), truth)


def judged(motion: Motion, truth: Truth) -> Iterator[Check]:
    """motion: as the take has it, all of its joints."""
    ours, true = truth.reference.beside(motion)
    missing = [_plain(name) for name in truth.reference.names if name not in ours.names]
    if missing or not np.isfinite(ours.joints_m).all():
        yield Check("clip: joints", "wrong", f"there is no {', '.join(missing)}" if missing else "the person is absent in some frames", REPORT)
        return
    yield _reprojection(ours, true, truth)
    yield _sides(motion, ours, true)
    yield _upright(ours, true, truth)
    yield _space(ours, true)
    yield _size(motion, ours, truth)
    yield _distance(ours, true)


def _reprojection(ours: Motion, true: Motion, truth: Truth) -> Check:
    tall = (truth.boxes[:, 3] - truth.boxes[:, 1])[:, None]
    off = np.linalg.norm(ours.pixels() - true.pixels(), axis=-1) / tall
    off = np.where(np.isfinite(off), off, np.inf)  # behind the camera
    median, worst = float(np.median(off.mean(1))), float(np.median(off, 0).max())
    name = ours.names[int(np.median(off, 0).argmax())]
    return _limited("clip: reprojection", median <= OFF and worst <= 2 * OFF, f"joints lie {median:.1%} of the person's height off in the picture, the "
                    f"{_plain(name)} {worst:.1%}", f"at most {OFF:.0%} and {2 * OFF:.0%}")


def _sides(motion: Motion, ours: Motion, true: Motion) -> Check:
    """The signed test: what points from right to left, and from back to front, points the same way in truth."""
    shares = {}
    for part in PAIRS:
        shares[part] = _same_way(*(one.of(f"left_{part}") - one.of(f"right_{part}") for one in (ours, true)))
    for front, back in AHEAD:
        shares[f"{_plain(front)} (front and back)"] = _same_way(*(one.of(front)[:, 0] - one.of(*back).mean(1) for one in (ours, true)))
    for side, other in (("left", "right"), ("right", "left")):
        tips = motion.of(*(name for name in motion.names if name.startswith(tuple(f"{side}_{finger}" for finger in FINGERS))))
        if tips.shape[1]:
            own, far = (np.linalg.norm(tips - motion.of(f"{one}_wrist"), axis=-1).max(1) for one in (side, other))
            shares[f"{side} fingers"] = float(((own < GRASP_M) & (own < far)).mean())
    wrong = [f"{_plain(part)} {share:.0%}" for part, share in shares.items() if share < SIDES]
    return _limited("clip: left and right, front and back", not wrong, "exchanged: the right way round only in so many frames: " + ", ".join(wrong) if wrong
                    else f"the right way round in {min(shares.values()):.0%} of frames or more", f"at least {SIDES:.0%}")


def _same_way(ours: np.ndarray, true: np.ndarray) -> float:
    return float(((ours * true).sum(-1) > 0).mean())


def _upright(ours: Motion, true: Motion, truth: Truth) -> Check:
    down = [one[..., 1].mean(1) for one in (ours.of("left_eye", "right_eye"), ours.of("left_shoulder", "right_shoulder"), ours.of("left_hip", "right_hip"),
                                            ours.of("left_ankle", "right_ankle"))]
    share = float((np.diff(down, axis=0) > 0).all(0).mean())
    feet = [ours.names.index(f"{side}_{part}") for side in ("left", "right") for part in ("big_toe", "heel")]
    off = np.abs(ours.pixels()[:, feet, 1].max(1) - truth.boxes[:, 3]) / (truth.boxes[:, 3] - truth.boxes[:, 1])
    off = float(np.median(np.where(np.isfinite(off), off, np.inf)))
    found = f"head above hips above feet in {share:.0%} of frames, the lower foot {off:.1%} of the height from the person's lower edge"
    return _limited("clip: upright, feet at the bottom", share >= SEEN and off <= 2 * OFF, found, f"at least {SEEN:.0%}, and at most {2 * OFF:.0%}")


def _space(ours: Motion, true: Motion) -> Check:
    off = np.linalg.norm((ours.joints_m - ours.root()[:, None]) - (true.joints_m - true.root()[:, None]), axis=-1)
    mean = float(off.mean())
    return _limited("clip: pose in space", mean <= APART_M, f"joints lie {mean * 100:.1f} cm off, seen from the hips", f"at most {APART_M * 100:g} cm")


def _size(motion: Motion, ours: Motion, truth: Truth) -> Check:
    height = float(np.ptp(motion.rest_vertices_m[:, 1]))
    uneven = {}
    for upper, lower in BONES:
        left, right = (np.median(np.linalg.norm(ours.of(f"{side}_{upper}") - ours.of(f"{side}_{lower}"), axis=-1)) for side in ("left", "right"))
        uneven[f"{upper} to {lower}"] = float(abs(left - right) / max(left, right, 1e-9))
    bone = max(uneven, key=uneven.get)
    low, high = max(HEIGHTS_M[0], TALLER[0] * truth.height_m), min(HEIGHTS_M[1], TALLER[1] * truth.height_m)
    found = f"{height:.2f} m tall standing (truly {truth.height_m:.2f}), left and right differ by {uneven[bone]:.1%} from {bone}"
    return _limited("clip: size", low <= height <= high and uneven[bone] <= UNEVEN, found, f"{low:.2f} to {high:.2f} m, and at most {UNEVEN:.0%}")


def _distance(ours: Motion, true: Motion) -> Check:
    focal = float(np.median(ours.focal_px / true.focal_px))
    far = float(np.median(ours.root()[:, 2] / true.root()[:, 2])) / focal
    found = f"the focal length is {focal:.2f} times the true one, the distance {far:.2f} times what goes with it"
    return _limited("clip: camera and distance", FOCAL[0] <= focal <= FOCAL[1] and DISTANCE[0] <= far <= DISTANCE[1], found,
                    f"{FOCAL[0]:g} to {FOCAL[1]:g}, and {DISTANCE[0]:g} to {DISTANCE[1]:g}")


def _limited(name: str, right: bool, found: str, limit: str) -> Check:
    return Check(name, "ok", found) if right else Check(name, "wrong", f"{found} ({limit} would be right)", REPORT)


def _person(take: Take, truth: Truth) -> int:
    """Whoever is most where the person is."""
    return max((entry["id"] for entry in take.people), key=lambda number: _overlap(take, number, truth))


def _boxes(take: Take, person: int) -> np.ndarray:
    return np.asarray(take.read(f"people/{person}", "box", "track"), np.float64)


def _overlap(take: Take, person: int, truth: Truth) -> float:
    """The median over samples of the intersection over union of boxes."""
    boxes, true = _boxes(take, person), truth.boxes
    both = np.prod(np.maximum(np.minimum(boxes[:, 2:], true[:, 2:]) - np.maximum(boxes[:, :2], true[:, :2]), 0), axis=1)
    return float(np.median(both / (_area(boxes) + _area(true) - both)))


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)


def _plain(name: str) -> str:
    return name.replace("_", " ")
