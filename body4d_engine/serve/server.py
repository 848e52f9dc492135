# SPDX-License-Identifier: Apache-2.0
"""The plumbing of `serve`: what comes in is answered in order, a cancel and the end of the pipe are seen at once."""

import _thread
import collections
import json
import math
import os
import queue
import signal
import sys
import threading
import traceback
from contextlib import contextmanager
from pathlib import Path

from .. import wire
from ..errors import Body4DError
from .requests import PARAMETERS, Requests

GRACE_SECONDS = 2.0
IDLE_SECONDS = 10.0  # without a request, after which the clip's file is let go of


class Cancelled(Body4DError):
    """The user stopped it."""

    def __init__(self):
        super().__init__("It was stopped.", "What was done is kept: run again to go on from there.", "cancelled")


class Server:
    """Answers the requests that come from `reader` on `writer`; clips and takes are kept in `folder`. See the package for the requests."""

    def __init__(self, reader, writer, folder: Path):
        self.reader, self.writer = reader, writer
        self.requests = Requests(folder, self)
        self._incoming: queue.Queue = queue.Queue()
        self._later: collections.deque = collections.deque()  # what must wait for the end of a run: other runs, and the end
        self._asked, self._cancelled = 0, 0.0  # number of the latest request, and of the latest that is cancelled
        self._current, self._breakable = 0, False  # number of the request that is being answered; whether it may be broken off anywhere
        self._signals = self._interrupting = False  # whether we may interrupt the thread that answers; whether we just do
        self._writing, self._grace_seconds, self._idle_seconds = threading.Lock(), GRACE_SECONDS, IDLE_SECONDS
        self._last_resort: threading.Timer | None = None

    def serve(self) -> None:
        """Until the pipe ends."""
        self._signals = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, self._interrupted) if self._signals else None
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            while (request := self._next()) is not None:
                self._answer(*request)
                if self._incoming.empty():
                    self.requests.prepare()
        finally:
            self.requests.end()
            if self._signals:
                signal.signal(signal.SIGINT, before)
            if self._last_resort:
                self._last_resort.cancel()

    def _next(self) -> tuple | None:
        """The next request, None at the end of the pipe."""
        if self._later:
            return self._later.popleft()
        try:
            return self._incoming.get(timeout=self._idle_seconds if self.requests.holds_clip else None)
        except queue.Empty:
            self.requests.rest()
            return self._incoming.get()

    # -- what requests need -------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises Cancelled where the request that is being answered was cancelled."""
        if self._current <= self._cancelled:
            raise Cancelled

    def notify(self, method: str, params: dict, arrays=None) -> None:
        self._send({"method": method, "params": params}, arrays)

    def meanwhile(self) -> None:
        """During a run: answer what else was asked, and see whether it was cancelled."""
        breakable, self._breakable = self._breakable, False
        current = self._current
        while not self._incoming.empty():
            request = self._incoming.get()
            if request is None or request[1].get("method") == "run":
                self._later.append(request)
            else:
                self._answer(*request)
        self._current, self._breakable = current, breakable
        self.check()

    @contextmanager
    def breakable(self):
        """Inside, a cancel need not wait for the next `check`. For work that is as safe to break off anywhere as it is to kill."""
        self._breakable = True
        try:
            self.check()
            yield
        finally:
            self._breakable = False

    # -- the pipe -----------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        try:
            while (request := wire.receive(self.reader)) is not None:
                message, arrays = request
                self._asked += 1
                if message.get("method") == "cancel":
                    self._cancel(self._asked)
                    self._send_aside({"id": message.get("id"), "result": {}})
                else:
                    self._incoming.put((self._asked, message, arrays))
        except Body4DError as error:
            print(f"body4d serve: {error}", file=sys.stderr)
            self._send_aside(_error(None, error)).join(self._grace_seconds)
        finally:
            self._end()

    def _cancel(self, number: float) -> None:
        self._cancelled = number
        if self._signals:
            self._interrupting = True
            _thread.interrupt_main()  # calls _interrupted over there

    def _interrupted(self, *_) -> None:
        if not self._interrupting:
            raise KeyboardInterrupt  # somebody pressed Ctrl-C
        self._interrupting = False
        if self._breakable and self._current <= self._cancelled:
            self._breakable = False
            raise Cancelled

    def _end(self) -> None:
        """Nobody is there any more: end the run, and if it does not notice, the process."""
        self._last_resort = threading.Timer(self._grace_seconds, os._exit, (0,))
        self._last_resort.daemon = True
        self._last_resort.start()
        self._incoming.put(None)
        self._cancel(math.inf)

    def _send_aside(self, message: dict) -> threading.Thread:
        """Without waiting: whoever cancels may have stopped to read, and the end of stdin must be seen all the same."""
        thread = threading.Thread(target=self._send, args=(message,), daemon=True)
        thread.start()
        return thread

    def _send(self, message: dict, arrays=None) -> None:
        try:
            with self._writing:
                wire.send(self.writer, message, arrays)
        except OSError:  # the client has gone
            if self._cancelled != math.inf:
                self._end()

    def _answer(self, number: int, message: dict, arrays: dict) -> None:
        self._current = number
        name, method = message.get("id"), message.get("method")
        try:
            if not isinstance(method, str) or method not in PARAMETERS:
                raise Body4DError(f"The engine does not know the request {str(method)[:40]}.", "Update the engine.", "unknown_method")
            result, sent = getattr(self.requests, method)(_checked(method, message.get("params")), arrays)
            self._send({"id": name, "result": result}, sent)
        except Exception as error:  # whatever went wrong belongs to the client, with the trace for its log
            self._send(_error(name, error))


def _checked(method: str, params) -> dict:
    """The parameters of a request; those left out are None. Raises Body4DError where one is missing or of another kind."""
    params, checked = {} if params is None else params, {}
    for text, kind in PARAMETERS[method].items():
        name = text.removesuffix("?")
        value = checked[name] = params.get(name) if isinstance(params, dict) else None
        if (value is None and text == name) or (value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool))):
            raise Body4DError(f"The request {method} needs {name}." if value is None else f"The {name} of the request {method} cannot be {value!r:.60}.",
                              "Update the older of engine and add-on.", "bad_request")
    try:
        json.dumps(checked, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Body4DError("A name holds characters that no other computer can read.", "Rename the clip and its folder.", "bad_request") from error
    return checked


def _error(number, error: Exception) -> dict:
    known = isinstance(error, Body4DError)
    data = {"code": error.code if known else "internal", "hint": error.hint if known else "Send the log with a report of what you did.",
            "traceback": "".join(traceback.format_exception(error))[-20000:]}
    text = error.message if known else f"The engine failed: {error!r:.300}."
    return {"id": number, "error": {"code": -32601 if data["code"] == "unknown_method" else -32000, "message": text, "data": data}}
