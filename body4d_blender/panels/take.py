# SPDX-License-Identifier: GPL-3.0-or-later
"""The take that the active object belongs to."""

import bpy

from ..scene import tags
from ..scene.mesh import MODIFIER
from .common import Body4DPanel, wrapped


def take_of(context) -> bpy.types.Collection | None:
    """The take's collection that the active object, or else the active collection, belongs to."""
    block = context.object
    candidates = [*(block.users_collection if block else ()), context.collection]
    return next((c for c in candidates if c is not None and c.get(tags.ROLE) == "take"), None)


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
            wrapped(layout, notice, "INFO")
        layout.operator_context = "EXEC_DEFAULT"  # no file browser
        again = layout.operator("body4d.import_take", text="Import Again", icon="FILE_REFRESH")
        again.filepath = collection[tags.TAKE]
        again.mesh_cache = any(m.name == MODIFIER for o in collection.objects for m in o.modifiers)
        again.match_scene, again.use_start = "AUTO", False  # else as in the last import, which may have been of another take


def register() -> None:
    bpy.utils.register_class(BODY4D_PT_take)


def unregister() -> None:
    bpy.utils.unregister_class(BODY4D_PT_take)
