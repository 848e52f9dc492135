# SPDX-License-Identifier: GPL-3.0-or-later
"""What a scene needs from a take, read and checked before anything in Blender is touched. No bpy."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from body4d_engine.take import State, Take, TakeError
from body4d_engine.take_arrays import BySample


@dataclass
class PersonTrack:
    """One person over the first n samples of the take. Person space: camera axes, metres, origin at the root joint."""

    id: int
    name: str
    color: tuple[float, float, float]  # sRGB
    faces: np.ndarray  # (F, 3) int32
    vertices: BySample  # (n, V, 3) float32, mapped
    root: np.ndarray  # (n, 3) float32, camera axes
    state: np.ndarray  # (n,) uint8
    cache: Path  # the .pc2 that holds `vertices`
    stage: str
    confidence: np.ndarray | None  # (n,) 0..1; None where the take has none

    @property
    def first_seen(self) -> int:
        return int(np.argmax(self.state != State.ABSENT))

    @property
    def there(self) -> slice:
        """The samples from the first to the last in which they are not absent."""
        return slice(self.first_seen, len(self.state) - int(np.argmax(self.state[::-1] != State.ABSENT)))

    def frames_per_state(self) -> dict[str, int]:
        return {s.name.lower(): int((self.state == s).sum()) for s in State}


@dataclass
class CameraTrack:
    focal_px: np.ndarray  # (T,)
    principal_px: np.ndarray  # (T, 2)
    method: str
    note: str


def read_people(take: Take, report) -> list[PersonTrack]:
    """Everyone with a mesh. Those without one are reported. Raises TakeError where data is damaged."""
    people = (read_person(take, entry, report) for entry in take.people)
    return [person for person in people if person is not None]


def is_pending(take: Take, person: int) -> bool:
    """Whether the person's meshes are still to come: a stage is being written, or was cut short, and has none yet."""
    stage = take.result_stage(person)
    return take.working is not None and (stage is None or not len(take.by_sample(f"people/{person}", "vertices", stage)))


def read_person(take: Take, entry: dict, report) -> PersonTrack | None:
    number, name, group = entry["id"], entry["name"], f"people/{entry['id']}"
    stage = take.result_stage(number)
    vertices, root, state = (take.by_sample(group, part, stage) for part in ("vertices", "root", "state")) if stage else ((), (), ())
    n = min(len(vertices), len(root), len(state), take.samples)
    if n == 0:
        report(f"{name} has no mesh in this take yet.")
        return None
    state = np.array(state[:n])
    if not np.any(state != State.ABSENT):
        report(f"{name} is in none of the {n} frames: no mesh.")
        return None
    if n < take.samples:
        report(f"{name}: {n} of {take.samples} samples are done. Import the take again when it is complete.")
    faces = np.asarray(take.body(number).get("faces", ()), np.int32)
    if faces.ndim != 2 or faces.shape[1] != 3 or not len(faces) or faces.min() < 0 or faces.max() >= vertices.shape[1]:
        raise TakeError(f"The faces of {name} in {take.path.name} do not fit the {vertices.shape[1]} vertices.",
                        "Run it again: only the damaged part is made anew.", "take_damaged")
    root = np.array(root[:n])
    if not np.isfinite(root).all():
        raise TakeError(f"{name} in {take.path.name} has no position at clip frame {take.frames[int(np.argmin(np.isfinite(root).all(1)))]}.",
                        "Run it again: only the damaged part is made anew.", "take_damaged")
    return PersonTrack(number, name, tuple(entry["color"]), faces, vertices, root, state, take.file_of(group, "vertices", stage), stage,
                       _confidence(take, group, stage, n))


def _confidence(take: Take, group: str, stage: str, n: int) -> np.ndarray | None:
    values = take.by_sample(group, "confidence", stage) if take.has(group, "confidence", stage) else np.zeros(0)
    return np.nan_to_num(np.array(values[:n], np.float32)) if values.ndim == 1 and len(values) >= n else None


def read_camera(take: Take) -> CameraTrack:
    """The camera of every sample. Raises TakeError where it is missing or too short."""
    camera = take.camera()
    try:
        focal = np.broadcast_to(np.asarray(camera["focal_px"], np.float64).reshape(-1), (take.samples,))
        principal = np.broadcast_to(np.asarray(camera["principal_px"], np.float64).reshape(-1, 2), (take.samples, 2))
    except (KeyError, ValueError) as error:
        raise TakeError(f"camera.npz of {take.path.name} does not fit its {take.samples} samples ({error}).",
                        "Run it again: only the damaged part is made anew.", "take_damaged") from error
    return CameraTrack(focal, principal, str(camera["method"]), str(camera.get("note", "")))
