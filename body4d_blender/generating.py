# SPDX-License-Identifier: GPL-3.0-or-later
"""One generation: a clip goes to the engine, a take grows beside it, bodies follow in the scene, the result is built at the end as one undo step.

What was committed to the take stays, whatever happens: the same generation again goes on from there.
"""

import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import bpy
from bpy.app.handlers import persistent

from body4d_engine import wire
from body4d_engine.errors import Body4DError
from body4d_engine.take import Take, delete_take

from . import connection, takes
from .engine import EngineError
from .opening import Opening
from .receiving import TakeCopy
from .scene import build_take, preview

REDRAW_S = 0.1
OTHER_TAKE = ("take_of_another_clip", "take_in_use", "take_unknown")
STAGES = {"prepare": "Reading the clip", "shots": "Finding cuts", "proxy": "Copying the clip for Blender", "camera": "Finding the camera",
          "track": "Following people", "detail": "Reading hands and faces", "recover": "Recovering bodies", "refine": "Refining the motion",
          "import": "Reading results"}


@dataclass(frozen=True)
class Order:
    """What is to be generated. frames: (first, the one after the last or None, step), clip frames from 0; people as `Person.to_json`, empty:
    everyone. options: for `build_take`, mesh_cache None for shape keys up to 1 GB. scene: the session_uid of the scene that gets the result;
    None: only the take is made. fresh: forget a take that is there."""

    clip: Path
    take: Path
    people: list = field(default_factory=list)
    frames: tuple[int, int | None, int] = (0, None, 1)
    settings: dict = field(default_factory=dict)
    scene: int | None = None
    options: dict = field(default_factory=dict)
    fresh: bool = False


current: "Generation | None" = None
last_error = ""
last_notice = ""
last_build_s = 0.0  # of the last result, with its undo step


class Generation:
    """From the order to the result. `state`: "opening", "running", "stopping", "building", "done". `error` says why there is no result."""

    def __init__(self, order: Order, say=None):
        self.order, self.state, self.error = order, "opening", None
        self.stage, self.person, self.done, self.total, self.seconds_left = "", None, 0, 0, None
        self.people: list[tuple[int, str]] = []  # id and name of everyone found
        self.begun, self.first_mesh_s = time.monotonic(), None
        self._say, self._said, self._drawn = say or (lambda text: None), "", 0.0
        self._copy: TakeCopy | None = None
        self._opening = Opening(order.clip, self._opened, self._fail)

    # -- what the panel shows -----------------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        if self.state == "opening":
            return "Sending the clip" if 0 < self._opening.fraction < 1 else "Opening the clip"
        if self.state == "running":
            return STAGES.get(self.stage, self.stage.capitalize()) or "Starting"
        return {"stopping": "Stopping", "building": "Building the result: Blender waits for it"}.get(self.state, "Done")

    @property
    def fraction(self) -> float:
        """How much of this stage is done, 0..1; all people count."""
        if self.state == "opening":
            return self._opening.fraction
        if self.state != "running" or not self.total:
            return 0.0
        order = [number for number, _ in self.people]
        if self.person in order:
            return (order.index(self.person) + self.done / self.total) / len(order)
        return min(1.0, self.done / self.total)

    # -- what happens -------------------------------------------------------------------------------------------------

    def _opened(self, clip) -> None:
        folder, order = self.order.take, self.order
        if self.state != "opening":
            self._fail(_stopped())
            return
        try:
            if order.fresh:
                delete_take(folder)
            there = Take.exists(folder)
            take = Take.open(folder) if there else None
            name = take.id if there else uuid.uuid4().hex
            held = {"held": wire.pack_held(take)} if there else None
            self._copy = TakeCopy(folder)
            client = connection.get()
        except Body4DError as error:
            self._fail(error)
            return
        copy = self._copy
        client.on("event", self._event)
        client.on("take/bytes", self._arrived, lambda params, arrays: copy.receive("take/bytes", params, arrays))
        client.on("take/commit", self._committed, lambda params, arrays: copy.receive("take/commit", params, arrays))
        self.state = "running"
        start, stop, step = order.frames
        request = {"sha256": clip.key, "take": name, "people": order.people, "settings": order.settings, "range": [start, stop, step]}
        connection.ask("run", {**request, "copy": str(folder)} if there else request, held, done=self._ran, failed=self._fail)

    def _event(self, event: dict, _) -> None:
        kind = event.get("event")
        if kind == "StageStarted":
            self.stage, self.person, self.done, self.total, self.seconds_left = str(event.get("stage")), None, 0, 0, None
        elif kind == "Progress":
            self.stage, self.person = str(event.get("stage")), event.get("person")
            self.done, self.total, self.seconds_left = event.get("done") or 0, event.get("total") or 0, event.get("seconds_left")
        self._show()

    def _show(self) -> None:
        if self.title != self._said:
            self._said = self.title
            self._say(self._said)
        if time.monotonic() > self._drawn + REDRAW_S:
            self._drawn = time.monotonic()
            connection.redraw()

    def _arrived(self, *_) -> None:
        """A part of the take was written by the reading thread, unless it could not."""
        if self._copy is not None and self._copy.error is not None and self.state == "running":
            self.state, self.error = "stopping", self._copy.error
            connection.cancel()

    def _committed(self, *_) -> None:
        self._arrived()
        if self.state != "running":
            return
        self.people = [(entry["id"], entry["name"]) for entry in self._copy.people]
        scene = self._scene()
        if scene is not None and preview.update(scene, self._copy.newest) and self.first_mesh_s is None:
            self.first_mesh_s = time.monotonic() - self.begun
        self._show()

    def _ran(self, answer: dict, _) -> None:
        self._arrived()
        if self.state != "running":
            self._fail(self.error or _stopped())
            return
        self._let_go()
        self.state = "building"
        self._show()
        connection.redraw()
        connection.announce(self._build)

    def _build(self) -> None:
        """The result, as one step for undo."""
        global last_build_s, last_notice
        if self.state != "building":  # stopped meanwhile
            return
        if bpy.app.is_job_running("RENDER"):  # it reads what we would change
            connection.announce(self._build)
            return
        began = time.perf_counter()
        try:
            if self.order.scene is not None:
                scene = self._scene()
                if scene is None:
                    raise EngineError("The scene that was generated for is gone.", f"Import {self.order.take} where you want it.", "no_scene")
                preview.remove()
                options = dict(self.order.options)
                if options.get("mesh_cache") is None:
                    options["mesh_cache"] = takes.mesh_bytes(self.order.take) > takes.HEAVY_BYTES
                notices: list[str] = []
                build_take(self.order.take, scene=scene, report=notices.append, **options)
                _push_undo()
                last_notice = notices[0] if notices else ""
                for notice in notices:
                    self._say(f"Note: {notice}")
        except (Body4DError, OSError, RuntimeError) as error:  # what a timer raises, only the console would see
            self._fail(error)
            return
        last_build_s = time.perf_counter() - began
        takes.learn(self.order.take)
        self._end()

    def _fail(self, error: Exception) -> None:
        if self.state == "done":
            return
        self.error = self.error or error
        if getattr(self.error, "code", "") in OTHER_TAKE:
            self.error = EngineError(self.error.message, "Start over, or choose another folder for the take.", self.error.code)
        if getattr(error, "traceback", "") and error.code != "cancelled":
            print(error.traceback, flush=True)  # for the log; the panel shows the words
        self._end()

    def _end(self) -> None:
        global current, last_error
        self._let_go()
        self.state = "done"
        preview.remove()
        if current is self:
            current = None
            last_error = "" if self.error is None or getattr(self.error, "code", "") == "cancelled" else str(self.error)
        takes.look_again()
        connection.redraw()

    def _let_go(self) -> None:
        copy, self._copy = self._copy, None
        if copy is not None:
            copy.close()

    def _scene(self):
        return next((s for s in bpy.data.scenes if s.session_uid == self.order.scene), None)

    def cancel(self) -> None:
        """Stop; what was committed stays. The end comes within a second or so, by itself."""
        if self.state in ("opening", "running"):
            self.state = "stopping"
            self._opening.cancel()
            connection.cancel()
        elif self.state == "building":
            self._end()
        connection.redraw()


def start(order: Order, say=None) -> Generation:
    """Begin; the timer does the rest. `say(text)` is called with every stage and notice. Raises EngineError."""
    global current, last_error, last_notice
    if current is not None:
        raise EngineError("Something is being generated already.", "Cancel it, or wait for it.", "busy")
    connection.get()
    last_error = last_notice = ""
    current = Generation(order, say)
    return current


def make(order: Order, say=None) -> None:
    """Generate, and wait for it. Raises Body4DError, OSError or RuntimeError where there is no result."""
    generation = start(order, say)
    connection.wait(lambda: generation.state == "done")
    if generation.error is not None:
        raise generation.error


def stop() -> None:
    """End what is being generated, and the engine, at once."""
    if current is not None:
        generation = current
        generation.cancel()
        connection.stop()
        generation._fail(_stopped())


def _stopped() -> EngineError:
    return EngineError("Stopped.", "What is done is kept.", "cancelled")


def _push_undo() -> None:
    windows = bpy.context.window_manager.windows
    if windows:
        with bpy.context.temp_override(window=windows[0]):
            bpy.ops.ed.undo_push(message="Body4D Generate")


@persistent
def _sweep(*_) -> None:
    """A file saved during a generation, or an undo to the middle of one, brings previews back that nobody follows any more."""
    if current is None:
        preview.remove()


@persistent
def _load_pre(*_) -> None:
    """Another file is opened: the result must not go into it."""
    stop()


HANDLERS = (("load_pre", _load_pre), ("load_post", _sweep), ("undo_post", _sweep), ("redo_post", _sweep))


def register() -> None:
    for name, handler in HANDLERS:
        getattr(bpy.app.handlers, name).append(handler)


def unregister() -> None:
    stop()
    for name, handler in HANDLERS:
        getattr(bpy.app.handlers, name).remove(handler)
