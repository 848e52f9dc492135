# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's preferences: the engine, and folders. Only what is known already is drawn."""

import bpy

from .. import connection, installing, preferences
from ..engine import EngineError
from ..operators import install
from ..operators.full_engine import of_full_engine
from . import examination, full_engine
from .common import wrapped

_looked: tuple = ()  # the choice for which the engine was asked already


def draw(self, layout, context) -> None:
    width = max(40, int(context.region.width / (7 * context.preferences.system.ui_scale))) if context.region else 80
    try:
        found = preferences.installed()
    except EngineError as error:
        found = installing.Status("absent")
        wrapped(layout, str(error), "ERROR", width)
    _engine(self, layout.box(), context, found, width)
    full_engine.draw(self, layout.box(), found, width)
    box = layout.box()
    box.label(text="Existing Engine")
    box.use_property_split = True
    box.prop(self, "engine", text="Python or Command")
    wrapped(box, "An engine environment on this computer, or a command that starts one elsewhere: ssh gpu-box body4d serve", "NONE", width)
    _folders(self, layout.box(), width)
    examination.draw(layout.box(), width)  # last: it grows


def _engine(self, box, context, found: installing.Status, width: int) -> None:
    row = box.row()
    row.label(text="Engine")
    if self.engine or found.usable:
        row.operator("body4d.check_engine", icon="FILE_REFRESH")
        _look_once((self.engine, found.folder, self.cache_folder, self.weights_folder))
    if self.engine:
        wrapped(box, f"In use: {self.engine}", "CHECKMARK", width)
    if install.is_installing() and not of_full_engine():
        progress = install.job.progress
        split = box.split(factor=0.75)
        split.progress(factor=progress.fraction, type="BAR", text=progress.text)
        split.operator("body4d.cancel_install", icon="CANCEL")
        return
    icons = {"absent": "INFO", "complete": "CHECKMARK", "outdated": "FILE_REFRESH"}
    wrapped(box, found.words, icons.get(found.state, "ERROR"), width)
    if found.folder:
        row = box.row(align=True)
        row.label(text=f"{installing.size_text(found.bytes)}, Python {found.python}, in {found.folder}", icon="BLANK1")
        row.operator("wm.path_open", text="", icon="FILE_FOLDER").filepath = str(found.folder)
    _hello(box, width)
    if preferences.bundle() is None:
        wrapped(box, "This copy of the add-on carries no engine to install. Install the extension from its zip, or use an existing engine.", "INFO", width)
    else:
        if found.state == "absent":
            wrapped(box, f"It downloads {installing.size_text(installing.DOWNLOAD_BYTES)} once and takes {installing.size_text(installing.UNPACKED_BYTES)}. "
                         "Blender's own Python stays as it is.", "BLANK1", width)
        row = box.row()
        if found.state in ("absent", "outdated", "incomplete"):
            row.operator("body4d.install_engine", text="Install Lite Engine" if found.state == "absent" else "Update", icon="IMPORT")
        if found.state != "absent":
            row.operator("body4d.install_engine", text="Repair", icon="MODIFIER").repair = True
            row.operator("body4d.remove_engine", icon="TRASH")
        if not bpy.app.online_access:
            _offline(box, context, width)
        box.use_property_split = True
        box.prop(self, "python", placeholder="Found by itself")
        box.prop(self, "engine_folder", placeholder="The extension's own folder")
    if install.job is not None and install.job.error and not of_full_engine():
        _failure(box, install.job, width)


def _hello(box, width: int) -> None:
    """What the engine says of itself."""
    hello = connection.hello()
    if hello:
        box.label(text=f"Engine {hello.get('engine')} on {hello.get('device')}, Python {hello.get('python')}", icon="SYSTEM")
        for name, backend in hello.get("backends", {}).items():
            lacks = backend["lacks"]
            icon = "CHECKMARK" if not lacks else "IMPORT" if name == "full" else "ERROR"  # whoever is happy with lite need not have the other
            wrapped(box, f"Backend {name}: " + (f"lacks {', '.join(lacks)}" if lacks else "works"), icon, width)
    elif install.asked:
        wrapped(box, install.asked, "ERROR", width)


def _offline(box, context, width: int) -> None:
    wrapped(box, "Blender may not go online, and the engine's packages have to be downloaded once. Allow it here, or install all the same: "
            "you will be told what to copy where.", "INTERNET_OFFLINE", width)
    if bpy.app.online_access_override:
        box.label(text="It was started with --offline-mode: start Blender without.")
    else:
        box.prop(context.preferences.system, "use_online_access")


def _failure(box, job: installing.Install, width: int) -> None:
    if job.error.code == "cancelled":
        wrapped(box, str(job.error), "INFO", width)
        return
    column = box.box().column(align=True)
    wrapped(column, str(job.error), "ERROR", width)
    for line in job.instructions.splitlines():
        wrapped(column, line, "NONE", width)
    column.operator("body4d.copy_install_text", icon="COPYDOWN")


def _folders(self, box, width: int) -> None:
    box.label(text="Folders")
    box.use_property_split = True
    row = box.row()
    row.prop(self, "cache_folder", placeholder="Automatic")
    known = install.cache_bytes
    row.operator("body4d.clear_cache", text="Clear" if known is None else f"Clear {installing.size_text(known)}", icon="TRASH")


def _look_once(choice: tuple) -> None:
    """Ask the engine about itself when its box is shown for the first time, or with another choice; the asking happens after the drawing.

    Property callbacks would do that too, but with any of those Blender 4.2 as a Python module crashes while it exits.
    """
    global _looked
    if choice != _looked and not install.is_installing() and not bpy.app.background:
        _looked = choice
        bpy.app.timers.register(install.look, first_interval=0.0)
