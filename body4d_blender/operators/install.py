# SPDX-License-Identifier: GPL-3.0-or-later
"""Install, repair and remove the lite engine; ask the engine what it can do; clear its cache."""

import time

import bpy

from body4d_engine.errors import Body4DError

from .. import connection, examining, generating, installing, preferences
from ..engine import EngineError

TICK_S = 0.2

job: installing.Job | None = None  # the running installation, or the last one
asked = ""  # whatever was last asked of the engine for the preferences failed so, in words
cache_bytes: int | None = None


def is_installing() -> bool:
    return job is not None and job.running


class EndsEngine:
    """An operator that ends the engine."""

    @classmethod
    def poll(cls, context):
        if is_installing():
            cls.poll_message_set("The engine is being installed")
            return False
        if generating.current is not None:
            cls.poll_message_set("The engine is generating. Cancel that, or wait for it")
            return False
        return True


def forget() -> None:
    """Another engine, or other folders: what is known does not hold any more, and an engine that runs ends."""
    global asked, cache_bytes
    connection.stop()  # first: it tells whoever waits for an answer
    asked, cache_bytes = "", None
    examining.forget()


def redraw() -> None:
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type in {"PREFERENCES", "VIEW_3D"}:
                area.tag_redraw()


def look() -> None:
    """Start the engine, if there is one, to hear what it says of itself. Never waits; the preferences show the answer."""
    def heard(result: dict, _) -> None:
        global cache_bytes, asked
        cache_bytes, asked = result["bytes"], ""
        redraw()

    def failed(error: EngineError) -> None:
        global asked
        asked = str(error)
        redraw()

    try:
        preferences.refresh()
    except EngineError as error:
        failed(error)
    else:
        connection.ask("cache", done=heard, failed=failed)


class BODY4D_OT_install_engine(EndsEngine, bpy.types.Operator):
    """Download the lite engine's packages and install them, the engine and its models into a folder of their own"""

    bl_idname = "body4d.install_engine"
    bl_label = "Install Lite Engine"

    repair: bpy.props.BoolProperty(name="Repair", description="Make everything anew, whatever is there", options={"SKIP_SAVE"})

    @classmethod
    def description(cls, context, properties):
        return "Make the engine's environment anew, with a Python that is there now" if properties.repair else cls.__doc__

    def execute(self, context):
        set_up = preferences.current()
        chosen = bpy.path.abspath(set_up.python) if set_up else ""
        try:
            carried = installing.find_bundle()
        except Body4DError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        forget()  # an engine that runs would keep its files open, and know nothing of the new ones
        return start(self, installing.Install(preferences.install_root(), carried, chosen, preferences.own_python(), bpy.app.online_access, self.repair))


def start(operator: bpy.types.Operator, work: installing.Job) -> set[str]:
    """Let it run while the preferences show it; without a window, wait for it and report how it ended. What an operator returns."""
    global job
    job = work
    job.start()
    if not bpy.app.background:
        bpy.app.timers.register(_tick, first_interval=TICK_S, persistent=True)
        return {"FINISHED"}
    _wait(job)
    preferences.refresh()
    if job.error:
        operator.report({"ERROR"}, "\n".join(filter(None, [str(job.error), job.instructions])))
        return {"CANCELLED"}
    operator.report({"INFO"}, job.progress.text)
    return {"FINISHED"}


def _wait(running: installing.Job) -> None:
    """Without a window: wait and print. Ctrl-C cancels."""
    told = None
    try:
        while running.running:
            if running.progress.text.split(",")[0] != told:
                told = running.progress.text.split(",")[0]
                print(f"{running.progress.fraction:4.0%}  {running.progress.text}", flush=True)
            time.sleep(0.05)
    except BaseException:
        running.cancel()
        running.join()
        raise


def _tick() -> float | None:
    redraw()
    if is_installing():
        return TICK_S
    if job is not None and job.error is None:
        look()
    elif job is not None:
        preferences.refresh()
    return None


class BODY4D_OT_cancel_install(bpy.types.Operator):
    """Stop installing. An engine that was there before stays"""

    bl_idname = "body4d.cancel_install"
    bl_label = "Cancel"

    @classmethod
    def poll(cls, context):
        if not is_installing():
            cls.poll_message_set("Nothing is being installed")
            return False
        return True

    def execute(self, context):
        job.cancel()
        return {"FINISHED"}


class BODY4D_OT_remove_engine(EndsEngine, bpy.types.Operator):
    """Delete the installed engine. Takes and scenes stay as they are"""

    bl_idname = "body4d.remove_engine"
    bl_label = "Remove"

    def invoke(self, context, event):
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, context):
        global job
        forget()
        job = None
        try:
            installing.remove(preferences.install_root())
        except (Body4DError, OSError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        finally:
            preferences.refresh()
        return {"FINISHED"}


class BODY4D_OT_check_engine(EndsEngine, bpy.types.Operator):
    """Start the engine and show what it can do on its machine"""

    bl_idname = "body4d.check_engine"
    bl_label = "Check"

    def execute(self, context):
        forget()
        look()
        if not bpy.app.background:
            return {"FINISHED"}
        connection.wait(lambda: asked or cache_bytes is not None)
        if asked:
            self.report({"ERROR"}, asked)
            return {"CANCELLED"}
        hello = connection.hello()
        self.report({"INFO"}, f"Engine {hello.get('engine')} on {hello.get('device')}")
        return {"FINISHED"}


class BODY4D_OT_clear_cache(bpy.types.Operator):
    """Have the engine delete its copies of clips and its unfinished takes, except for what is in use. Takes beside your clips stay"""

    bl_idname = "body4d.clear_cache"
    bl_label = "Clear"

    def invoke(self, context, event):
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, context):
        ended = []

        def cleared(result: dict, _) -> None:
            ended.append("")
            print(f"Body4D: {installing.size_text(result['bytes'])} of cache deleted")
            look()

        def failed(error: EngineError) -> None:
            global asked
            asked = str(error)
            ended.append(asked)
            redraw()

        connection.ask("clear", done=cleared, failed=failed)
        if not bpy.app.background:
            return {"FINISHED"}
        connection.wait(lambda: ended)
        if ended[0]:
            self.report({"ERROR"}, ended[0])
            return {"CANCELLED"}
        return {"FINISHED"}


class BODY4D_OT_copy_install_text(bpy.types.Operator):
    """Copy what the installation said to the clipboard: how to go on without internet, and its log"""

    bl_idname = "body4d.copy_install_text"
    bl_label = "Copy Details"

    @classmethod
    def poll(cls, context):
        return job is not None

    def execute(self, context):
        context.window_manager.clipboard = "\n".join([*filter(None, [str(job.error or ""), job.instructions]), "", *list(job.log)])
        return {"FINISHED"}


CLASSES = (BODY4D_OT_install_engine, BODY4D_OT_cancel_install, BODY4D_OT_remove_engine, BODY4D_OT_check_engine, BODY4D_OT_clear_cache,
           BODY4D_OT_copy_install_text)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    global job, asked, cache_bytes
    if is_installing():
        job.cancel()
        job.join()
    job, asked, cache_bytes = None, "", None
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
