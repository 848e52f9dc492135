# SPDX-License-Identifier: GPL-3.0-or-later
"""A take in the scene that File > New > General begins with: nobody's work, so it counts as empty, but what a user did to it counts."""

import bpy
import pytest

from body4d_blender.scene import build_take, settings, tags

from .make_take import make_take
from .test_scene import camera_of


@pytest.fixture
def new_file():
    bpy.ops.wm.read_homefile(use_empty=False, use_factory_startup=True)
    return bpy.context.scene


def test_the_clip_is_seen_through_its_camera_and_nothing_is_in_the_way(new_file, tmp_path):
    notices = []
    collection = build_take(make_take(tmp_path / "a.take"), report=notices.append)
    cube, camera = bpy.data.objects["Cube"], camera_of(collection)
    assert new_file.camera == camera and (new_file.render.resolution_x, new_file.frame_start, new_file.frame_end) == (640, 1, 20)
    assert cube.hide_get() and cube.hide_render and "Cube is hidden: the clip's camera is inside it." in notices
    assert not bpy.data.objects["Light"].hide_get() and bpy.data.objects["Camera"].name in new_file.objects
    cube.hide_set(False)  # as the user wants it: importing again does not hide it
    build_take(tmp_path / "a.take")
    assert not cube.hide_get() and new_file.camera == camera


def test_without_the_cube_it_is_empty_too(new_file, tmp_path):
    bpy.data.objects.remove(bpy.data.objects["Cube"])
    notices = []
    assert build_take(make_take(tmp_path / "a.take"), report=notices.append)[tags.ROLE] == "take"
    assert new_file.camera.get(tags.ROLE) == "camera" and not any("hidden" in notice for notice in notices)


def move(cube):
    cube.location.x = 1


def shape(cube):
    cube.modifiers.new("Subdivision", "SUBSURF")


def animate(cube):
    cube.keyframe_insert("location", frame=1)


def edit(cube):
    cube.data = bpy.data.meshes.new("other")


@pytest.mark.parametrize("work", [move, shape, animate, edit, lambda cube: bpy.context.scene.timeline_markers.new("mine"),
                                  lambda cube: bpy.context.collection.objects.link(bpy.data.objects.new("mine", None))])
def test_what_the_user_did_to_it_counts(new_file, tmp_path, work):
    work(bpy.data.objects["Cube"])
    assert not settings.is_empty(new_file)
    build_take(make_take(tmp_path / "a.take"))
    cube = bpy.data.objects["Cube"]
    assert new_file.camera.name == "Camera" and new_file.render.resolution_x == 1920 and not cube.hide_get() and not cube.hide_render


def test_in_a_scene_of_the_user_matching_hides_nothing(new_file, tmp_path):
    bpy.context.collection.objects.link(bpy.data.objects.new("mine", None))
    build_take(make_take(tmp_path / "a.take"), match_scene=True)
    assert new_file.camera.get(tags.ROLE) == "camera" and not bpy.data.objects["Cube"].hide_get()
