# SPDX-License-Identifier: Apache-2.0
"""The true motion of one person, from a file: what it holds is in docs/evaluate.md."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import Body4DError
from .base import Motion, nanmean
from .reading import Npz

FARTHEST_M = 2.0  # nobody's joints are further from the body's middle: more means other units
NEAR_M = 0.05


@dataclass(frozen=True)
class Reference:
    """One person's true motion in the camera frame of the clip.

    joints_m (T, J, 3) metres, NaN not known; names (J,); frames (T,) of the clip; focal_px (T,) and principal_px (T, 2), vertices_m (T, V, 3),
    contact (T, C) with contact_names (C,), each None where the file does not say.
    """

    path: Path
    joints_m: np.ndarray
    names: tuple[str, ...]
    frames: np.ndarray
    focal_px: np.ndarray | None = None
    principal_px: np.ndarray | None = None
    vertices_m: "_Vertices | None" = None
    contact: np.ndarray | None = None
    contact_names: tuple[str, ...] = ()

    def beside(self, motion: Motion) -> tuple[Motion, Motion]:
        """The motion and the truth, both with their common joints, at the motion's samples: what has no counterpart is NaN in the truth.

        Raises Body4DError where they have no joint or no frame in common.
        """
        common = [name for name in motion.names if name in self.names]
        if not common:
            raise Body4DError(f"{self.path} and the take have no joint in common: {_some(self.names)}; {_some(motion.names)}.",
                              "Name the joints as the take does: left_shoulder, right_hip, ...", "reference_no_joints")
        frames = np.arange(len(motion)) if motion.frames is None else motion.frames
        row = np.searchsorted(self.frames, frames).clip(0, len(self.frames) - 1)
        known = self.frames[row] == frames
        if not known.any():
            raise Body4DError(f"{self.path} is of the frames {self.frames[0]} to {self.frames[-1]}, the take of {frames[0]} to {frames[-1]}: none is in both.",
                              "Frames are counted from 0 in the whole clip.", "reference_no_frames")

        def at_samples(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else np.where(known.reshape(-1, *[1] * (values.ndim - 1)), values[row], np.nan)

        ours = replace(motion, joints_m=motion.joints_m[:, [motion.names.index(n) for n in common]], names=tuple(common))
        truth = Motion(at_samples(self.joints_m[:, [self.names.index(n) for n in common]]), motion.fps, tuple(common), frames, motion.cuts,
                       None if self.vertices_m is None else replace(self.vertices_m, rows=row),
                       contact=at_samples(self.contact), contact_names=self.contact_names, still=motion.still,
                       focal_px=at_samples(self.focal_px), principal_px=at_samples(self.principal_px))
        return ours, truth


@dataclass(frozen=True)
class _Vertices:
    """A file's vertices (T, V, 3), brought into the camera frame when asked for: `vertices[sample]` is those of the row `rows[sample]`."""

    stored: np.ndarray
    place: tuple[np.ndarray, np.ndarray]
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, sample: int) -> np.ndarray:
        row = self.rows[sample]
        return self.stored[row] @ self.place[0][row].T + self.place[1][row]


def read_reference(path) -> Reference:
    """Raises Body4DError, naming the array, for whatever is missing, of the wrong shape or kind, not finite, or impossible."""
    file = Npz(path, "reference")
    file.need("joints_m", "joint_names", "frames")
    frames = file.frames()
    count = len(frames)
    joints = file.numbers("joints_m", (count, "J", 3), nan=True).astype(np.float64)
    names = file.texts("joint_names", joints.shape[1])
    known = np.isfinite(joints).all(-1)
    if not known.any():
        raise file.error("no joint is known at any frame: joints_m is NaN throughout.", "not_finite")
    joints[~known] = np.nan
    size = float(np.nanmax(np.linalg.norm(joints - nanmean(joints, 1)[:, None], axis=-1)))
    if size > FARTHEST_M:
        raise file.error(f"a joint lies {size:.4g} m from the middle of its body: joints_m has to be in metres, one person's.", "units")
    vertices = file.numbers("vertices_m", (count, "V", 3))
    place = _camera(file, count)
    joints = joints @ np.swapaxes(place[0], -1, -2) + place[1][:, None]
    behind = np.isfinite(joints[..., 2]) & (joints[..., 2] < NEAR_M)
    if behind.any():
        raise file.error(f"a joint is behind the camera at frame {frames[np.flatnonzero(behind.any(1))[0]]}.", "behind_camera",
                         "The camera frame has x to the right, y down and z forward; R and t take the file's axes there: x_cam = R x + t.")
    matrix = file.numbers("K", (3, 3), (count, 3, 3))
    if matrix is not None and ((matrix[..., 0, 0] <= 0).any() or (matrix[..., 1, 1] <= 0).any() or np.abs(matrix[..., 2, :] - [0, 0, 1]).max() > 1e-6):
        raise file.error("K is not a camera matrix: [[f, 0, cx], [0, f, cy], [0, 0, 1]] in px.")
    contact = file.numbers("contact", (count, "C"), nan=True)
    if contact is not None:
        file.need("contact_names")
        if ((contact < 0) | (contact > 1)).any():
            raise file.error("contact has to lie between 0 and 1.")
    contact_names = () if contact is None else file.texts("contact_names", contact.shape[1])
    focal = principal = None
    if matrix is not None:
        matrix = np.broadcast_to(matrix, (count, 3, 3))
        focal, principal = matrix[:, [0, 1], [0, 1]].mean(1), matrix[:, :2, 2]
    return Reference(file.path, joints, names, frames, focal, principal, None if vertices is None else _Vertices(vertices, place, np.arange(count)), contact,
                     contact_names)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + ", ..." * (len(names) > 4) if names else "none"


def _camera(file: Npz, count: int) -> tuple[np.ndarray, np.ndarray]:
    """R (T, 3, 3) and t (T, 3) that take the file's axes to those of the camera."""
    rotation, shift = file.numbers("R", (3, 3), (count, 3, 3)), file.numbers("t", (3,), (count, 3))
    if (rotation is None) != (shift is None):
        raise file.error("R and t go together: x_cam = R x + t.", "incomplete")
    if rotation is None:
        rotation, shift = np.eye(3), np.zeros(3)
    off = np.abs(rotation @ np.swapaxes(rotation, -1, -2) - np.eye(3)).max()
    if off > 1e-3 or (np.linalg.det(rotation) < 0).any():
        raise file.error("R is not a rotation (its rows have to be perpendicular, of length 1, and right-handed).")
    return np.broadcast_to(rotation, (count, 3, 3)), np.broadcast_to(shift, (count, 3))


def distance_px(motion: Motion, reference: Reference) -> float:
    """Median distance in px between the joints of both as they lie in the picture; infinite where they never are there at once.

    The reference is seen through its own camera, where it has one, so that a wrong focal length of the take does not matter.
    """
    ours, truth = reference.beside(motion)
    theirs = truth if truth.focal_px is not None else replace(truth, focal_px=ours.focal_px, principal_px=ours.principal_px)
    off = np.linalg.norm(ours.pixels() - theirs.pixels(), axis=-1)
    return float(np.nanmedian(off)) if np.isfinite(off).any() else np.inf
