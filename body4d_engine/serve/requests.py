# SPDX-License-Identifier: Apache-2.0
"""What each request of `serve` does. Each method takes its parameters, checked, and the arrays; it returns the result and the arrays to go with it."""

import os
import platform
import re
import shutil
import sys
from contextlib import ExitStack, closing, suppress
from fractions import Fraction
from pathlib import Path

from .. import __version__, wire
from ..disk import writing
from ..errors import Body4DError, TakeError
from ..take import Take
from .clips import Clips
from .copies import forget, is_whole, share
from .rates import Rates

NUMBER = (int, float)
PARAMETERS = {  # by request: name -> kind; with a question mark: may be left out
    "hello": {"protocol": int},
    "offer": {"name": str, "files?": list, "sha256": str, "path?": str, "stamp?": str},
    "send": {"sha256": str, "file": str, "offset": int},
    "open": {"sha256": str, "image_fps?": NUMBER},
    "close_clip": {},
    "picture": {"frame": int, "max_side?": int},
    "detect": {"frame": int, "thorough?": bool},
    "mask": {"frame": int, "person": dict},
    "run": {"sha256": str, "take": str, "backend?": str, "people?": list, "settings?": dict, "range?": list, "fresh?": bool, "until?": str,
            "image_fps?": NUMBER, "copy?": str},
    "import_meshes": {"sources": list, "take": str, "topology?": str, "focal_px?": NUMBER, "fps?": NUMBER, "clip?": str, "fresh?": bool, "copy?": str},
    "close": {"take": str, "copy?": str},
    "cache": {},
    "clear": {},
    "doctor": {"online?": bool},
}


class Requests:
    """`server` has check, notify, meanwhile and breakable; clips and takes are kept in `folder`."""

    def __init__(self, folder: Path, server):
        self.folder, self.server = folder, server
        self.clips = Clips(folder)
        self._clip = None  # the open clip; what must be let go of with it
        self._open = ExitStack()
        self._chosen: tuple[str, Fraction | None] | None = None  # which that is, its sha256 and image rate; also while its file is let go of
        self._finder = None

    def prepare(self) -> None:
        """There is time: have ready what the first click needs."""
        if self._clip is not None and self._finder is None:
            try:
                self._find()
            except Exception as error:  # whoever clicks is told again
                print(f"body4d serve: the networks cannot be loaded: {error!r}", file=sys.stderr)

    def end(self) -> None:
        self._open.close()

    # -- the engine and its clips -------------------------------------------------------------------------------------

    def hello(self, params: dict, _):
        from ..backends import BACKENDS

        if params["protocol"] != wire.PROTOCOL:
            raise Body4DError(f"The engine speaks protocol {wire.PROTOCOL}, the add-on {params['protocol']}.", "Update the older of the two.", "protocol")
        lacks = {name: {models: backend.lacks(models=models) for models in backend.models} for name, backend in BACKENDS.items()}
        return {"protocol": wire.PROTOCOL, "engine": __version__, "python": platform.python_version(), "device": f"CPU, {os.cpu_count()} cores",
                "backends": {name: {"lacks": models["ours"], "models": models} for name, models in lacks.items()}, "cache_bytes": self._cache_bytes()}, {}

    def doctor(self, params: dict, _):
        """It changes nothing, so it may be broken off anywhere."""
        from ..doctor import examination

        with self.server.breakable():
            return {"examination": examination(params["online"] or False)}, {}

    def offer(self, params: dict, arrays: dict):
        files = wire.unpack_json(arrays["files"]) if "files" in arrays else params["files"]
        have, received = self.clips.offer(params["name"], files, params["sha256"], params["path"], params["stamp"], self.server.check)
        return {"have": have, **({"received": received} if received else {})}, {}

    def send(self, params: dict, arrays: dict):
        if "bytes" not in arrays:
            raise Body4DError("A part of a clip comes as the array bytes.", code="bad_request")
        data = arrays["bytes"].reshape(-1).view("u1").data
        return {"received": self.clips.send(params["sha256"], params["file"], params["offset"], data)}, {}

    def open(self, params: dict, _):
        from ..backends import get_backend

        get_backend("lite")  # says what is missing, where anything is
        self.close_clip()
        chosen = params["sha256"], _rate(params["image_fps"])
        clip = self._hold(*chosen)
        self._chosen = chosen
        return {"clip": {"name": clip.name, "width": clip.width, "height": clip.height, "fps": [clip.fps.numerator, clip.fps.denominator],
                         "frames": clip.frame_count, "notices": [notice.to_json() for notice in clip.notices],
                         "blender_reasons": list(clip.facts.blender_reasons)}}, {}

    def close_clip(self, *_):
        self.rest()
        self._chosen = None
        if self._finder is not None:
            self._finder.forget()
        return {}, {}

    def rest(self) -> None:
        """Nothing is asked for: let go of the clip's file, so that it may be moved and renamed. The next question about it takes it up again."""
        self._clip = None
        self._open.close()

    @property
    def holds_clip(self) -> bool:
        return self._clip is not None

    def _hold(self, sha256: str, image_fps: Fraction | None):
        from ..clip import open_clip

        with ExitStack() as stack:
            path, _ = stack.enter_context(self.clips.using(sha256))
            clip = stack.enter_context(open_clip(path, image_fps=image_fps))
            self._open, self._clip = stack.pop_all(), clip
        return clip

    def _opened(self, frame: int):
        if self._clip is None and self._chosen is not None:
            self._hold(*self._chosen)
        if self._clip is None:
            raise Body4DError("No clip is open.", "Choose a clip first.", "no_clip")
        if not 0 <= frame < self._clip.frame_count:
            raise Body4DError(f"{self._clip.name} has no frame {frame}: it has {self._clip.frame_count}, numbered from 0.", "Go to a frame of the clip.",
                              "no_such_frame")
        return self._clip

    # -- one frame ----------------------------------------------------------------------------------------------------

    def picture(self, params: dict, _):
        import cv2

        rgb = self._opened(params["frame"]).read(params["frame"])
        largest = max(1, params["max_side"] or max(rgb.shape))
        if largest < max(rgb.shape):
            height, width = (max(1, round(side * largest / max(rgb.shape))) for side in rgb.shape[:2])
            rgb = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
        return {}, {"rgb": rgb}

    def detect(self, params: dict, _):
        found = self._find().everybody(self._opened(params["frame"]), params["frame"], params["thorough"] or False)
        people = [{"box": _list(seen.box), "score": round(seen.confidence, 4), "click": click and list(click), "mask": _mask(number, seen.mask)}
                  for number, (seen, click) in enumerate(found)]
        return {"people": people}, {f"mask_{number}": wire.pack_mask(seen.mask) for number, (seen, _) in enumerate(found)}

    def mask(self, params: dict, _):
        from ..people import Person

        clip, person = self._opened(params["frame"]), Person.from_json(params["person"])
        try:
            seen = self._find().meant(clip, params["frame"], person)
        except Body4DError as error:
            if error.code not in ("no_prompt", "prompt_only_negative", "prompt_lost", "prompt_hit_nobody", "prompt_outside_picture"):
                raise
            return {"box": None, "confidence": None, "hit": False, "message": f"{error.message} {error.hint}".strip(), "mask": None}, {}
        return {"box": _list(seen.box), "confidence": round(seen.confidence, 4), "hit": True, "message": "", "mask": _mask(0, seen.mask)}, {
            "mask_0": wire.pack_mask(seen.mask)}

    def _find(self):
        from .finding import Finder

        self._finder = self._finder or Finder(self.server.check)
        return self._finder

    # -- runs ---------------------------------------------------------------------------------------------------------

    def run(self, params: dict, arrays: dict):
        from ..backends import get_backend
        from ..clip import open_clip
        from ..people import Person
        from ..pipeline import run
        from ..settings import checked

        folder = self._take_folder(params["take"])
        people, settings = [Person.from_json(entry) for entry in params["people"] or []], checked(params["settings"])
        backend, until = get_backend(params["backend"] or "lite", settings["weights"], settings["models"]), params["until"]
        if until not in (None, *(stage.name for stage in backend.stages(settings))):
            raise Body4DError(f"There is no stage {until}.", code="bad_request")
        self._adopt(folder, None if params["fresh"] else params["copy"])
        with self.clips.using(params["sha256"]) as (path, origin), open_clip(path, *_range(params["range"]), _rate(params["image_fps"])) as clip:
            clip.origin, clip.watch = origin, self.server.meanwhile
            return self._stream(run(clip, folder, backend, people, settings, params["fresh"] or False, until), folder, arrays)

    def import_meshes(self, params: dict, arrays: dict):
        """The sources, the topology and the clip are files that this side sees."""
        from ..imports import import_any

        folder, paths = self._take_folder(params["take"]), [*params["sources"], params["topology"], params["clip"]]
        if not all(path is None or (isinstance(path, str) and "\0" not in path) for path in paths):
            raise Body4DError("A file is named by its path.", code="bad_request")
        self._adopt(folder, None if params["fresh"] else params["copy"])
        events = import_any(params["sources"], folder, params["topology"], params["focal_px"], params["fps"], params["clip"], params["fresh"] or False)
        return self._stream(events, folder, arrays)

    def _stream(self, events, folder: Path, arrays: dict):
        """Do the work of which these are the events, and send the client what they tell and what the take gains."""
        from ..events import Committed, StageFinished
        from ..report import summarise

        sent, rates = wire.unpack_held(arrays["held"]) if "held" in arrays else {}, Rates()
        with closing(events):
            while True:
                with self.server.breakable():
                    event = next(events, None)
                if isinstance(event, (Committed, StageFinished)):
                    self._copy(folder, sent)
                if event is None:
                    break
                self.server.notify("event", {**event.to_json(), **rates.of(event, folder)})
                self.server.meanwhile()
        self._copy(folder, sent)
        with Take.open(folder) as take:
            return {"summary": summarise(take) if take.stage("camera") or take.stage("import") else {}}, {}

    def _adopt(self, folder: Path, copy: str | None) -> None:
        """Where the client has a copy of a take that is not here, go on with that. Raises Body4DError where it cannot be seen from here."""
        if copy is None or Take.exists(folder):
            return
        there = Path(copy.replace("\0", ""))
        if not there.is_absolute() or not Take.exists(there) or Take.open(there).id != folder.stem:
            raise Body4DError("The engine does not have this take any more.", "Start over, or choose another folder for the take.", "take_unknown")
        with writing(folder):
            part = folder.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            share(there, part)
            os.replace(part, folder)

    def _copy(self, folder: Path, sent: dict) -> None:
        with Take.open(folder) as take:
            for message, arrays in wire.changes(take, sent):
                self.server.notify(message["method"], message["params"], arrays)

    def _take_folder(self, name: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            raise Body4DError("A take is named by letters, digits and dashes.", code="bad_request")
        return self.folder / "takes" / f"{name}.take"

    # -- the cache ----------------------------------------------------------------------------------------------------

    def close(self, params: dict, _):
        folder = self._take_folder(params["take"])
        if params["copy"] is None or is_whole(Path(params["copy"].replace("\0", "")), folder):
            forget(folder)
        return {}, {}

    def cache(self, *_):
        return {"bytes": self._cache_bytes()}, {}

    def clear(self, *_):
        before = self._cache_bytes()
        self.clips.clear()
        for take in (self.folder / "takes").glob("*.take"):
            with suppress(TakeError):  # somebody writes it
                forget(take)
        for part in (self.folder / "takes").glob("*.part"):
            shutil.rmtree(part, ignore_errors=True)
        return {"bytes": max(0, before - self._cache_bytes())}, {}

    def _cache_bytes(self) -> int:
        total = 0
        for folder, _, names in os.walk(self.folder):
            for name in names:
                with suppress(OSError):  # a run of another engine goes on
                    total += os.path.getsize(os.path.join(folder, name))
        return total


def _list(values) -> list[float]:
    return [round(float(value), 2) for value in values]


def _mask(number: int, mask) -> dict:
    return {"size": list(mask.shape), "array": f"mask_{number}"}


def _rate(fps) -> Fraction | None:
    try:
        return None if fps is None else Fraction(fps)
    except (ValueError, OverflowError) as error:
        raise Body4DError(f"{fps} frames per second is no possible rate.", code="bad_request") from error


def _range(given: list | None) -> tuple:
    start, stop, step = given if given is not None and len(given) == 3 else (0, None, 1)
    if (given is not None and len(given) != 3) or not all(type(n) is int for n in (start, step, 0 if stop is None else stop)):
        raise Body4DError("A range is [first frame, the frame after the last or null, step].", code="bad_request")
    return start, stop, step
