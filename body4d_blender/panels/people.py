# SPDX-License-Identifier: GPL-3.0-or-later
"""Who in the clip comes alive."""

import bpy

from .. import drawing
from ..asking import masks_on
from ..heights import draw_height
from ..state import active_person, clip_frame
from .common import Body4DPanel, wrapped


class BODY4D_UL_people(bpy.types.UIList):
    """A person per row: color, name, number of clicks, visibility."""

    def draw_item(self, context, layout, data, item, icon, active_data, active_property, index):
        row = layout.row(align=True)
        color = row.row()
        color.scale_x = 0.35
        color.prop(item, "color", text="")
        row.prop(item, "name", text="", emboss=False)
        count = row.row()
        count.alignment = "RIGHT"
        count.active = bool(item.clicks)
        count.label(text=f"{len(item.clicks)} click{'' if len(item.clicks) == 1 else 's'}")
        row.prop(item, "visible", text="", icon="HIDE_OFF" if item.visible else "HIDE_ON", emboss=False)


class BODY4D_PT_people(Body4DPanel, bpy.types.Panel):
    bl_label = "People"

    @classmethod
    def poll(cls, context):
        return bool(context.scene.body4d.clip)

    def draw(self, context):
        layout, state = self.layout, context.scene.body4d
        row = layout.row(align=True)
        row.operator("body4d.pick_people", text="Done Picking" if drawing.picking else "Pick People", icon="EYEDROPPER", depress=drawing.picking)
        row.operator("body4d.find_everyone", icon="COMMUNITY")
        row = layout.row()
        row.template_list("BODY4D_UL_people", "", state, "people", state, "active_person", rows=4)
        side = row.column(align=True)
        side.operator("body4d.add_person", text="", icon="ADD")
        side.operator("body4d.remove_person", text="", icon="REMOVE")
        side.separator()
        side.operator("body4d.move_person", text="", icon="TRIA_UP").direction = "UP"
        side.operator("body4d.move_person", text="", icon="TRIA_DOWN").direction = "DOWN"
        person = active_person(state)
        if person is not None:
            column = layout.column()
            column.use_property_split, column.use_property_decorate = True, False
            draw_height(person, column, "Height")
            frames = sorted({click.frame + 1 for click in person.clicks})
            if frames:
                wrapped(layout, f"Clicked on frame{'s' if len(frames) > 1 else ''} {', '.join(map(str, frames))}")
            answer = masks_on(state, clip_frame(context.scene)).get(state.active_person)
            if answer is not None and answer.text:
                wrapped(layout.box(), answer.text, "ERROR")
        elif not state.people:
            wrapped(layout, "Nobody picked: everyone who is found will be generated", "INFO")


CLASSES = (BODY4D_UL_people, BODY4D_PT_people)
register, unregister = bpy.utils.register_classes_factory(CLASSES)
