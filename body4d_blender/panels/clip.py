# SPDX-License-Identifier: GPL-3.0-or-later
"""Which clip."""

import bpy

from ..asking import asker
from ..operators import clip as operators
from ..preferences import engine_problem
from ..state import clip_path
from .common import Body4DPanel, engine_button, wrapped


class BODY4D_PT_clip(Body4DPanel, bpy.types.Panel):
    bl_label = "Clip"

    def draw(self, context):
        layout, state = self.layout, context.scene.body4d
        if state.clip:
            row = layout.row(align=True)
            row.label(text=clip_path(state).name, icon="FILE_MOVIE")
            row.operator("body4d.choose_clip", text="", icon="FILE_FOLDER")
            row.operator("body4d.remove_clip", text="", icon="X")
            column = layout.column(align=True)
            column.scale_y = 0.8
            rate = "" if state.clip_is_images else f", {state.clip_fps:.4g} fps"
            column.label(text=f"{state.clip_width} \N{MULTIPLICATION SIGN} {state.clip_height} px, {state.clip_frames} frames{rate}", icon="BLANK1")
        else:
            if engine_problem() and not asker.problem:
                box = layout.box()
                wrapped(box, "Body4D works with an engine outside Blender, and there is none yet", "INFO")
                engine_button(box)
            layout.operator("body4d.choose_clip", icon="FILE_MOVIE")
            if operators.downloaded is None:
                layout.operator("body4d.demo_clip", icon="INTERNET")
            layout.operator("body4d.import_take", text="Import Take", icon="IMPORT")
        if state.clip_frames:
            _draw_range(layout, state)
        if operators.downloaded is not None:
            layout.progress(factor=operators.downloaded, type="BAR", text=f"Downloading the demo clip, {operators.downloaded:.0%}")
        elif asker.opening is not None:
            words, fraction = asker.opening.words, asker.opening.fraction
            layout.progress(factor=fraction, type="BAR", text=f"{words}, {fraction:.0%}" if fraction else words)
        elif asker.problem:
            box = layout.box()
            wrapped(box, asker.problem, "ERROR")
            engine_button(box)


def _draw_range(layout, state) -> None:
    layout = layout.column()
    layout.use_property_split, layout.use_property_decorate = True, False
    if state.clip_is_images:
        layout.prop(state, "image_fps")
    row = layout.row(heading="Range")
    row.prop(state, "use_range", text="")
    column = row.column(align=True)
    column.active = state.use_range
    column.prop(state, "frame_start", text="")
    column.prop(state, "frame_end", text="")
    layout.prop(state, "step")


def register() -> None:
    bpy.utils.register_class(BODY4D_PT_clip)


def unregister() -> None:
    bpy.utils.unregister_class(BODY4D_PT_clip)
