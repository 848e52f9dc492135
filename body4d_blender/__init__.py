# SPDX-License-Identifier: GPL-3.0-or-later
"""Body4D in Blender: takes become animated people, videos become takes with the help of an engine outside Blender.

Works as `body4d_blender` from a checkout and as an installed extension (`bl_ext.*.body4d`). `body4d_engine.take`, which reads takes, comes
with the extension as a wheel.
"""

from . import command, operators, panels, preferences

PARTS = (preferences, operators, panels, command)


def register() -> None:
    for part in PARTS:
        part.register()


def unregister() -> None:
    for part in reversed(PARTS):
        part.unregister()
