# SPDX-License-Identifier: Apache-2.0
"""The folder that SAM-Body4D writes, of both its revisions: with focal_4d_individual and without. Its parts: see `exports/sam_body4d.py`.

Two of its habits are undone. Meshes are in OpenGL camera axes. And its mesh folders are numbered by position among those present in a frame: where
person 1 is absent, person 2's mesh lies in folder 1. The masks know better, so where they are there, they decide.

A body's origin is its root joint: the JSON's `camera` (for MHR meshes plus the root's place in them). Without a JSON it is the mean of the vertices.
"""

import json
from fractions import Fraction
from math import hypot
from pathlib import Path

import numpy as np

from ..clip import open_clip
from ..errors import Body4DError
from ..events import Notice
from ..images import image_size
from ..people import Person
from ..stages.camera import ASSUMED_DIAGONALS
from ..take import State
from .axes import MHR_VERTICES, half_turn, root_offset
from .label_png import read_label_png
from .meshes import read_mesh
from .stage import Snapshot

MESH_HINT = "SAM-Body4D may have merged vertices while it saved that file: save it again without processing (trimesh process=False)."


class SamBody4dFolder:
    """One output folder; see the package for what a source is."""

    arrays = ()

    def __init__(self, folder: Path):
        self.folder, self.name, self.notices = folder, folder.resolve().name, []
        slots = {number: _numbered(path, (".ply", ".obj")) for number, path in sorted(_slots(folder / "mesh_4d_individual").items())}
        self._masks = _numbered(folder / "masks", (".png",))
        self.images = folder / "images" if _numbered(folder / "images", (".jpg", ".jpeg", ".png")) else None
        self.has_masks = bool(self._masks)
        if not any(slots.values()):
            raise Body4DError(f"{folder / 'mesh_4d_individual'} holds no .ply or .obj files in numbered folders.", "Give the folder that SAM-Body4D wrote.", "unknown_import")
        renders = _numbered(folder / "rendered_frames", (".jpg",))
        pictures = {**renders, **self._masks}
        self.size = image_size(next(iter(pictures.values()))) if pictures else None
        self.samples = 1 + max(max(files, default=0) for files in (*slots.values(), self._masks, renders))
        self._labels: tuple[int, np.ndarray] | None = None
        self._focal_method = "estimated"
        self._meshes = self._identify(slots)  # person -> sample -> (mesh file, slot it lies in)
        self.people = [Person(number) for number in sorted(self._meshes)]
        firsts = {person.id: self._file(person.id, self.span(person.id)[0]) for person in self.people}
        self._rest = {number: (file, *read_mesh(file)) for number, file in firsts.items()}
        self.fps = self._find_fps()
        files = [*(file for found in self._meshes.values() for file, _ in found.values()), *self._masks.values(), *sorted(folder.glob("focal_4d_individual/*/*.json"))]
        self.identity = [[str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns] for file in files]

    def camera(self, width: int, height: int):
        """As a source's: the focal length of the JSON files (of several people the median), or assumed."""
        focals = np.full(self.samples, np.nan)
        apart = (0.0, 0)
        for sample in range(self.samples):
            found = [camera[0] for camera in (self._camera(person.id, sample) for person in self.people) if camera]
            if found:
                focals[sample] = np.median(found)
                apart = max(apart, (max(found) / min(found) - 1, sample))
        if apart[0] > 0.001:
            self.notices.append(Notice("import", "focal_differs", f"People in one frame have focal lengths that differ by up to {100 * apart[0]:.1f} %, so not "
                                       "all of them lie on the picture. Their median is used.", frame=apart[1]))
        centre = np.tile(np.array([width, height]) / 2, (self.samples, 1))
        known = np.flatnonzero(np.isfinite(focals))
        if not len(known):
            return np.full(self.samples, ASSUMED_DIAGONALS * hypot(width, height)), centre, "assumed", f"{ASSUMED_DIAGONALS} x the frame's diagonal"
        return np.interp(np.arange(self.samples), known, focals[known]), centre, self._focal_method, "focal_4d_individual of SAM-Body4D"

    def body(self, person: int) -> dict[str, np.ndarray]:
        _, vertices, faces = self._rest[person]
        if not len(faces):
            raise Body4DError(f"{self._rest[person][0]} has no faces.", "Give files with faces.", "no_faces")
        return {"model": np.array("MHR" if len(vertices) == MHR_VERTICES else "unknown"), "faces": faces}

    def span(self, person: int) -> tuple[int, int]:
        return min(self._meshes[person]), max(self._meshes[person]) + 1

    def mask(self, person: int, sample: int) -> np.ndarray | None:
        return self._label(sample) == person if sample in self._masks else None

    def read(self, person: int, sample: int) -> Snapshot | None:
        if sample not in self._meshes[person]:
            return None
        path, (first, rest, faces) = self._file(person, sample), self._rest[person]
        vertices, own = read_mesh(path)
        if len(vertices) != len(rest):
            raise Body4DError(f"{path}: at frame {sample} person {person} has {len(vertices)} vertices, in {first} {len(rest)}.", MESH_HINT, "vertex_count")
        if not np.array_equal(own, faces):
            raise Body4DError(f"{path}: at frame {sample} person {person} has other faces than in {first}.", MESH_HINT, "other_faces")
        if not np.isfinite(vertices).all():
            raise Body4DError(f"{path}: at frame {sample} person {person} has a vertex that is no number.", "Make that frame again or delete its file.", "not_finite")
        vertices = half_turn(vertices)
        camera = self._camera(person, sample)
        root = vertices.mean(0) if camera is None else camera[1] + root_offset(len(vertices))
        seen = sample not in self._masks or (self._label(sample) == person).any()
        return Snapshot(vertices, root, State.VISIBLE if seen else State.OCCLUDED)

    def _file(self, person: int, sample: int) -> Path:
        return self._meshes[person][sample][0]

    def _label(self, sample: int) -> np.ndarray:
        if self._labels is None or self._labels[0] != sample:
            labels = read_label_png(self._masks[sample])
            if self.size and labels.shape[::-1] != tuple(self.size):
                raise Body4DError(f"{self._masks[sample]} is {labels.shape[1]} x {labels.shape[0]} px, the others {self.size[0]} x {self.size[1]} px.",
                                  "All masks must have the size of the footage.", "bad_mask")
            self._labels = sample, labels
        return self._labels[1]

    def _identify(self, slots: dict[int, dict[int, Path]]) -> dict[int, dict[int, tuple[Path, int]]]:
        """Person -> sample -> (mesh file, the folder's number), where the folder's number is not the person's as told by the mask."""
        people, moved = {}, []
        for sample in range(self.samples):
            there = [number for number, files in slots.items() if sample in files]
            ids = there
            if sample in self._masks and there == list(range(1, len(there) + 1)):
                seen = [int(value) for value in np.flatnonzero(np.bincount(self._label(sample).ravel())) if value]
                if len(seen) == len(there) and seen != there:
                    ids = seen
                    moved.append(sample)
            for number, slot in zip(ids, there):
                people.setdefault(number, {})[sample] = slots[slot][sample], slot
        if moved:
            self.notices.append(Notice("import", "people_renumbered", f"In {len(moved)} frames meshes lay in another person's folder, as SAM-Body4D leaves them when "
                                       "somebody is absent; the masks told whose they are.", frame=moved[0], last_frame=moved[-1]))
        return people

    def _camera(self, person: int, sample: int) -> tuple[float, np.ndarray] | None:
        """focal_px and the mesh's origin (3,), or None where there is no file."""
        if sample not in self._meshes[person]:
            return None
        mesh, slot = self._meshes[person][sample]
        path = self.folder / "focal_4d_individual" / str(slot) / f"{mesh.stem}.json"
        if not path.exists():
            return None
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            focal, origin = float(data["focal_length"]), np.array(data["camera"], np.float64).reshape(3)
            if not (np.isfinite(origin).all() and 0 < focal < np.inf):
                raise ValueError("a value is no number")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Body4DError(f"{path} cannot be read: {error!r}.", 'It should hold {"focal_length": px, "camera": [x, y, z]}.', "bad_focal_file") from error
        if data.get("method") in ("user", "metadata", "assumed"):  # our own export knows; SAM-Body4D estimates
            self._focal_method = data["method"]
        return focal, origin

    def _find_fps(self) -> Fraction | None:
        """The rate of the videos in the folder."""
        films = sorted([*self.folder.glob("4d_*.mp4"), *self.folder.glob("video_mask_*.mp4")])
        if not films:
            return None
        with open_clip(films[0]) as film:
            return film.fps


def _slots(folder: Path) -> dict[int, Path]:
    """The numbered folders inside."""
    found = {int(path.name): path for path in folder.iterdir() if path.is_dir() and path.name.isdigit()}
    if 0 in found:
        raise Body4DError(f"{found[0]} stands for nobody: people are numbered from 1.", "Rename it.", "bad_person_folder")
    return found


def _numbered(folder: Path, suffixes: tuple[str, ...]) -> dict[int, Path]:
    """Number -> file for the folder's files named by a number alone; of two with the same number the earlier suffix wins."""
    files = [path for path in sorted(folder.glob("*")) if path.suffix.lower() in suffixes and path.stem.isdigit()]
    return {int(path.stem): path for path in sorted(files, key=lambda path: suffixes.index(path.suffix.lower()), reverse=True)}
