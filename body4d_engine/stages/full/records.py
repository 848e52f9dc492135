# SPDX-License-Identifier: Apache-2.0
"""Writes one person's MHR bodies into a take, sample after sample; what lies between two that were measured is interpolated."""

import numpy as np

from ...errors import Body4DError
from ...imports.mhr70 import MHR70
from ...take import State, Take
from ...take_arrays import Earlier

FOUND = {"root": 3, "params": 204, "shape": 45, "scale": 28, "hands": 108}  # what a network says; all else follows from it
POINTS = {"joints": (127, 3), "rotations": (127, 4), "keypoints_m": (70, 3), "keypoints_px": (70, 3)}
AT_ONCE = 32  # samples that are filled in together
NEAREST_M = 0.05
NEVER_SEEN_DEPTH_M = 4.0


class Records:
    """Records of the samples of `span`, [begin, stop), one after the other. figure: a `models.sam_3d_body.figure.Figure`; state (T,); cuts: samples that begin
    a shot; focal (T,) and centre (T, 2) px."""

    def __init__(self, take: Take, person: int, stage: str, figure, span: tuple[int, int], state: np.ndarray, cuts: np.ndarray, focal: np.ndarray,
                 centre: np.ndarray):
        self.take, self.person, self.group, self.stage, self.span = take, person, f"people/{person}", stage, span
        self._figure, self.state, self._cuts, self._focal, self._centre = figure, state, cuts, focal, centre
        self.shapes = {"vertices": (figure.mhr.vertex_count, 3), "state": (), "confidence": (), **{name: (size,) for name, size in FOUND.items()}, **POINTS}
        for name, shape in self.shapes.items():
            take.create_array(self.group, name, "u1" if name == "state" else "f4", shape, pc2=name == "vertices", span=span)
        self._last = None
        if self.next > span[0]:
            self._last = {name: np.array(take.by_sample(self.group, name, stage)[self.next - 1]) for name in self.shapes}

    @property
    def next(self) -> int:
        """The sample that is to be written next."""
        return self.span[0] + self.take.count(self.group, "state", self.stage)

    def write_body(self, at_rest: dict[str, np.ndarray]) -> None:
        """The body file, of what `Figure.rest` gives."""
        self.take.write_npz(f"{self.group}/body.{self.stage}.npz", keypoint_names=np.array(MHR70), **at_rest)

    def measured(self, sample: int, record: dict[str, np.ndarray], trust: np.ndarray, confidence: float) -> None:
        """What was found in one sample, a later one than the last: `FOUND` and what `Figure` makes of it. trust (70,): of the keypoints."""
        record = {**{name: record[name] for name in self.shapes if name in record}, "state": self.state[sample], "confidence": np.float32(confidence)}
        record["keypoints_px"] = np.column_stack([self.pixels(sample, record["keypoints_m"], record["root"]), trust]).astype(np.float32)
        self._fill(sample, record)
        self._append({name: np.asarray(values)[None] for name, values in record.items()})
        self._last = record

    def finish(self) -> None:
        """Fill in what comes after the last sample that was measured."""
        if self._last is None and self.span[0] < self.span[1]:
            params, shape = self._figure.average, np.zeros(FOUND["shape"], np.float32)
            found = {name: np.zeros(size, np.float32) for name, size in FOUND.items()} | {"params": params, "root": np.float32([0, 0, NEVER_SEEN_DEPTH_M])}
            self._last = found | {name: values[0] for name, values in self._figure.posed(params[None], shape[None]).items()}
        self._fill(self.span[1], None)

    def copy(self, earlier: Earlier, begin: int, stop: int) -> None:
        """Write the next samples, [begin, stop), as they are in an earlier result."""
        for name in self.shapes:
            self.take.append(self.group, name, earlier.by_sample(self.group, name)[begin:stop])

    def pixels(self, sample: int, points: np.ndarray, root: np.ndarray) -> np.ndarray:
        """(N, 2) px of points (N, 3) in person space."""
        seen = points.astype(np.float64) + root
        return self._focal[sample] * seen[:, :2] / np.maximum(seen[:, 2:], NEAREST_M) + self._centre[sample]

    def _fill(self, stop: int, after: dict | None) -> None:
        """Samples up to `stop`, which shows `after`. Over a cut, and past an absence, nobody is followed: there a body stays as it was, or is as it will be."""
        begin, before = self.next, self._last
        absent = begin + 1 + np.flatnonzero(self.state[begin:stop] == State.ABSENT)
        walls = [*absent, *self._cuts[(self._cuts >= begin) & (self._cuts <= stop)]]
        turn = begin if before is None else stop if after is None else max(walls, default=None)
        for first in range(begin, stop, AT_ONCE):
            samples = np.arange(first, min(first + AT_ONCE, stop))
            if turn is None:
                records = self._between(before, after, (samples - begin + 1) / (stop - begin + 1))
            else:
                early = int((samples < turn).sum())
                shown = [before] * early + [after] * (len(samples) - early)
                records = {name: np.stack([record[name] for record in shown]) for name in self.shapes if name in shown[0]}
            self.write(records, self.state[samples], np.zeros(len(samples)), np.zeros((len(samples), 70)))

    def write(self, records: dict[str, np.ndarray], state: np.ndarray, confidence: np.ndarray, trust: np.ndarray) -> None:
        """The next N samples: `FOUND` and what `Figure` makes of it, N rows of each; state (N,), confidence (N,), trust (N, 70) of the keypoints."""
        samples = np.arange(self.next, self.next + len(state))
        pixels = [self.pixels(sample, *points) for sample, *points in zip(samples, records["keypoints_m"], records["root"])]
        self._append({**records, "state": state, "confidence": confidence, "keypoints_px": np.concatenate([pixels, trust[..., None]], axis=2)})

    def _between(self, before: dict, after: dict, share: np.ndarray) -> dict[str, np.ndarray]:
        found = {name: (before[name] + share[:, None] * (after[name] - before[name])).astype(np.float32) for name in FOUND}
        found["params"] = self._figure.angles.between(before["params"], after["params"], share)
        return found | self._figure.posed(found["params"], found["shape"])

    def _append(self, records: dict[str, np.ndarray]) -> None:
        for name in self.shapes:
            if not np.isfinite(records[name]).all():
                raise Body4DError(f"The body of person {self.person} at frame {self.take.frames[self.next]} came out without numbers ({name}, stage "
                                  f"{self.stage}).", "Leave the frame out with --start and --end, and report the clip.", "body_not_finite")
        for name in self.shapes:
            self.take.append(self.group, name, records[name])
