# SPDX-License-Identifier: GPL-3.0-or-later
"""A video becomes people in the scene: the engine makes the take, then it is imported.

In the window the engine runs beside Blender and a timer looks after it; without one (`--background`) Blender waits for it.
"""

import atexit
import time
from dataclasses import dataclass
from pathlib import Path

import bpy
from body4d_engine.take import TakeError
from bpy.app.handlers import persistent

from ..engine import EngineError, Job, convert_command, engine_command, result_name
from ..preferences import engine_setting
from ..scene import build_take
from .import_take import SceneOptions

TICK_S = 0.2


@dataclass
class Conversion:
    """The one conversion that the window can run at a time."""

    job: Job
    take: Path
    scene: str  # by name: a reference would not outlive an undo
    options: dict
    status: str = "Starting the engine"


current: Conversion | None = None
last_error = ""


class BODY4D_OT_convert(SceneOptions, bpy.types.Operator):
    """Find the people in a video and bring them to life in this scene. Needs an engine, see the add-on's preferences"""

    bl_idname = "body4d.convert"
    bl_label = "Convert Video"
    bl_options = {"REGISTER"}

    filepath: bpy.props.StringProperty(subtype="FILE_PATH", options={"SKIP_SAVE"})
    filter_movie: bpy.props.BoolProperty(default=True, options={"HIDDEN"})
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN"})
    take: bpy.props.StringProperty(name="Take", description="Folder of the result; empty: NAME.take beside the video", options={"SKIP_SAVE"})
    people: bpy.props.StringProperty(name="People", default="auto", description="auto, or a JSON file of people with their prompts")
    engine: bpy.props.StringProperty(name="Engine", description="Instead of the one in the preferences", options={"SKIP_SAVE"})

    @classmethod
    def poll(cls, context):
        return current is None

    def invoke(self, context, event):
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context):
        video = Path(bpy.path.abspath(self.filepath))
        if not self.filepath or not video.exists():
            self.report({"ERROR"}, f"There is no video at {self.filepath or 'the empty path'}.")
            return {"CANCELLED"}
        take = Path(bpy.path.abspath(self.take)) if self.take else video.with_name(f"{result_name(video)}.take")
        try:
            conversion = Conversion(Job(convert_command(engine_command(self.engine or engine_setting()), video, take, self.people)),
                                    take, context.scene.name, self.scene_options())
            if bpy.app.background:
                wait(conversion.job)
                build_take(take, scene=context.scene, report=lambda text: self.report({"WARNING"}, text), **self.scene_options())
                return {"FINISHED"}
        except (EngineError, TakeError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        _start(conversion)
        return {"FINISHED"}


class BODY4D_OT_cancel(bpy.types.Operator):
    """Stop the engine. Converting the same video again goes on from here"""

    bl_idname = "body4d.cancel"
    bl_label = "Cancel"

    @classmethod
    def poll(cls, context):
        return current is not None

    def execute(self, context):
        current.job.cancel()
        return {"FINISHED"}


def wait(job: Job) -> None:
    """Print what the engine says until it has ended. Raises EngineError where that was not well."""
    try:
        while job.running:
            for line in job.drain():
                print(line, flush=True)
            time.sleep(0.02)
    except BaseException:
        job.cancel()
        raise
    job.finish()


def _start(conversion: Conversion) -> None:
    global current, last_error
    current, last_error = conversion, ""
    bpy.app.timers.register(_tick, first_interval=TICK_S)


def _tick() -> float | None:
    """Look after the engine; once it has ended, import the take as one undo step."""
    global current, last_error
    conversion = current
    if conversion is None:
        return None
    for line in conversion.job.drain():
        conversion.status = line
    _redraw()
    if conversion.job.running:
        return TICK_S
    current = None
    try:
        conversion.job.finish()
        scene = bpy.data.scenes.get(conversion.scene)
        if scene is None:
            raise EngineError(f"The scene {conversion.scene} is gone. Import {conversion.take} where you want it.")
        build_take(conversion.take, scene=scene, **conversion.options)
        with bpy.context.temp_override(window=bpy.context.window_manager.windows[0]):
            bpy.ops.ed.undo_push(message="Body4D Convert Video")
    except (EngineError, TakeError, OSError, RuntimeError) as error:  # what a timer raises, only the console would see
        last_error = str(error)
    return None


def _redraw() -> None:
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "VIEW_3D":
                area.tag_redraw()


@persistent
def _stop(*_) -> None:
    """Another file is opened, Blender quits or the add-on goes: the engine must not outlive that."""
    global current
    if current is not None:
        current.job.cancel()
        current = None


CLASSES = (BODY4D_OT_convert, BODY4D_OT_cancel)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.app.handlers.load_pre.append(_stop)
    atexit.register(_stop)


def unregister() -> None:
    _stop()
    atexit.unregister(_stop)
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    bpy.app.handlers.load_pre.remove(_stop)
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
