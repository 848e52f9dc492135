# SPDX-License-Identifier: Apache-2.0
"""The add-on without a window: operators, the command, the script, the manifest, and the installed extension."""

import os
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import bpy
import numpy as np
import pytest

import body4d_blender
from body4d_blender import command, engine, panels
from body4d_blender.operators import convert
from body4d_blender.operators.import_take import take_folder
from body4d_blender.preferences import engine_setting
from body4d_blender.scene import build_take
from body4d_blender.scene.file import save_blend
from body4d_engine.take import Take

from .make_take import make_take
from .test_scene import shown, upright

ROOT = Path(__file__).resolve().parents[2]
FAKE = Path(__file__).with_name("fake_engine.py")
ENGINE = shlex.join([sys.executable, str(FAKE)]) if os.name != "nt" else f"{sys.executable} {FAKE}"


def run_blender(script, *arguments, **options) -> subprocess.CompletedProcess:
    """Run a script in a second Blender, or a second Python with the bpy module: whatever this is."""
    program = ([bpy.app.binary_path, "-b", "--factory-startup", "--python-exit-code", "1", "--python", script, "--"] if bpy.app.binary_path
               else [sys.executable, script])
    return subprocess.run([*program, *arguments], capture_output=True, text=True, **options)


@pytest.fixture
def addon(scene):
    body4d_blender.register()
    yield
    body4d_blender.unregister()


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "clip one.mp4"
    path.write_bytes(b"not looked at")
    return path


def test_it_registers_and_unregisters_without_a_trace(scene):
    handlers = len(bpy.app.handlers.load_pre)
    for _ in range(2):
        body4d_blender.register()
        assert hasattr(bpy.types, "BODY4D_OT_import_take") and hasattr(bpy.types, "BODY4D_PT_main")
        body4d_blender.unregister()
        assert not hasattr(bpy.types, "BODY4D_OT_import_take") and not hasattr(bpy.types, "BODY4D_PT_main")
        assert len(bpy.app.handlers.load_pre) == handlers


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


def test_convert_runs_the_engine_and_builds(addon, video):
    assert bpy.ops.body4d.convert(filepath=str(video), engine=ENGINE) == {"FINISHED"}
    assert video.with_suffix(".take").is_dir()
    assert sorted(o.name for o in bpy.data.objects) == ["Ana", "Bo", "clip one camera (focal assumed)"]


def test_convert_passes_on_the_engines_own_words(addon, tmp_path):
    (tmp_path / "broken.mp4").touch()
    with pytest.raises(RuntimeError, match="broken.mp4 is not a video"):
        bpy.ops.body4d.convert(filepath=str(tmp_path / "broken.mp4"), engine=ENGINE)
    with pytest.raises(RuntimeError, match="There is no video at"):
        bpy.ops.body4d.convert(filepath=str(tmp_path / "gone.mp4"), engine=ENGINE)
    with pytest.raises(RuntimeError, match="There is no engine at /no/engine"):
        bpy.ops.body4d.convert(filepath=str(tmp_path / "broken.mp4"), engine="/no/engine")


def test_a_job_can_be_stopped_and_leaves_no_child(tmp_path):
    job = engine.Job(engine.convert_command(engine.engine_command(ENGINE), "endless.mp4", tmp_path / "a.take"))
    while not job.drain():
        assert job.running
        time.sleep(0.02)
    job.cancel()
    assert job.process.poll() is not None
    with pytest.raises(engine.EngineError, match="Stopped"):
        job.finish()


@pytest.mark.skipif(os.name == "nt", reason="file modes")
def test_an_engine_is_a_python_a_program_or_a_command(tmp_path, monkeypatch):
    folder = tmp_path / "with space"
    folder.mkdir()
    for name in ("python3.11", "body4d"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    assert engine.engine_command(str(folder / "python3.11")) == [str(folder / "python3.11"), "-m", "body4d_engine"]
    assert engine.engine_command(str(folder / "body4d")) == [str(folder / "body4d")]
    assert engine.engine_command("sh -c 'x y'")[1:] == ["-c", "x y"]
    monkeypatch.delenv("BODY4D_ENGINE", raising=False)
    monkeypatch.setenv("PATH", str(folder))
    assert engine.engine_command() == [str(folder / "body4d")]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(engine.EngineError, match="No engine is set"):
        engine.engine_command()


def test_a_command_with_quotes():
    assert engine.split_command(r'"C:\Program Files\py\python.exe" -m body4d_engine', windows=True) == [r"C:\Program Files\py\python.exe", "-m", "body4d_engine"]
    with pytest.raises(engine.EngineError, match="cannot be read: No closing quotation"):
        engine.engine_command("body4d 'run")


def test_an_engine_named_relative_to_the_file_is_found(addon, tmp_path, monkeypatch):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    preferences = SimpleNamespace(engine="//engine/bin/python")
    context = SimpleNamespace(preferences=SimpleNamespace(addons={"body4d_blender": SimpleNamespace(preferences=preferences)}))
    monkeypatch.setattr("body4d_blender.preferences.bpy", SimpleNamespace(context=context, path=bpy.path))
    assert Path(engine_setting()) == tmp_path / "engine" / "bin" / "python"


def test_import_again_does_not_take_over_the_options_of_another_import(scene, tmp_path):
    collection, layout = build_take(make_take(tmp_path / "a.take"), mesh_cache=True), MagicMock()
    panels.BODY4D_PT_take.draw(SimpleNamespace(layout=layout), SimpleNamespace(object=None, collection=collection))
    again = layout.operator.return_value
    assert (again.match_scene, again.use_start, again.mesh_cache) == ("AUTO", False, True)
    assert take_folder(again.filepath, "") == tmp_path / "a.take"


@pytest.mark.parametrize("error", [OSError("the disk is gone"), RuntimeError("the disk is gone")], ids=["OSError", "RuntimeError"])
def test_what_goes_wrong_beside_the_window_is_shown_in_it(scene, tmp_path, monkeypatch, error):
    def fails(*_, **__):
        raise error

    job = SimpleNamespace(running=False, drain=list, finish=lambda: None)
    monkeypatch.setattr(convert, "current", convert.Conversion(job, tmp_path / "a.take", scene.name, {}))
    monkeypatch.setattr(convert, "last_error", "")
    monkeypatch.setattr(convert, "build_take", fails)
    assert convert._tick() is None and convert.last_error == "the disk is gone"


def test_the_command_goes_on_after_a_video_that_fails(scene, video, tmp_path, capsys):
    broken = tmp_path / "broken.mp4"
    broken.touch()
    out = tmp_path / "out"
    assert command.run(["convert", str(broken), str(video), str(tmp_path / "gone.mp4"), "--out", str(out), "--engine", ENGINE]) == 1
    assert sorted(p.name for p in out.iterdir()) == ["clip one.blend", "clip one.take"]
    said = capsys.readouterr()
    assert "broken.mp4 is not a video" in said.err and "gone.mp4: There is no such file" in said.err and "Saved" in said.out
    assert command.run(["convert", str(video), "--engine", ENGINE, "--mesh-cache", "--out", str(tmp_path / "again")]) == 0
    assert command.run(["convert"]) == 2


def test_videos_of_the_same_name_get_results_of_their_own(scene, tmp_path):
    assert command._names([Path("a/Clip.mp4"), Path("b/clip.mp4")]) == ["Clip", "clip_2"]  # one file on Windows and macOS
    videos = [tmp_path / folder / "clip.mp4" for folder in "ab"]
    for video in videos:
        video.parent.mkdir()
        video.touch()
    assert command.run(["convert", *map(str, videos), "--out", str(tmp_path / "out"), "--engine", ENGINE]) == 0
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


def test_folders_of_images_keep_their_whole_name(addon, tmp_path):
    for name in ("shot.01", "shot.02"):
        (tmp_path / name).mkdir()
        assert bpy.ops.body4d.convert(filepath=str(tmp_path / name), engine=ENGINE) == {"FINISHED"}
    assert command._names([tmp_path / "shot.01", tmp_path / "shot.02"]) == ["shot.01", "shot.02"]
    assert sorted(p.name for p in tmp_path.glob("*.take")) == ["shot.01.take", "shot.02.take"]


def test_build_scene_fails_in_words_and_spoils_nothing(scene, tmp_path):
    (tmp_path / "a.blend").write_bytes(b"older")
    done = run_blender(ROOT / "scripts/build_scene.py", tmp_path / "no.take", "--out", tmp_path / "a.blend")
    assert done.returncode == 1 and "There is no take at" in done.stderr and "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["a.blend"] and (tmp_path / "a.blend").read_bytes() == b"older"


# -- the extension --------------------------------------------------------------------------------------------------------


def cli() -> Path:
    """Blender's own extension tool; it needs no Blender to run."""
    return Path(bpy.utils.system_resource("SCRIPTS")) / "addons_core" / "bl_pkg" / "cli" / "blender_ext.py"


@pytest.fixture
def staged(tmp_path) -> Path:
    """The extension's folder as it is packed: the add-on, its manifest, the engine's wheel."""
    stage = tmp_path / "stage"
    shutil.copytree(ROOT / "body4d_blender", stage, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "blender_manifest.toml", stage)
    wheel = next(line.split('"')[1] for line in (stage / "blender_manifest.toml").read_text().splitlines() if line.startswith("wheels"))
    (stage / wheel).parent.mkdir()
    with zipfile.ZipFile(stage / wheel, "w") as archive:
        for file in sorted((ROOT / "body4d_engine").glob("*.py")):
            archive.write(file, f"body4d_engine/{file.name}")
        version = Path(wheel).name.split("-")[1]
        info = f"body4d_engine-{version}.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: body4d-engine\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return stage


def extension_tool(*arguments) -> subprocess.CompletedProcess:
    tags = Path(bpy.utils.system_resource("SCRIPTS")) / "modules" / "_bpy_internal" / "extensions" / "tags.py"
    return subprocess.run([sys.executable, "-I", cli(), arguments[0], f"--valid-tags={tags}", *arguments[1:]], capture_output=True, text=True)


def test_the_manifest_is_what_blender_wants(staged):
    done = extension_tool("validate", staged)
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = staged / "blender_manifest.toml"
    manifest.write_text(manifest.read_text().replace('"Tracking"', '"People"'))
    assert extension_tool("validate", staged).returncode == 1


def test_the_extension_installs_and_imports_a_take(staged, tmp_path):
    package = tmp_path / "body4d.zip"
    done = extension_tool("build", "--source-dir", staged, "--output-filepath", package)
    assert done.returncode == 0, done.stdout + done.stderr
    path = make_take(tmp_path / "a.take")
    code = f"""
import bpy, sys
bpy.ops.extensions.package_install_files(filepath={str(package)!r}, repo="user_default", enable_on_install=True, overwrite=True)
addon = bpy.context.preferences.addons["bl_ext.user_default.body4d"]
addon.preferences.engine = {ENGINE!r}
import body4d_engine
assert {str(tmp_path)!r} in body4d_engine.__file__, body4d_engine.__file__
bpy.ops.wm.read_homefile(use_empty=True)
assert bpy.ops.body4d.import_take(filepath={str(path)!r}) == {{"FINISHED"}}
assert bpy.ops.body4d.convert(filepath={str(package)!r}, take={str(tmp_path / 'b.take')!r}) == {{"FINISHED"}}
print("people:", sorted(o.name for o in bpy.data.objects if o.type == "MESH"))
bpy.ops.preferences.addon_disable(module="bl_ext.user_default.body4d")
assert not hasattr(bpy.types, "BODY4D_OT_convert")
"""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"BLENDER_USER_RESOURCES": str(tmp_path / "resources")}
    (tmp_path / "script.py").write_text(code)
    done = run_blender(tmp_path / "script.py", env=env, cwd=tmp_path)
    assert done.returncode == 0 and "people: ['Ana', 'Ana.001', 'Bo', 'Bo.001']" in done.stdout, done.stdout + done.stderr
