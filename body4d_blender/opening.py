# SPDX-License-Identifier: GPL-3.0-or-later
"""A clip comes to the engine: known by its content, offered, sent where the engine cannot see it, opened."""

from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from body4d_engine import wire
from body4d_engine.clip_files import clip_files, identify, stamp_of
from body4d_engine.errors import Body4DError

from . import connection
from .engine import EngineError, stopped

CHUNK = 4 << 20
IMAGE_FPS = 30.0  # of a folder of images, where nobody says otherwise; as the engine's own

_identities: dict[str, tuple[str, dict]] = {}  # path -> the stamp of its files, and what `offer` says of it
_ways: "dict[str, _Way]" = {}  # path -> a clip that is under way


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
    image_fps: float | None  # the rate that was asked for, of a folder of images; None for a video, which has its own


last: Clip | None = None  # the clip that requests about frames are about; None while another is being opened
_engine: dict | None = None  # the hello of the engine that has it open


def is_open(path: Path, image_fps: float) -> bool:
    """Whether the engine that runs now has the clip at this path open, a folder of images at this rate."""
    return last is not None and last.path == str(path) and last.image_fps in (None, image_fps) and _engine is connection.hello()


def forget() -> None:
    """The engine need not have a clip open any more: its file may then be moved. An engine that does not run has none."""
    global last
    last = None
    if connection.hello():
        connection.ask("close_clip")


def lost() -> None:
    """The engine says that it has not got what it had open: it will be opened anew."""
    global last
    last = None


class Opening:
    """A clip on its way into the engine. `words`: what is done; `fraction`: how much of that. Then done(clip: Clip) or failed(error: Body4DError).

    image_fps: the rate of a folder of images. Several of one clip share the way: it is read and sent once.
    """

    def __init__(self, path, done, failed, image_fps: float = IMAGE_FPS):
        self.done, self.failed = done, failed
        way = _ways.get(str(path))
        self._way = way if way is not None and not way.cancelled else _Way(Path(path), image_fps)
        self._way.waiting.append(self)

    @property
    def words(self) -> str:
        return self._way.words

    @property
    def fraction(self) -> float:
        return self._way.fraction

    def cancel(self) -> None:
        """Wait no longer. Once nobody does, the way ends; what was sent by then need not be sent again."""
        if len(self._way.waiting) > 1:
            self._way.waiting.remove(self)
            self.failed(stopped())
        else:
            self._way.cancelled = True


class _Way:
    """What `Opening` shows, for all of the same clip that are `waiting`."""

    def __init__(self, path: Path, image_fps: float):
        self.path, self.waiting, self.cancelled = path, [], False
        self.words, self.fraction = f"Reading {path.name}", 0.0
        self._image_fps, self._offer = image_fps, {}
        _ways[str(path)] = self
        connection.InThread(self._identify, self._offered, self._fail)

    def _identify(self) -> dict:
        if not self.path.exists():
            raise EngineError(f"There is no clip at {self.path}.", "Choose it again where it is now.", "no_such_file")
        known = _identities.get(str(self.path))
        if known is None or known[0] != stamp_of(clip_files(self.path)):
            offer = identify(self.path, self._read)
            known = _identities[str(self.path)] = offer["stamp"], offer
        return {**known[1], "images": self.path.is_dir()}

    def _read(self, fraction: float) -> None:
        """By the thread that reads."""
        self.fraction = fraction
        self._watch()

    def _watch(self) -> None:
        if self.cancelled:
            raise stopped()

    def _end(self, call: str, what) -> None:
        """Tell everyone who waits."""
        if _ways.get(str(self.path)) is self:
            del _ways[str(self.path)]
        waiting, self.waiting = self.waiting, []
        for opening in waiting:
            getattr(opening, call)(what)

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, Body4DError):
            error = EngineError(f"{self.path} cannot be read: {getattr(error, 'strerror', None) or error}.", "Check that it is still there.", "no_such_file")
        self._end("failed", error)

    def _ask(self, method: str, params: dict, done, arrays=None) -> None:
        try:
            self._watch()
        except EngineError as error:
            self._fail(error)
            return
        connection.ask(method, params, arrays, done, self._fail)

    def _offered(self, offer: dict) -> None:
        self._offer, self.words, self.fraction = offer, "Opening the clip", 0.0
        self._ask("offer", {name: offer[name] for name in ("name", "sha256", "path", "stamp")},
                  lambda answer, _: self._open() if answer.get("have") else self._go_on(answer.get("received", 0)), {"files": wire.pack_json(offer["files"])})

    def _go_on(self, received: int) -> None:
        """Send what has not come yet."""
        index, offset = 0, received
        while index < len(self._offer["files"]) and offset >= self._offer["files"][index]["bytes"]:
            offset -= self._offer["files"][index]["bytes"]
            index += 1
        self._send(index, offset, received)

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
        file = self.path / entry["name"] if self._offer["images"] else self.path

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
        self._ask("open", {"sha256": self._offer["sha256"], **({"image_fps": self._image_fps} if self._offer["images"] else {})}, self._opened)

    def _opened(self, answer: dict, _) -> None:
        global last, _engine
        try:
            clip = answer["clip"]
            opened = Clip(self._offer["sha256"], str(self.path), clip["width"], clip["height"], Fraction(*clip["fps"]), clip["frames"], clip["notices"],
                          clip.get("blender_reasons", []), self._image_fps if self._offer["images"] else None)
        except (KeyError, TypeError, ValueError) as error:
            self._fail(EngineError(f"The engine's answer about {self.path.name} is not complete ({error!r}).", "Update the engine.", "bad_message"))
            return
        last, _engine = opened, connection.hello()
        self._end("done", opened)
