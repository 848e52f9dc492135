# SPDX-License-Identifier: GPL-3.0-or-later
"""What the take's panel says of Blender's exporters: Alembic and USD hold every frame, FBX and glTF a still body."""

import addon_utils
import bpy
import numpy as np
import pytest

from body4d_blender.scene import build_take

from .make_take import make_take
from .test_scene import shown

FRAMES = (1, 5, 11)
WAYS = {
    "abc": (lambda file: bpy.ops.wm.alembic_export(filepath=file, start=1, end=12), lambda file: bpy.ops.wm.alembic_import(filepath=file)),
    "usdc": (lambda file: bpy.ops.wm.usd_export(filepath=file, export_animation=True), lambda file: bpy.ops.wm.usd_import(filepath=file)),
    "fbx": (lambda file: bpy.ops.export_scene.fbx(filepath=file), lambda file: bpy.ops.import_scene.fbx(filepath=file)),
    "glb": (lambda file: bpy.ops.export_scene.gltf(filepath=file), lambda file: bpy.ops.import_scene.gltf(filepath=file)),
}


def shapes(scene) -> list[np.ndarray]:
    """The only mesh of the scene, in the world, at FRAMES."""
    body, out = next(o for o in scene.objects if o.type == "MESH"), []
    for frame in FRAMES:
        scene.frame_set(frame)
        matrix = np.array(body.matrix_world)
        out.append(shown(body) @ matrix[:3, :3].T + matrix[:3, 3])
    return out


@pytest.mark.parametrize("mesh_cache", [False, True], ids=["keys", "cache"])
@pytest.mark.parametrize("kind", WAYS)
def test_what_is_in_the_file(scene, tmp_path, kind, mesh_cache):
    build_take(make_take(tmp_path / "a.take", people={1: None}, end=12, fps=(30, 1)), mesh_cache=mesh_cache)
    ours, (write, read), file = shapes(scene), WAYS[kind], str(tmp_path / f"a.{kind}")
    scene.frame_set(1)
    for module in ("io_scene_fbx", "io_scene_gltf2"):
        addon_utils.enable(module)
    write(file)
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    for module in ("io_scene_fbx", "io_scene_gltf2"):
        addon_utils.enable(module)
    scene = bpy.context.scene
    scene.render.fps, scene.frame_end = 30, 12
    read(file)
    theirs = shapes(scene)
    if kind in ("abc", "usdc"):
        assert max(np.abs(a - b).max() for a, b in zip(ours, theirs)) < 1e-5
    else:
        moved = [shape - shape.mean(0) for shape in theirs]
        assert max(np.abs(shape - moved[0]).max() for shape in moved) < 1e-4  # a still body, whatever carries it
        assert np.abs((ours[2] - ours[2].mean(0)) - (ours[0] - ours[0].mean(0))).max() > 0.1
