# SPDX-License-Identifier: GPL-3.0-or-later
"""The sidebar tab Body4D of the 3D view."""

import textwrap

import bpy

from .operators import convert
from .scene import tags
from .scene.mesh import MODIFIER


def take_of(context) -> bpy.types.Collection | None:
    """The take's collection that the active object, or else the active collection, belongs to."""
    block = context.object
    candidates = [*(block.users_collection if block else ()), context.collection]
    return next((c for c in candidates if c is not None and c.get(tags.ROLE) == "take"), None)


def _wrapped(layout, text: str, icon: str = "NONE") -> None:
    for i, line in enumerate(textwrap.wrap(text, 44)):
        layout.label(text=line, icon=icon if i == 0 else "BLANK1")


class Body4DPanel:
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Body4D"


class BODY4D_PT_main(Body4DPanel, bpy.types.Panel):
    bl_label = "Body4D"

    def draw(self, context):
        layout = self.layout
        layout.operator("body4d.import_take", text="Import Take", icon="IMPORT")
        if convert.current is None:
            layout.operator("body4d.convert", icon="OUTLINER_DATA_ARMATURE")
        else:
            _wrapped(layout, convert.current.status, "TIME")
            layout.operator("body4d.cancel", icon="CANCEL")
        if convert.last_error:
            _wrapped(layout.box(), convert.last_error, "ERROR")


class BODY4D_PT_take(Body4DPanel, bpy.types.Panel):
    bl_label = "Take"

    @classmethod
    def poll(cls, context):
        return take_of(context) is not None

    def draw(self, context):
        layout, collection = self.layout, take_of(context)
        layout.label(text=collection.name, icon="OUTLINER_COLLECTION")
        layout.label(text=f"Focal: {collection[tags.FOCAL]}", icon="CAMERA_DATA")
        for body in sorted((o for o in collection.objects if o.get(tags.ROLE) == "person"), key=lambda o: o[tags.PERSON]):
            box = layout.box()
            box.label(text=f"{body.name} ({body[tags.PERSON]})", icon="OUTLINER_OB_MESH")
            grid = box.grid_flow(columns=2, even_columns=True)
            for state, count in body[tags.FRAMES].items():
                if count:
                    grid.label(text=f"{count} {state}")
        for notice in collection.get(tags.NOTICES, ()):
            _wrapped(layout, notice, "INFO")
        layout.operator_context = "EXEC_DEFAULT"  # no file browser
        again = layout.operator("body4d.import_take", text="Import Again", icon="FILE_REFRESH")
        again.filepath = collection[tags.TAKE]
        again.mesh_cache = any(m.name == MODIFIER for o in collection.objects for m in o.modifiers)
        again.match_scene, again.use_start = "AUTO", False  # else as in the last import, which may have been of another take


CLASSES = (BODY4D_PT_main, BODY4D_PT_take)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
