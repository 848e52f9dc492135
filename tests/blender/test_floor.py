# SPDX-License-Identifier: GPL-3.0-or-later
"""Standing on the floor turns camera and people together, and nothing else."""

from types import SimpleNamespace

import bpy
import numpy as np
import pytest
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Vector

from body4d_blender.operators import floor as operators
from body4d_blender.scene import build_take, floor
from body4d_engine.errors import Body4DError
from body4d_engine.floor import floor_matrix

from .make_take import make_take
from .test_reimport import census, orphans
from .test_scene import body_of, camera_of

UP = np.array([0.1, -0.9, 0.3]) / np.linalg.norm([0.1, -0.9, 0.3])  # in camera axes


@pytest.fixture
def path(tmp_path):
    return make_take(tmp_path / "a.take", people={1: None})


def empty_of(collection):
    return next((o for o in collection.objects if o.type == "EMPTY"), None)


def places(collection):
    """Where the body and the camera are in the world, and where the body is in the picture."""
    scene, body, camera = bpy.context.scene, body_of(collection, 1), camera_of(collection)
    scene.frame_set(7)
    bpy.context.view_layer.update()
    seen = world_to_camera_view(scene, camera, body.matrix_world @ Vector((0.1, 0.2, 0.3)))
    return np.array(body.matrix_world), np.array(camera.matrix_world), np.array(seen)


def test_pitch_and_roll_say_where_up_is():
    for pitch, roll in ((0.3, 0.0), (-0.7, 0.2), (0.1, -2.5), (1.2, 1.5)):
        x, y, z = floor_matrix(pitch, roll, 0)[2, :3]
        assert np.allclose(floor.held((x, -z, y)), (pitch, roll))
    assert floor.held((0, -1, 0)) == pytest.approx((0, 0))
    assert floor.held((0, -0.5, 0.5))[0] > 0 > floor.held((0, -0.5, -0.5))[0]  # up is ahead: the camera looks up


def test_the_floor_through_two_points():
    pitch, roll = floor.held(UP)
    first = np.array([0.4, 1.0, 3.0])
    first -= UP * (first @ UP + 1.6)  # 1.6 m below the camera
    across = np.cross(UP, [0, -1, 0])
    second = first + 2 * np.cross(UP, across) / np.linalg.norm(across)  # along which the floor falls
    assert floor.through(first, second) == pytest.approx((pitch, roll, 1.6))
    assert floor.through(second, first) == pytest.approx((pitch, roll, 1.6))
    with pytest.raises(ValueError, match="less than 5 cm apart"):
        floor.through(first, first + 0.01)
    with pytest.raises(ValueError, match="above the other"):
        floor.through(first, first - [0, 1, 0])


def test_standing_and_leaving(addon, path):
    collection = build_take(path)
    body, camera, seen = places(collection)
    before = census()
    pitch, roll = floor.held(UP)
    assert bpy.ops.body4d.stand_on_floor(source="VALUES", pitch=pitch, roll=roll, height=1.6) == {"FINISHED"}
    stood, held, again = places(collection)
    assert np.allclose(again, seen, atol=1e-5) and len([o for o in collection.objects if o.parent == empty_of(collection)]) == 2
    assert np.allclose(held[:3, 3], (0, 0, 1.6))
    turn = stood[:3, :3] @ body[:3, :3].T
    assert np.allclose(turn @ (UP[0], UP[2], -UP[1]), (0, 0, 1), atol=1e-6)
    assert abs((turn @ (0, 1, 0))[0]) < 1e-6  # the camera still looks along Y
    bpy.ops.body4d.stand_on_floor(source="VALUES", height=0.5)
    assert np.allclose(places(collection)[1][:3, 3], (0, 0, 0.5)) and len([o for o in bpy.data.objects if o.type == "EMPTY"]) == 1
    assert bpy.ops.body4d.leave_floor() == {"FINISHED"}
    for was, now in zip((body, camera, seen), places(collection)):
        assert np.allclose(was, now, atol=1e-6)
    assert census() == before and not orphans() and bpy.ops.body4d.leave_floor() == {"CANCELLED"}


def test_importing_again_keeps_the_floor_and_newcomers_stand_on_it_too(addon, path, tmp_path):
    import shutil

    collection = build_take(path)
    bpy.ops.body4d.stand_on_floor(source="VALUES", pitch=0.2, height=1.4)
    stood = places(collection)
    build_take(path, mesh_cache=True)
    build_take(path)
    assert all(np.allclose(was, now) for was, now in zip(stood, places(collection)))
    shutil.rmtree(path)
    make_take(path, people={1: None, 2: None})
    assert build_take(path) == collection
    empty = empty_of(collection)
    assert empty.location.z == pytest.approx(1.4) and body_of(collection, 2).parent == empty
    assert bpy.ops.body4d.leave_floor() == {"FINISHED"} and not any(o.parent for o in collection.objects)


def test_what_the_user_parented_stays(addon, path, capsys):
    collection = build_take(path)
    rig, lamp = (bpy.data.objects.new(name, None) for name in ("rig", "lamp"))
    for block in (rig, lamp):
        addon.collection.objects.link(block)
    camera_of(collection).parent = rig
    bpy.ops.body4d.stand_on_floor(source="VALUES", pitch=0.2, height=1.4)
    assert camera_of(collection).parent == rig and "keeps its own parent" in capsys.readouterr().out
    lamp.parent = empty_of(collection)
    lamp.location = (1, 2, 3)
    bpy.context.view_layer.update()
    world = np.array(lamp.matrix_world)
    bpy.ops.body4d.leave_floor()
    bpy.context.view_layer.update()
    assert lamp.parent is None and np.allclose(np.array(lamp.matrix_world), world, atol=1e-6)


def test_by_two_points_of_the_scene_whatever_it_stands_on_now(addon, path):
    collection = build_take(path)
    first, second = np.array([0.4, 3.0, -1.0]), np.array([-0.9, 5.0, -1.5])
    for _ in range(2):
        bpy.ops.body4d.stand_on_floor(source="POINTS", first=first, second=second)
        bpy.context.view_layer.update()
        matrix = np.array(empty_of(collection).matrix_world)
        first, second = (matrix[:3, :3] @ point + matrix[:3, 3] for point in (np.array([0.4, 3.0, -1.0]), np.array([-0.9, 5.0, -1.5])))
        assert first[2] == pytest.approx(0, abs=1e-5) and second[2] == pytest.approx(0, abs=1e-5)
    with pytest.raises(RuntimeError, match="less than 5 cm apart"):
        bpy.ops.body4d.stand_on_floor(source="POINTS", first=(1, 2, 3), second=(1, 2, 3))


def test_by_standing_feet(addon, path, monkeypatch, capsys):
    found = SimpleNamespace(pitch=-0.25, roll=0.05, height_m=1.7, pitch_error=0.01, contacts=9)
    monkeypatch.setattr(operators, "find_floor", lambda take: found)
    collection = build_take(path)
    assert bpy.ops.body4d.stand_on_floor() == {"FINISHED"}
    empty = empty_of(collection)
    assert tuple(empty.rotation_euler) == pytest.approx((-0.25, 0.05, 0)) and empty.location.z == pytest.approx(1.7)
    assert "1.70 m above the floor and looks 14.3° down (±0.6°): feet stood 9 times" in capsys.readouterr().out
    assert np.allclose(np.array(empty.matrix_world), floor_matrix(-0.25, 0.05, 1.7), atol=1e-6)

    def fails(take):
        raise Body4DError("Too few feet stand.", "Click two.", "floor_few_feet")

    monkeypatch.setattr(operators, "find_floor", fails)
    with pytest.raises(RuntimeError, match="Too few feet stand. Click two."):
        bpy.ops.body4d.stand_on_floor()
    assert empty.location.z == pytest.approx(1.7)


def test_a_click_on_a_foot_means_its_sole(addon, path):
    collection = build_take(path)
    body, camera = body_of(collection, 1), camera_of(collection)
    addon.frame_set(5)
    depsgraph = bpy.context.evaluated_depsgraph_get()
    vertices = operators.vertices_of(body.evaluated_get(depsgraph))
    view = np.array(camera.calc_matrix_camera(depsgraph, x=640, y=360) @ camera.matrix_world.inverted())
    seen = world_to_camera_view(addon, camera, Vector(vertices[3].tolist()))
    place = seen.x * 640 + 5, seen.y * 360
    found = operators.nearest([vertices + (0, 1, 0), vertices], view, (640, 360), place, 20)
    low = operators.lowest_near(*found)
    assert low[2] <= found[1][2] and np.linalg.norm(low - found[1]) < operators.FOOT_M
    assert np.linalg.norm(world_to_camera_view(addon, camera, Vector(found[1].tolist())).xy * Vector((640, 360)) - Vector(place)) < 5.1
    assert operators.nearest([vertices], view, (640, 360), (3, 3), 20) is None
    assert operators.nearest([vertices * (1, -1, 1)], view, (640, 360), place, 2000) is None  # behind the camera
    assert operators.nearest([], view, (640, 360), place, 20) is None
