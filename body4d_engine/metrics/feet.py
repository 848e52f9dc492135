# SPDX-License-Identifier: Apache-2.0
"""Whether planted feet stay where they are.

A foot has two points, heel and big toe. A step is what happens between a sample and the next; a point is planted in a step when it is so at both
ends: by the contacts that come with the motion, else where it is near the floor and slow. All in the camera frame, which is the world's as long
as the camera stands still: steps in which it moved do not count.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import MM, Metric, Motion, Result, nanmean, placed

FEET = ("left_heel", "left_big_toe", "right_heel", "right_big_toe")
SIDES = {"": slice(0, 4), "left": slice(0, 2), "right": slice(2, 4)}
CONTACT = 0.5  # probability from which a point counts as planted
CALM_M_S = 0.3  # points slower than this say where the floor is
FLOOR_SCALE_M = 0.03  # a robust fit's: points this far off the floor count a half
TILT = 0.2  # how steep (rise per run) the floor may be to the camera before it speaks against the fit as much as FLOOR_SCALE_M does


def step_lengths(motion: Motion) -> np.ndarray | None:
    """(T - 1, 4) metres that each foot point moves in each step, NaN where not known or where the camera moved; None without named feet."""
    feet = motion.of(*FEET)
    if feet is None:
        return None
    length = np.linalg.norm(motion.difference(1, feet), axis=-1)
    return length if motion.still is None else np.where(motion.still[1:, None], length, np.nan)


def heights(motion: Motion, calm_m_s: float = CALM_M_S) -> np.ndarray:
    """(T, 4) metres of the foot points above the floor, NaN where there is none to be found.

    The floor is a plane y = a x + b z + c per shot, fitted robustly (iterated weights, Cauchy) to the lowest calm foot point of each sample;
    a and b stay small where the points do not say otherwise.
    """
    feet, out = motion.of(*FEET), np.full((len(motion), 4), np.nan)
    speed = step_lengths(motion) * motion.fps
    calm = np.full((len(motion), 4), np.nan)
    calm[:-1] = speed
    calm[1:] = np.fmin(calm[1:], speed)
    for begin, stop in zip((0, *motion.cuts), (*motion.cuts, len(motion)), strict=True):
        usable = calm[begin:stop] < calm_m_s  # NaN is not
        if usable.any(1).sum() >= 3:
            a, b, c = _plane(feet[begin:stop], usable)
            x, y, z = np.moveaxis(feet[begin:stop], -1, 0)
            out[begin:stop] = (a * x + b * z + c - y) / np.sqrt(1 + a * a + b * b)
    return out


def _plane(feet: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """(3,) a, b, c of the floor under foot points (T, 4, 3), y pointing down."""
    rows = usable.any(1)
    feet, usable = feet[rows], usable[rows]
    centre = np.nanmean(np.where(usable[..., None], feet, np.nan), (0, 1))
    plane = np.array([0.0, 0.0, np.nan])
    prior = np.diag([1 / TILT, 1 / TILT, 0.0])
    for _ in range(20):
        depth = feet[..., 1] - plane[0] * (feet[..., 0] - centre[0]) - plane[1] * (feet[..., 2] - centre[2])
        lowest = np.where(usable, depth, -np.inf).argmax(1)
        point = feet[np.arange(len(feet)), lowest]
        design = np.column_stack([point[:, 0] - centre[0], point[:, 2] - centre[2], np.ones(len(point))])
        plane[2] = np.median(point[:, 1] - design[:, :2] @ plane[:2]) if np.isnan(plane[2]) else plane[2]
        off = (point[:, 1] - design @ plane) / FLOOR_SCALE_M
        weight = 1 / (1 + off**2) / FLOOR_SCALE_M**2
        plane = np.linalg.solve(design.T @ (design * weight[:, None]) + prior.T @ prior, design.T @ (weight * point[:, 1]))
    return np.array([plane[0], plane[1], plane[2] - plane[0] * centre[0] - plane[1] * centre[2]])


def contacts(motion: Motion) -> np.ndarray | None:
    """(T, 4) 0..1 the motion's own contacts of FEET, NaN not known; None where it has none of them."""
    if motion.contact is None or not set(FEET) & set(motion.contact_names):
        return None
    return np.stack([motion.contact[:, motion.contact_names.index(n)] if n in motion.contact_names else np.full(len(motion), np.nan) for n in FEET], 1)


def planted(motion: Motion, height_m: float, speed_m_s: float) -> tuple[np.ndarray, str]:
    """(T - 1, 4) bool: which points are planted in which step; and by what that is known.

    By the motion's contacts; without them where a point is lower than height_m at both ends of the step (as in kimodo `foot_skate.py`) and slower
    than speed_m_s.
    """
    own = contacts(motion)
    if own is not None:
        down, how = np.nan_to_num(own) > CONTACT, "contacts of the take"
        return down[:-1] & down[1:], how
    low = heights(motion) < height_m  # NaN is not
    slow = "" if np.isinf(speed_m_s) else f" and {speed_m_s:g} m/s"
    return low[:-1] & low[1:] & (step_lengths(motion) * motion.fps < speed_m_s), f"below {100 * height_m:g} cm{slow}"


def _why_none(motion: Motion) -> str:
    moved = motion.still is not None and not motion.still[1:].any() and len(motion) > 1
    return "the camera moves" if moved else "no foot is ever planted"


@dataclass(frozen=True)
class FootSliding(Metric):
    """mean over planted foot points and steps of ||x[t+1] - x[t]||, in mm per sample.

    side: "left", "right", or "" for both; height_m, speed_m_s: what is planted where the motion has no contacts (`planted`). per_sample: at t+1,
    the mean over the points planted in the step. Source: GVHMR `compute_foot_sliding`, with heel and toe instead of four SMPL vertices.
    """

    side: str = ""
    height_m: float = 0.05
    speed_m_s: float = 0.6
    unit: ClassVar[str] = "mm/frame"

    @property
    def name(self) -> str:
        return "foot_sliding" + (f"_{self.side}" if self.side else "")

    @property
    def meaning(self) -> str:
        return f"The {self.side} foot alone." if self.side else "How far a foot slides per frame while it stands."

    def __call__(self, motion: Motion) -> Result:
        steps = step_lengths(motion)
        if steps is None:
            return self.undefined("the body has no heels and toes")
        down, how = planted(motion, self.height_m, self.speed_m_s)
        return self.judge(motion, np.where(down, steps * MM, np.nan)[:, SIDES[self.side]], how)

    def judge(self, motion: Motion, slides: np.ndarray, how: str) -> Result:
        """slides (T - 1, points) mm, NaN where not planted."""
        if not np.isfinite(slides).any():
            return self.undefined(_why_none(motion))
        note = "" if self.side else f"planted: {how}"
        return self.result(np.nanmean(slides), np.isfinite(slides).any(1).sum(), placed(nanmean(slides), len(motion), 1), note)


@dataclass(frozen=True)
class SeenFootSliding(FootSliding):
    """`FootSliding` while the tracker's landmark of the point stands still in the picture: asks every result the same, whatever it claims of contacts.

    Still: the landmark's speed, the slope of a line through the samples within reach_s on both sides, is below still_m_s in metres at the
    root's depth, at both ends of the step; its visibility is at least `visible`. A foot that swings straight along the line of sight looks still too.
    """

    still_m_s: float = 0.2
    reach_s: float = 0.1
    visible: float = 0.5
    name: ClassVar[str] = "foot_sliding_seen"
    meaning: ClassVar[str] = "How far a foot slides while its landmark stands still in the picture."

    def __call__(self, motion: Motion) -> Result:
        steps = step_lengths(motion)
        if steps is None or motion.landmarks_px is None or motion.focal_px is None:
            return self.undefined("there are no landmarks of heels and toes")
        points = motion.landmarks_px[:, [motion.names.index(name) for name in FEET]]
        seen = np.where(points[..., 2:] >= self.visible, points[..., :2], np.nan)
        metres = seen * (motion.root()[:, 2] / motion.focal_px)[:, None, None]
        still = np.linalg.norm(slopes(metres, max(1, round(self.reach_s * motion.fps)), motion.cuts), axis=-1) * motion.fps < self.still_m_s
        return self.judge(motion, np.where(still[:-1] & still[1:], steps * MM, np.nan), f"the landmark is slower than {self.still_m_s:g} m/s")


def slopes(points: np.ndarray, reach: int, cuts: tuple[int, ...] = ()) -> np.ndarray:
    """(T, ...) per sample, of the straight lines through each point of (T, ...) and `reach` neighbours on either side; NaN where one is missing."""
    out = np.full(points.shape, np.nan)
    for begin, stop in zip((0, *cuts), (*cuts, len(points)), strict=True):
        if stop - begin > 2 * reach:
            out[begin + reach : stop - reach] = sum(k * (points[begin + reach + k : stop - reach + k] - points[begin + reach - k : stop - reach - k])
                                                    for k in range(1, reach + 1)) / (2 * sum(k * k for k in range(1, reach + 1)))
    return out


@dataclass(frozen=True)
class WorstFootSliding(FootSliding):
    """The largest ||x[t+1] - x[t]|| of a planted foot point in mm per sample. per_sample: of the step that ends there."""

    name: ClassVar[str] = "foot_sliding_worst"
    meaning: ClassVar[str] = "The farthest that a standing foot jumps from one frame to the next."

    def judge(self, motion: Motion, slides: np.ndarray, how: str) -> Result:
        known = np.isfinite(slides).any(1)
        if not known.any():
            return self.undefined(_why_none(motion))
        worst = np.full(len(slides), np.nan)
        worst[known] = np.nanmax(slides[known], 1)
        sample = int(np.nanargmax(worst)) + 1
        frame = sample if motion.frames is None else int(motion.frames[sample])
        return self.result(np.nanmax(worst), known.sum(), placed(worst, len(motion), 1), f"at frame {frame}")


@dataclass(frozen=True)
class SkatingRatio(Metric):
    """share of the steps that a foot point spends on the floor in which it is faster than speed_m_s, in %.

    On the floor: the motion's contacts, else lower than height_m at both ends. Source: kimodo `FootSkateRatio` (after GMD), toes and heels.
    per_sample: at t+1, the share of the points on the floor that skate.
    """

    height_m: float = 0.05
    speed_m_s: float = 0.2
    name: ClassVar[str] = "skating_ratio"
    unit: ClassVar[str] = "%"
    meaning: ClassVar[str] = "How much of the time that feet are on the floor they skate over it."

    def __call__(self, motion: Motion) -> Result:
        steps = step_lengths(motion)
        if steps is None:
            return self.undefined("the body has no heels and toes")
        down, how = planted(motion, self.height_m, np.inf)
        skates = np.where(down & np.isfinite(steps), 100.0 * (steps * motion.fps > self.speed_m_s), np.nan)
        if not np.isfinite(skates).any():
            return self.undefined(_why_none(motion))
        note = f"faster than {self.speed_m_s:g} m/s; on the floor: {how}"
        return self.result(np.nanmean(skates), np.isfinite(skates).any(1).sum(), placed(nanmean(skates), len(motion), 1), note)


@dataclass(frozen=True)
class TrueFootSliding(FootSliding):
    """`FootSliding` while the reference's foot stands: by its contacts, else where its point is slower than still_m_s.

    Source: GVHMR `compute_foot_sliding` (the truth moves less than 1 cm per frame at 30 fps).
    """

    still_m_s: float = 0.3
    name: ClassVar[str] = "foot_sliding_true"
    meaning: ClassVar[str] = "How far a foot slides per frame while the reference's foot stands."

    def __call__(self, motion: Motion, truth: Motion) -> Result:
        steps, theirs, own = step_lengths(motion), step_lengths(truth), contacts(truth)
        if steps is None or (theirs is None and own is None):
            return self.undefined("there are no heels and toes in both")
        if own is not None:
            down = (np.nan_to_num(own) > CONTACT)[:-1] & (np.nan_to_num(own) > CONTACT)[1:]
            return self.judge(motion, np.where(down, steps * MM, np.nan), "contacts of the reference")
        return self.judge(motion, np.where(theirs * truth.fps < self.still_m_s, steps * MM, np.nan), f"the reference is slower than {self.still_m_s:g} m/s")


@dataclass(frozen=True)
class ContactPrecision(Metric):
    """true positives / (true positives + false positives) in %, over samples and the foot points whose contact both know.

    likely: probability from which the motion's contact counts.
    """

    likely: float = CONTACT
    name: ClassVar[str] = "contact_precision"
    unit: ClassVar[str] = "%"
    meaning: ClassVar[str] = "How many of the contacts that were found are true."

    def __call__(self, motion: Motion, truth: Motion) -> Result:
        ours, theirs = contacts(motion), contacts(truth)
        if ours is None or theirs is None:
            return self.undefined(f"the {'reference' if theirs is None else 'take'} has no contacts")
        known = np.isfinite(ours) & np.isfinite(theirs)
        found, true = known & (np.nan_to_num(ours) > self.likely), known & (np.nan_to_num(theirs) > CONTACT)
        base = self.base(found, true)
        if not base.any():
            return self.undefined("there are no such contacts")
        hits = np.where(base, 100.0 * (found & true), np.nan)
        return self.result(np.nanmean(hits), known.any(1).sum(), nanmean(hits), f"{int((found & true).sum())} of {int(base.sum())}")

    def base(self, found: np.ndarray, true: np.ndarray) -> np.ndarray:
        """What the hits are a share of."""
        return found


@dataclass(frozen=True)
class ContactRecall(ContactPrecision):
    """true positives / (true positives + false negatives) in %, as `ContactPrecision`."""

    name: ClassVar[str] = "contact_recall"
    meaning: ClassVar[str] = "How many of the true contacts were found."

    def base(self, found: np.ndarray, true: np.ndarray) -> np.ndarray:
        return true
