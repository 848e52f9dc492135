# SPDX-License-Identifier: Apache-2.0
"""The clip behind the camera, its sound, and honest words where Blender cannot have them."""

import bpy
import pytest

from body4d_blender.scene import build_take, clip

from .make_take import make_take, write_frames
from .test_scene import camera_of

SMALL = (64, 48)


@pytest.fixture(scope="session")
def movie(tmp_path_factory):
    """An mp4 of 20 frames, written by Blender's own sequencer."""
    folder = tmp_path_factory.mktemp("movie")
    write_frames(folder / "frames", 20, SMALL)
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    scene = bpy.context.scene
    editor = scene.sequence_editor_create()
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    strip = strips.new_image("frames", str(folder / "frames" / "img_0001.png"), channel=1, frame_start=1)
    for i in range(2, 21):
        strip.elements.append(f"img_{i:04d}.png")
    render = scene.render
    render.resolution_x, render.resolution_y, render.fps, render.fps_base = *SMALL, 30, 1.001
    scene.frame_start, scene.frame_end = 1, 20
    if hasattr(render.image_settings, "media_type"):
        render.image_settings.media_type = "VIDEO"
    render.image_settings.file_format = "FFMPEG"
    render.ffmpeg.format, render.ffmpeg.codec, render.ffmpeg.audio_codec = "MPEG4", "H264", "NONE"
    render.filepath = str(folder / "clip.mp4")
    bpy.ops.render.render(animation=True)
    return folder / "clip.mp4"


def background(collection):
    camera = camera_of(collection).data
    assert camera.show_background_images and len(camera.background_images) == 1
    return camera.background_images[0]


def test_a_movie_lies_behind_the_camera_from_the_start(scene, movie, tmp_path):
    notices = []
    path = make_take(tmp_path / "a.take", size=SMALL, name="clip.mp4", path=str(movie), method="metadata")
    image = background(build_take(path, scene_start=10, report=notices.append))
    assert (image.source, image.frame_method, image.display_depth, image.alpha) == ("MOVIE_CLIP", "FIT", "BACK", 1.0)
    assert tuple(image.clip.size) == SMALL and image.clip.frame_duration == 20 and image.clip.frame_start == 10
    assert not notices


def test_another_frame_rate_is_told_and_the_same_is_not(scene, movie, tmp_path):
    path = make_take(tmp_path / "a.take", size=SMALL, name="clip.mp4", path=str(movie), method="metadata")
    scene.render.resolution_x, scene.render.resolution_y = SMALL
    for fps, base, told in ((30, 1.001, False), (24, 1.0, True)):
        scene.render.fps, scene.render.fps_base = fps, base
        notices = []
        build_take(path, match_scene=False, report=notices.append)
        assert any("frame by frame" in n for n in notices) == told and len(notices) == told


def test_the_proxy_is_shown_where_the_take_has_one(scene, movie, tmp_path):
    path = make_take(tmp_path / "a.take", size=SMALL, path="/gone/clip.avi", name="clip.avi", proxy="proxy.mp4", method="metadata")
    (path / "proxy.mp4").write_bytes(movie.read_bytes())
    notices = []
    image = background(build_take(path, report=notices.append))
    assert image.clip.filepath.endswith("proxy.mp4") and not notices


def test_a_clip_that_moved_with_its_take_is_found(scene, movie, tmp_path):
    path = make_take(tmp_path / "a.take", size=SMALL, name="clip.mp4", path="/gone/clip.mp4")
    (tmp_path / "clip.mp4").write_bytes(movie.read_bytes())
    assert background(build_take(path)).clip.filepath == str(tmp_path / "clip.mp4")


def test_footage_that_the_file_still_has_is_kept(scene, movie, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(movie.read_bytes())
    path = make_take(tmp_path / "deep" / "a.take", size=SMALL, name="clip.mp4", path=str(tmp_path / "clip.mp4"), method="metadata")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "deep" / "a.blend"))
    collection = build_take(path)
    assert background(collection).clip.filepath == "//../clip.mp4"
    notices = []
    describe = (path / "take.json").read_text().replace(str(tmp_path / "clip.mp4"), "/gone/clip.mp4")
    (path / "take.json").write_text(describe)
    assert background(build_take(path, report=notices.append)).clip.filepath == "//../clip.mp4" and not notices


def test_a_folder_of_images_is_shown(scene, tmp_path):
    folder = write_frames(tmp_path / "frames", 12, SMALL, first=5)
    notices = []
    path = make_take(tmp_path / "a.take", size=SMALL, end=12, name="frames", path=str(folder), method="metadata")
    clip = background(build_take(path, report=notices.append)).clip
    assert clip.source == "SEQUENCE" and clip.filepath.endswith("img_0005.png") and clip.frame_duration == 12 and not notices


def test_missing_footage_is_reported(scene, tmp_path):
    notices = []
    path = make_take(tmp_path / "a.take", name="clip.mp4", path="/gone/clip.mp4")
    assert not camera_of(build_take(path, report=notices.append)).data.background_images
    assert any("/gone/clip.mp4 is missing" in n for n in notices)


def test_footage_that_blender_counts_differently_is_reported(scene, movie, tmp_path):
    notices = []
    build_take(make_take(tmp_path / "a.take", size=SMALL, end=25, name="clip.mp4", path=str(movie)), report=notices.append)
    assert any("64 x 48, 20 frames" in n and "25 frames" in n for n in notices)


def test_the_sound_starts_with_the_clip_and_is_never_doubled(scene, movie, tmp_path):
    notices = []
    path = make_take(tmp_path / "a.take", size=SMALL, name="clip.mp4", path=str(movie), has_audio=True)
    build_take(path, scene_start=7, report=notices.append)
    build_take(path)
    editor = scene.sequence_editor
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    if any("sound was left out" in n for n in notices):
        assert "without Audaspace" in "".join(notices) and not len(strips)
        pytest.skip("this build of Blender has no sound")
    starts = [s.content_start if hasattr(s, "content_start") else s.frame_start for s in strips]
    assert [(s.type, s.name) for s in strips] == [("SOUND", "clip.mp4")] and starts == [7]
    assert scene.sync_mode == "AUDIO_SYNC" and len(bpy.data.sounds) == 1


def test_paths_are_relative_in_a_saved_file(scene, movie, tmp_path):
    path = make_take(tmp_path / "takes" / "a.take", size=SMALL, name="clip.mp4", path="x", proxy="proxy.mp4")
    (path / "proxy.mp4").write_bytes(movie.read_bytes())
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    collection = build_take(path, mesh_cache=True)
    body = next(o for o in collection.objects if o.type == "MESH")
    assert body.modifiers[0].filepath.startswith("//takes") and body["body4d_take"].startswith("//takes")
    assert background(collection).clip.filepath.startswith("//takes")
    assert tuple(background(collection).clip.size) == SMALL


def test_a_take_without_footage_takes_no_strangers(scene, tmp_path):
    """Meshes imported from the folder `out` make `out.take` beside it: that folder is no footage, whatever pictures it holds."""
    write_frames(tmp_path / "out", 20)
    notices = []
    build_take(make_take(tmp_path / "out.take", name="out", path=None), report=notices.append)
    assert not bpy.data.movieclips and "The take knows no footage: no background." in notices


@pytest.mark.parametrize("proxy", [None, "proxy.mp4"])
def test_the_sound_is_that_of_the_pictures_shown(scene, movie, tmp_path, monkeypatch, proxy):
    """The original's may begin before or after its first picture; the proxy's does not."""
    path = make_take(tmp_path / "a.take", size=SMALL, name="clip.mp4", path=str(movie), has_audio=True, proxy=proxy)
    (path / "proxy.mp4").write_bytes(movie.read_bytes())
    asked = []

    class Strips(list):
        def new_sound(self, filepath, **_):
            asked.append(filepath)
            raise RuntimeError("heard")

    monkeypatch.setattr(clip, "strips_of", lambda scene: Strips())
    build_take(path)
    assert asked == [str(path / proxy if proxy else movie)]
