# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user sets once."""

import bpy

PACKAGE = __package__  # `body4d_blender`, or `bl_ext.<repository>.body4d`; inside a sub-package it would be longer


class Body4DPreferences(bpy.types.AddonPreferences):
    bl_idname = PACKAGE

    engine: bpy.props.StringProperty(
        name="Engine", subtype="FILE_PATH",
        description="The Python or the body4d program of an engine environment, or a whole command. Empty: body4d on the search path")

    def draw(self, context):
        self.layout.prop(self, "engine")
        self.layout.label(text="Only converting videos needs an engine; takes are imported without one.")


def engine_setting() -> str:
    """The engine as set, its path absolute (the file browser may make it relative to the .blend); empty where the add-on is used without being
    enabled."""
    addon = bpy.context.preferences.addons.get(PACKAGE)
    return bpy.path.abspath(addon.preferences.engine) if addon and addon.preferences else ""


def register() -> None:
    bpy.utils.register_class(Body4DPreferences)


def unregister() -> None:
    bpy.utils.unregister_class(Body4DPreferences)
