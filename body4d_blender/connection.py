# SPDX-License-Identifier: GPL-3.0-or-later
"""The one engine of this Blender: started on first use, looked after by a timer while there is something to wait for, ended with Blender.

Without a window (`bpy.app.background`) timers never fire: `wait` does their work.
"""

import atexit
import collections
import threading
import time
import traceback
from typing import Callable

import bpy
from bpy.app.handlers import persistent

from .client import Client
from .engine import VARIABLES, EngineError, engine_command, stopped
from .preferences import engine_setting, refuse_while_installing

TICK_S = 0.02
BUDGET_S = 0.015

_client: Client | None = None
_engine = ""
_variables: dict[str, str] = {}  # with which the engine was started
_posted: collections.deque[Callable[[], None]] = collections.deque()
_announced: tuple[float, Callable[[], None]] | None = None
_works: "set[InThread]" = set()  # whose results are waited for
longest_tick_s = 0.0  # of all so far, without what was announced


def use(engine: str = "") -> None:
    """Which engine to talk to from now on: a path or command as in the preferences; empty: that of the preferences."""
    global _engine
    _engine = engine


def get() -> Client:
    """The client of the chosen engine, started. Another choice, or other folders for it, end the engine before, once it makes no take any more.
    Raises EngineError where none is set."""
    global _client, _variables
    if _client is not None and _client.is_asked("run", "import_meshes"):
        return _client
    command = engine_command(_engine or engine_setting())
    if _client is not None and (_client.command, _variables) != (command, VARIABLES):
        _client.stop()
        _client = None
    if _client is None:
        _client, _variables = Client(command), dict(VARIABLES)
    if not _client.runs:
        refuse_while_installing(command)
    _client.start()
    wake()
    return _client


def ask(method: str, params: dict | None = None, arrays=None, done=None, failed=None) -> int:
    """`Client.ask` of the chosen engine; where none is set, `failed` says so."""
    try:
        number = get().ask(method, params, arrays, done, failed)
    except EngineError as error:
        if failed:
            reason = error
            post(lambda: failed(reason))
        return 0
    wake()
    return number


def cancel() -> None:
    """End whatever the engine is at, gently for a second."""
    if _client is not None:
        _client.cancel()


def hello() -> dict | None:
    """What the engine said of itself; None while it is not ready."""
    return _client.hello if _client else None


def log() -> list[str]:
    """The last lines of the engine's own log."""
    return list(_client.log) if _client else []


def status() -> str:
    """The engine's state, in words for a panel."""
    state = _client.state if _client else "off"
    if state == "stopped" and _client.error:
        return str(_client.error)
    return {"off": "The engine is not running", "starting": "Starting the engine", "ready": "The engine is ready", "stopped": "The engine has stopped"}[state]


def post(call: Callable[[], None]) -> None:
    """Call it in the next tick."""
    _posted.append(call)
    wake()


def announce(call: Callable[[], None], after_s: float = 0.1) -> None:
    """Call it once, a moment later, when the panels have said that Blender will be busy: for what takes longer than a tick."""
    global _announced
    _announced = time.monotonic() + after_s, call
    wake()


class InThread:
    """Run `work()` on a thread, then done(result) or failed(error) in a tick; at once where another file is opened meanwhile."""

    def __init__(self, work, done, failed):
        self._done, self._failed = done, failed
        _works.add(self)
        threading.Thread(target=self._run, args=(work,), daemon=True, name="body4d work").start()
        wake()

    def _run(self, work) -> None:
        try:
            result, call = work(), self._done
        except Exception as error:  # it belongs to whoever asked for the work
            result, call = error, self._failed
        _posted.append(lambda: self._finish(call, result))  # not `post`: timers belong to the main thread

    def _finish(self, call, result) -> None:
        if self in _works:
            _works.remove(self)
            call(result)

    def leave(self) -> None:
        """Nobody wants the result any more, whenever it comes."""
        self._finish(self._failed, stopped())


def wake() -> None:
    """Start ticking, from the main thread; it stops by itself."""
    if not bpy.app.background and not bpy.app.timers.is_registered(_tick):
        bpy.app.timers.register(_tick, first_interval=0.0, persistent=True)


def is_busy() -> bool:
    return bool(_posted or _announced or _works or (_client is not None and _client.busy))


def step() -> bool:
    """Do what there is to do now, for at most a moment unless it was announced; returns whether there is more at once."""
    global longest_tick_s, _announced
    if _announced and time.monotonic() >= _announced[0]:
        call, _announced = _announced[1], None
        call()
        return True
    began = time.perf_counter()
    try:
        if _posted:
            _posted.popleft()()
        more = _client.tick(max(0.0, BUDGET_S - (time.perf_counter() - began))) if _client is not None else False
    finally:
        longest_tick_s = max(longest_tick_s, time.perf_counter() - began)
    return more or bool(_posted)


def _tick() -> float | None:
    try:
        more = step()
    except Exception:  # a timer that raises is never called again, and whoever waits for the engine would wait for ever
        traceback.print_exc()
        more = True
    return 0.0 if more else TICK_S if is_busy() else None


def wait(until: Callable[[], bool]) -> None:
    """Tick until `until()`, for scripts without a window. Ends the engine where that is interrupted."""
    try:
        while not until():
            if not step():
                time.sleep(0.005)
    except BaseException:
        stop()
        raise


def redraw() -> None:
    """Let the panels and overlays show what is new."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type in {"VIEW_3D", "IMAGE_EDITOR", "PREFERENCES"}:
                area.tag_redraw()


def stop() -> None:
    """End the engine; whoever waits for it is told."""
    if _client is not None:
        _client.stop()


@persistent
def _load_pre(*_) -> None:
    """Another file is opened: what was asked for the one before must not go into it. An idle engine stays, with its models loaded."""
    _leave_works()
    if is_busy():
        stop()


def _leave_works() -> None:
    for work in list(_works):
        work.leave()


def _quit() -> None:
    if _client is not None:
        _client.stop(tell=False)  # Blender's data may be gone by now


def register() -> None:
    bpy.app.handlers.load_pre.append(_load_pre)
    atexit.register(_quit)


def unregister() -> None:
    global _client, _announced
    _leave_works()
    stop()
    _client, _announced = None, None
    _posted.clear()
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    bpy.app.handlers.load_pre.remove(_load_pre)
    atexit.unregister(_quit)
