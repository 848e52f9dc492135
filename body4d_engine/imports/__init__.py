# SPDX-License-Identifier: Apache-2.0
"""Meshes that other tools made become takes. A source knows a format; the stage that writes them into the take is the same for all.

A source has: name, samples, size (width, height) px or None, fps (Fraction) or None, people (list of Person), identity (JSON-able, changes with the
files), notices, arrays (names of what there is besides meshes), images (its folder of footage, or None), has_masks, and
    camera(width, height) -> (focal_px (T,), principal_px (T, 2), method, note)
    body(person) -> arrays of body.import.npz, `faces` at least
    span(person) -> [begin, stop) from the first to the last sample in which the person is there
    read(person, sample) -> Snapshot, or None where the person is absent
    mask(person, sample) -> (H, W) bool or None
"""

import hashlib
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from ..clip import image_rate, open_clip
from ..errors import Body4DError
from ..events import Event, Notice
from ..pipeline import run
from ..stages.prepare import Prepare
from ..take import Take
from .sam_3d_body import Sam3dBodyFiles
from .sam_body4d import SamBody4dFolder
from .stage import ImportMeshes

ASSUMED_FPS, ASSUMED_SIZE = Fraction(30), (1920, 1080)
KNOWN = "Give a folder that SAM-Body4D wrote (it holds mesh_4d_individual), or .npz files of SAM 3D Body, one for each person."


def import_any(sources, out, topology=None, focal_px: float | None = None, fps: float | None = None, clip=None, fresh: bool = False) -> Iterator[Event]:
    """Make a take at `out` of a SAM-Body4D folder or of SAM 3D Body .npz files, one for each person.

    topology: a file with the faces of meshes that come without. focal_px, fps: where the source does not say, or to overrule it. clip: the video or
    folder of images that the meshes belong to. Raises Body4DError naming the file, frame or person.
    """
    source = open_source([Path(path) for path in sources], topology)
    footage, notices = _footage(source, clip, fps)
    if Take.exists(out) and not fresh:
        with Take.open(out) as take:
            if take.backend != ImportBackend.name:
                raise Body4DError(f"{out} holds a take of the {take.backend} backend.", "Choose another --out, or --fresh to replace it.", "take_in_use")
    yield from run(footage, out, ImportBackend(source, focal_px, notices, prepare=not isinstance(footage, NoFootage)), [], {"focal_px": focal_px}, fresh)


def open_source(paths: list[Path], topology=None):
    """The source of the format found at the paths. Raises Body4DError."""
    for path in paths:
        if not path.exists():
            raise Body4DError(f"There is no file or folder {path}.", KNOWN, "no_such_file")
    if len(paths) == 1 and paths[0].is_dir():
        folder = paths[0].parent if paths[0].name == "mesh_4d_individual" else paths[0]
        if (folder / "mesh_4d_individual").is_dir():
            return SamBody4dFolder(folder)
        paths = sorted(folder.glob("*.npz"))
        if not paths:
            raise Body4DError(f"The folder {folder} holds no meshes that can be imported.", KNOWN, "unknown_import")
    strangers = [path for path in paths if path.suffix.lower() != ".npz"]
    if strangers:
        raise Body4DError(f"{strangers[0]} cannot be imported.", KNOWN, "unknown_import")
    return Sam3dBodyFiles(paths, topology)


class ImportBackend:
    """The stages of an import: look at the footage, if there is any, and write the meshes."""

    name = "import"

    def __init__(self, source, focal_px: float | None, notices: list[Notice], prepare: bool):
        self.source, self.focal_px, self.notices, self.prepare = source, focal_px, notices, prepare

    def stages(self, settings: dict) -> list:
        return [*([Prepare()] if self.prepare else []), ImportMeshes(self.source, self.focal_px, self.notices)]


class NoFootage:
    """A clip of which only the size, rate and length are known."""

    focal_px, shots = None, (0,)

    def __init__(self, name: str, fingerprint: str, size: tuple[int, int], fps: Fraction, frame_count: int):
        self.name, self.fingerprint, (self.width, self.height), self.fps, self.frame_count = name, fingerprint, size, fps, frame_count
        self.frames = range(frame_count)

    def describe(self) -> dict:
        return {"name": self.name, "path": None, "bytes": 0, "fingerprint": self.fingerprint, "width": self.width, "height": self.height,
                "fps": [self.fps.numerator, self.fps.denominator], "frame_count": self.frame_count, "start": 0, "end": self.frame_count, "step": 1,
                "rotation_deg": 0, "variable_rate": False, "pixel_aspect": [1, 1], "has_audio": False, "shots": [0], "proxy": None, "proxy_reasons": []}


def _footage(source, clip_path, fps: float | None):
    """The clip the meshes belong to, as far as it is known, and what had to be assumed."""
    notices = []
    folder = clip_path or source.images
    rate = source.fps if fps is None else image_rate(fps)
    is_video = folder is not None and not Path(folder).is_dir()  # which has its own rate
    if rate is None and source.samples > 1 and not is_video:
        notices.append(Notice("import", "fps_assumed", f"The frame rate is not known and assumed: {ASSUMED_FPS} per second. Give --fps if you know it."))
    if rate and fps is None and not is_video and rate.denominator == 1 and rate % 10 in (3, 9):
        notices.append(Notice("import", "fps_cut", f"The videos of {source.name} run at {rate} frames per second. SAM-Body4D cuts rates to whole numbers: "
                              f"give --fps {float((rate + 1) * 1000 / 1001):.3f} if the footage has that."))
    rate = rate or ASSUMED_FPS
    if folder is not None:
        clip = open_clip(folder, image_fps=rate if not is_video or fps is not None else None)
        if clip.frame_count < source.samples:
            raise Body4DError(f"{folder} has {clip.frame_count} frames, but there are meshes up to frame {source.samples - 1}.",
                              "Give the footage that the meshes were made of with --clip.", "clip_changed")
        if source.size and source.size != (clip.width, clip.height):
            if source.has_masks:
                raise Body4DError("{} is {} x {} px, but the masks of {} are {} x {} px.".format(folder, clip.width, clip.height, source.name, *source.size),
                                  "Give the footage that the meshes were made of with --clip.", "clip_changed")
            notices.append(Notice("import", "size_differs", f"{folder} is {clip.width} x {clip.height} px, the meshes were made for "
                                  f"{source.size[0]} x {source.size[1]} px: they may not lie on the people in it."))
    else:
        if source.size is None:
            notices.append(Notice("import", "size_assumed", "The size of the picture is not known and assumed: {} x {} px. Give the footage with --clip "
                                  "if you have it.".format(*ASSUMED_SIZE)))
        fingerprint = hashlib.sha256(json.dumps(source.identity).encode()).hexdigest()
        clip = NoFootage(source.name, fingerprint, source.size or ASSUMED_SIZE, rate, source.samples)
    return clip, notices
