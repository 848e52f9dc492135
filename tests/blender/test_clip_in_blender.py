# SPDX-License-Identifier: Apache-2.0
"""What Blender sees of a clip is what the engine sees, frame for frame: directly where the engine says so, else in the proxy.

The clips are made by the engine's Python (BODY4D_ENGINE_PYTHON, or this one where it has PyAV).
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import bpy
import numpy as np
import pytest

from ..engine.make_clips import CATALOGUE, read_counter

ROOT = Path(__file__).resolve().parents[2]
NAMES = [*CATALOGUE, "damaged.mp4", "cut_off.mkv"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> dict[str, dict]:
    """File name -> what the engine sees of the clip."""
    python = os.environ.get("BODY4D_ENGINE_PYTHON") or (sys.executable if importlib.util.find_spec("av") else None)
    if python is None:
        pytest.skip("needs BODY4D_ENGINE_PYTHON, a Python with the engine's dependencies, to make the clips")
    folder = tmp_path_factory.mktemp("clips")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONHOME"} | {"PYTHONPATH": path}
    done = subprocess.run([python, str(ROOT / "tests/engine/make_clips.py"), str(folder)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {Path(entry["clip"]).name: entry for entry in json.loads((folder / "clips.json").read_text())}


def counters_in_blender(scene, path: str, frames: list[int], size, fps, folder: Path) -> list[int | None]:
    """The burnt-in numbers at those frames (counted from 0), rendered through the sequencer."""
    render = scene.render
    render.resolution_x, render.resolution_y, render.resolution_percentage = size[0], size[1], 100
    render.fps, render.fps_base = round(fps[0] / fps[1]), round(fps[0] / fps[1]) * fps[1] / fps[0]
    render.use_sequencer, render.image_settings.file_format, render.filepath = True, "PNG", str(folder / "frame.png")
    scene.view_settings.view_transform = "Standard"
    editor = scene.sequence_editor_create()
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    strip = strips.new_movie("clip", path, 1, 1, fit_method="ORIGINAL")
    numbers = []
    for frame in frames:
        scene.frame_set(frame + 1)
        bpy.ops.render.render(write_still=True)
        image = bpy.data.images.load(render.filepath)
        pixels = np.array(image.pixels[:], np.float32).reshape(image.size[1], image.size[0], -1)[::-1, :, :3] * 255
        bpy.data.images.remove(image)
        numbers.append(read_counter(pixels))
    strips.remove(strip)
    return numbers


def check(scene, path: str, entry: dict, folder: Path) -> None:
    clip = bpy.data.movieclips.load(path)
    width, height = entry["size"]
    count = len(entry["counters"])
    assert tuple(clip.size) == (width, height)
    assert clip.frame_duration == count
    assert clip.fps == pytest.approx(entry["fps"][0] / entry["fps"][1], abs=1e-3)
    bpy.data.movieclips.remove(clip)
    # Steps forward over key frames, backward, the last frame.
    frames = sorted({0, 1, 2, 5, 11, 12, 13, count // 2, count - 2, count - 1} & set(range(count)))
    frames += [frames[0], frames[-1], frames[len(frames) // 2]]
    assert counters_in_blender(scene, path, frames, (width, height), entry["fps"], folder) == [entry["counters"][frame] for frame in frames]


@pytest.mark.parametrize("name", NAMES)
def test_proxy_is_seen_exactly(scene, clips, name, tmp_path):
    check(scene, clips[name]["proxy"], clips[name], tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_clip_without_reasons_is_seen_exactly(scene, clips, name, tmp_path):
    if clips[name]["blender_reasons"]:
        pytest.skip("gets a proxy: " + "; ".join(clips[name]["blender_reasons"]))
    check(scene, clips[name]["clip"], clips[name], tmp_path)


def test_most_ordinary_clips_need_no_proxy(clips):
    shown_directly = {name for name in NAMES if not clips[name]["blender_reasons"]}
    assert {"plain.mp4", "b_frames.mov", "ten_bit.mp4", "milliseconds.mkv", "vp9.webm", "mpeg4.avi", "odd.mp4"} <= shown_directly
    assert not shown_directly & {"turned_90.mp4", "wide_pixels.mp4", "variable.mp4", "sound_is_longer.mkv", "reordered.avi", "cut_off.mkv", "damaged.mp4"}
