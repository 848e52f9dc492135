# SPDX-License-Identifier: GPL-3.0-or-later
"""What SAM-Body4D and SAM 3D Body wrote comes into the scene: by File > Import, or dropped. The engine reads it."""

import importlib.util
import json
import os
import sys

import bpy
import numpy as np
import pytest

from body4d_blender import chosen, connection, generating
from body4d_blender.scene import imported
from body4d_engine.take import Take

from .make_take import make_take, motion, sphere
from .test_scene import body_of, shown, upright

FRAMES = 5


@pytest.fixture
def lite(addon, tmp_path, monkeypatch):
    """The real engine."""
    python = os.environ.get("BODY4D_ENGINE_PYTHON") or (sys.executable if importlib.util.find_spec("av") else None)
    if python is None:
        pytest.skip("needs BODY4D_ENGINE_PYTHON, a Python with the engine's dependencies")
    monkeypatch.setenv("BODY4D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BODY4D_ENGINE", python)
    yield python
    connection.stop()
    connection.use("")


def npz(path, seed=1):
    """What SAM 3D Body would return for a few frames."""
    vertices, faces = sphere()
    moved = np.array([0.2, -0.1, 3.0]) + 0.05 * np.arange(FRAMES)[:, None]
    points = np.random.default_rng(seed).normal(0, 0.3, (FRAMES, 70, 3))
    placed = points + moved[:, None]
    np.savez(path, faces=faces, pred_vertices=motion(FRAMES, vertices, seed), pred_cam_t=moved.astype("f4"), pred_keypoints_3d=points.astype("f4"),
             pred_keypoints_2d=(placed[..., :2] / placed[..., 2:] * 500 + (160, 120)).astype("f4"), focal_length=np.float32(500))
    return path


def sam_body4d(folder, frames=3):
    """A folder as SAM-Body4D writes it, of one person, without footage."""
    vertices, faces = sphere()
    for i in range(frames):
        mesh, focal = folder / "mesh_4d_individual" / "1" / f"{i:08d}.ply", folder / "focal_4d_individual" / "1" / f"{i:08d}.json"
        for path in (mesh, focal):
            path.parent.mkdir(parents=True, exist_ok=True)
        rows = [" ".join(map(repr, row)) for row in (vertices * (1, -1, -1) + (0, 0, -4)).tolist()] + [f"3 {a} {b} {c}" for a, b, c in faces]
        mesh.write_text(f"ply\nformat ascii 1.0\nelement vertex {len(vertices)}\nproperty float x\nproperty float y\nproperty float z\n"
                        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n" + "\n".join(rows) + "\n")
        focal.write_text(json.dumps({"focal_length": 600.0, "camera": [0.0, 0.0, 4.0]}))
    return folder


def test_what_was_meant(tmp_path):
    folder = sam_body4d(tmp_path / "out")
    inside = folder / "focal_4d_individual" / "1" / "00000000.json"
    assert chosen.sources_of(str(folder), "", []) == chosen.sources_of(str(inside), "", []) == chosen.sources_of("", str(folder), []) == [folder]
    assert chosen.sources_of("", str(tmp_path), ["a.npz", "b.npz"]) == [tmp_path / "a.npz", tmp_path / "b.npz"]
    assert chosen.sources_of("", str(tmp_path), []) == [tmp_path] and chosen.sources_of("", "", []) == []
    assert chosen.is_meshes(inside) and chosen.is_meshes(tmp_path / "a.npz") and not chosen.is_meshes(make_take(tmp_path / "a.take"))


def test_a_person_of_sam_3d_body(lite, tmp_path):
    npz(tmp_path / "ana.npz")
    assert bpy.ops.body4d.import_meshes(filepath=str(tmp_path / "ana.npz"), fps=25, engine=lite) == {"FINISHED"}
    collection, scene = imported.takes_in(bpy.context.scene)[0], bpy.context.scene
    take = Take.open(tmp_path / "ana.take")
    assert take.backend == "import" and scene.render.fps == 25 and body_of(collection, 1).name == "ana" and generating.current is None
    scene.frame_set(4)
    assert np.array_equal(shown(body_of(collection, 1)), upright(take.read("people/1", "vertices")[3]))
    assert bpy.ops.body4d.import_meshes(filepath=str(tmp_path / "ana.npz"), fps=25, mesh_cache=True, engine=lite) == {"FINISHED"}
    assert imported.takes_in(scene) == [collection] and imported.is_cached(collection)


def test_two_people_into_a_take_of_another_place(lite, tmp_path):
    for name in ("ana", "bo"):
        npz(tmp_path / f"{name}.npz")
    files = [{"name": "ana.npz"}, {"name": "bo.npz"}]
    assert bpy.ops.body4d.import_meshes(directory=str(tmp_path), files=files, take=str(tmp_path / "both.take"), engine=lite) == {"FINISHED"}
    assert [body.name for body in imported.bodies_of(imported.takes_in(bpy.context.scene)[0])] == ["ana", "bo"]


def test_a_folder_of_sam_body4d_also_where_a_take_was_expected(lite, tmp_path):
    folder = sam_body4d(tmp_path / "out")
    assert bpy.ops.body4d.import_take(filepath=str(folder / "focal_4d_individual" / "1" / "00000002.json")) == {"FINISHED"}
    take = Take.open(tmp_path / "out.take")
    assert take.samples == 3 and take.camera()["focal_px"].tolist() == [600] * 3
    assert len(imported.bodies_of(imported.takes_in(bpy.context.scene)[0])) == 1


def test_it_says_what_is_wrong(lite, tmp_path):
    np.savez(tmp_path / "a.npz", x=1)
    with pytest.raises(RuntimeError, match="a.npz is not what SAM 3D Body returns"):
        bpy.ops.body4d.import_meshes(filepath=str(tmp_path / "a.npz"), engine=lite)
    with pytest.raises(RuntimeError, match="There is nothing at .*gone.npz"):
        bpy.ops.body4d.import_meshes(filepath=str(tmp_path / "gone.npz"), engine=lite)
    with pytest.raises(RuntimeError, match="No file was chosen"):
        bpy.ops.body4d.import_meshes(engine=lite)
    with pytest.raises(RuntimeError, match="There is no take at .*x.json"):
        (tmp_path / "x.json").write_text("{}")
        bpy.ops.body4d.import_take(filepath=str(tmp_path / "x.json"))
    assert not bpy.context.scene.objects


def drop(folder, *names):
    """What Blender does with files that are dropped on a 3D view."""
    bpy.ops.wm.read_homefile(use_empty=False, use_factory_startup=True)  # with a view
    window = bpy.context.window_manager.windows[0]
    area = next(area for area in window.screen.areas if area.type == "VIEW_3D")
    with bpy.context.temp_override(window=window, area=area, region=next(region for region in area.regions if region.type == "WINDOW")):
        return bpy.ops.wm.drop_import_file(directory=str(folder), files=[{"name": name} for name in names])


@pytest.mark.parametrize("inside", [False, True], ids=["the folder", "take.json"])
def test_takes_are_dropped(addon, tmp_path, inside):
    path = make_take(tmp_path / "a.take")
    assert drop(*((path, "take.json") if inside else (tmp_path, "a.take"))) == {"FINISHED"}
    assert [collection.name for collection in imported.takes_in(bpy.context.scene)] == ["a"]


def test_meshes_are_dropped(lite, tmp_path):
    for name in ("ana", "bo"):
        npz(tmp_path / f"{name}.npz")
    assert drop(tmp_path, "ana.npz", "bo.npz") == {"FINISHED"}
    assert [body.name for body in imported.bodies_of(imported.takes_in(bpy.context.scene)[0])] == ["ana", "bo"]


def test_a_file_of_sam_body4d_is_dropped(lite, tmp_path):
    folder = sam_body4d(tmp_path / "out")
    assert drop(folder / "focal_4d_individual" / "1", "00000000.json") == {"FINISHED"}
    assert len(imported.bodies_of(imported.takes_in(bpy.context.scene)[0])) == 1
