# SPDX-License-Identifier: GPL-3.0-or-later
"""How tall somebody is, which may be unknown."""

import bpy

USUAL_M = 1.7  # to begin with, where a height is to be given


class Height:
    """A part of a property group."""

    use_height: bpy.props.BoolProperty(name="Height", description="Say how tall the person is; else that is assumed")
    height: bpy.props.FloatProperty(name="Height", description="How tall the person is", subtype="DISTANCE", unit="LENGTH", default=USUAL_M, min=0.3,
                                    max=2.8, precision=2)

    @property
    def height_m(self) -> float | None:
        return self.height if self.use_height else None

    def set_height(self, metres: float | None) -> None:
        self.use_height = metres is not None
        if metres is not None:
            self.height = metres

    def draw_height(self, layout, heading: str) -> None:
        row = layout.row(heading=heading)
        row.prop(self, "use_height", text="")
        if self.use_height:
            row.prop(self, "height", text="")
        else:
            row.label(text="Unknown")
