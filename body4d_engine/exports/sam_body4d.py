# SPDX-License-Identifier: Apache-2.0
"""The folder that SAM-Body4D writes, from any take.

    images/%08d.jpg                                the footage
    masks/%08d.png                                 palette PNG, pixel = person id; masks_vis: the same over the dimmed footage
    mesh_4d_individual/<id>/%08d.ply and .obj      camera space in OpenGL axes (x right, y up, z backward), metres
    focal_4d_individual/<id>/%08d.json             focal_length in px, camera = the mesh's origin in OpenCV camera axes, metres
    rendered_frames/%08d.jpg                       all people on white; rendered_frames_individual/<id>/%08d_<id>.jpg: one
    video_mask_<time>.mp4, 4d_<time>.mp4           masks_vis and rendered_frames at the take's rate

Frames are numbered by sample from 0. <id> is the person's id, whoever else is there; where a person is absent there is no file. PLY holds
float32, so a mesh is exact to 1e-6 m up to 16 m from the camera, as is SAM-Body4D's own.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np

from ..errors import Body4DError
from ..events import Event, Notice, Progress
from ..imports.axes import half_turn, root_offset
from ..imports.label_png import davis_palette, write_label_png
from ..imports.meshes import obj_faces, write_obj, write_ply
from ..render.overlay import Cast, pictures, rate
from ..take import State, Take
from ..video import VideoWriter

PARTS = ("images", "masks", "masks_vis", "ply", "obj", "focal", "renders", "individual_renders", "videos")
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95]


def write_sam_body4d(take: Take, clip, out: Path, parts=PARTS) -> Iterator[Event]:
    """Write the folder `out`, which appears when it is complete. `parts` chooses from PARTS; what the take cannot give is left out with a Notice.

    Raises Body4DError where `out` exists and is not an empty folder.
    """
    out = out.absolute()  # "." has no name
    unknown = set(parts) - set(PARTS)
    if unknown:
        raise Body4DError(f"The layout sam-body4d has no part {', '.join(sorted(unknown))}.", f"Choose from: {', '.join(PARTS)}.", "no_part")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Body4DError(f"{out} exists and is not an empty folder.", "Choose another --out: frames of two takes would mix.", "out_in_use")
    if max((entry["id"] for entry in take.people), default=0) > 255:
        raise Body4DError("A person's id is above 255, which the masks of this layout cannot hold.", "Renumber the people.", "too_many_people")
    writer = _Writer(take, clip, out.with_name(out.name + ".partial"), set(parts))
    yield from writer.notices()
    try:
        yield from writer.run()
        if out.exists():
            out.rmdir()
        os.replace(writer.folder, out)
    except OSError as error:
        raise Body4DError(f"{out} could not be written: {error.strerror or error}.", "Check that there is space and that you may write there.",
                          "export_failed") from error
    finally:
        shutil.rmtree(writer.folder, ignore_errors=True)


class _Writer:
    def __init__(self, take: Take, clip, folder: Path, parts: set[str]):
        self.take, self.clip, self.folder, self.parts = take, clip, folder, parts
        self.cast = Cast(take)
        self.masked = [entry for entry in take.people if take.has(f"people/{entry['id']}", "mask_index")]
        self.has_masks = bool(self.masked)
        self.focal_method = str(take.camera()["method"]) if self.cast.people else ""
        self.face_lines = {entry["id"]: obj_faces(self.cast.faces(entry["id"])) for entry in self.cast.people} if "obj" in parts else {}

    def notices(self) -> Iterator[Notice]:
        if self.clip is None and "images" in self.parts:
            yield Notice("export", "no_images", "There is no footage, so the folder images is left out.")
        if not self.has_masks and self.parts & {"masks", "masks_vis"}:
            yield Notice("export", "no_masks", "The take has no masks, so masks, masks_vis and the mask video are left out.")
        centre = np.array([self.take.clip["width"], self.take.clip["height"]]) / 2
        if self.cast.people and np.abs(self.cast.principal_px - centre).max() > 0.5:
            yield Notice("export", "no_principal_point", "The camera's principal point is not the centre of the picture. This layout cannot say so: "
                         "meshes seen through its focal length alone will be shifted.")

    def run(self) -> Iterator[Event]:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        clip, stamp = self.take.clip, int(time.time())
        size = (clip["width"], clip["height"], rate(self.take))
        with ExitStack() as stack:
            films = {}
            if "videos" in self.parts:
                films["4d"] = stack.enter_context(VideoWriter(self.folder / f"4d_{stamp}.mp4", *size))
                if self.has_masks:
                    films["mask"] = stack.enter_context(VideoWriter(self.folder / f"video_mask_{stamp}.mp4", *size))
            for sample, picture in enumerate(pictures(self.take, self.clip)):
                self._pictures(sample, picture, films)
                self._meshes(sample)
                yield Progress("export", sample + 1, self.take.samples)

    def _pictures(self, sample: int, picture: np.ndarray, films: dict) -> None:
        name, parts = f"{sample:08d}", self.parts
        if "images" in parts and self.clip is not None:
            self._image(f"images/{name}.jpg", picture)
        if self.has_masks and (parts & {"masks", "masks_vis"} or "mask" in films):
            labels = self._labels(sample)
            if "masks" in parts:
                write_label_png(self._place(f"masks/{name}.png"), labels)
            if "masks_vis" in parts or "mask" in films:
                shown = self._over(picture, labels)
                if "masks_vis" in parts:
                    self._image(f"masks_vis/{name}.png", shown, [cv2.IMWRITE_PNG_COMPRESSION, 1])
                if "mask" in films:
                    films["mask"].write(shown)
        white = np.full((self.take.clip["height"], self.take.clip["width"], 3), 255, np.uint8)
        if "renders" in parts or "4d" in films:
            drawn = self.cast.draw(white, sample, hatch=False, opacity=1.0)
            if "renders" in parts:
                self._image(f"rendered_frames/{name}.jpg", drawn)
            if "4d" in films:
                films["4d"].write(drawn)
        if "individual_renders" in parts:
            for number in self._present(sample):
                self._image(f"rendered_frames_individual/{number}/{name}_{number}.jpg", self.cast.draw(white, sample, only=number, hatch=False, opacity=1.0))

    def _meshes(self, sample: int) -> None:
        for entry in (e for e in self.cast.people if e["id"] in self._present(sample)):
            number, name = entry["id"], f"{entry['id']}/{sample:08d}"
            vertices = self.cast.vertices(number, sample)
            turned = half_turn(vertices)
            if "ply" in self.parts:
                color = tuple(round(255 * part) for part in entry["color"])
                write_ply(self._place(f"mesh_4d_individual/{name}.ply"), turned, self.cast.faces(number), color)
            if "obj" in self.parts:
                write_obj(self._place(f"mesh_4d_individual/{name}.obj"), turned, self.face_lines[number])
            if "focal" in self.parts:
                origin = self.cast.root(number, sample) - root_offset(len(vertices))
                camera = {"focal_length": float(self.cast.focal_px[sample]), "camera": origin.tolist(), "method": self.focal_method}
                self._place(f"focal_4d_individual/{name}.json").write_text(json.dumps(camera, indent=4), encoding="utf-8")

    def _present(self, sample: int) -> list[int]:
        return [entry["id"] for entry in self.cast.people if self.cast.state(entry["id"], sample) != State.ABSENT]

    def _labels(self, sample: int) -> np.ndarray:
        """(H, W) uint8 ids; where masks overlap, the nearer person's, or the higher id's where that is not known."""
        labels = np.zeros((self.take.clip["height"], self.take.clip["width"]), np.uint8)
        near = {number: self.cast.root(number, sample)[2] for number in self._present(sample)}
        for entry in sorted(self.masked, key=lambda entry: (-near.get(entry["id"], np.inf), entry["id"])):
            if sample < len(self.take.read(f"people/{entry['id']}", "mask_index")):
                labels[self.take.mask(entry["id"], sample)] = entry["id"]
        return labels

    def _over(self, picture: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The footage, dimmed where nobody is, with everyone's mask in its colour and a white contour."""
        palette = davis_palette()
        for entry in self.take.people:
            palette[entry["id"]] = [round(255 * part) for part in entry["color"]]
        shown = cv2.addWeighted(picture, 0.3, palette[labels], 0.7, 0)
        shown[labels == 0] = picture[labels == 0] // 2
        contour = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        shown[contour & (labels > 0)] = 255
        return shown

    def _place(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _image(self, name: str, picture: np.ndarray, options=JPEG) -> None:
        path = self._place(name)
        done, data = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
        if not done:
            raise Body4DError(f"{path} could not be made from a picture of {picture.shape[1]} x {picture.shape[0]} px.", code="export_failed")
        path.write_bytes(data.tobytes())  # cv2.imwrite cannot write to every file name on Windows
