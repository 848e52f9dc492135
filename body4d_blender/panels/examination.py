# SPDX-License-Identifier: GPL-3.0-or-later
"""What the examination of the engine found: all of it in the preferences, what is to be done in the sidebar."""

import bpy

from .. import examining, preferences
from ..engine import EngineError
from ..wording import step_for_user
from .common import wrapped

ICONS = {"ok": "CHECKMARK", "note": "INFO", "missing": "IMPORT"}  # anything else is wrong


def draw(layout, width: int = 0) -> None:
    """The button, and everything that was found. width: characters a line, 0: as fit the region."""
    row = layout.row()
    row.label(text="Examination")
    _buttons(row, bpy.app.online_access)
    if examining.title:
        wrapped(layout, examining.title, "BLANK1", width)
    _list(layout, examining.checks, width)


def draw_short(layout) -> None:
    """The button, and only what is missing or wrong."""
    _buttons(layout.row(), False)
    _list(layout, [check for check in examining.checks if check.state not in ("ok", "note") and not check.name.startswith("Backend")], 0)


def _buttons(row, online: bool) -> None:
    if examining.running:
        row.label(text="Examining the engine", icon="TIME")
        return
    row.operator("body4d.examine", icon="VIEWZOOM").online = False
    if examining.checks:
        if online:
            row.operator("body4d.examine", text="Ask the Hub", icon="WORLD").online = True
        row.operator("body4d.copy_examination", icon="COPYDOWN")


def _list(layout, checks: list, width: int) -> None:
    say = step_for_user if _is_ours() else str
    for check in checks:
        column = layout.column(align=True)
        wrapped(column, f"{check.name}: {check.found}", ICONS.get(check.state, "ERROR"), width)
        if check.next:
            wrapped(column, say(check.next), "RIGHTARROW_THIN", width)
        for page in check.pages:
            column.operator("wm.url_open", text=page.split("://", 1)[1], icon="URL").url = page


def _is_ours() -> bool:
    """Whether the engine in use is the one that the add-on installed, so that its buttons can do what there is to do."""
    set_up = preferences.current()
    try:
        return set_up is not None and not set_up.engine and preferences.installed().usable
    except EngineError:
        return False
