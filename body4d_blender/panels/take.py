# SPDX-License-Identifier: GPL-3.0-or-later
"""The take that the active object belongs to: how far to trust it, what can be corrected, where it stands, how it is kept."""

import bpy

from .. import plots
from ..scene import corrections, floor, imported, tags
from ..state import BACKENDS
from .common import Body4DPanel, wrapped

TILE_UNITS, UNIT_PX, MARGIN_PX = 2.0, 20, 64  # of the plot, in the interface's units; what a panel, its box and its tabs leave free

_MADE_WITH = {"import": "Imported", **{name: f"Made with {title}" for name, title, _ in BACKENDS}}


class _TakePanel(Body4DPanel):
    @classmethod
    def poll(cls, context):
        return imported.take_of(context) is not None


class BODY4D_PT_take(_TakePanel, bpy.types.Panel):
    bl_label = "Take"

    def draw(self, context):
        layout, collection, scene = self.layout, imported.take_of(context), context.scene
        row = layout.row()
        row.label(text=collection.name, icon="OUTLINER_COLLECTION")
        if collection.get(tags.BACKEND) in _MADE_WITH:
            made = row.row()
            made.alignment, made.active = "RIGHT", False
            made.label(text=_MADE_WITH[collection[tags.BACKEND]])
        now = imported.clip_frame(collection, scene)
        for body in imported.bodies_of(collection):
            _draw_person(layout.box(), body, imported.frames_of(collection), now, _tiles(context))
        row = layout.row(align=True)
        row.operator("body4d.jump_to_doubt", text="Previous Doubt", icon="PREV_KEYFRAME").direction = "PREVIOUS"
        row.operator("body4d.jump_to_doubt", text="Next Doubt", icon="NEXT_KEYFRAME").direction = "NEXT"


def _draw_person(layout, body, frames: range, now: int, tiles: int) -> None:
    title = layout.row()
    title.label(text=body.name, icon="OUTLINER_OB_MESH")
    icons = plots.tiles(body, (now - frames.start) / frames.step if frames else None, tiles)
    if icons:
        of = title.row()
        of.alignment, of.active = "RIGHT", False
        of.label(text="Confidence")
        row = layout.row(align=True)
        row.alignment = "CENTER"
        for icon in icons:
            row.template_icon(icon_value=icon, scale=TILE_UNITS)
    counts = layout.column()
    counts.active = False
    wrapped(counts, "Frames: " + ", ".join(f"{count} {state}" for state, count in body[tags.FRAMES].items() if count))
    for reason in dict.fromkeys(doubt.reason for doubt in imported.doubts_of(body) if doubt.first <= now <= doubt.last):
        wrapped(layout, reason[0].upper() + reason[1:], "ERROR")


def _tiles(context) -> int:
    """How many tiles of the plot fit the panel."""
    region = context.region
    width = region.width / context.preferences.system.ui_scale - MARGIN_PX if region else 0
    return max(3, min(12, int(width / (TILE_UNITS * UNIT_PX))))


class BODY4D_PT_correct(_TakePanel, bpy.types.Panel):
    bl_label = "Correct"
    bl_parent_id = "BODY4D_PT_take"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context):
        layout, collection = self.layout, imported.take_of(context)
        layout.operator_context = "INVOKE_DEFAULT"
        layout.operator("body4d.mark_wrong", icon="ADD")
        marked, solved = corrections.read(collection), set(corrections.solved(collection))
        names = {body[tags.PERSON]: body.name for body in imported.bodies_of(collection)}
        column = layout.column(align=True)
        for index, one in enumerate(marked):
            row = column.row(align=True)
            first, last = (imported.scene_frame(collection, frame) for frame in (one.first, one.last))
            row.label(text=f"{names.get(one.person, one.person)}, {first} to {last}: {one.words()}", icon="CHECKMARK" if one in solved else "DOT")
            row.operator("body4d.unmark", text="", icon="X", emboss=False).index = index
        row = layout.row()
        row.active = set(marked) != solved
        row.operator("body4d.solve_again", icon="PLAY")
        layout.operator("body4d.refine_again", icon="MOD_SMOOTH")


class BODY4D_PT_floor(_TakePanel, bpy.types.Panel):
    bl_label = "Floor"
    bl_parent_id = "BODY4D_PT_take"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context):
        layout, collection = self.layout, imported.take_of(context)
        layout.operator_context = "EXEC_DEFAULT"
        empty = floor.find(context.scene, collection, {collection[tags.TAKE_ID]})
        column = layout.column(align=True)
        column.operator("body4d.stand_on_floor", text="Stand on Floor", icon="CON_FLOOR").source = "FEET"
        column.operator_context = "INVOKE_DEFAULT"
        column.operator("body4d.click_floor", text="Click Two Feet", icon="EYEDROPPER")
        if empty is not None:
            layout.use_property_split, layout.use_property_decorate = True, False
            column = layout.column(align=True)
            column.prop(empty, "rotation_euler", index=0, text="Pitch")
            column.prop(empty, "rotation_euler", index=1, text="Roll")
            column.prop(empty, "location", index=2, text="Height")
            layout.operator("body4d.leave_floor", icon="X")


class BODY4D_PT_take_files(_TakePanel, bpy.types.Panel):
    bl_label = "Scene and Files"
    bl_parent_id = "BODY4D_PT_take"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context):
        layout, collection = self.layout, imported.take_of(context)
        cached = imported.is_cached(collection)
        layout.operator("body4d.match_scene", icon="SCENE_DATA")
        layout.operator("body4d.switch_meshes", text="Switch to Shape Keys" if cached else "Switch to Mesh Cache",
                        icon="SHAPEKEY_DATA" if cached else "MOD_MESHDEFORM")
        wrapped(layout, "FBX and glTF files hold a still body only: neither absolute shape keys nor Mesh Cache. Export Alembic or USD: every frame is in them.",
                "INFO")
        layout.operator_context = "EXEC_DEFAULT"  # no file browser
        again = layout.operator("body4d.import_take", text="Import Again", icon="FILE_REFRESH")
        again.filepath = collection[tags.TAKE]
        again.mesh_cache = cached
        again.match_scene, again.use_start = "AUTO", False  # else as in the last import, which may have been of another take
        layout.operator_context = "INVOKE_DEFAULT"
        row = layout.row(align=True)
        row.operator("body4d.relink_take", icon="FILE_FOLDER")
        row.operator("body4d.relink_clip", icon="FILE_MOVIE")
        layout.operator("body4d.delete_take", icon="TRASH")


class BODY4D_PT_notices(_TakePanel, bpy.types.Panel):
    bl_label = "Notices"
    bl_parent_id = "BODY4D_PT_take"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context):
        return super().poll(context) and bool(imported.take_of(context).get(tags.NOTICES))

    def draw(self, context):
        collection = imported.take_of(context)
        wrapped(self.layout, f"Focal: {collection[tags.FOCAL]}", "CAMERA_DATA")
        for notice in collection.get(tags.NOTICES, ()):
            wrapped(self.layout, notice, "INFO")


CLASSES = (BODY4D_PT_take, BODY4D_PT_correct, BODY4D_PT_floor, BODY4D_PT_take_files, BODY4D_PT_notices)


def register() -> None:
    plots.register()
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
    plots.unregister()
