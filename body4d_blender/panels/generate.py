# SPDX-License-Identifier: GPL-3.0-or-later
"""What will be made and what that costs, then how far it is."""

import bpy

from .. import generating, takes
from ..operators.generate import MESH_CACHE
from ..state import clip_path, people_json, take_path, used_frames
from .common import Body4DPanel, engine_button, wrapped


class BODY4D_PT_generate(Body4DPanel, bpy.types.Panel):
    bl_label = "Generate"

    @classmethod
    def poll(cls, context):
        return clip_path(context.scene.body4d) is not None or generating.current is not None or generating.last_error != ""

    def draw(self, context):
        layout, state = self.layout, context.scene.body4d
        if generating.current is not None:
            _draw_progress(layout, generating.current)
        elif clip_path(state) is not None:
            _draw_choice(layout, state)
        if generating.last_error:
            box = layout.box()
            wrapped(box, generating.last_error, "ERROR")
            engine_button(box)
        elif generating.last_notice:
            wrapped(layout.box(), generating.last_notice, "INFO")


def _draw_choice(layout, state) -> None:
    layout.use_property_split, layout.use_property_decorate = True, False
    column = layout.column()
    column.prop(state, "output")
    column.prop(state, "match_scene")
    column.prop(state, "take", placeholder=take_path(state).name)
    known, frames = takes.known(take_path(state)), len(used_frames(state))
    if frames and not known.complete:
        _draw_estimate(layout, state, frames)
    row = layout.row()
    row.scale_y = 1.5
    partial = known.there and not known.complete
    row.operator("body4d.generate", text="Continue" if partial else "Generate", icon="PLAY")
    if known.there:
        layout.operator("body4d.generate", text="Start Over", icon="FILE_REFRESH").fresh = True


def _draw_estimate(layout, state, frames: int) -> None:
    cache = MESH_CACHE[state.output]
    picked = len(people_json(state))
    cost = takes.estimate(frames, picked, cache)
    grid = layout.grid_flow(columns=2, even_columns=True, row_major=True)
    who = f"{picked} {'person' if picked == 1 else 'people'}" if picked else f"assuming {takes.USUAL_PEOPLE} people"
    for label, value in (("Frames", f"{frames:,}, {who}"), ("Time", f"about {takes.time_text(cost.seconds)}"), ("Disk", takes.size_text(cost.disk)),
                         ("Disk while running", f"up to {takes.size_text(2 * cost.disk)}"),  # the engine's and ours, or the result before and the new one
                         (".blend", f"+{takes.size_text(cost.blend)}" if cost.blend else "stays small"),
                         ("Memory", takes.size_text(cost.memory) if cost.memory else "little")):
        grid.label(text=label)
        grid.label(text=value)
    if cost.heavy and cache is False:
        wrapped(layout.box(), "Shape keys of this size make the file slow to save and to undo. Mesh Cache plays the same meshes from the take.", "INFO")


def _draw_progress(layout, generation) -> None:
    layout.label(text=generation.title, icon="TIME")
    left = generation.seconds_left
    text = f"frame {generation.done:,} of {generation.total:,}" if generation.state == "running" and generation.total else ""
    if left is not None and generation.state == "running":
        text += f", {takes.time_text(left)} left"
    layout.progress(factor=generation.fraction, type="BAR", text=text)
    if generation.people:
        names = [f"{name} (now)" if number == generation.person else name for number, name in generation.people]
        wrapped(layout, ", ".join(names), "COMMUNITY")
    layout.operator("body4d.cancel", icon="CANCEL")


def register() -> None:
    bpy.utils.register_class(BODY4D_PT_generate)


def unregister() -> None:
    bpy.utils.unregister_class(BODY4D_PT_generate)
