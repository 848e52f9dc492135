# SPDX-License-Identifier: GPL-3.0-or-later
"""A clip comes to the engine: known by its content, offered, sent where the engine cannot see it, opened."""

from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from body4d_engine import wire
from body4d_engine.clip_files import clip_files, identify
from body4d_engine.errors import Body4DError

from . import connection
from .engine import EngineError, stopped

CHUNK = 4 << 20

_identities: dict[str, tuple[list, dict]] = {}  # path -> sizes and times of its files, and what `offer` says of it


class Clip(NamedTuple):
    """A clip that the engine has open. `key` names its content; width and height in px of the upright picture."""

    key: str
    path: str
    width: int
    height: int
    fps: Fraction
    frames: int
    notices: list
    blender_reasons: list  # why Blender would not show it frame for frame; empty where it does


last: Clip | None = None  # the clip that requests about frames are about; None while another is being opened
_engine: dict | None = None  # the hello of the engine that has it open


def is_open(path: Path) -> bool:
    """Whether the engine that runs now has the clip at this path open."""
    return last is not None and last.path == str(path) and _engine is connection.hello()


class Opening:
    """A clip on its way into the engine. `words`: what is done; `fraction`: how much of that. Then done(clip: Clip) or failed(error: Body4DError)."""

    def __init__(self, path, done, failed):
        self.path, self.fraction, self._done, self._failed = Path(path), 0.0, done, failed
        self.words = f"Reading {self.path.name}"
        self._cancelled, self._offer = False, {}
        connection.InThread(self._identify, self._offered, self._fail)

    def cancel(self) -> None:
        self._cancelled = True

    def _identify(self) -> dict:
        if not self.path.exists():
            raise EngineError(f"There is no clip at {self.path}.", "Choose it again where it is now.", "no_such_file")
        stamp = [(file.name, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in clip_files(self.path)]
        known = _identities.get(str(self.path))
        if known is None or known[0] != stamp:
            known = _identities[str(self.path)] = stamp, identify(self.path, self._read)
        return known[1]

    def _read(self, fraction: float) -> None:
        """By the thread that reads."""
        self.fraction = fraction
        self._watch()

    def _watch(self) -> None:
        if self._cancelled:
            raise stopped()

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, Body4DError):
            error = EngineError(f"{self.path} cannot be read: {getattr(error, 'strerror', None) or error}.", "Check that it is still there.", "no_such_file")
        self._failed(error)

    def _ask(self, method: str, params: dict, done, arrays=None) -> None:
        try:
            self._watch()
        except EngineError as error:
            self._failed(error)
            return
        connection.ask(method, params, arrays, done, self._failed)

    def _offered(self, offer: dict) -> None:
        self._offer, self.words, self.fraction = offer, "Opening the clip", 0.0
        self._ask("offer", {name: offer[name] for name in ("name", "sha256", "path")},
                  lambda answer, _: self._open() if answer.get("have") else self._send(0, 0, 0), {"files": wire.pack_json(offer["files"])})

    def _send(self, index: int, offset: int, total: int) -> None:
        """Send from there on, chunk by chunk: the next when the one before has arrived."""
        files = self._offer["files"]
        while index < len(files) and not files[index]["bytes"]:  # nothing to send of it
            index += 1
        self.words, self.fraction = "Sending the clip", total / max(1, sum(entry["bytes"] for entry in files))
        if index == len(files):
            self._open()
            return
        entry = files[index]
        size = min(CHUNK, entry["bytes"] - offset)
        file = self.path / entry["name"] if self.path.is_dir() else self.path

        def read() -> dict:
            with open(file, "rb") as source:
                source.seek(offset)
                return {"bytes": np.frombuffer(source.read(size), np.uint8)}

        def arrived(answer, _) -> None:
            whole = offset + size >= entry["bytes"]
            self._send(index + whole, 0 if whole else offset + size, total + size)

        self._ask("send", {"sha256": self._offer["sha256"], "file": entry["name"], "offset": offset}, arrived, read)

    def _open(self) -> None:
        global last
        last, self.words, self.fraction = None, "Opening the clip", 0.0
        self._ask("open", {"sha256": self._offer["sha256"]}, self._opened)

    def _opened(self, answer: dict, _) -> None:
        global last, _engine
        try:
            clip = answer["clip"]
            opened = Clip(self._offer["sha256"], str(self.path), clip["width"], clip["height"], Fraction(*clip["fps"]), clip["frames"], clip["notices"],
                          clip.get("blender_reasons", []))
        except (KeyError, TypeError, ValueError) as error:
            self._failed(EngineError(f"The engine's answer about {self.path.name} is not complete ({error!r}).", "Update the engine.", "bad_message"))
            return
        last, _engine = opened, connection.hello()
        self._done(opened)
