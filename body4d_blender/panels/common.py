# SPDX-License-Identifier: GPL-3.0-or-later
"""What the panels share."""

import textwrap

import bpy

from .. import preferences

LETTER, MARGIN = 6.5, 80  # px of the interface's font at scale 1; the panel's edges, tabs and an icon


class Body4DPanel:
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Body4D"


def wrapped(layout, text: str, icon: str = "NONE", width: int = 0) -> None:
    """A text of any length as lines of so many characters; 0: as many as fit the region."""
    column = layout.column(align=True)
    column.scale_y = 0.8
    for i, line in enumerate(textwrap.wrap(text, width or _fitting())):
        column.label(text=line, icon=icon if i == 0 or icon == "NONE" else "BLANK1")


def engine_button(layout) -> None:
    """The way to the preferences, where no engine could be started."""
    if preferences.engine_problem():
        preferences_button(layout, "Set Up the Engine")


def preferences_button(layout, text: str) -> None:
    """The way to the add-on's preferences."""
    layout.operator("preferences.addon_show", text=text, icon="PREFERENCES").module = preferences.PACKAGE


def _fitting() -> int:
    region, scale = bpy.context.region, bpy.context.preferences.system.ui_scale
    return max(20, int((region.width / scale - MARGIN) / LETTER)) if region else 40
