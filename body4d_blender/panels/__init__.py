# SPDX-License-Identifier: GPL-3.0-or-later
"""The sidebar tab Body4D of the 3D view, from the clip down to the take."""

from . import clip, generate, people, take

PARTS = (clip, people, generate, take)


def register() -> None:
    for part in PARTS:
        part.register()


def unregister() -> None:
    for part in reversed(PARTS):
        part.unregister()
