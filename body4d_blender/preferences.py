# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user sets once: which engine, and where its files are."""

import sys
from pathlib import Path

import bpy

from body4d_engine.errors import Body4DError

from . import engine, installing

PACKAGE = __package__  # `body4d_blender`, or `bl_ext.<repository>.body4d`; inside a sub-package it would be longer
ENGINE, CACHE = "body4d-engine", "body4d-cache"  # in a folder that the user chose, only these are ours

_installed: dict[Path, installing.Status] = {}  # what was found in a folder when last looked at


class Body4DPreferences(bpy.types.AddonPreferences):
    bl_idname = PACKAGE

    engine: bpy.props.StringProperty(
        name="Existing Engine", subtype="FILE_PATH",
        description="Use this engine instead of the installed one: the Python, the folder or the body4d program of an engine environment, or a command "
                    "such as: ssh gpu-box body4d serve")
    python: bpy.props.StringProperty(
        name="Python", subtype="FILE_PATH",
        description="The Python (3.11 to 3.13) that the engine's environment is made from. Empty: one of this system, else Blender's own, in which "
                    "nothing is changed")
    engine_folder: bpy.props.StringProperty(
        name="Install In", subtype="DIR_PATH",
        description="Where the engine is installed. Empty: in the extension's own folder, which goes when the extension is removed")
    weights_folder: bpy.props.StringProperty(
        name="Weights", subtype="DIR_PATH",
        description="Told to an engine on this computer as BODY4D_WEIGHTS, for backends whose weights are downloaded separately. The lite backend has none")
    cache_folder: bpy.props.StringProperty(
        name="Cache", subtype="DIR_PATH",
        description="Where an engine on this computer keeps its copies of clips and its unfinished takes. Empty: the engine's own choice")

    def draw(self, context):
        from .panels.preferences import draw

        draw(self, self.layout, context)


def current() -> Body4DPreferences | None:
    """The add-on's preferences; None where it is used without being enabled."""
    addon = bpy.context.preferences.addons.get(PACKAGE)
    return addon.preferences if addon else None


def _folder(name: str) -> str:
    set_up = current()
    return bpy.path.abspath(getattr(set_up, name, "")) if set_up else ""  # the file browser may make it relative to the .blend


def install_root() -> Path:
    """Where the engine is, or would be, installed."""
    chosen = _folder("engine_folder")
    if chosen:
        return Path(chosen) / ENGINE
    if PACKAGE.startswith("bl_ext."):
        return Path(bpy.utils.extension_path_user(PACKAGE, path="engine"))
    return Path(bpy.utils.user_resource("DATAFILES", path="body4d")) / "engine"


def bundle() -> installing.Bundle | None:
    """The engine that this copy of the add-on carries; a checkout carries none."""
    try:
        return installing.find_bundle()
    except Body4DError:
        return None


def installed() -> installing.Status:
    """The engine that this add-on installed, as it was when last looked at. Raises EngineError where what is there cannot be read."""
    return _installed.get(install_root()) or refresh()


def weights_folder() -> str:
    """The user's own folder for weights; '' leaves that to the engine."""
    return _folder("weights_folder")


def refresh() -> installing.Status:
    """Look again. Raises EngineError."""
    root = install_root()
    _installed.pop(root, None)
    try:
        _installed[root] = installing.status(root, bundle())
    except Body4DError as error:
        raise engine.EngineError(error.message, error.hint, error.code) from error
    return _installed[root]


def engine_setting() -> str:
    """The engine to use: the one chosen, else the installed one, else ''; its folders are set for it. Raises EngineError where the installed
    one is in no state to be used."""
    cache, weights = _folder("cache_folder"), _folder("weights_folder")
    engine.VARIABLES.clear()
    engine.VARIABLES.update({"BODY4D_CACHE": str(Path(cache) / CACHE)} if cache else {}, **({"BODY4D_WEIGHTS": weights} if weights else {}))
    chosen = _folder("engine")
    if chosen:
        return chosen
    found = installed()
    if found.state == "absent":
        return ""
    if not found.usable:
        raise engine.EngineError(found.words + ".", "The buttons are in the add-on's preferences.", "no_engine")
    return str(installing.python_of(found.folder))


def refuse_while_installing(command: list[str]) -> None:
    """An engine that is just being installed, updated, repaired or removed, by this Blender or another, must not start half-way. Raises EngineError."""
    root = install_root()
    if root in Path(command[0]).parents and installing.is_held(root):
        raise engine.EngineError("The engine is being installed or removed just now.", "Wait until that is done, then try again.", "engine_busy")


def engine_problem() -> str:
    """Why no engine could be started now, in words; '' where one could."""
    try:
        engine.engine_command(engine_setting())
    except engine.EngineError as error:
        return str(error)
    return ""


def own_python() -> str:
    """Blender's own Python, from which an environment can be made."""
    return sys.executable


def register() -> None:
    _installed.clear()
    bpy.utils.register_class(Body4DPreferences)


def unregister() -> None:
    bpy.utils.unregister_class(Body4DPreferences)
