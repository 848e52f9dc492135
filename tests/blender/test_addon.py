# SPDX-License-Identifier: Apache-2.0
"""The add-on without a window: operators, the command, the script."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import bpy
import numpy as np
import pytest

import body4d_blender
from body4d_blender import command, panels
from body4d_blender.operators.import_take import take_folder
from body4d_blender.scene import build_take
from body4d_blender.scene.file import save_blend
from body4d_engine.take import Take

from .make_take import make_take
from .test_scene import shown, upright

ROOT = Path(__file__).resolve().parents[2]


def run_blender(script, *arguments, **options) -> subprocess.CompletedProcess:
    """Run a script in a second Blender, or a second Python with the bpy module: whatever this is."""
    program = ([bpy.app.binary_path, "-b", "--factory-startup", "--python-exit-code", "1", "--python", script, "--"] if bpy.app.binary_path
               else [sys.executable, script])
    return subprocess.run([*program, *arguments], capture_output=True, text=True, **options)


def test_it_registers_and_unregisters_without_a_trace(scene):
    lists = ("load_pre", "load_post", "undo_post", "redo_post")
    handlers = [len(getattr(bpy.app.handlers, name)) for name in lists]
    for _ in range(2):
        body4d_blender.register()
        assert hasattr(bpy.types, "BODY4D_OT_import_take") and hasattr(bpy.types, "BODY4D_PT_generate")
        body4d_blender.unregister()
        assert not hasattr(bpy.types, "BODY4D_OT_import_take") and not hasattr(bpy.types, "BODY4D_PT_generate")
        assert [len(getattr(bpy.app.handlers, name)) for name in lists] == handlers


@pytest.mark.parametrize("inside", ["", "take.json"])
def test_import_takes_the_folder_or_its_json(addon, tmp_path, inside):
    path = make_take(tmp_path / "a.take")
    assert bpy.ops.body4d.import_take(filepath=str(path / inside), match_scene="YES", use_start=True, start=11) == {"FINISHED"}
    assert [c.name for c in bpy.data.collections] == ["a"] and bpy.context.scene.frame_start == 11


def test_the_folder_that_the_file_browser_shows(tmp_path):
    path = make_take(tmp_path / "a.take")
    assert take_folder("", str(path) + os.sep) == path
    assert take_folder(str(path) + os.sep, str(path) + os.sep) == path
    assert take_folder(str(tmp_path / "nothing"), str(tmp_path)) == tmp_path / "nothing"
    assert take_folder("", "") is None


def test_import_says_what_is_wrong(addon, tmp_path):
    with pytest.raises(RuntimeError, match="There is no take at .*nothing.take. A take is a folder"):
        bpy.ops.body4d.import_take(filepath=str(tmp_path / "nothing.take"))
    with pytest.raises(RuntimeError, match="No take was chosen"):
        bpy.ops.body4d.import_take()


def test_import_again_does_not_take_over_the_options_of_another_import(scene, tmp_path):
    collection, layout = build_take(make_take(tmp_path / "a.take"), mesh_cache=True), MagicMock()
    panels.take.BODY4D_PT_take_files.draw(SimpleNamespace(layout=layout), SimpleNamespace(object=None, collection=collection))
    again = layout.operator.return_value
    assert (again.match_scene, again.use_start, again.mesh_cache) == ("AUTO", False, True)
    assert take_folder(again.filepath, "") == tmp_path / "a.take"


def test_the_command_goes_on_after_a_video_that_fails(scene, video, engine, tmp_path, capsys):
    broken = tmp_path / "broken.mp4"
    broken.touch()
    out = tmp_path / "out"
    assert command.run(["convert", str(broken), str(video), str(tmp_path / "gone.mp4"), "--out", str(out), "--engine", engine()]) == 1
    assert sorted(p.name for p in out.iterdir()) == ["clip one.blend", "clip one.take"]
    said = capsys.readouterr()
    assert "broken.mp4 is not a video" in said.err and "gone.mp4: There is no such file" in said.err and "Saved" in said.out
    assert command.run(["convert", str(video), "--engine", engine(), "--mesh-cache", "--out", str(tmp_path / "again")]) == 0
    assert command.run(["convert"]) == 2


def test_videos_of_the_same_name_get_results_of_their_own(scene, engine, tmp_path):
    assert command._names([Path("a/Clip.mp4"), Path("b/clip.mp4")]) == ["Clip", "clip_2"]  # one file on Windows and macOS
    videos = [tmp_path / folder / "clip.mp4" for folder in "ab"]
    for video in videos:
        video.parent.mkdir()
        video.touch()
    assert command.run(["convert", *map(str, videos), "--out", str(tmp_path / "out"), "--engine", engine()]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["clip.blend", "clip.take", "clip_2.blend", "clip_2.take"]


@pytest.mark.parametrize("mesh_cache", [False, True], ids=["keys", "cache"])
def test_build_scene_saves_a_file_that_opens_and_moves_with_its_take(scene, tmp_path, mesh_cache):
    make_take(tmp_path / "here" / "a.take", end=12)
    out = tmp_path / "here" / "a.blend"
    done = run_blender(ROOT / "scripts/build_scene.py", "a.take", "--out", "a.blend", *(["--mesh-cache"] * mesh_cache), cwd=tmp_path / "here")
    assert done.returncode == 0 and "saved" in done.stdout and "assumed" in done.stdout, done.stderr
    assert sorted(p.name for p in out.parent.iterdir()) == ["a.blend", "a.take"]
    (tmp_path / "here").rename(tmp_path / "there")
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "there" / "a.blend"))
    opened = bpy.context.scene
    assert (opened.render.resolution_x, opened.frame_end, opened.render.fps) == (640, 12, 30)
    opened.frame_set(9)
    wanted = upright(Take.open(tmp_path / "there" / "a.take").read("people/1", "vertices")[8])
    assert np.array_equal(shown(bpy.data.objects["Ana"]), wanted)
    views = [a.spaces.active.region_3d for s in bpy.data.screens for a in s.areas if a.type == "VIEW_3D"]
    assert all(view.view_perspective == "CAMERA" and abs(view.view_camera_zoom) < 1e-3 for view in views)


def test_a_blend_that_was_there_is_kept(scene, tmp_path):
    (tmp_path / "a.blend").write_bytes(b"hours of work")
    save_blend(make_take(tmp_path / "a.take"), tmp_path / "a.blend")
    assert (tmp_path / "a.blend1").read_bytes() == b"hours of work"
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "a.blend"))
    assert "Ana" in bpy.data.objects


def test_a_take_is_built_from_inside_its_folder(scene, tmp_path, monkeypatch):
    monkeypatch.chdir(make_take(tmp_path / "a.take"))
    assert command.run(["build", "."]) == 0 and (tmp_path / "a.blend").is_file()


def test_folders_of_images_keep_their_whole_name(addon, engine, tmp_path):
    for name in ("shot.01", "shot.02"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
        assert bpy.ops.body4d.generate(filepath=str(tmp_path / name), engine=engine()) == {"FINISHED"}
    assert command._names([tmp_path / "shot.01", tmp_path / "shot.02"]) == ["shot.01", "shot.02"]
    assert sorted(p.name for p in tmp_path.glob("*.take")) == ["shot.01.take", "shot.02.take"]


def test_build_scene_fails_in_words_and_spoils_nothing(scene, tmp_path):
    (tmp_path / "a.blend").write_bytes(b"older")
    done = run_blender(ROOT / "scripts/build_scene.py", tmp_path / "no.take", "--out", tmp_path / "a.blend")
    assert done.returncode == 1 and "There is no take at" in done.stderr and "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["a.blend"] and (tmp_path / "a.blend").read_bytes() == b"older"
