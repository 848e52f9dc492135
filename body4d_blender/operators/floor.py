# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand on Floor: by the feet that stand, by two clicks, by numbers; and off again."""

from math import degrees, pi

import bpy
import numpy as np
from mathutils import Vector

from body4d_engine.errors import Body4DError
from body4d_engine.floor import find_floor
from body4d_engine.take import Take

from ..scene import floor, imported, tags
from .take import OfTake

FOOT_M = 0.15  # how far the sole may be from a click on the foot
CLICK_PX = 20  # how far from the body a click may be


class BODY4D_OT_stand_on_floor(OfTake, bpy.types.Operator):
    """Turn camera and people together so that down is down and the floor lies at height 0. An empty carries them; what moves stays as it is"""

    bl_idname = "body4d.stand_on_floor"
    bl_label = "Stand on Floor"

    source: bpy.props.EnumProperty(
        name="From", options={"SKIP_SAVE"},
        items=[("FEET", "Standing Feet", "From the feet that stand, over the whole take"), ("VALUES", "Numbers", "From pitch, roll and height"),
               ("POINTS", "Two Points", "Through two points of the scene that are on the floor")])
    pitch: bpy.props.FloatProperty(name="Pitch", subtype="ANGLE", min=-pi / 2, max=pi / 2, description="How far the camera looks up", options={"SKIP_SAVE"})
    roll: bpy.props.FloatProperty(name="Roll", subtype="ANGLE", min=-pi, max=pi, options={"SKIP_SAVE"},
                                  description="How far the camera is turned clockwise, as one looks along with it")
    height: bpy.props.FloatProperty(name="Height", subtype="DISTANCE", unit="LENGTH", default=1.5, description="Of the camera above the floor",
                                    options={"SKIP_SAVE"})
    first: bpy.props.FloatVectorProperty(name="First Point", subtype="XYZ", unit="LENGTH", description="A point on the floor", options={"SKIP_SAVE"})
    second: bpy.props.FloatVectorProperty(name="Second Point", subtype="XYZ", unit="LENGTH", description="Another point on the floor", options={"SKIP_SAVE"})

    def draw(self, context):
        layout = self.layout
        layout.use_property_split = True
        layout.prop(self, "source")
        for name in {"VALUES": ("pitch", "roll", "height"), "POINTS": ("first", "second")}.get(self.source, ()):
            layout.prop(self, name)

    def execute(self, context):
        collection = self.chosen(context)
        if collection is None:
            return {"CANCELLED"}
        try:
            if self.source == "FEET":
                with Take.open(imported.folder_of(collection)) as take:
                    found = find_floor(take)
                self.pitch, self.roll, self.height = found.pitch, found.roll, found.height_m
                self.report({"INFO"}, f"The camera is {found.height_m:.2f} m above the floor and looks {degrees(abs(found.pitch)):.1f}° "
                            f"{'up' if found.pitch > 0 else 'down'} (±{degrees(found.pitch_error):.1f}°): feet stood {found.contacts} times.")
            elif self.source == "POINTS":
                self.pitch, self.roll, self.height = floor.through(*(in_camera(context, collection, point) for point in (self.first, self.second)))
        except (Body4DError, OSError, ValueError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        strangers = floor.stand(context.scene, collection, self.pitch, self.roll, self.height)
        if strangers:
            self.report({"WARNING"}, f"{', '.join(strangers)} {'keeps its' if len(strangers) == 1 else 'keep their'} own parent, and stays where it is.")
        return {"FINISHED"}


def vertices_of(body) -> np.ndarray:
    """(V, 3) in the scene, of an evaluated object."""
    vertices = np.empty(len(body.data.vertices) * 3, np.float32)
    body.data.vertices.foreach_get("co", vertices)
    matrix = np.array(body.matrix_world)
    return vertices.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]


def nearest(shapes, view: np.ndarray, size, place, within_px: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Of bodies with vertices (V, 3) each, the one seen nearest to a place (x, y) of a region with this size, px, and its vertex there. view (4, 4): of the
    region. None where all are further away than `within_px`."""
    best, found = within_px, None
    for vertices in shapes:
        seen = vertices @ view[:, :3].T + view[:, 3]
        ahead = seen[:, 3] > 1e-6
        screen = (seen[:, :2] / np.where(ahead, seen[:, 3], 1)[:, None] + 1) / 2 * size
        apart = np.where(ahead, np.linalg.norm(screen - place, axis=1), np.inf)
        if apart.min(initial=np.inf) < best:
            best, found = float(apart.min()), (vertices, vertices[apart.argmin()])
    return found


def lowest_near(vertices: np.ndarray, point) -> tuple[float, float, float]:
    """The lowest of the vertices around a point of a foot: its sole."""
    near = vertices[np.linalg.norm(vertices - np.asarray(point), axis=1) < FOOT_M]
    return tuple(near[near[:, 2].argmin()].tolist())


def in_camera(context, collection, point) -> tuple[float, float, float]:
    """A point of the scene in the clip's camera axes (x right, y down, z forward), metres: those of the take, wherever it stands."""
    empty = floor.find(context.scene, collection, {collection[tags.TAKE_ID]})
    x, y, z = empty.matrix_world.inverted() @ Vector(point) if empty else point
    return x, -z, y


class BODY4D_OT_leave_floor(OfTake, bpy.types.Operator):
    """Back into the camera's own space: the camera at the origin, as it looked"""

    bl_idname = "body4d.leave_floor"
    bl_label = "Leave Floor"

    def execute(self, context):
        collection = self.chosen(context)
        if collection is None:
            return {"CANCELLED"}
        if not floor.lift(context.scene, collection):
            self.report({"INFO"}, f"{collection.name} does not stand on the floor.")
            return {"CANCELLED"}
        return {"FINISHED"}


class BODY4D_OT_click_floor(OfTake, bpy.types.Operator):
    """Click two feet that stand on the floor, at any frames: Stand on Floor then lays the floor through them"""

    bl_idname = "body4d.click_floor"
    bl_label = "Click Floor"
    bl_options = {"REGISTER"}  # the step for undo is that of Stand on Floor

    @classmethod
    def poll(cls, context):
        if context.area is None or context.area.type != "VIEW_3D":
            cls.poll_message_set("Works in a 3D View")
            return False
        return super().poll(context)

    def invoke(self, context, event):
        collection = self.chosen(context)
        if collection is None:
            return {"CANCELLED"}
        self.take, self._points, self._area = collection.name, [], context.area.as_pointer()
        context.window.cursor_modal_set("CROSSHAIR")
        self._say(context)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context):
        self.report({"ERROR"}, "Clicking needs a window. Use Stand on Floor with two points.")
        return {"CANCELLED"}

    def modal(self, context, event):
        if event.type in {"ESC", "RIGHTMOUSE"} or context.area is None or context.area.as_pointer() != self._area:
            self._end(context)
            return {"CANCELLED"}
        if event.type != "LEFTMOUSE" or event.value != "PRESS":
            return {"PASS_THROUGH"}  # looking around and going to other frames stays possible
        under = [r for r in context.area.regions if 0 <= event.mouse_x - r.x < r.width and 0 <= event.mouse_y - r.y < r.height]
        if [r.type for r in under] != ["WINDOW"]:
            return {"PASS_THROUGH"}  # header, sidebar, toolbar lie over it
        region = under[0]
        point = self._sole(context, region, (event.mouse_x - region.x, event.mouse_y - region.y))
        if point is None:
            self.report({"WARNING"}, "There is no foot. Click one that stands.")
            return {"RUNNING_MODAL"}
        self._points.append(point)
        if len(self._points) < 2:
            self._say(context)
            return {"RUNNING_MODAL"}
        self._end(context)
        bpy.ops.body4d.stand_on_floor("EXEC_DEFAULT", True, take=self.take, source="POINTS", first=self._points[0], second=self._points[1])
        return {"FINISHED"}

    def _sole(self, context, region, place) -> tuple[float, float, float] | None:
        """The lowest point, in the scene, of the foot that was clicked."""
        collection, depsgraph = self.chosen(context), context.evaluated_depsgraph_get()
        bodies = [body for body in imported.bodies_of(collection) if body.visible_get()] if collection else []
        shapes = [vertices_of(body.evaluated_get(depsgraph)) for body in bodies]
        near = nearest(shapes, np.array(context.space_data.region_3d.perspective_matrix), (region.width, region.height), place,
                       CLICK_PX * context.preferences.system.ui_scale)
        return None if near is None else lowest_near(*near)

    def _say(self, context) -> None:
        context.area.header_text_set(f"Click {'a foot that stands' if not self._points else 'another one, at this or another frame'}    Esc: cancel")

    def _end(self, context) -> None:
        context.window.cursor_modal_restore()
        if context.area is not None:
            context.area.header_text_set(None)

    def cancel(self, context):
        self._end(context)


CLASSES = (BODY4D_OT_stand_on_floor, BODY4D_OT_leave_floor, BODY4D_OT_click_floor)
register, unregister = bpy.utils.register_classes_factory(CLASSES)
