# SPDX-License-Identifier: Apache-2.0
"""What a metric takes and what it gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

HIPS = ("left_hip", "right_hip")
MM = 1000.0


@dataclass(frozen=True)
class Motion:
    """One person's motion, as a take or a reference has it. Sample i of everything is the same moment.

    joints_m (T, J, 3) metres, camera frame (x right, y down, z forward), NaN where absent or not known; fps samples per second; names (J,);
    frames (T,) clip frames (default 0, 1, 2, ...); cuts: samples at which another shot begins, over which no difference is taken;
    vertices_m: indexed by sample gives (V, 3) in the camera frame (an array (T, V, 3), or something that reads them); faces (F, 3);
    rest_vertices_m (V, 3); contact (T, C) 0..1, NaN not known, and contact_names (C,), names of joints; still (T,) bool: whether the camera stood
    still since the sample before (default: always); keypoints_px, landmarks_px (T, J, 2 or 3) x, y px (and trust 0..1) of the joints as they
    project and as the tracker saw them, the right way round where it took left for right; height_px (T,) how many px tall the person would
    stand there; focal_px (T,) and principal_px (T, 2) of the camera.
    """

    joints_m: np.ndarray
    fps: float
    names: tuple[str, ...] = ()
    frames: np.ndarray | None = None
    cuts: tuple[int, ...] = ()
    vertices_m: Sequence | None = None
    faces: np.ndarray | None = None
    rest_vertices_m: np.ndarray | None = None
    contact: np.ndarray | None = None
    contact_names: tuple[str, ...] = ()
    still: np.ndarray | None = None
    keypoints_px: np.ndarray | None = None
    landmarks_px: np.ndarray | None = None
    height_px: np.ndarray | None = None
    focal_px: np.ndarray | None = None
    principal_px: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.joints_m)

    @property
    def present(self) -> np.ndarray:
        """(T,) bool: at least one joint is known."""
        return np.isfinite(self.joints_m).all(-1).any(-1)

    def of(self, *names: str) -> np.ndarray | None:
        """Those joints (T, len(names), 3), or None where one of them has no name here."""
        return self.joints_m[:, [self.names.index(n) for n in names]] if set(names) <= set(self.names) else None

    def root(self) -> np.ndarray:
        """(T, 3) the middle of the hips; without named hips the mean of all joints; NaN where one of them is not known."""
        hips = self.of(*HIPS)
        points = self.joints_m if hips is None else hips
        return points.mean(1) if points.shape[1] else np.full((len(points), 3), np.nan)

    def pixels(self) -> np.ndarray:
        """(T, J, 2) px of the joints through the motion's camera."""
        depth = np.where(self.joints_m[..., 2:] > 0, self.joints_m[..., 2:], np.nan)
        return self.focal_px[:, None, None] * self.joints_m[..., :2] / depth + self.principal_px[:, None]

    def difference(self, order: int, points: np.ndarray | None = None) -> np.ndarray:
        """(T - order, ...) the order-th difference of points (T, ..., 3) (default: the joints) between neighbouring samples, NaN over a cut."""
        points = self.joints_m if points is None else points
        out = np.diff(np.asarray(points, np.float64), order, axis=0)
        for cut in self.cuts:
            out[max(cut - order, 0) : cut] = np.nan
        return out


@dataclass(frozen=True)
class Result:
    """One number. value NaN where it is not defined (`note` says why); count: over how many samples, or other things if the note says so;
    per_sample (T,) in the same unit, NaN where it is not defined at that sample, or None for a number that belongs to no sample."""

    name: str
    value: float
    unit: str
    meaning: str
    count: int
    person: int | None = None
    per_sample: np.ndarray | None = None
    note: str = ""

    @property
    def defined(self) -> bool:
        return bool(np.isfinite(self.value))

    def to_json(self, per_sample: bool = False) -> dict:
        """JSON-able; null for what is not defined."""
        out = {"name": self.name, "person": self.person, "value": float(self.value) if self.defined else None, "unit": self.unit, "count": self.count,
               "meaning": self.meaning, "note": self.note}
        if per_sample and self.per_sample is not None:
            out["per_sample"] = [float(v) if np.isfinite(v) else None for v in self.per_sample]
        return out


class Metric:
    """One number: an object that is called with a Motion (and, to compare, with the true Motion at the same samples) and gives a Result.

    Subclasses are dataclasses whose fields are the thresholds. `meaning` is one sentence for people.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    meaning: ClassVar[str]

    def result(self, value: float, count: int, per_sample: np.ndarray | None = None, note: str = "") -> Result:
        return Result(self.name, float(value), self.unit, self.meaning, int(count), None, per_sample, note)

    def undefined(self, why: str) -> Result:
        return self.result(np.nan, 0, note=f"not defined: {why}")

    def mean_of(self, per_sample: np.ndarray, why_none: str = "nobody is there for long enough", note: str = "") -> Result:
        """The mean over the samples that have a number."""
        known = np.isfinite(per_sample)
        if not known.any():
            return self.undefined(why_none)
        return self.result(per_sample[known].mean(), known.sum(), per_sample, note)


def nanmean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean of what is not NaN along an axis, NaN where all is, without numpy's warning."""
    known = np.isfinite(values)
    count = known.sum(axis)
    return np.where(count, np.where(known, values, 0).sum(axis) / np.maximum(count, 1), np.nan)


def placed(values: np.ndarray, count: int, first: int) -> np.ndarray:
    """(count,) values from sample `first` on, NaN before and behind."""
    out = np.full(count, np.nan)
    out[first : first + len(values)] = values
    return out
