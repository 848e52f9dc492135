# SPDX-License-Identifier: Apache-2.0
"""Writes the meshes of a source into a take."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ..errors import Body4DError
from ..events import Committed, Event, Notice, Progress
from ..take import State, Take
from .axes import split

CHUNK = 32  # samples between two commits


@dataclass(frozen=True)
class Snapshot:
    """One person in one sample: camera-space vertices (V, 3) float64 in metres, root_cam_m (3,), and arrays by name, points among them already
    relative to the root (float64)."""

    vertices: np.ndarray
    root: np.ndarray
    state: State = State.VISIBLE
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


class ImportMeshes:
    """Everyone's meshes, masks and camera. Where a person is absent in between the last shape is repeated; before and after there are no records."""

    name = "import"
    version = 3
    needs = ()

    def __init__(self, source, focal_px: float | None, notices=()):
        digest = hashlib.sha256(json.dumps(source.identity).encode()).hexdigest()
        self.settings = {"source": digest, "focal_px": focal_px}
        self.source, self.notices = source, notices

    def run(self, clip, people, take: Take, cursor) -> Iterator[Event]:
        source, samples = self.source, take.samples
        if cursor is None:
            yield from self._write_camera(clip, take)
            yield from [*source.notices, *self.notices]
            take.set_people([person.to_json() for person in source.people])
            for person in source.people:
                take.write_npz(f"people/{person.id}/body.import.npz", **source.body(person.id))
            take.commit({"next": 0})
        start = cursor["next"] if cursor else 0
        last = {person.id: self._last(take, person.id, start) for person in source.people}
        for sample in range(start, samples):
            for person in source.people:
                last[person.id] = self._append(take, person.id, sample, last[person.id])
            if (sample + 1) % CHUNK == 0 or sample + 1 == samples:
                take.commit({"next": sample + 1})
                for person in source.people:
                    yield Committed(self.name, person.id, start, sample + 1)
                start = sample + 1
            yield Progress(self.name, sample + 1, samples)

    def _write_camera(self, clip, take: Take) -> Iterator[Notice]:
        focal_px, principal_px, method, note = self.source.camera(clip.width, clip.height)
        if self.settings["focal_px"]:
            focal_px, method, note = np.full(len(focal_px), self.settings["focal_px"]), "user", "given in pixels"
        if not (np.isfinite(focal_px).all() and (focal_px > 1).all()):
            raise Body4DError(f"A focal length of {np.min(focal_px):g} px is not possible.", "Give --focal-px in pixels.", "bad_focal")
        if method == "assumed":
            yield Notice(self.name, "focal_assumed", f"The focal length is not known and assumed: {focal_px[0]:.0f} px ({note}). Give --focal-px if you know it.")
        rest = take.samples - len(focal_px)
        take.write_npz("camera.npz", focal_px=np.pad(focal_px, (0, rest), "edge").astype(np.float32),
                       principal_px=np.pad(principal_px, ((0, rest), (0, 0)), "edge").astype(np.float32), method=np.array(method), note=np.array(note))

    def _last(self, take: Take, person: int, done: int) -> dict[str, np.ndarray]:
        """The records to repeat where the person is absent; none before there are any."""
        names = ("vertices", "root", *self.source.arrays) if done > self.source.span(person)[0] else ()
        return {name: np.array(take.read(f"people/{person}", name, self.name)[-1]) for name in names}

    def _records(self, shot: Snapshot) -> dict[str, np.ndarray]:
        vertices, root = split(shot.vertices, shot.root)
        return {"vertices": vertices, "root": root, **shot.arrays}

    def _append(self, take: Take, person: int, sample: int, last: dict) -> dict:
        group, span = f"people/{person}", self.source.span(person)
        records = last
        if span[0] <= sample < span[1]:
            shot = self.source.read(person, sample)
            records = last if shot is None else self._records(shot)
            state = State.ABSENT if shot is None else shot.state
            for name, record in {**records, "state": np.uint8(state), "confidence": np.float32(state != State.ABSENT)}.items():
                record = np.asarray(record)
                take.create_array(group, name, "u1" if name == "state" else "f4", record.shape, pc2=name == "vertices", span=span)
                take.append(group, name, record[None])
        if self.source.has_masks:
            take.append_mask(group, self.source.mask(person, sample) if sample < self.source.samples else None)
        return records
