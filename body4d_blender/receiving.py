# SPDX-License-Identifier: GPL-3.0-or-later
"""Our own copy of a take that grows in the engine. No bpy."""

import threading
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from body4d_engine import wire
from body4d_engine.disk import acquire, try_names, writing
from body4d_engine.errors import Body4DError
from body4d_engine.take import State, Take


class Newest(NamedTuple):
    """A person at the newest sample in which they are there: vertices (V, 3) person space and root (3,), camera axes, metres; faces (F, 3)."""

    id: int
    name: str
    color: tuple[float, float, float]
    vertices: np.ndarray
    root: np.ndarray
    faces: np.ndarray


class TakeCopy:
    """Writes what arrives of a take into `folder`, as its one writer. Raises TakeError where that may not be written.

    `receive` is for the thread that reads the pipe: it never raises. After the first failure nothing more is written, and `error` says why.
    After every commit `people` and `newest` are what the take has by then: new lists, for another thread to look at.
    """

    def __init__(self, folder: Path):
        self.folder, self.error = Path(folder), None
        self.people: list[dict] = []
        self.newest: list[Newest] = []
        self._faces: dict[Path, np.ndarray] = {}  # by the file of the vertices
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        try_names(self.folder)
        self._turn, self._lock = threading.Lock(), acquire(self.folder)

    def receive(self, method: str, params: dict, arrays: dict) -> None:
        with self._turn:
            if self._lock is None or self.error is not None:
                return
            try:
                wire.apply_change(self.folder, {"method": method, "params": params}, arrays)
                if method == "take/commit":
                    self._look()
            except Body4DError as error:
                self.error = error
            except Exception as error:  # the engine sent something that is no part of a take
                self.error = wire.WireError(f"The engine sent a part of a take that cannot be written ({error!r}).", "Restart the engine.", "bad_message")

    def _look(self) -> None:
        with Take.open(self.folder) as take:
            found = (self._newest(take, entry) for entry in take.people)
            self.newest = [person for person in found if person is not None]
            self.people = take.people

    def _newest(self, take: Take, entry: dict) -> Newest | None:
        group, stage = f"people/{entry['id']}", take.result_stage(entry["id"])
        if stage is None:
            return None
        vertices, root, state = (take.by_sample(group, name, stage) for name in ("vertices", "root", "state"))
        there = np.flatnonzero(state[: min(len(vertices), len(root))] != State.ABSENT)
        if not len(there):
            return None
        file, last = take.file_of(group, "vertices", stage), int(there[-1])
        if file not in self._faces:
            self._faces[file] = take.body(entry["id"])["faces"]
        return Newest(entry["id"], entry["name"], tuple(entry["color"]), np.array(vertices[last]), np.array(root[last]), self._faces[file])

    def close(self) -> None:
        """Let go of the take; what arrives later is ignored. Where nothing has come, no folder is left."""
        with self._turn:
            if self._lock is not None:
                self._lock.release()
                if not Take.exists(self.folder):
                    with suppress(OSError):  # it holds something else
                        self._lock.path.unlink()
                        self.folder.rmdir()
                self._lock = None
