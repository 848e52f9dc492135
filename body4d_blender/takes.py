# SPDX-License-Identifier: GPL-3.0-or-later
"""What a panel says of a take on the disk, and of one that is still to be made: how large, how long.

A panel must not touch the disk while it is drawn, so what it asks about is looked up right after, and shown by the next drawing.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import bpy

from body4d_engine.take import Take, TakeError

from .scene.reading import read_people

LOOK_AGAIN_S = 2.0
HEAVY_BYTES = 1 << 30  # of shape keys: from here on a mesh cache is the better choice
# Time of the lite engine on two cores: clips of one person took 0.048 s per frame, of two 0.085 (docs/quality.md).
FRAME_SECONDS, PERSON_SECONDS = 0.011, 0.037
MESH_BYTES = {"lite": 13718 * 12, "full": 18439 * 12}  # the vertices of Anny and of MHR
TAKE_BYTES = {"lite": 360_000, "full": 465_000}  # per person and frame: recovered and refined meshes, what they were made of, masks
USUAL_PEOPLE = 2
TELLING_FRAMES = 60  # of fewer the engine's start is most of the time

slowness = {"lite": 1.0}  # by backend, how much longer than that the latest take took on this machine; full depends on a GPU that we have not seen


@dataclass(frozen=True)
class Known:
    """there: a take is at that folder. complete: its last stage is done; done: names of the stages that are. backend: what made it, where that can be read."""

    there: bool = False
    complete: bool = False
    done: tuple[str, ...] = ()
    backend: str = ""


@dataclass(frozen=True)
class Estimate:
    """seconds, None where nothing is known of that; bytes of the take on the disk, that the .blend grows by, and of memory while it is shown. heavy: better
    as a mesh cache."""

    seconds: float | None
    disk: int
    blend: int
    memory: int
    heavy: bool


_known: dict[str, tuple[float, Known]] = {}
_wanted: set[str] = set()


def known(folder: Path) -> Known:
    """What is known of a take; looked up anew soon where that is old. Costs nothing: for panels."""
    key = str(folder)
    seen, what = _known.get(key, (0.0, Known()))
    if time.monotonic() > seen + LOOK_AGAIN_S and key not in _wanted:
        _wanted.add(key)
        if not bpy.app.timers.is_registered(_look):
            bpy.app.timers.register(_look, first_interval=0.0, persistent=True)
    return what


def look(folder: Path) -> Known:
    """What there is now."""
    try:
        if not Take.exists(folder):
            return Known()
        with Take.open(folder) as take:
            done = tuple(take.to_json()["stages"])
            return Known(True, take.working is None and ("refine" in done or "import" in done), done, take.backend)
    except TakeError:
        return Known(True)
    except OSError:  # a folder that may not be looked into
        return Known()


def look_again() -> None:
    """Something has changed."""
    _known.clear()


def _look() -> None:
    from . import connection

    changed = False
    for key in list(_wanted):
        new = look(Path(key))
        changed |= new != _known.get(key, (0.0, None))[1]
        _known[key] = time.monotonic(), new
    _wanted.clear()
    if changed:
        connection.redraw()


def mesh_bytes(folder: Path) -> int:
    """Bytes of all meshes of a take as shape keys. Raises TakeError."""
    with Take.open(folder) as take:
        return sum(person.vertices[person.there].nbytes for person in read_people(take, lambda notice: None))


def estimate(frames: int, people: int, cache: bool | None, backend: str = "lite") -> Estimate:
    """For so many frames and people (0: not known yet). cache: as a mesh cache, None where that depends on the size."""
    shapes = frames * (people or USUAL_PEOPLE)
    keys = shapes * MESH_BYTES[backend]
    cached = keys > HEAVY_BYTES if cache is None else cache
    blend = 0 if cached else keys
    seconds = slowness[backend] * _seconds(frames, shapes) if backend in slowness else None
    return Estimate(seconds, shapes * TAKE_BYTES[backend], blend, 2 * blend, keys > HEAVY_BYTES)


def _seconds(frames: int, shapes: int) -> float:
    return frames * FRAME_SECONDS + shapes * PERSON_SECONDS


def learn(folder: Path) -> None:
    """Estimate from now on as fast as this take was made. Raises TakeError."""
    with Take.open(folder) as take:
        expected = _seconds(take.samples, take.samples * len(take.people))
        if take.people and take.samples >= TELLING_FRAMES:
            slowness[take.backend] = sum(entry["seconds"] for entry in take.entries()) / expected


def size_text(size: float) -> str:
    """1234567 -> "1.2 MB"."""
    for unit in ("KB", "MB", "GB"):
        size /= 1000
        if size < 999.5 or unit == "GB":
            return f"{size:.1f} {unit}" if size < 9.95 else f"{size:.0f} {unit}"
    raise AssertionError


def time_text(seconds: float) -> str:
    """75 -> "75 s", 600 -> "10 min", 8000 -> "2 h 13 min"."""
    if seconds < 99.5:
        return f"{max(0, round(seconds))} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours > 1 else f"{60 * hours + minutes} min"
