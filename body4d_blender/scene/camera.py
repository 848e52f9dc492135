# SPDX-License-Identifier: GPL-3.0-or-later
"""The camera that filmed the clip: at the world's origin, looking along +Y with Z up."""

from math import pi

import bpy
import numpy as np

from . import fcurves

SENSOR_MM = 36.0
VARIES_PX = 1e-3  # a focal length or centre that moves less over the clip is one number, not a curve


def place(camera: bpy.types.Object) -> None:
    """Camera axes x right, y down, z forward fall on Blender's x, -z, y."""
    camera.location = (0, 0, 0)
    camera.rotation_mode = "XYZ"
    camera.rotation_euler = (pi / 2, 0, 0)


def write_lens(data: bpy.types.Camera, take_id: str, width: int, height: int, focal_px: np.ndarray, principal_px: np.ndarray,
               times: np.ndarray) -> None:
    """Give the camera data the clip's projection: focal_px (n,), principal_px (n, 2) from the picture's top left corner, times (n,)."""
    data.type = "PERSP"
    data.sensor_fit = "HORIZONTAL"  # AUTO would measure along the height of a portrait picture
    data.sensor_width = SENSOR_MM
    focal_px, principal_px = np.asarray(focal_px, np.float64), np.asarray(principal_px, np.float64)
    values = {"lens": focal_px * SENSOR_MM / width,
              "shift_x": (width / 2 - principal_px[:, 0]) / width,
              "shift_y": (principal_px[:, 1] - height / 2) / width}  # of the width, both
    moves = {"lens": np.ptp(focal_px) > VARIES_PX, "shift_x": np.ptp(principal_px[:, 0]) > VARIES_PX,
             "shift_y": np.ptp(principal_px[:, 1]) > VARIES_PX}
    fcurves.remove_curves(data, take_id, set(values))
    for name, curve in values.items():
        setattr(data, name, float(curve[0]))
        if moves[name]:
            fcurves.write_curve(data, take_id, name, 0, times, curve)
