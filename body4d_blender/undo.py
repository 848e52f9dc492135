# SPDX-License-Identifier: GPL-3.0-or-later
"""Undo steps of what happens outside an operator's own."""

import bpy


def push_undo(message: str) -> None:
    """An undo step of what just changed. Needs a window, as undo does."""
    windows = bpy.context.window_manager.windows
    if windows:
        with bpy.context.temp_override(window=windows[0]):
            bpy.ops.ed.undo_push(message=message)
