# SPDX-License-Identifier: GPL-3.0-or-later
from . import clip, generate, import_take, install, people, pick

PARTS = (install, import_take, clip, people, pick, generate)


def register() -> None:
    for part in PARTS:
        part.register()


def unregister() -> None:
    for part in reversed(PARTS):
        part.unregister()
