# SPDX-License-Identifier: GPL-3.0-or-later
"""One generation: a clip goes to the engine, a take grows beside it, bodies follow in the scene, the result is built at the end as one undo step.

What was committed to the take stays, whatever happens: the same generation again goes on from there.
"""

import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import bpy
from bpy.app.handlers import persistent

from body4d_engine import wire
from body4d_engine.errors import Body4DError, TakeError
from body4d_engine.take import Take, delete_take

from . import connection, takes
from .engine import EngineError, stopped
from .opening import IMAGE_FPS, Opening
from .receiving import TakeCopy
from .scene import build_take, preview, tags
from .undo import push_undo
from .viewing import Viewer
from .wording import notice_for_user

REDRAW_S = 0.1
STAGES = {"prepare": "Reading the clip", "shots": "Finding cuts", "proxy": "Copying the clip for Blender", "camera": "Finding the camera",
          "track": "Following people", "detail": "Reading hands and faces", "recover": "Recovering bodies", "refine": "Refining the motion",
          "import": "Reading results"}


@dataclass(frozen=True)
class Order:
    """What is to be generated. frames: (first, the one after the last or None, step), clip frames from 0; people as `Person.to_json`, empty:
    everyone. image_fps: the rate of a folder of images. options: for `build_take`, mesh_cache None for shape keys up to 1 GB. scene: the session_uid
    of the scene that gets the result; None: only the take is made. fresh: forget a take that is there. meshes: what other tools made, read in place
    of a clip: `import_meshes`'s sources, topology, focal_px, fps, clip. backend: what of the engine makes the take."""

    clip: Path | None
    take: Path
    people: list = field(default_factory=list)
    frames: tuple[int, int | None, int] = (0, None, 1)
    settings: dict = field(default_factory=dict)
    scene: int | None = None
    options: dict = field(default_factory=dict)
    fresh: bool = False
    meshes: dict | None = None
    image_fps: float = IMAGE_FPS
    backend: str = "lite"


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
        self.waits = ""  # what a result that is ready waits for
        self.notices: list[str] = []  # what the engine had to say of the whole take or a whole person, in words for the user
        self._say, self._said, self._drawn = say or (lambda text: None), "", 0.0
        self._clip, self._take = None, ""  # as the engine has it open; the take's id
        self._copy: TakeCopy | None = None
        scene = self._scene()
        self._viewer = Viewer(scene) if scene else None
        self._opening = Opening(order.clip, self._opened, self._fail, order.image_fps) if order.meshes is None else None
        if self._opening is None:
            connection.post(lambda: self._opened(None))

    # -- what the panel shows -----------------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        if self.state == "opening":
            return self._opening.words if self._opening else "Reading results"
        if self.state == "running":
            return STAGES.get(self.stage, self.stage.capitalize()) or "Starting"
        return {"stopping": "Stopping", "building": self.waits or "Building the result: Blender waits for it"}.get(self.state, "Done")

    @property
    def fraction(self) -> float:
        """How much of this stage is done, 0..1; all people count."""
        if self.state == "opening":
            return self._opening.fraction if self._opening else 0.0
        if self.state != "running" or not self.total:
            return 0.0
        order = [number for number, _ in self.people]
        if self.person in order:
            return (order.index(self.person) + self.done / self.total) / len(order)
        return min(1.0, self.done / self.total)

    # -- what happens -------------------------------------------------------------------------------------------------

    def _opened(self, clip) -> None:
        if self.state != "opening":
            self._fail(stopped())
            return
        self._clip = clip
        connection.InThread(self._prepare, self._run, self._fail)

    def _prepare(self) -> tuple:
        """By a thread, since a take may be large: our copy of it, its id, what of it is here already (None: nothing), and the id of the one that was
        deleted for it."""
        folder, forgotten = self.order.take, ""
        if self.order.fresh and Take.exists(folder):
            with suppress(TakeError):  # it cannot be read, which may be why
                forgotten = Take.open(folder).id
            delete_take(folder)
        take = Take.open(folder) if Take.exists(folder) else None
        held = wire.pack_held(take) if take else None
        return TakeCopy(folder), take.id if take else uuid.uuid4().hex, held, forgotten

    def _run(self, prepared: tuple) -> None:
        order = self.order
        self._copy, self._take, held, forgotten = prepared
        if self.state != "opening":
            self._fail(stopped())
            return
        try:
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
        request = {"take": self._take, **({} if held is None else {"copy": str(order.take)})}
        arrays = None if held is None else {"held": held}
        if forgotten:
            connection.ask("close", {"take": forgotten})
        if order.meshes is not None:
            connection.ask("import_meshes", {**request, **order.meshes}, arrays, done=self._ran, failed=self._fail)
        else:
            request |= {"sha256": self._clip.key, "people": order.people, "settings": order.settings, "range": [start, stop, step],
                        "backend": order.backend}
            if self._clip.image_fps is not None:
                request["image_fps"] = order.image_fps
            connection.ask("run", request, arrays, done=self._ran, failed=self._fail)

    def _event(self, event: dict, _) -> None:
        kind = event.get("event")
        if kind == "StageStarted":
            self.stage, self.person, self.done, self.total, self.seconds_left = str(event.get("stage")), None, 0, 0, None
        elif kind == "Progress":
            self.stage, self.person = str(event.get("stage")), event.get("person")
            self.done, self.total, self.seconds_left = event.get("done") or 0, event.get("total") or 0, event.get("seconds_left")
        elif kind == "Notice" and (said := notice_for_user(event)):
            self.notices.append(said)
            self._say(f"Note: {said}")
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
        free = not bpy.app.is_job_running("RENDER") and not in_hand()
        if scene is not None and free and preview.update(scene, self._copy.newest, self.order.take):
            self._viewer.show(preview.bodies(scene))
            self.first_mesh_s = self.first_mesh_s or time.monotonic() - self.begun
        self._show()

    def _ran(self, answer: dict, _) -> None:
        self._arrived()
        if self.state != "running":
            self._fail(self.error or stopped())
            return
        self._let_go()
        self.state = "building"
        self._show()
        connection.redraw()
        # An engine that sees our copy of the take needs none of its own. Before the result is built: Windows deletes no file that is read.
        connection.ask("close", {"take": self._take, "copy": str(self.order.take)}, None, self._build_soon, self._build_soon)

    def _build_soon(self, *_) -> None:
        connection.announce(self._build)

    def _build(self) -> None:
        """The result, as one step for undo."""
        global last_build_s, last_notice
        if self.state != "building":  # stopped meanwhile
            return
        before, self.waits = self.waits, _in_the_way(self._scene())
        if self.waits:
            if before != self.waits:
                connection.redraw()
            connection.announce(self._build)
            return
        began = time.perf_counter()
        try:
            if self.order.meshes is None:
                takes.learn(self.order.take)
            if self.order.scene is not None:
                scene = self._scene()
                if scene is None:
                    raise EngineError("The scene that was generated for is gone.", f"Import {self.order.take} where you want it.", "no_scene")
                preview.remove()
                options = dict(self.order.options)
                if options.get("mesh_cache") is None:
                    options["mesh_cache"] = takes.mesh_bytes(self.order.take) > takes.HEAVY_BYTES
                notices: list[str] = []
                first = scene.camera is None or scene.camera.get(tags.ROLE) != "camera"
                collection = build_take(self.order.take, scene=scene, report=notices.append, **options)
                if scene.camera is not None and collection in scene.camera.users_collection:
                    self._viewer.look_through_camera(scene, first)
                push_undo("Body4D Generate")
                last_notice = next(iter([*notices, *self.notices]), "")
                for notice in notices:
                    self._say(f"Note: {notice}")
        except (Body4DError, OSError, RuntimeError) as error:  # what a timer raises, only the console would see
            self._fail(error)
            return
        last_build_s = time.perf_counter() - began
        self._end()

    def _fail(self, error: Exception) -> None:
        if self.state == "done":
            return
        self.error = self.error or error
        if getattr(error, "traceback", "") and error.code != "cancelled":
            print(error.traceback, flush=True)  # for the log; the panel shows the words
        self._end()

    def _end(self) -> None:
        global current, last_error
        self._let_go()
        self.state = "done"
        if current is self:
            current = None
            last_error = "" if self.error is None or getattr(self.error, "code", "") == "cancelled" else str(self.error)
        _clear()
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
            if self._opening:
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


def is_idle(operator) -> bool:
    """For an operator's poll: whether nothing is being generated. Else its button says why it cannot be pressed."""
    if current is not None:
        operator.poll_message_set("Something is being generated. Cancel it, or wait for it")
    return current is None


def stop() -> None:
    """End what is being generated, and the engine, at once."""
    if current is not None:
        generation = current
        generation.cancel()
        connection.stop()
        generation._fail(stopped())


def in_hand() -> bool:
    """Whether the user is at something that must not be disturbed, such as moving an object with the mouse."""
    running = (operator for window in bpy.context.window_manager.windows for operator in window.modal_operators)
    return any(operator.bl_options & {"UNDO", "BLOCKING"} for operator in running)


def _clear() -> None:
    """Take the previews out, once that disturbs nobody. Those of a generation that has begun meanwhile are its own."""
    if current is None:
        if in_hand():
            connection.announce(_clear)
        else:
            preview.remove()


def _in_the_way(scene) -> str:
    """Why the result cannot come into the scene just now, for the user; '' where it can."""
    if bpy.app.is_job_running("RENDER"):  # it reads what we would change
        return "The result is ready: it comes after the render"
    if scene is not None and not bpy.app.background and any(body.mode not in ("OBJECT", "POSE") for body in scene.objects):
        return "The result is ready: go to Object Mode to get it"  # an undo step of any other mode would not hold it
    if in_hand():
        return "The result is ready: it comes when you have finished what you are doing"
    return ""


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
    preview.remove()
    for name, handler in HANDLERS:
        getattr(bpy.app.handlers, name).remove(handler)
