# SPDX-License-Identifier: Apache-2.0
"""Importing a take again replaces what the last import made, leaves what the user made, and leaves nothing behind."""

import shutil

import bpy
import numpy as np
import pytest

from body4d_blender.scene import build_take
from body4d_blender.scene.file import save_blend
from body4d_engine.take import State, Take, TakeError

from .make_take import make_take, write_frames
from .test_scene import body_of, camera_of, shown, upright

KINDS = ("objects", "meshes", "shape_keys", "actions", "materials", "cameras", "movieclips", "collections", "worlds")


def census() -> dict:
    return {kind: len(getattr(bpy.data, kind)) for kind in KINDS}


def orphans() -> list:
    return [block.name for kind in KINDS for block in getattr(bpy.data, kind) if not block.users]


@pytest.fixture
def path(tmp_path):
    state = np.full(20, State.VISIBLE)
    state[5:9] = State.OCCLUDED
    write_frames(tmp_path / "frames", 20)
    return make_take(tmp_path / "a.take", people={1: state, 2: None}, path=str(tmp_path / "frames"))


def test_nothing_is_doubled_and_nothing_is_left_behind(scene, path):
    collection = build_take(path)
    before, names = census(), sorted(o.name for o in bpy.data.objects)
    markers, start = [(m.name, m.frame) for m in scene.timeline_markers], scene.frame_start
    for _ in range(2):
        assert build_take(path) == collection
        assert census() == before and not orphans()
        assert sorted(o.name for o in bpy.data.objects) == names
        assert [(m.name, m.frame) for m in scene.timeline_markers] == markers and scene.frame_start == start
    build_take(path, mesh_cache=True)
    assert len(bpy.data.shape_keys) == 0 and len(bpy.data.meshes) == 2 and not orphans()
    build_take(path)
    assert census() == before and not orphans()
    assert not body_of(collection, 1).modifiers
    scene.frame_set(8)
    assert np.array_equal(shown(body_of(collection, 1)), upright(Take.open(path).read("people/1", "vertices")[7]))


def test_a_take_made_anew_replaces_the_old_one_at_its_place(scene, path):
    build_take(path)
    before = census()
    shutil.rmtree(path)
    make_take(path, people={2: None, 3: None}, seed=7, path=str(path.parent / "frames"))
    collection = build_take(path)
    assert census() == before and not orphans()
    assert sorted(o["body4d_person"] for o in collection.objects if o.type == "MESH") == [2, 3]
    assert not scene.timeline_markers
    scene.frame_set(4)
    assert np.array_equal(shown(body_of(collection, 2)), upright(Take.open(path).read("people/2", "vertices")[3]))


def test_what_the_user_did_to_the_objects_stays(scene, path):
    collection = build_take(path)
    body, camera, home = body_of(collection, 1), camera_of(collection), bpy.data.collections.new("home")
    scene.collection.children.link(home)
    home.children.link(collection)
    scene.collection.children.unlink(collection)
    collection.hide_render = True
    stand = bpy.data.objects.new("stand", None)
    home.objects.link(stand)
    body.parent = camera.parent = stand
    body.constraints.new("COPY_ROTATION").target = stand
    body.modifiers.new("Subdivision", "SUBSURF")
    body.name, camera.location = "Hero", (1, 2, 3)
    skin = bpy.data.materials.new("skin")
    body.data.materials[0] = skin
    scene.timeline_markers.new("mine", frame=3)
    body.keyframe_insert("scale", frame=1)
    mesh = body.data
    collection = build_take(path)
    again = body_of(collection, 1)
    assert again == body and again.name == "Hero" and again.parent == stand and again.constraints[0].target == stand
    assert [m.name for m in again.modifiers] == ["Subdivision"] and again.data.materials[0] == skin
    assert camera_of(collection).location[:] == (1, 2, 3)
    assert collection.hide_render and [c.name for c in home.children] == [collection.name]
    assert collection.name not in scene.collection.children
    assert "mine" in scene.timeline_markers
    assert sorted({c.data_path for c in curves(body)}) == ["location", "scale"]
    with pytest.raises(ReferenceError):
        str(mesh.name)


def curves(block):
    action = block.animation_data.action
    return action.fcurves if not hasattr(action, "layers") else action.layers[0].strips[0].channelbag(block.animation_data.action_slot).fcurves


def test_settings_follow_the_take_until_the_user_changes_them(scene, path):
    build_take(path)
    shutil.rmtree(path)
    make_take(path, end=35, path=str(path.parent / "frames"))
    build_take(path)
    assert (scene.frame_start, scene.frame_end) == (1, 35)
    scene.render.fps, scene.render.fps_base = 25, 1.0
    notices = []
    collection = build_take(path, report=notices.append)
    assert (scene.render.fps, scene.render.fps_base) == (25, 1.0)
    exact = 1 + 12 * 25 / (30000 / 1001)
    scene.frame_set(int(exact), subframe=exact % 1)
    assert np.abs(shown(body_of(collection, 1)) - upright(Take.open(path).read("people/1", "vertices")[12])).max() < 2e-5
    assert any("frame by frame" in n for n in notices)


def test_the_start_is_kept_unless_another_is_asked_for(scene, path):
    collection = build_take(path, scene_start=1001)
    assert scene.frame_start == 1001 and bpy.data.movieclips[0].frame_start == 1001
    build_take(path)
    assert scene.frame_start == 1001
    build_take(path, scene_start=5)
    scene.frame_set(5 + 6)
    assert np.array_equal(shown(body_of(collection, 1)), upright(Take.open(path).read("people/1", "vertices")[6]))
    assert scene.timeline_markers[0].frame == 10 and len(scene.timeline_markers) == 1


def test_two_takes_live_side_by_side(scene, path, tmp_path):
    first = build_take(path)
    second = build_take(make_take(tmp_path / "b" / "a.take", seed=5))
    assert first != second and first.name == "a" and second.name == "a.001"
    before = census()
    build_take(path)
    build_take(tmp_path / "b" / "a.take")
    assert census() == before and not orphans()


def test_the_users_copy_of_a_person_is_left_alone(scene, path):
    collection = build_take(path)
    body = body_of(collection, 1)
    copy = body.copy()
    copy.data = body.data.copy()
    collection.objects.link(copy)
    keys = len(copy.data.shape_keys.key_blocks)
    build_take(path, mesh_cache=True)
    assert len(copy.data.shape_keys.key_blocks) == keys and copy.name in collection.objects
    assert body.modifiers and not copy.modifiers


def test_a_failed_import_leaves_the_last_one_as_it_was(scene, path):
    collection = build_take(path)
    before = census()
    np.savez(path / "people/2/body.refine.npz", faces=np.array([[0, 1, 4000]]))
    with pytest.raises(TakeError):
        build_take(path)
    assert census() == before and not orphans()
    scene.frame_set(3)
    assert np.array_equal(shown(body_of(collection, 2)), upright(Take.open(path).read("people/2", "vertices")[2]))


@pytest.mark.parametrize("first", [True, False], ids=["first import", "import again"])
def test_an_import_that_breaks_off_leaves_no_half_made_data(scene, path, monkeypatch, first):
    from body4d_blender.scene import mesh

    if not first:
        build_take(path)
    before, made, keyed_mesh = census(), [], mesh.keyed_mesh

    def fails_at_the_second_person(*arguments):
        made.append(keyed_mesh(*arguments))
        if len(made) == 2:
            raise MemoryError
        return made[-1]

    monkeypatch.setattr(mesh, "keyed_mesh", fails_at_the_second_person)
    with pytest.raises(MemoryError):
        build_take(path)
    assert census() == before and not orphans() and scene.render.fps == (24 if first else 30)


def test_edit_mode_is_refused_in_words(scene, path):
    collection = build_take(path)
    bpy.context.view_layer.objects.active = body_of(collection, 2)
    bpy.ops.object.mode_set(mode="EDIT")
    before = census()
    with pytest.raises(TakeError, match="Bo is in Edit Mode. Leave it"):
        build_take(path)
    bpy.ops.object.mode_set(mode="OBJECT")
    assert census() == before


def test_names_do_not_count_up(scene, path):
    collection = build_take(path)
    for _ in range(2):
        build_take(path)
    assert {(o.name, o.data.name, o.data.shape_keys.name) for o in collection.objects if o.type == "MESH"} == {("Ana",) * 3, ("Bo",) * 3}
    assert not [a.name for a in bpy.data.actions if "." in a.name]


def test_a_collection_that_the_user_took_apart_is_made_again(scene, path):
    collection = build_take(path)
    body = body_of(collection, 1)
    scene.collection.objects.link(body)
    bpy.data.collections.remove(collection)
    collection = build_take(path)
    assert body_of(collection, 1) == body
    assert len([o for o in bpy.data.objects if o.get("body4d_person") == 1]) == 1


def test_someone_who_is_absent_no_more_is_seen_again(scene, path):
    shutil.rmtree(path)
    make_take(path, people={1: np.arange(20) >= 10})
    assert body_of(build_take(path), 1).hide_viewport
    shutil.rmtree(path)
    make_take(path, people={1: None})
    body = body_of(build_take(path), 1)
    assert not body.hide_viewport and not body.hide_render


def test_markers_of_another_take_stay(scene, path, tmp_path):
    build_take(path)
    state = np.where((np.arange(20) >= 5) & (np.arange(20) < 9), State.OCCLUDED, State.VISIBLE)
    build_take(make_take(tmp_path / "b.take", people={1: state}), scene_start=1)
    before = [(m.name, m.frame) for m in scene.timeline_markers]
    assert before == [("Ana occluded", 6)] * 2
    build_take(path)
    assert [(m.name, m.frame) for m in scene.timeline_markers] == before


def test_another_scene_has_the_footage_at_its_own_start(scene, path):
    first, other = build_take(path), bpy.data.scenes.new("other")
    second = build_take(path, scene=other, scene_start=101)
    for _ in range(2):
        assert [camera_of(c).data.background_images[0].clip.frame_start for c in (first, second)] == [1, 101]
        assert len(bpy.data.movieclips) == 2
        build_take(path, scene=other)


def test_an_action_that_the_user_renamed_keeps_its_name(scene, path):
    body = body_of(build_take(path), 1)
    body.animation_data.action.name = "walk"
    build_take(path)
    assert body.animation_data.action.name == "walk"


def test_the_camera_that_the_user_looks_through_stays_unless_asked(scene, path):
    build_take(path)
    scene.camera = mine = bpy.data.objects.new("mine", bpy.data.cameras.new("mine"))
    scene.collection.objects.link(mine)
    assert camera_of(build_take(path)) != scene.camera == mine
    assert camera_of(build_take(path, match_scene=True)) == scene.camera


def test_what_is_linked_from_another_file_is_left_alone(scene, path, tmp_path):
    save_blend(path, tmp_path / "library.blend")
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    with bpy.data.libraries.load(str(tmp_path / "library.blend"), link=True) as (there, here):
        here.collections = there.collections
    bpy.context.scene.collection.children.link(here.collections[0])
    collection = build_take(path)
    assert collection.library is None and not any(m.library for m in body_of(collection, 1).data.materials)
    assert camera_of(collection).data.background_images[0].clip.library is None


def test_a_person_who_is_being_computed_anew_stays(scene, path):
    collection = build_take(path)
    body = body_of(collection, 1)
    shutil.rmtree(path)
    make_take(path, people={1: None}, finish=False)
    with open(Take.open(path).file_of("people/1", "vertices"), "r+b") as file:
        file.truncate(32)
    build_take(path)
    assert body_of(collection, 1) == body and [o.get("body4d_person") for o in collection.objects if o.type == "MESH"] == [1]
