# SPDX-License-Identifier: GPL-3.0-or-later
"""Add the full engine to the installed lite one: show what that takes, install it, log in at the hub, remove it."""

import bpy

from body4d_engine.errors import Body4DError

from .. import installing, preferences
from . import install


def of_full_engine() -> bool:
    """Whether the installation that runs, or the last one, is one of these."""
    return isinstance(install.job, (installing.InstallFull, installing.LogIn, installing.LookFull))


def plan() -> dict | None:
    """What the engine said that is to be done, where that is what was asked last."""
    return install.job.result if isinstance(install.job, installing.LookFull) and not install.job.running else None


def online() -> bool:
    """Whether the user lets Blender go online."""
    return bpy.app.online_access


def copied(context) -> str:
    """The user's clipboard."""
    return context.window_manager.clipboard


def _begin(operator: bpy.types.Operator, kind: type, *arguments, **options) -> set[str]:
    try:
        return install.start(operator, kind(preferences.install_root(), installing.find_bundle(), *arguments, **options))
    except Body4DError as error:
        operator.report({"ERROR"}, str(error))
        return {"CANCELLED"}


class BODY4D_OT_look_full_engine(install.EndsEngine, bpy.types.Operator):
    """Show what the full engine needs on this computer, how large it is, where it comes from and under which licences. Nothing is installed yet"""

    bl_idname = "body4d.look_full_engine"
    bl_label = "Install Full Engine"

    repair: bpy.props.BoolProperty(name="Repair", description="All packages anew, whatever is there", options={"SKIP_SAVE"})

    @classmethod
    def description(cls, context, properties):
        return "Show what it takes to install the packages anew" if properties.repair else cls.__doc__

    def execute(self, context):
        ended = _begin(self, installing.LookFull, preferences.weights_folder(), self.repair)
        if ended == {"FINISHED"} and plan():
            print("\n".join(described(plan())), flush=True)
        return ended


class BODY4D_OT_install_full_engine(install.EndsEngine, bpy.types.Operator):
    """Install PyTorch and the other packages beside the lite engine, then fetch the weights. What was broken off goes on where it stopped"""

    bl_idname = "body4d.install_full_engine"
    bl_label = "Install"

    repair: bpy.props.BoolProperty(name="Repair", description="All packages anew, whatever is there", options={"SKIP_SAVE"})

    def execute(self, context):
        if bpy.app.background:  # else it was shown before this button could be pressed
            if _begin(self, installing.LookFull, preferences.weights_folder(), self.repair) != {"FINISHED"}:
                return {"CANCELLED"}
            print("\n".join(described(plan())), flush=True)
        install.forget()  # an engine that runs would know nothing of what is new
        return _begin(self, installing.InstallFull, preferences.weights_folder(), self.repair, online=online())


class BODY4D_OT_leave_full_engine(bpy.types.Operator):
    """Install nothing for now"""

    bl_idname = "body4d.leave_full_engine"
    bl_label = "Not Now"

    @classmethod
    def poll(cls, context):
        return plan() is not None

    def execute(self, context):
        install.job = None
        return {"FINISHED"}


class BODY4D_OT_remove_full_engine(install.EndsEngine, bpy.types.Operator):
    """Delete PyTorch and the other packages of the full engine. The lite engine and all weights stay"""

    bl_idname = "body4d.remove_full_engine"
    bl_label = "Remove"

    def invoke(self, context, event):
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, context):
        install.forget()
        install.job = None
        try:
            installing.remove_full(preferences.install_root())
        except (Body4DError, OSError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        finally:
            preferences.refresh()
        return {"FINISHED"}


class BODY4D_OT_hub_login(install.EndsEngine, bpy.types.Operator):
    """Log in at the hub with the access token that you copied. The engine's hub library keeps it for all programs of yours; Blender keeps nothing of it"""

    bl_idname = "body4d.hub_login"
    bl_label = "Log In with Copied Token"

    def execute(self, context):
        return _begin(self, installing.LogIn, copied(context))  # never a property: those are saved and shown


def described(said: dict) -> list[str]:
    """The plan as lines."""
    lines = [f"note: {note}" for note in said["plan"]["notes"]] + [f"here: {here}" for here in said["plan"]["present"]]
    for step in said["plan"]["steps"]:
        lines.append(f"install: {step_words(step)}")
        lines += [f"         {step['licence']}", f"         {step['page']}"] if step["page"] else []
    return [*lines, total_words(said)]


def step_words(step: dict) -> str:
    return f"{step['what']}, {_size(step['bytes'])}, from {step['source']} ({step['why']})"


def total_words(said: dict) -> str:
    if not said["plan"]["steps"]:
        return "Nothing has to be installed."
    unknown = any(step["bytes"] is None for step in said["plan"]["steps"])
    room = f" The packages need {installing.size_text(said['plan']['room_bytes'])} while they are installed." if said["plan"]["room_bytes"] else ""
    return (f"Together {installing.size_text(said['plan']['bytes'])} to download" + (", and what is of unknown size." if unknown else ".") + room +
            f" Weights go to {said['weights_folder']}.")


def _size(count: int | None) -> str:
    return "of unknown size" if count is None else installing.size_text(count)


CLASSES = (BODY4D_OT_look_full_engine, BODY4D_OT_install_full_engine, BODY4D_OT_leave_full_engine, BODY4D_OT_remove_full_engine, BODY4D_OT_hub_login)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
