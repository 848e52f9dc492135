# SPDX-License-Identifier: GPL-3.0-or-later
"""What will be made and what that costs, then how far it is."""

import bpy

from .. import connection, generating, takes
from ..operators.generate import MESH_CACHE
from ..state import backend_title, clip_path, people_json, take_path, used_frames
from . import examination
from .common import Body4DPanel, engine_button, preferences_button, wrapped


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
    ready = _draw_backend(layout, state)
    column = layout.column()
    column.prop(state, "output")
    column.prop(state, "match_scene")
    column.prop(state, "take", placeholder=take_path(state).name)
    known, frames = takes.known(take_path(state)), len(used_frames(state))
    if known.backend not in ("", state.backend):
        _draw_other(layout, state, known)
        return
    if ready and frames and not known.complete:
        _draw_estimate(layout, state, frames)
    row = layout.row()
    row.scale_y, row.enabled = 1.5, ready
    partial = known.there and not known.complete
    row.operator("body4d.generate", text="Continue" if partial else "Generate", icon="PLAY")
    if known.there:
        layout.operator("body4d.generate", text="Start Over", icon="FILE_REFRESH").fresh = True


def _draw_backend(layout, state) -> bool:
    """Which backend, and its own settings, where there is a choice. Returns whether it can work, as far as is known."""
    offered = (connection.hello() or {}).get("backends", {})
    here = offered.get(state.backend, {})
    models = here.get("models", {})
    if len({*offered, state.backend, "lite"}) > 1:
        layout.row().prop(state, "backend", expand=True)
    if state.backend == "full":
        layout.prop(state, "hands")
        header, body = layout.panel("body4d_full", default_closed=True)
        header.label(text="Advanced")
        if body is not None:
            body.prop(state, "memory_limit", text="Memory (GB)")
            if len(models) > 1:
                body.prop(state, "models")
    if offered and not here:
        wrapped(layout.box(), f"This engine has no backend {backend_title(state.backend)}. Update it.", "ERROR")
        return False
    lacks = models.get(state.models, here.get("lacks", []))
    if lacks:
        box, more = layout.box(), len(lacks) - 1
        wrapped(box, f"{backend_title(state.backend)} lacks {lacks[0]}" + (f" and {more} more." if more else "."), "ERROR")
        preferences_button(box, "Install What Is Missing")
        examination.draw_short(box)
    return not lacks


def _draw_other(layout, state, known) -> None:
    """The take that is there is of another backend."""
    box, how = layout.box(), "imported" if known.backend == "import" else f"made with {backend_title(known.backend)}"
    wrapped(box, f"{take_path(state).name} was {how}. Keep it, and put the new one beside it; or replace it.", "INFO")
    row = box.row()
    row.operator("body4d.keep_take", icon="DUPLICATE")
    row.operator("body4d.generate", text="Start Over", icon="FILE_REFRESH").fresh = True


def _draw_estimate(layout, state, frames: int) -> None:
    cache = MESH_CACHE[state.output]
    picked = len(people_json(state))
    cost = takes.estimate(frames, picked, cache, state.backend)
    grid = layout.grid_flow(columns=2, even_columns=True, row_major=True)
    who = f"{picked} {'person' if picked == 1 else 'people'}" if picked else f"assuming {takes.USUAL_PEOPLE} people"
    time = "depends on the GPU" if cost.seconds is None else f"about {takes.time_text(cost.seconds)}"
    for label, value in (("Frames", f"{frames:,}, {who}"), ("Time", time), ("Disk", takes.size_text(cost.disk)),
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
    if generation.notices:
        wrapped(layout, generation.notices[-1], "INFO")
    layout.operator("body4d.cancel", icon="CANCEL")


def register() -> None:
    bpy.utils.register_class(BODY4D_PT_generate)


def unregister() -> None:
    bpy.utils.unregister_class(BODY4D_PT_generate)
