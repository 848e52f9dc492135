# SPDX-License-Identifier: Apache-2.0
"""The meshes of a take over its footage, as a video."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..events import Event, Progress
from ..take import State, Take
from ..video import VideoWriter
from .rasterize import Mesh, draw

BACKDROP = 48  # grey level where there is no footage


class Cast:
    """Everyone of a take who has meshes, ready to be drawn sample by sample."""

    def __init__(self, take: Take):
        self.take = take
        self.people = [entry for entry in take.people if take.result_stage(entry["id"])]
        self._stages, self._roots, self._states, self._faces = {}, {}, {}, {}
        for entry in self.people:
            number, stage = entry["id"], take.result_stage(entry["id"])
            vertices, root, state = (take.by_sample(f"people/{number}", name, stage) for name in ("vertices", "root", "state"))
            self._stages[number], self._roots[number], self._states[number] = stage, root, state[: min(len(vertices), len(root))]
            self._faces[number] = np.asarray(take.body(number)["faces"], np.int32)
        camera = take.camera() if self.people else {"focal_px": np.ones(take.samples), "principal_px": np.zeros((take.samples, 2))}
        self.focal_px, self.principal_px = camera["focal_px"], camera["principal_px"]

    def state(self, person: int, sample: int) -> State:
        """ABSENT also where the person's meshes do not reach yet."""
        states = self._states[person]
        return State(int(states[sample])) if sample < len(states) else State.ABSENT

    def faces(self, person: int) -> np.ndarray:
        return self._faces[person]

    def root(self, person: int, sample: int) -> np.ndarray:
        """root_cam_m (3,) float64."""
        return np.asarray(self._roots[person][sample], np.float64)

    def vertices(self, person: int, sample: int) -> np.ndarray:
        """(V, 3) float64, camera space, metres. Mapped anew each time: what was read stays in memory as long as the mapping lives."""
        mapped = self.take.by_sample(f"people/{person}", "vertices", self._stages[person])
        return np.asarray(mapped[sample], np.float64) + self.root(person, sample)

    def meshes(self, sample: int, only: int | None = None, hatch: bool = True) -> list[Mesh]:
        """Those who are there in the sample; hatched who was not seen but inferred."""
        found = []
        for entry in self.people:
            number, state = entry["id"], self.state(entry["id"], sample)
            if state != State.ABSENT and only in (None, number):
                found.append(Mesh(self.vertices(number, sample), self._faces[number], tuple(entry["color"]), hatch and state != State.VISIBLE))
        return found

    def draw(self, image: np.ndarray, sample: int, **options) -> np.ndarray:
        """The sample's people over a picture (H, W, 3) uint8 RGB of the take's size."""
        meshes = self.meshes(sample, options.pop("only", None), options.pop("hatch", True))
        return draw(image, meshes, float(self.focal_px[sample]), self.principal_px[sample], **options)


def pictures(take: Take, clip) -> Iterator[np.ndarray]:
    """The footage of every sample (H, W, 3) uint8 RGB; a grey one where `clip` is None."""
    if clip is None:
        for _ in take.frames:
            yield np.full((take.clip["height"], take.clip["width"], 3), BACKDROP, np.uint8)
    else:
        for _, picture in clip.iterate(take.frames):
            yield picture


def rate(take: Take) -> Fraction:
    """Samples per second."""
    return Fraction(*take.clip["fps"]) / take.clip["step"]


def write_overlay(take: Take, clip, path) -> Iterator[Event]:
    """Shaded meshes over the footage, with its sound, at its true rate (divided by the take's step). `clip` None: over grey.

    Who was not seen but inferred is hatched; who is absent is not drawn. The file appears when it is complete.
    """
    cast, clip_info = Cast(take), take.clip
    with VideoWriter(Path(path), clip_info["width"], clip_info["height"], rate(take), audio_from=clip) as writer:
        for sample, picture in enumerate(pictures(take, clip)):
            writer.write(cast.draw(picture, sample))
            yield Progress("overlay", sample + 1, take.samples)
