# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be done with a take that is in the scene: its doubtful frames, how it is shown, where it is, how it goes again."""

import shutil
from types import SimpleNamespace
from unittest.mock import MagicMock

import bpy
import numpy as np
import pytest

from body4d_blender import panels, plots
from body4d_blender.scene import build_take, imported, tags
from body4d_blender.scene.doubts import Doubt
from body4d_blender.scene.plot import column_at, mark, plot
from body4d_engine.events import Notice
from body4d_engine.take import State, Take

from .make_take import make_take, write_frames
from .test_reimport import census, orphans
from .test_scene import body_of, camera_of, shown, upright

SWAPPED = Notice("recover", "sides_swapped", "Left and right of Ana were taken for each other for a moment; put right.", 1, 18, 18)
TOLD = Notice("recover", "scale_assumed", "The size of Ana is assumed.", 1)


@pytest.fixture
def path(tmp_path):
    state = np.full(20, State.VISIBLE)
    state[5:9], state[12:14], state[19] = State.OCCLUDED, State.FILLED, State.ABSENT
    sure = np.full(20, 0.9)
    sure[10] = 0.234
    write_frames(tmp_path / "frames", 20)
    return make_take(tmp_path / "a.take", people={1: state, 2: None}, path=str(tmp_path / "frames"), confidence={1: sure}, notices=[SWAPPED, TOLD])


DOUBTS = [Doubt(5, 8, "hidden: the pose follows the frames around it"), Doubt(10, 10, "low confidence, down to 23 %"),
          Doubt(12, 13, "not seen: made up between the frames around it"), Doubt(18, 18, SWAPPED.message)]


def test_doubts_and_confidence_are_known_without_the_take(scene, path, tmp_path):
    collection = build_take(path, scene_start=101)
    shutil.rmtree(path)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "a.blend"))
    collection = imported.takes_in(bpy.context.scene)[0]
    ana, bo = imported.bodies_of(collection)
    assert imported.doubts_of(ana) == DOUBTS and imported.doubts_of(bo) == []
    sure = imported.confidence_of(ana)
    assert np.allclose(sure[:19], np.where(np.arange(19) == 10, 0.23, 0.9)) and np.isnan(sure[19]) and imported.confidence_of(bo) is None
    assert plots.doubtful(ana, 20).nonzero()[0].tolist() == [5, 6, 7, 8, 10, 12, 13, 18]
    bpy.context.scene.frame_set(107)
    assert imported.clip_frame(collection, bpy.context.scene) == 6 and imported.scene_frame(collection, 6) == 107


def test_jumping_to_doubts(addon, path, capsys):
    build_take(path, scene_start=101)
    addon.frame_set(90)
    seen = []
    while True:
        try:
            if bpy.ops.body4d.jump_to_doubt() == {"CANCELLED"}:
                break
        except RuntimeError:
            break
        seen.append(addon.frame_current)
    assert seen == [106, 111, 113, 119]
    assert bpy.ops.body4d.jump_to_doubt(direction="PREVIOUS") == {"FINISHED"} and addon.frame_current == 113
    assert bpy.ops.body4d.jump_to_doubt(person=2) == {"CANCELLED"}
    assert "Left and right of Ana" in capsys.readouterr().out


def test_doubts_follow_a_scene_of_another_rate(addon, path):
    addon.render.fps = 60
    build_take(path, scene_start=1, match_scene=False)
    bpy.ops.body4d.jump_to_doubt()
    assert addon.frame_current == round(1 + 5 * 60 / (30000 / 1001))


def test_the_plot_shows_the_worst_of_every_column():
    sure, doubt = np.full(1000, 0.8, np.float32), np.zeros(1000, bool)
    sure[333], doubt[333], sure[900:] = 0.1, True, np.nan
    image = plot(sure, doubt, (0, 1, 0), 0.5, 100, 50)
    assert image.shape == (50, 100, 4) and image.dtype == np.float32
    green = (image[..., :3] == (0, 1, 0)).all(-1).sum(0)
    assert (green[:33] == 40).all() and green[33] == 5 and (green[90:] == 0).all()
    assert not np.array_equal(image[49, 33], image[49, 32])
    few = plot(np.array([0.2, 1.0]), np.array([True, False]), (0, 1, 0), 0.5, 64, 32)
    assert (few[20, :32, 1] < 1).all() and (few[20, 32:, 1] == 1).all()
    assert column_at(0, 2, 64) == 16 and column_at(1, 2, 64) == 48 and column_at(-1, 2, 64) is column_at(2, 2, 64) is None
    assert (mark(image, 7)[:, 7, :3] == 1).all() and mark(image, None) is image


def test_plots_become_icons_and_only_change_when_they_must(addon, path, monkeypatch):
    ana, bo = imported.bodies_of(build_take(path))
    assert plots.tiles(ana, 3, 4) == []  # without a window
    icons = bpy.utils.previews.new()  # without a window all are number 0, but keep their pixels
    monkeypatch.setattr(plots, "_icons", icons)
    drawn, show = [], plots._show
    monkeypatch.setattr(plots, "_show", lambda name, image: (drawn.append(name), show(name, image)))
    assert len(plots.tiles(ana, 3, 4)) == 4 and plots.tiles(bo, 3, 4) == [] and len(set(drawn)) == 4
    plots.tiles(ana, 3, 4)
    assert len(drawn) == 4
    plots.tiles(ana, 5, 4)
    assert len(drawn) == 8
    pixels = np.empty(plots.TILE * plots.TILE * 4, np.float32)
    icons[drawn[0]].image_pixels_float.foreach_get(pixels)
    assert np.abs(pixels.reshape(plots.TILE, plots.TILE, 4)[0, 0, :3] - (0.9, 0.6, 0.1)).max() < 0.01
    bpy.utils.previews.remove(icons)


def test_the_panel_draws_what_is_known(addon, path):
    collection = build_take(path)
    addon.frame_set(7)
    for panel in panels.take.CLASSES:
        context = SimpleNamespace(object=None, collection=collection, scene=addon, region=None, preferences=None)
        assert panel.poll(context)
        layout = MagicMock()
        panel.draw(SimpleNamespace(layout=layout), context)
    assert not panels.take.BODY4D_PT_take.poll(SimpleNamespace(object=None, collection=None, scene=bpy.data.scenes.new("empty")))


def test_switching_to_mesh_cache_and_back(addon, path):
    ana, before = body_of(build_take(path), 1), census()
    ana.modifiers.new("Subdivision", "SUBSURF")
    assert bpy.ops.body4d.switch_meshes() == {"FINISHED"} and ana.data.shape_keys is None and imported.is_cached(imported.takes_in(addon)[0])
    assert bpy.ops.body4d.switch_meshes(to="CACHE") == {"FINISHED"} and ana.data.shape_keys is None
    assert bpy.ops.body4d.switch_meshes() == {"FINISHED"} and census() == before and not orphans()
    assert [m.name for m in ana.modifiers] == ["Subdivision"]
    ana.modifiers.clear()
    addon.frame_set(8)
    assert np.array_equal(shown(ana), upright(Take.open(path).read("people/1", "vertices")[7]))


def test_matching_a_scene_that_held_something(addon, path):
    addon.collection.objects.link(bpy.data.objects.new("cube", None))
    collection = build_take(path)
    assert addon.render.resolution_x != 640 and addon.camera is None
    assert bpy.ops.body4d.match_scene() == {"FINISHED"}
    assert (addon.render.resolution_x, addon.render.fps, addon.frame_end) == (640, 30, addon.frame_start + 19) and addon.camera == camera_of(collection)


def test_a_moved_take_is_found_again_and_another_refused(addon, path, tmp_path):
    build_take(path, mesh_cache=True)
    other, moved = make_take(tmp_path / "b.take", seed=3), path.rename(tmp_path / "moved.take")
    with pytest.raises(RuntimeError, match="There is no take at"):
        bpy.ops.body4d.switch_meshes(to="CACHE")
    with pytest.raises(RuntimeError, match="b.take is another take, of clip, than the one that is in this scene"):
        bpy.ops.body4d.relink_take(filepath=str(other))
    with pytest.raises(RuntimeError, match="There is no take at"):
        bpy.ops.body4d.relink_take(filepath=str(tmp_path / "nothing"))
    assert bpy.ops.body4d.relink_take(filepath=str(moved / "take.json")) == {"FINISHED"}
    collection = imported.takes_in(addon)[0]
    assert imported.folder_of(collection) == moved and len(bpy.data.collections) == 1
    addon.frame_set(8)
    assert np.array_equal(shown(body_of(collection, 1)), upright(Take.open(moved).read("people/1", "vertices")[7]))


def test_a_moved_clip_is_found_again_and_another_refused(addon, tmp_path):
    from body4d_engine.clip_files import fingerprint_of

    frames = write_frames(tmp_path / "frames", 20)
    path = make_take(tmp_path / "takes" / "a.take", path=str(frames), fingerprint=fingerprint_of(frames))
    other, moved = write_frames(tmp_path / "others", 19), frames.rename(tmp_path / "moved")
    collection = build_take(path)
    assert any("is missing" in notice for notice in collection[tags.NOTICES]) and not camera_of(collection).data.background_images
    with pytest.raises(RuntimeError, match="others is not the clip of this take, which is of clip: its content differs"):
        bpy.ops.body4d.relink_clip(filepath=str(other))
    with pytest.raises(RuntimeError, match="There is no clip at"):
        bpy.ops.body4d.relink_clip(filepath=str(tmp_path / "nothing"))
    assert bpy.ops.body4d.relink_clip(filepath=str(moved / "img_0003.png")) == {"FINISHED"}
    movie = camera_of(collection).data.background_images[0].clip
    assert tags.same_path(movie.filepath, moved / "img_0001.png") and Take.open(path).clip["path"] == str(moved)
    assert not any("is missing" in notice for notice in collection[tags.NOTICES])


@pytest.mark.parametrize("files", [False, True], ids=["keeps the folder", "with its folder"])
def test_deleting_a_take_leaves_what_is_the_users(addon, path, files):
    addon.timeline_markers.new("mine", frame=3)
    empty = bpy.data.objects.new("mine", None)
    addon.collection.objects.link(empty)
    before = census()
    collection = build_take(path)
    copy = body_of(collection, 1).copy()
    copy.data = copy.data.copy()
    collection.objects.link(copy)
    lamp = bpy.data.objects.new("lamp", None)
    collection.objects.link(lamp)
    bpy.ops.body4d.stand_on_floor(source="VALUES", pitch=0.1)
    assert bpy.ops.body4d.delete_take(files=files) == {"FINISHED"}
    assert path.exists() != files and not bpy.data.collections
    assert sorted(o.name for o in addon.collection.objects) == sorted([copy.name, "lamp", "mine"])
    assert [m.name for m in addon.timeline_markers] == ["mine"]
    for block in (copy, lamp):
        bpy.data.objects.remove(block)
    tags.purge({copy_id for copy_id in [m.get(tags.TAKE_ID) for m in bpy.data.meshes]})
    assert not bpy.data.cameras and not bpy.data.movieclips and census()["objects"] == before["objects"]


def test_what_is_gone_is_said(addon, path, tmp_path):
    assert not bpy.ops.body4d.delete_take.poll()
    build_take(path)
    with pytest.raises(RuntimeError, match="There is no take x in this scene"):
        bpy.ops.body4d.delete_take(take="x")
    build_take(make_take(tmp_path / "b.take"))
    with pytest.raises(RuntimeError, match="Which take. Select someone of it"):
        bpy.ops.body4d.delete_take()
    assert bpy.ops.body4d.delete_take(take="b") == {"FINISHED"} and bpy.ops.body4d.delete_take() == {"FINISHED"}


def test_each_is_one_step_of_undo(addon, path):
    build_take(path)
    bpy.ops.ed.undo_push(message="Imported")

    def state():
        scene = bpy.context.scene
        there = imported.takes_in(scene)
        return [] if not there else [imported.is_cached(there[0]), any(o.get(tags.ROLE) == "floor" for o in there[0].objects), there[0].get(tags.CORRECTIONS)]

    for call in (lambda: bpy.ops.body4d.switch_meshes("EXEC_DEFAULT", True), lambda: bpy.ops.body4d.stand_on_floor("EXEC_DEFAULT", True, source="VALUES"),
                 lambda: bpy.ops.body4d.mark_wrong("EXEC_DEFAULT", True, person=1), lambda: bpy.ops.body4d.delete_take("EXEC_DEFAULT", True)):
        before = state()
        assert call() == {"FINISHED"}
        after = state()
        assert after != before
        bpy.ops.ed.undo()
        assert state() == before
        bpy.ops.ed.redo()
        assert state() == after
        if not after:
            break
