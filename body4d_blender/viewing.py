# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the user looks while people come alive: a 3D View that does not show them, and that nobody has turned since Generate was pressed, turns to
them, and at the end looks through the clip's camera. Any other stays as it is."""

from math import radians, sqrt

import bpy
from mathutils import Quaternion, Vector

ALONG_Y = Quaternion((1.0, 0.0, 0.0), radians(90.0))  # as the clip's camera looks
MARGIN = 1.3  # around bodies
SMALLEST = 0.1  # part of a view's height from which a body can be seen
SENSOR = 72.0  # mm on the longer side of a 3D View


class Viewer:
    """Follows one generation in the largest 3D View of a scene. Nothing is kept of Blender's data: the view is known by its address."""

    def __init__(self, scene):
        self._scene, self._area, self._left, self._turned = scene.session_uid, 0, (), False
        views = self._views()
        if views:
            area = max(views, key=lambda area: area.width * area.height)
            self._area, self._left = area.as_pointer(), _pose(area)

    def show(self, bodies: list) -> None:
        """Turn to the bodies (objects), unless all are seen."""
        for area in self._untouched():
            view = area.spaces.active.region_3d
            corners = [body.location + Vector(corner) for body in bodies for corner in body.bound_box]
            if not corners or view.view_perspective == "CAMERA":
                return
            left, right, width, height = _free(area)
            if _in_sight(view.perspective_matrix, corners, 2 * left / width - 1, 2 * right / width - 1):
                return
            low, high = (Vector([pick(corner[i] for corner in corners) for i in range(3)]) for pick in (min, max))
            per_px = SENSOR / area.spaces.active.lens / max(width, height)  # of what is as far away as what is looked at, per distance
            sides = (high.x - low.x) / (right - left), (high.z - low.z) / height
            view.view_perspective, view.view_rotation = "PERSP", ALONG_Y
            view.view_distance = MARGIN * max(*sides) / per_px + (high.y - low.y) / 2
            aside = (width / 2 - (left + right) / 2) * per_px * view.view_distance
            view.view_location = (low + high) / 2 + Vector((aside, 0.0, 0.0))
            self._left, self._turned = _pose(area), True

    def look_through_camera(self, scene, first: bool) -> None:
        """See the result over the clip, in a view that was turned to the bodies, or, where this is the `first` result, in any that nobody touched. The
        scene's camera fits the frame's width."""
        for area in self._untouched() if self._turned or first else ():
            left, right, width, height = _free(area)
            frame = min(0.95 * (right - left), 0.9 * height * scene.render.resolution_x / scene.render.resolution_y)
            part = frame / width
            view = area.spaces.active.region_3d
            view.view_perspective = "CAMERA"
            view.view_camera_zoom = max(-30.0, 50 * (2 * sqrt(part) - sqrt(2)))
            view.view_camera_offset = (width / 2 - (left + right) / 2) / (2 * part * width), 0.0

    def _untouched(self) -> list:
        return [area for area in self._views() if area.as_pointer() == self._area and _pose(area) == self._left]

    def _views(self) -> list:
        """Every 3D View of the scene."""
        windows = [] if bpy.app.background else [w for w in bpy.context.window_manager.windows if w.scene.session_uid == self._scene]
        return [area for window in windows for area in window.screen.areas if area.type == "VIEW_3D"]


def _pose(area) -> tuple:
    view = area.spaces.active.region_3d
    return view.view_perspective, *(round(x, 4) for x in (view.view_distance, *view.view_location, *view.view_rotation))


def _free(area) -> tuple[int, int, int, int]:
    """(left, right) of what toolbar and sidebar leave free of a 3D View, px, and its (width, height)."""
    view = next(region for region in area.regions if region.type == "WINDOW")
    left, right = 0, view.width
    for region in area.regions:
        if region.type in {"TOOLS", "UI"} and region.width > 1:
            if region.x + region.width / 2 < view.x + view.width / 2:
                left = max(left, region.x + region.width - view.x)
            else:
                right = min(right, region.x - view.x)
    return left, max(right, left + 50), view.width, view.height


def _in_sight(matrix, corners: list, left: float = -1.0, right: float = 1.0) -> bool:
    """Whether all that lies between the corners is inside the view, from left to right (-1 to 1), and large enough."""
    points = [matrix @ corner.to_4d() for corner in corners]
    if any(point.w <= 0 for point in points):  # behind
        return False
    x, y = ([point[i] / point.w for point in points] for i in range(2))
    return left < min(x) and max(x) < right and max(map(abs, y)) < 1.0 and (max(y) - min(y)) / 2 > SMALLEST
