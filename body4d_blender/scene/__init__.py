# SPDX-License-Identifier: GPL-3.0-or-later
"""A take becomes Blender data. Needs no window and no user interface: `build_take` works from `import bpy` alone."""

from .build import build_take

__all__ = ["build_take"]
