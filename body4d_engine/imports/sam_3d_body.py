# SPDX-License-Identifier: Apache-2.0
"""What SAM 3D Body returns for a person, saved as .npz: one person of one image a file, or of many with a leading frame axis on every array.

Points (pred_vertices, pred_keypoints_3d, pred_joint_coords) are in camera axes around MHR's origin; pred_cam_t places them. The focal length may be
missing; the picture's size is. Both follow from the 70 keypoints, which are there in 3D and in pixels: u z = f x + c z is linear in f and c.
pred_global_rots is not used: SAM 3D Body leaves it in other axes, and for hands from before its last step.
"""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from ..errors import Body4DError
from ..events import Notice
from ..people import Person
from .axes import MHR_VERTICES, root_offset
from .meshes import read_mesh
from .mhr70 import MHR70
from .stage import Snapshot

PARAMETERS = ("mhr_model_params", "shape_params", "expr_params")
RECORD_DIMENSIONS = {"pred_vertices": 2, "pred_cam_t": 1, "pred_keypoints_3d": 2, "pred_keypoints_2d": 2, "pred_joint_coords": 2, "focal_length": 0,
                     **dict.fromkeys(PARAMETERS, 1)}
TRIPLES = ("pred_vertices", "pred_cam_t", "pred_keypoints_3d", "pred_joint_coords")
ROOT_JOINT = 1
RESIDUAL_PX = 1.0
TOPOLOGY_HINT = ("Give --topology FILE: a mesh that SAM-Body4D exported (.ply), or tools/mhr_smpl_conversion/assets/mhr_face_mask.ply of the public "
                 "repository facebookresearch/MHR.")


class Sam3dBodyFiles:
    """One .npz file for each person; see the package for what a source is."""

    has_masks, images, fps = False, None, None

    def __init__(self, paths: list[Path], topology=None):
        self.paths, self.name, self.notices = paths, paths[0].stem, []
        self.people = [Person(number + 1, path.stem) for number, path in enumerate(paths)]
        self._data = {person.id: _load(path) for person, path in zip(self.people, paths)}
        self.samples = max(len(data["pred_vertices"]) for data in self._data.values())
        self._faces = {person.id: self._find_faces(person.id, topology) for person in self.people}
        extra = [*paths, *([Path(topology)] if topology else [])]
        self.identity = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in extra]
        shared = set.intersection(*(set(data) for data in self._data.values()))
        self._parameters = [name for name in PARAMETERS if name in shared]
        names = {"pred_joint_coords": ("joints",), "pred_keypoints_3d": ("keypoints_m",), "pred_keypoints_2d": ("keypoints_px",)}
        self.arrays = [ours for theirs, found in names.items() if theirs in shared for ours in found] + (["params"] if self._parameters else [])
        self._focal, self._centre = self._solve_camera()
        self.size = None
        if self._centre is not None:
            self.size = tuple(round(2 * value) for value in self._centre)
            self.notices.append(Notice("import", "size_deduced", "The size of the picture is deduced from the keypoints, whose centre is taken for the picture's: "
                                       "{} x {} px.".format(*self.size)))

    def camera(self, width: int, height: int):
        """As a source's. The principal point is the one the keypoints were projected with."""
        centre = np.array([width, height]) / 2 if self._centre is None else self._centre
        if self._focal is None:
            raise Body4DError(f"{self.paths[0]} has no focal_length and no keypoints to find it from.", "Export pred_keypoints_3d and pred_keypoints_2d too.", "no_focal")
        note = "focal_length of SAM 3D Body" if any("focal_length" in data for data in self._data.values()) else "solved from SAM 3D Body's 2D and 3D keypoints"
        return self._focal, np.tile(centre, (self.samples, 1)), "estimated", note

    def body(self, person: int) -> dict[str, np.ndarray]:
        vertices = self._data[person]["pred_vertices"].shape[1]
        layout = [f"{name}:{self._data[person][name].shape[1]}" for name in self._parameters]
        body = {"model": np.array("MHR" if vertices == MHR_VERTICES else "unknown"), "faces": self._faces[person], "params_layout": np.array(layout)}
        if "keypoints_m" in self.arrays and self._data[person]["pred_keypoints_3d"].shape[1] == len(MHR70):
            body["keypoint_names"] = np.array(MHR70)
        return body

    def span(self, person: int) -> tuple[int, int]:
        return 0, len(self._data[person]["pred_vertices"])

    def mask(self, person: int, sample: int) -> None:
        return None

    def read(self, person: int, sample: int) -> Snapshot | None:
        data = self._data[person]
        if sample >= len(data["pred_vertices"]):
            return None
        record = {name: values[sample].astype(np.float64) for name, values in data.items() if name != "faces"}
        moved = record["pred_cam_t"]
        joint = record["pred_joint_coords"][ROOT_JOINT] if "pred_joint_coords" in record else root_offset(len(record["pred_vertices"]))
        root = moved + joint
        stored = root.astype(np.float32).astype(np.float64)  # what other points are relative to must be what the take holds
        arrays = {}
        if "joints" in self.arrays:
            arrays["joints"] = record["pred_joint_coords"] + moved - stored
        if "keypoints_m" in self.arrays:
            arrays["keypoints_m"] = record["pred_keypoints_3d"] + moved - stored
        if "keypoints_px" in self.arrays:
            arrays["keypoints_px"] = np.column_stack([record["pred_keypoints_2d"], np.ones(len(record["pred_keypoints_2d"]))])
        if self._parameters:
            arrays["params"] = np.concatenate([record[name] for name in self._parameters])
        return Snapshot(record["pred_vertices"] + moved, root, arrays=arrays)

    def _find_faces(self, person: int, topology) -> np.ndarray:
        path, data = self.paths[person - 1], self._data[person]
        count = data["pred_vertices"].shape[1]
        if topology is None and "faces" not in data:
            raise Body4DError(f"{path} has {count} vertices but no faces.", TOPOLOGY_HINT if count == MHR_VERTICES else "Give --topology FILE, a mesh with the same vertices.",
                              "no_faces")
        faces = data["faces"] if topology is None else read_topology(Path(topology))
        if faces.ndim != 2 or faces.shape[1] != 3 or not len(faces):
            raise Body4DError(f"The faces of {topology or path} have the shape {faces.shape}, not (faces, 3).", TOPOLOGY_HINT, "wrong_topology")
        if faces.min() < 0 or faces.max() != count - 1:
            raise Body4DError(f"The faces of {topology or path} are for {int(faces.max()) + 1} vertices, {path.name} has {count}.", TOPOLOGY_HINT, "wrong_topology")
        return np.asarray(faces, np.int32)

    def _solve_camera(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """focal_px (T,) and the principal point (2,) px, each None where nothing tells."""
        found = {name: [[] for _ in range(self.samples)] for name in ("points", "pixels", "focal")}
        for data in self._data.values():
            for sample in range(len(data["pred_vertices"])):
                if "focal_length" in data:
                    found["focal"][sample].append(float(data["focal_length"][sample]))
                if "pred_keypoints_3d" in data and "pred_keypoints_2d" in data:
                    found["points"][sample].append((data["pred_keypoints_3d"][sample] + data["pred_cam_t"][sample]).astype(np.float64))
                    found["pixels"][sample].append(data["pred_keypoints_2d"][sample].astype(np.float64))
        given = [np.mean(values) if values else np.nan for values in found["focal"]]
        pairs = [(np.concatenate(points), np.concatenate(pixels)) if points else None for points, pixels in zip(found["points"], found["pixels"])]
        if not any(pairs):
            return (_fill(np.array(given)), None) if np.isfinite(given).any() else (None, None)
        centres, focals = [], list(given)
        for sample, pair in enumerate(pairs):
            if pair:
                _, centre = solve_pinhole(*pair, None if np.isnan(given[sample]) else given[sample])
                centres.append(centre)
        centre = np.median(centres, axis=0)
        worst = (0.0, 0)
        for sample, pair in enumerate(pairs):
            if pair:
                ray = pair[0][:, :2] / pair[0][:, 2:]
                if np.isnan(focals[sample]):
                    focals[sample] = float(((pair[1] - centre) * ray).sum() / (ray * ray).sum())
                worst = max(worst, (float(np.abs(ray * focals[sample] + centre - pair[1]).max()), sample))
        if worst[0] > RESIDUAL_PX:
            self.notices.append(Notice("import", "keypoints_differ", f"The 2D keypoints do not agree with the 3D ones: off by up to {worst[0]:.1f} px.", frame=worst[1]))
        return _fill(np.array(focals)), centre


def solve_pinhole(points: np.ndarray, pixels: np.ndarray, focal_px: float | None = None) -> tuple[float, np.ndarray]:
    """Focal length and principal point (2,) in px that project points (N, 3) onto pixels (N, 2) best. `focal_px`: where it is known."""
    ray = points[:, :2] / points[:, 2:]
    if focal_px is None:
        spread = ray - ray.mean(0)
        focal_px = float((spread * pixels).sum() / (spread * spread).sum())
    return focal_px, (pixels - focal_px * ray).mean(0)


def read_topology(path: Path) -> np.ndarray:
    """Faces (F, 3) of a mesh file, or of an .npz with an array `faces`. Raises Body4DError."""
    if path.suffix.lower() != ".npz":
        return read_mesh(path)[1]
    faces = _arrays(path, ("faces",)).get("faces")
    if faces is None:
        raise Body4DError(f"{path} has no array faces.", TOPOLOGY_HINT, "no_faces")
    return faces


def _arrays(path: Path, names) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names if name in file.files}
    except (OSError, ValueError, EOFError, KeyError, AttributeError, zlib.error, zipfile.BadZipFile) as error:
        raise Body4DError(f"{path} cannot be read: {error}.", "Save it again with numpy.savez, as plain arrays.", "bad_npz") from error


def _load(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file, with a leading frame axis; faces as they are."""
    data = _arrays(path, (*RECORD_DIMENSIONS, "faces"))
    missing = [name for name in ("pred_vertices", "pred_cam_t") if name not in data]
    if missing:
        raise Body4DError(f"{path} is not what SAM 3D Body returns: it has no {' and no '.join(missing)}.", "Save the dict of one person with numpy.savez.", "bad_npz")
    single = data["pred_vertices"].ndim == 2
    frames = 1 if single else len(data["pred_vertices"])
    for name in [name for name in RECORD_DIMENSIONS if name in data]:
        values = data[name]
        if name == "focal_length" and values.size == 1:
            values = np.full(frames, values.item())
        elif single:
            values = values[None]
        if values.ndim != 1 + RECORD_DIMENSIONS[name] or len(values) != frames or (name in TRIPLES and values.shape[-1] != 3):
            raise Body4DError(f"{name} of {path} has the shape {data[name].shape}, which does not fit.", "One person of one image, or arrays that all have "
                              "the same number of frames in front: pred_vertices is (vertices, 3) or (frames, vertices, 3).", "bad_npz")
        bad = np.flatnonzero(~np.isfinite(values.reshape(frames, -1)).all(1))
        if len(bad):
            raise Body4DError(f"{name} of {path} has a value that is no number at frame {bad[0]}.", "Leave that frame out or make it again.", "not_finite")
        data[name] = values
    return data


def _fill(values: np.ndarray) -> np.ndarray:
    """Gaps (NaN) filled linearly."""
    known = np.flatnonzero(np.isfinite(values))
    return np.interp(np.arange(len(values)), known, values[known])
