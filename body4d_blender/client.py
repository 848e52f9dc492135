# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's side of `body4d serve`: requests go out, answers and notifications come in. No bpy.

    client = Client([python, "-m", "body4d_engine", "serve"])
    client.ask("detect", {"frame": 0}, done=print, failed=print)
    while client.busy:
        client.tick()

Everything is called back from inside `tick`, on the caller's thread. Whatever happens to the engine, every request is called back exactly
once, and the next request after an engine's end starts a new one.
"""

import collections
import signal
import time
from dataclasses import dataclass
from typing import Callable

from body4d_engine import wire
from body4d_engine.errors import Body4DError

from .child import LOG_LINES, Child, Ended
from .engine import EngineError, stopped
from .wording import hint_for_user, message_for_user

START_SECONDS = 60.0
ABSENT_SECONDS = 0.5
KEPT = "What is finished is kept: try again, and it goes on from there."
SET_UP = "Check the engine in the add-on's preferences."


@dataclass
class _Request:
    method: str
    params: dict
    arrays: dict | Callable | None
    done: Callable | None
    failed: Callable | None


class Client:
    """One engine. `state`: "off" (not started, or ended by `stop`), "starting", "ready", "stopped" (it ended by itself; `error` says why)."""

    def __init__(self, command: list[str], start_s: float = START_SECONDS):
        self.command, self.state = list(command), "off"
        self.hello: dict | None = None
        self.error: EngineError | None = None
        self.log: collections.deque[str] = collections.deque(maxlen=LOG_LINES)  # the engine's stderr, and what came before its greeting
        self._start_s, self._started, self._number = start_s, 0.0, 0
        self._child: Child | None = None
        self._held: list[int] = []  # asked before the engine was ready
        self._asked: dict[int, _Request] = {}
        self._failed: collections.deque[tuple[_Request, EngineError]] = collections.deque()
        self._callbacks: dict[str, Callable] = {}
        self._arriving: dict[str, Callable] = {}
        self._cancelled: set[int] = set()  # requests that a cancel wants to see answered
        self._kill_at = self._ticked = 0.0

    @property
    def busy(self) -> bool:
        """Whether `tick` has something to wait for."""
        return bool(self._asked or self._failed or self.state == "starting")

    @property
    def runs(self) -> bool:
        """Whether there is a process."""
        return self._child is not None

    def is_asked(self, *methods: str) -> bool:
        """Whether a request of one of these names waits for its answer."""
        return any(request.method in methods for request in self._asked.values())

    def start(self) -> None:
        """Start the engine, unless one runs. Never waits; what goes wrong is told to the requests, and by `error`."""
        if self._child is not None:
            return
        self.hello = self.error = None
        self.log.clear()
        try:
            self._child = Child(self.command, self.log, self._arrive)
        except (OSError, ValueError) as error:
            self._lose(EngineError(f"The engine {self.command[0]} does not start: {getattr(error, 'strerror', None) or error}.", SET_UP, "no_engine"))
            return
        self.state = "starting"
        self._started = self._ticked = time.monotonic()
        self._put(_Request("hello", {"protocol": wire.PROTOCOL}, None, self._greeted, None), held=False)

    def ask(self, method: str, params: dict | None = None, arrays=None, done=None, failed=None) -> int:
        """Send a request; returns its number. Then either done(result: dict, arrays: dict) or failed(error: EngineError) is called.

        arrays: name -> numpy array, or a function for them that is called by another thread just before they are sent (to read a file, say).
        """
        request = _Request(method, params or {}, arrays, done, failed)
        self.start()
        if self._child is None:
            self._failed.append((request, self.error))
            return 0
        return self._put(request, held=self.state == "starting")

    def on(self, method: str, callback, arriving=None) -> None:
        """Call callback(params, arrays) for every notification of that name. With `arriving`, that is called first, by the reading thread while
        the engine waits, and has the arrays to itself: it must not raise, and `callback` gets none."""
        self._callbacks[method] = callback
        if arriving:
            self._arriving[method] = arriving

    def tick(self, budget_s: float = 0.02) -> bool:
        """Call back what has come: at least one message, then more until the budget is spent. Returns whether there is more at once."""
        until = time.perf_counter() + budget_s
        self._watch()
        while True:
            if self._failed:
                request, error = self._failed.popleft()
                if request.failed:
                    request.failed(error)
            elif self._child is not None and (item := self._child.inbox.get()) is not None:
                self._receive(item)
            else:
                return False
            if time.perf_counter() >= until:
                return bool(self._failed or (self._child is not None and len(self._child.inbox)))

    def cancel(self, grace_s: float = 1.0) -> None:
        """End whatever the engine is at; where its requests are not answered after grace_s, the engine is killed."""
        for number in self._held:
            self._failed.append((self._asked.pop(number), stopped()))
        self._held.clear()
        if self._asked and self.state == "ready" and not self._cancelled:
            self._put(_Request("cancel", {}, None, None, None), held=False)
            self._cancelled, self._ticked = set(self._asked), time.monotonic()
            self._kill_at = self._ticked + grace_s

    def stop(self, tell: bool = True) -> None:
        """End the engine and wait until it is gone (at most a moment: one that does not end by itself is killed). Its requests fail at once;
        tell=False: they are forgotten."""
        child, self._child = self._child, None
        if child is not None:
            child.end()
        self._lose(stopped(), "off")
        while self._failed:
            request, error = self._failed.popleft()
            if tell and request.failed:
                request.failed(error)

    def _put(self, request: _Request, held: bool) -> int:
        self._number += 1
        self._asked[self._number] = request
        if held:
            self._held.append(self._number)
        else:
            self._child.send({"id": self._number, "method": request.method, "params": request.params}, request.arrays)
            request.arrays = None
        return self._number

    def _arrive(self, message: dict, arrays: dict) -> dict:
        """By the reading thread."""
        if not isinstance(message.get("params", {}), dict) or not isinstance(message.get("result", {}), dict):
            raise wire.WireError("A message could not be understood: its content is no object.", "Restart the engine.", "bad_message")
        arriving = self._arriving.get(message.get("method"))
        if arriving is None:
            return arrays
        arriving(message.get("params", {}), arrays)
        return {}

    def _receive(self, item) -> None:
        if isinstance(item, Ended):
            self._lose(self._obituary(item))
            return
        message, arrays = item
        if isinstance(method := message.get("method"), str):
            if method in self._callbacks:
                self._callbacks[method](message.get("params", {}), arrays)
            return
        number = message.get("id")
        request = self._asked.pop(number, None) if isinstance(number, int) else None
        if request is None:
            self.log.append(f"An answer to no question: {str(message)[:200]}")
            return
        self._cancelled.discard(number)
        if "error" in message:
            if request.method == "hello":
                self._lose(_error_of(message["error"]))
            elif request.failed:
                request.failed(_error_of(message["error"]))
        elif request.done:
            request.done(message.get("result", {}), arrays)

    def _greeted(self, hello: dict, _) -> None:
        if hello.get("protocol") != wire.PROTOCOL:
            self._lose(EngineError(f"The engine speaks protocol {hello.get('protocol')}, the add-on {wire.PROTOCOL}.", "Update the older of the two.",
                                   "protocol"))
            return
        self.hello, self.state = hello, "ready"
        for number in self._held:
            request = self._asked[number]
            self._child.send({"id": number, "method": request.method, "params": request.params}, request.arrays)
            request.arrays = None
        self._held.clear()

    def _watch(self) -> None:
        """See to an engine that does not answer. Time in which nobody listened, since Blender was at something else, does not count."""
        now = time.monotonic()
        if now - self._ticked > ABSENT_SECONDS:
            self._started, self._kill_at = self._started + now - self._ticked, self._kill_at + now - self._ticked
        self._ticked = now
        if self.state == "starting" and now > self._started + self._start_s:
            self._lose(EngineError(f"The engine did not answer within {self._start_s:g} seconds{self._tail()}.", SET_UP, "no_engine"))
        elif self._cancelled and now > self._kill_at:
            self._lose(stopped())

    def _lose(self, error: EngineError, state: str = "stopped") -> None:
        """The engine has ended, or must: all requests fail, and the next one starts a new engine."""
        if self._child is not None:
            self._child.kill()
        self._child, self.state, self.hello, self.error = None, state, None, error
        self._failed.extend((request, error) for request in self._asked.values())
        self._asked.clear()
        self._held.clear()
        self._cancelled.clear()

    def _obituary(self, end: Ended) -> EngineError:
        if isinstance(end.reason, Body4DError) and end.reason.code not in ("no_engine", "cut_off"):  # those two say less than how it ended
            return EngineError(f"{end.reason.message.rstrip('.')}{self._tail()}.", end.reason.hint or KEPT, end.reason.code)
        if self.state == "starting":
            return EngineError(f"The engine did not start ({_how(end.code)}){self._tail()}.", SET_UP, "no_engine")
        if end.reason is not None and not isinstance(end.reason, Body4DError):
            return EngineError(f"The engine cannot be read any more: {end.reason!r}.", KEPT, "engine_stopped")
        return EngineError(f"The engine ended unexpectedly ({_how(end.code)}){self._tail()}.", KEPT, "engine_stopped")

    def _tail(self) -> str:
        """The engine's last words, as the end of a sentence."""
        lines = list(self.log)[-3:]
        return f"; it said: {' / '.join(lines)[-300:].rstrip('.')}" if lines else ""


def _error_of(answer) -> EngineError:
    """An error as the engine answered it; it may be of any shape."""
    answer = answer if isinstance(answer, dict) else {"message": str(answer)}
    data = answer.get("data") if isinstance(answer.get("data"), dict) else {}
    code = str(data.get("code", "engine"))
    return EngineError(message_for_user(str(answer.get("message", "The engine refused."))), hint_for_user(code, str(data.get("hint", ""))), code,
                       str(data.get("traceback", "")))


def _how(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code if code < 1 << 16 else hex(code)}"  # Windows says in hexadecimals what crashed
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    return f"signal {name}" + (", perhaps for lack of memory" if name == "SIGKILL" else "")
