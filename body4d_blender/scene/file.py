# SPDX-License-Identifier: GPL-3.0-or-later
"""A take as a .blend of its own."""

import math
import os
from pathlib import Path

import bpy

from .build import build_take


def new_file() -> None:
    """An empty file: no start-up cube, not the user's own start-up file."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)


def save_blend(take_path, out, *, match_scene: bool | None = None, mesh_cache: bool = False, report=None) -> Path:
    """Import a take into the open file and save that as `out`, complete or not at all, with paths relative to it. An older `out` is kept as
    its backup, as by Blender's own saving: NAME.blend1. Returns `out`.

    Raises TakeError, and RuntimeError or OSError where the file cannot be written; an older `out` is then still whole.
    """
    out = Path(out).absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f"{out.stem}.{os.getpid()}.part.blend")
    try:
        _save(draft)  # so that Blender knows where relative paths start
        build_take(take_path, match_scene=match_scene, mesh_cache=mesh_cache, report=report)
        look_through_camera()
        _save(draft)
        if out.exists():
            os.replace(out, f"{out}1")
        os.replace(draft, out)
    finally:
        for rest in (draft, Path(f"{draft}1")):  # Blender's own backup of the first save
            rest.unlink(missing_ok=True)
    return out


def _save(path: Path) -> None:
    bpy.ops.wm.save_as_mainfile(filepath=str(path), check_existing=False, compress=False)


def look_through_camera() -> None:
    """Let every 3D view of the file open on the footage, upright pictures too: at zoom 0 the camera's frame is half as wide as the view."""
    render = bpy.context.scene.render
    tall = render.resolution_y / render.resolution_x
    zoom = 50 * (math.sqrt(4 * min(0.5, 0.45 / tall)) - math.sqrt(2))
    for screen in bpy.data.screens:
        for area in screen.areas:
            if area.type == "VIEW_3D" and area.spaces.active.region_3d:
                area.spaces.active.region_3d.view_perspective = "CAMERA"
                area.spaces.active.region_3d.view_camera_zoom = zoom
