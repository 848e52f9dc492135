# SPDX-License-Identifier: GPL-3.0-or-later
from . import clip, corrections, examine, floor, full_engine, generate, import_meshes, import_take, install, people, pick, take

PARTS = (install, full_engine, examine, import_take, import_meshes, clip, people, pick, generate, take, corrections, floor)


def register() -> None:
    for part in PARTS:
        part.register()


def unregister() -> None:
    for part in reversed(PARTS):
        part.unregister()
