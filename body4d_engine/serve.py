# SPDX-License-Identifier: Apache-2.0
"""The engine as one long-lived child: requests on stdin, answers, events and growing takes on stdout. It ends when stdin closes.

Requests (JSON-RPC over `wire`; the two sides share no file system):
    hello {protocol}                                -> {protocol, engine, python, backends}
    offer {name, bytes, sha256}                     -> {have}: whether the engine has that clip already
    send  {sha256, offset} + array `bytes`          -> {received}; the clip is complete when all its bytes have come and their hash is right
    run   {sha256, take, backend, people, settings, range, fresh} -> {summary}; meanwhile notifications `event`, `take/bytes` and `take/commit`
    cancel {}                                       -> {} at once; the run then answers with the error `cancelled`, what it committed stays
    close {take}                                    -> {}: the engine's copy of that take is deleted

A run is one at a time. Errors carry {code, message, data: {code, hint, traceback}}.
"""

import hashlib
import math
import os
import platform
import queue
import re
import sys
import threading
import traceback
from contextlib import closing
from pathlib import Path

from . import __version__, wire
from .disk import writing
from .errors import Body4DError
from .take import Take, delete_take

GRACE_SECONDS = 2.0


class Cancelled(Body4DError):
    """The user stopped the run."""


def serve() -> int:
    """Serve until stdin closes. File descriptors 0 and 1 are moved away first: what a library prints goes to the log, and none reads our input."""
    inn, out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    folder = Path(os.environ.get("BODY4D_CACHE") or Path.home() / ".cache" / "body4d" / "serve")  # /tmp may be memory, and is everybody's
    folder.mkdir(parents=True, exist_ok=True)
    wire.greet(out)
    Server(inn, out, folder).serve()
    return 0


class Server:
    """Answers the requests that come from `reader` on `writer`; clips and takes are kept in `folder`."""

    def __init__(self, reader, writer, folder: Path):
        self.reader, self.writer, self.folder = reader, writer, folder
        self.requests: queue.Queue = queue.Queue()
        self._asked = self._begun = self._cancelled = 0  # runs that were asked for, begun, and (all up to this one) cancelled
        self._writing, self._grace_seconds = threading.Lock(), GRACE_SECONDS
        self._offered: dict | None = None  # the clip that is being sent

    def serve(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()
        while (request := self.requests.get()) is not None:
            message, arrays = request
            self._answer(message, arrays)

    def _listen(self) -> None:
        try:
            while (request := wire.receive(self.reader)) is not None:
                method = request[0].get("method")
                self._asked += method == "run"
                if method == "cancel":
                    self._cancelled = max(self._cancelled, self._asked)
                    # Not here: whoever cancels may have stopped to read, and the end of stdin must be seen all the same.
                    threading.Thread(target=self._send, args=({"id": request[0].get("id"), "result": {}},), daemon=True).start()
                else:
                    self.requests.put(request)
        except Body4DError as error:
            print(f"body4d serve: {error}", file=sys.stderr)
        finally:
            self._end()

    def _end(self) -> None:
        """Nobody is there any more: end the run, and if it does not notice, the process."""
        self._cancelled = math.inf
        self.requests.put(None)
        timer = threading.Timer(self._grace_seconds, os._exit, (0,))
        timer.daemon = True
        timer.start()

    def _send(self, message: dict, arrays=None) -> None:
        try:
            with self._writing:
                wire.send(self.writer, message, arrays)
        except OSError:  # the client has gone
            if self._cancelled != math.inf:
                self._end()

    def _answer(self, message: dict, arrays: dict) -> None:
        number, method = message.get("id"), message.get("method")
        call = {"hello": self.hello, "offer": self.offer, "send": self.send, "run": self.run, "close": self.close}.get(method)
        try:
            if call is None:
                raise Body4DError(f"The engine does not know the request {method}.", "Update the engine.", "unknown_method")
            self._send({"id": number, "result": call(message.get("params", {}), arrays)})
        except Exception as error:  # whatever went wrong belongs to the client, with the trace for its log
            known = isinstance(error, Body4DError)
            data = {"code": error.code if known else "internal", "hint": error.hint if known else "Send the log with a report of what you did.",
                    "traceback": traceback.format_exc()}
            text = error.message if known else f"The engine failed: {error!r}."
            self._send({"id": number, "error": {"code": -32601 if data["code"] == "unknown_method" else -32000, "message": text, "data": data}})

    def hello(self, params: dict, _) -> dict:
        from .backends import BACKENDS

        if params.get("protocol") != wire.PROTOCOL:
            raise Body4DError(f"The engine speaks protocol {wire.PROTOCOL}, the add-on {params.get('protocol')}.",
                              "Update the older of the two.", "protocol")
        return {"protocol": wire.PROTOCOL, "engine": __version__, "python": platform.python_version(), "device": "cpu",
                "backends": {name: {"lacks": backend.lacks()} for name, backend in BACKENDS.items()}}

    def _clip_folder(self, sha256: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise Body4DError("A clip is named by its sha256.", code="bad_request")
        return self.folder / "clips" / sha256

    def _clip_file(self, sha256: str) -> Path:
        files = list(self._clip_folder(sha256).glob("*"))
        if not files:
            raise Body4DError("The engine does not have this clip.", "Offer and send it first.", "clip_missing")
        return files[0]

    def offer(self, params: dict, _) -> dict:
        folder = self._clip_folder(params["sha256"])
        name = re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", params["name"]).strip(". ")[-60:] or "clip"  # as messages will call it
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for file in folder.glob("*"):  # it is complete, or it would not be there
                if file.name != name:
                    os.replace(file, folder / name)
                return {"have": True}
            part = folder.with_suffix(".part")
            part.write_bytes(b"")
        self._offered = {"sha256": params["sha256"], "target": folder / name, "part": part, "bytes": params["bytes"], "hash": hashlib.sha256()}
        return {"have": False}

    def send(self, params: dict, arrays: dict) -> dict:
        offered = self._offered
        if not offered or offered["sha256"] != params["sha256"]:
            raise Body4DError("This clip was not offered.", "Offer it first.", "bad_request")
        part, data = offered["part"], arrays["bytes"].tobytes()
        with writing(part):
            if part.stat().st_size != params["offset"]:
                raise Body4DError("A part of the clip is missing.", "Offer the clip again.", "bad_request")
            with open(part, "ab") as file:
                file.write(data)
            offered["hash"].update(data)
            received = params["offset"] + len(data)
            if received >= offered["bytes"]:
                self._offered = None
                if offered["hash"].hexdigest() != params["sha256"]:
                    part.unlink()
                    raise Body4DError("The clip arrived damaged.", "Send it again.", "clip_damaged")
                os.replace(part, offered["target"])
        return {"received": received}

    def _take_folder(self, name: str) -> Path:
        if not re.fullmatch(r"[\w-]{1,64}", name):
            raise Body4DError("A take is named by letters, digits and dashes.", code="bad_request")
        return self.folder / "takes" / f"{name}.take"

    def run(self, params: dict, _) -> dict:
        from .backends import get_backend
        from .clip import open_clip
        from .events import Committed, StageFinished
        from .people import Person
        from .pipeline import run
        from .report import summarise

        self._begun += 1
        folder, sent = self._take_folder(params["take"]), {}
        people = [Person.from_json(entry) for entry in params.get("people", [])]
        settings = {"focal_px": None, "focal_mm": None, "heights": {}, **params.get("settings", {})}
        settings["heights"] = {int(number): metres for number, metres in settings["heights"].items()}
        backend = get_backend(params.get("backend", "lite"))
        with open_clip(self._clip_file(params["sha256"]), *params.get("range", (0, None, 1))) as clip:
            with closing(run(clip, folder, backend, people, settings, params.get("fresh", False))) as events:
                for event in events:
                    self._send({"method": "event", "params": event.to_json()})
                    if isinstance(event, (Committed, StageFinished)):
                        self._copy(folder, sent)
                    if self._begun <= self._cancelled:
                        raise Cancelled("The run was stopped.", "Continue goes on where it stopped.", "cancelled")
        self._copy(folder, sent)
        with Take.open(folder) as take:
            return {"summary": summarise(take)}

    def _copy(self, folder: Path, sent: dict) -> None:
        with Take.open(folder) as take:
            for message, arrays in wire.changes(take, sent):
                self._send(message, arrays)

    def close(self, params: dict, _) -> dict:
        delete_take(self._take_folder(params["take"]))
        return {}
