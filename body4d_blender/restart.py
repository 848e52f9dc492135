# SPDX-License-Identifier: GPL-3.0-or-later
"""After an update in a running Blender: this add-on is the new one, but Python still holds the modules of the old engine wheel."""

import textwrap
import tomllib
from pathlib import Path

import bpy

import body4d_engine

MANIFEST = Path(__file__).resolve().parent / "blender_manifest.toml"
_words = ""


def needed() -> str:
    """Why Blender has to be started again, for the user; '' where it need not. A checkout has no manifest of its own, nor an older wheel."""
    if not MANIFEST.is_file():
        return ""
    wanted, loaded = tomllib.loads(MANIFEST.read_text(encoding="utf-8"))["version"], body4d_engine.__version__
    if loaded == wanted:
        return ""
    return f"Body4D was updated to {wanted}, but {loaded} is still loaded. Save your work and restart Blender."


class BODY4D_PT_restart(bpy.types.Panel):
    bl_label = "Body4D"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Body4D"

    def draw(self, context):
        draw(self.layout)


class Body4DRestart(bpy.types.AddonPreferences):
    bl_idname = __package__

    def draw(self, context):
        draw(self.layout)


def draw(layout) -> None:
    column = layout.column(align=True)
    for i, line in enumerate(textwrap.wrap(_words, 44)):
        column.label(text=line, icon="ERROR" if i == 0 else "BLANK1")


def register() -> None:
    global _words
    _words = needed()
    print(_words)
    bpy.utils.register_class(Body4DRestart)
    bpy.utils.register_class(BODY4D_PT_restart)


def unregister() -> None:
    bpy.utils.unregister_class(BODY4D_PT_restart)
    bpy.utils.unregister_class(Body4DRestart)
