# SPDX-License-Identifier: GPL-3.0-or-later
"""How tall somebody is, which may be unknown: two properties for a property group, and what to do with such a group.

No base class for those groups: Blender 4.2 as a Python module never lets go of a property group that has one, and crashes when it ends.
"""

import bpy

USUAL_M = 1.7  # to begin with, where a height is to be given
USE_HEIGHT = bpy.props.BoolProperty(name="Height", description="Say how tall the person is; else that is assumed")
HEIGHT = bpy.props.FloatProperty(name="Height", description="How tall the person is", subtype="DISTANCE", unit="LENGTH", default=USUAL_M, min=0.3,
                                 max=2.8, precision=2)


def height_m(group) -> float | None:
    return group.height if group.use_height else None


def set_height(group, metres: float | None) -> None:
    group.use_height = metres is not None
    if metres is not None:
        group.height = metres


def draw_height(group, layout, heading: str) -> None:
    row = layout.row(heading=heading)
    row.prop(group, "use_height", text="")
    if group.use_height:
        row.prop(group, "height", text="")
    else:
        row.label(text="Unknown")
