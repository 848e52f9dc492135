# SPDX-License-Identifier: Apache-2.0
"""Whether everyone keeps their identity: the take's people against the true ones, by boxes or masks."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..errors import Body4DError
from ..imports.label_png import read_label_png
from ..take import State, Take
from .base import Metric, Result
from .reading import Npz

LEAST_IOU = 0.5
LEAST_VISIBILITY = 0.2  # whoever shows less of themselves need not be found, and may be


@dataclass(frozen=True)
class Truth:
    """Who truly is where. frames (T,) of the clip; ids (P,); boxes (T, P, 4) x0, y0, x1, y1 px, NaN where absent; visibility (T, P) 0..1 share of
    the person that is seen; masks: the folder of label PNGs (pixel = id, 0 nobody) named by their frame, or None."""

    frames: np.ndarray
    ids: np.ndarray
    boxes: np.ndarray
    visibility: np.ndarray
    masks: Path | None = None

    @cached_property
    def mask_files(self) -> dict[int, Path]:
        """The label PNG of each frame."""
        return {int(path.stem): path for path in sorted(self.masks.glob("*.png")) if path.stem.isdigit()} if self.masks else {}


def read_truth(path) -> Truth:
    """Raises Body4DError, naming the array, for whatever is missing, of the wrong shape or kind, or impossible."""
    file = Npz(path, "tracking truth")
    file.need("frames", "ids", "boxes")
    frames, ids = file.frames(), file.numbers("ids", ("P",))
    if not len(ids) or len(np.unique(ids)) != len(ids) or (ids != np.round(ids)).any():
        raise file.error("ids has to hold different whole numbers, at least one.")
    boxes = file.numbers("boxes", (len(frames), len(ids), 4), nan=True)
    there = np.isfinite(boxes).all(-1)
    if not there.any():
        raise file.error("nobody is anywhere: boxes is NaN throughout.", "not_finite")
    if ((boxes[..., 2:] < boxes[..., :2]).any(-1) & there).any():
        raise file.error("a box ends before it begins: boxes holds x0, y0, x1, y1.")
    visibility = file.numbers("visibility", (len(frames), len(ids)), nan=True)
    if visibility is not None and ((visibility < 0) | (visibility > 1)).any():
        raise file.error("visibility has to lie between 0 and 1.")
    masks = None
    if "masks" in file.arrays:
        masks = file.path.parent / str(file.arrays["masks"])
        if not masks.is_dir():
            raise file.error(f"its masks are not at {masks}.", "incomplete")
    return Truth(frames, ids.astype(int), boxes, np.nan_to_num(np.ones(there.shape) if visibility is None else visibility), masks)


@dataclass(frozen=True)
class Overlap:
    """What the metrics work on: iou (T, P, Q) of true person and found person; true (T, P) and found (T, Q) bool, who counts; by: boxes, masks;
    frames (T,) of the clip."""

    iou: np.ndarray
    true: np.ndarray
    found: np.ndarray
    by: str = "boxes"
    frames: np.ndarray | None = None

    @classmethod
    def of(cls, iou, true, found, hidden=None, unsure=None, by="boxes", frames=None, least_iou: float = LEAST_IOU) -> "Overlap":
        """hidden (T, P) bool: true people that need not be found; whoever was found on one of them and on nobody else does not count.
        unsure (T, Q) bool: found people that the take itself calls not seen; they count only on a true person."""
        near = iou >= least_iou
        on_true = (near & true[:, :, None]).any(1)
        drop = np.zeros_like(found)
        if hidden is not None:
            drop |= (near & hidden[:, :, None]).any(1) & ~on_true
        if unsure is not None:
            drop |= unsure & ~on_true
        return cls(iou, true, found & ~drop, by, frames)


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(T, P, Q) intersection over union of boxes (T, P, 4) and (T, Q, 4); 0 where one is NaN."""
    a, b = a[:, :, None], b[:, None]
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    shared = np.nan_to_num(sides.prod(-1))
    return shared / np.maximum(np.nan_to_num((a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)) - shared, 1e-9)


def overlap(take: Take, truth: Truth, by: str = "boxes", least_visibility: float = LEAST_VISIBILITY) -> Overlap:
    """The take's tracked people against the truth at the samples whose frame the truth knows. Raises Body4DError where there are none."""
    ids = [entry["id"] for entry in take.people]
    frames = np.array(take.frames)
    row = np.searchsorted(truth.frames, frames).clip(0, len(truth.frames) - 1)
    samples = np.flatnonzero(truth.frames[row] == frames)
    if not len(samples):
        raise Body4DError(f"The tracking truth is of the frames {truth.frames[0]} to {truth.frames[-1]}, and {take.path.name} has none of them.",
                          "Frames are counted from 0 in the whole clip.", "tracking_no_frames")
    row = row[samples]
    state = np.stack([np.asarray(take.read(f"people/{n}", "state", "track"))[samples] for n in ids], 1) if ids else np.zeros((len(samples), 0), np.uint8)
    there = np.isfinite(truth.boxes[row]).all(-1)
    seen = there & (truth.visibility[row] >= least_visibility)
    found, unsure = state != State.ABSENT, state == State.OCCLUDED
    if by == "masks":
        iou = _mask_iou(take, truth, ids, samples, found)
    else:
        boxes = np.stack([np.asarray(take.read(f"people/{n}", "box", "track"), np.float64)[samples] for n in ids], 1) if ids else np.zeros((len(samples), 0, 4))
        iou = box_iou(truth.boxes[row], np.where(found[..., None], boxes, np.nan))
    return Overlap.of(iou, seen, found, there & ~seen, unsure, by, frames[samples])


def _mask_iou(take: Take, truth: Truth, ids: list[int], samples: np.ndarray, found: np.ndarray) -> np.ndarray:
    iou, shape = np.zeros((len(samples), len(truth.ids), len(ids))), (take.clip["height"], take.clip["width"])
    for i, sample in enumerate(samples):
        frame = take.frames[sample]
        if frame not in truth.mask_files:
            raise Body4DError(f"There is no mask of frame {frame} in {truth.masks}.", "Masks are named by their frame: 00000012.png.", "tracking_incomplete")
        labels = read_label_png(truth.mask_files[frame])
        if labels.shape != shape:
            raise Body4DError(f"{truth.mask_files[frame]} has {labels.shape[1]} x {labels.shape[0]} px and the clip {shape[1]} x {shape[0]}.",
                              "Masks have to be as large as the clip's frames.", "tracking_wrong")
        area = np.bincount(labels.ravel(), minlength=256)[truth.ids]
        for q in np.flatnonzero(found[i]):
            mask = take.mask(ids[q], sample, "track")
            shared = np.bincount(labels[mask], minlength=256)[truth.ids]
            iou[i, :, q] = shared / np.maximum(area + mask.sum() - shared, 1)
    return iou


@dataclass(frozen=True)
class IDF1(Metric):
    """2 IDTP / (2 IDTP + IDFP + IDFN), after every true person was paired with at most one found person over the whole clip so that IDTP, the
    number of samples in which a pair overlaps by at least least_iou, is largest.

    Source: Ristani et al. 2016. Whose name ends in _masks: by masks instead of boxes.
    """

    by: str = "boxes"
    least_iou: float = LEAST_IOU
    unit: ClassVar[str] = "0..1"
    meaning: ClassVar[str] = "How much of the clip everyone was found under one and the same id; 1 is perfect."
    stem: ClassVar[str] = "idf1"

    @property
    def name(self) -> str:
        return self.stem + ("_masks" if self.by == "masks" else "")

    def __call__(self, overlap: Overlap) -> Result:
        true, found = int(overlap.true.sum()), int(overlap.found.sum())
        if not true:
            return self.undefined("nobody is visible in the truth")
        together = ((overlap.iou >= self.least_iou) & overlap.true[:, :, None] & overlap.found[:, None]).sum(0)
        hits = int(together[linear_sum_assignment(together, maximize=True)].sum())
        return self.result(2 * hits / (true + found), len(overlap.true), note=f"{hits} right, {found - hits} wrong, {true - hits} missed")


@dataclass(frozen=True)
class IDSwitches(IDF1):
    """How often a true person is matched to another found person than when it was last matched (`match`). Source: Bernardin and Stiefelhagen 2008."""

    unit: ClassVar[str] = "switches"
    meaning: ClassVar[str] = "How often a person's id changes to another."
    stem: ClassVar[str] = "id_switches"

    def __call__(self, overlap: Overlap) -> Result:
        switches = match(overlap, self.least_iou).switches
        where = [str(i if overlap.frames is None else overlap.frames[i]) for i in np.flatnonzero(switches)]
        note = f"at frame {', '.join(where[:8])}{', ...' if len(where) > 8 else ''}" if where else ""
        return self.result(switches.sum(), len(switches), note=note)


@dataclass(frozen=True)
class MOTA(IDF1):
    """1 - (misses + false positives + switches) / (true people in all samples), after `match`. Source: Bernardin and Stiefelhagen 2008 (CLEAR MOT)."""

    meaning: ClassVar[str] = "Share of people found without a miss, a false find or a switch; 1 is perfect, it can be below 0."
    stem: ClassVar[str] = "mota"

    def __call__(self, overlap: Overlap) -> Result:
        true = int(overlap.true.sum())
        if not true:
            return self.undefined("nobody is visible in the truth")
        found = match(overlap, self.least_iou)
        misses, wrong, switches = int(found.misses.sum()), int(found.wrong.sum()), int(found.switches.sum())
        return self.result(1 - (misses + wrong + switches) / true, len(overlap.true), note=f"{misses} missed, {wrong} false, {switches} switches, of {true}")


@dataclass(frozen=True)
class Matches:
    """Per sample (T,): true people without a find, finds without a true person, switches of id."""

    misses: np.ndarray
    wrong: np.ndarray
    switches: np.ndarray


def match(overlap: Overlap, least_iou: float = LEAST_IOU) -> Matches:
    """Sample by sample: pairs of the sample before are kept while they overlap enough, the rest is matched one to one by the largest sum of IoU."""
    samples, people = overlap.true.shape
    misses, wrong, switches = (np.zeros(samples, int) for _ in range(3))
    before, last = np.full(people, -1), np.full(people, -1)
    for t in range(samples):
        possible = (overlap.iou[t] >= least_iou) & overlap.true[t][:, None] & overlap.found[t]
        pairs = np.full(people, -1)
        for p in np.flatnonzero(before >= 0):
            if possible[p, before[p]]:
                pairs[p] = before[p]
        rest_p, rest_q = np.flatnonzero(pairs < 0), np.setdiff1d(np.arange(possible.shape[1]), pairs)
        open_pairs = possible[np.ix_(rest_p, rest_q)]
        gain = np.where(open_pairs, 1.0 + overlap.iou[t][np.ix_(rest_p, rest_q)], 0.0)
        for p, q in zip(*linear_sum_assignment(gain, maximize=True), strict=True):
            if open_pairs[p, q]:
                pairs[rest_p[p]] = rest_q[q]
        matched = pairs >= 0
        switches[t] = (matched & (last >= 0) & (last != pairs)).sum()
        misses[t], wrong[t] = (overlap.true[t] & ~matched).sum(), overlap.found[t].sum() - matched.sum()
        last = np.where(matched, pairs, last)
        before = pairs
    return Matches(misses, wrong, switches)
