# SPDX-License-Identifier: GPL-3.0-or-later
"""The footage: behind the camera as a movie clip, and its sound in the sequencer."""

import os
from pathlib import Path

import bpy

from body4d_engine.clip_files import image_files

from . import tags
from .timing import Timing


def source_path(take_path: Path, clip: dict) -> Path | None:
    """The clip's own file or folder: where it was, else next to the take or to the .blend (they may have been moved together).

    None where that is gone, and for a take of imported meshes that knows no footage.
    """
    if clip.get("path") is None:
        return None
    folders = [Path(take_path).parent, *([Path(bpy.data.filepath).parent] if bpy.data.filepath else [])]
    places = [folder / text for text in (clip["path"], clip["name"]) for folder in folders]  # an absolute path stays what it is
    return next((place for place in places if place.exists()), None)


def picture_path(take_path: Path, clip: dict) -> Path | None:
    """The file that Blender opens to show the clip: the take's proxy, the clip, or the first of its images."""
    if clip.get("proxy"):
        proxy = Path(take_path) / clip["proxy"]
        return proxy if proxy.is_file() else None
    source = source_path(take_path, clip)
    return first_image(source) if source is not None and source.is_dir() else source


def first_image(folder: Path) -> Path | None:
    """The image that Blender's sequences count from."""
    return next(iter(image_files(folder)), None)


def show_behind(camera: bpy.types.Camera, take_ids: set[str], take_id: str, take_path: Path, clip: dict, timing: Timing, report) -> None:
    """Make the clip the camera's background, replacing the one of an earlier import; backgrounds of the user stay."""
    shown = {background.clip for background in camera.background_images if background.source == "MOVIE_CLIP"}
    movie = load_movie(shown, take_ids, take_id, take_path, clip, timing, report)
    behind = None
    for background in list(camera.background_images):
        if background.source == "MOVIE_CLIP" and tags.is_ours(background.clip, take_ids, "clip"):
            if movie is None or behind is not None:
                camera.background_images.remove(background)
            else:
                behind = background
    if movie is None:
        return
    if behind is None:
        behind = camera.background_images.new()
        behind.source = "MOVIE_CLIP"
        behind.alpha = 1.0
        behind.display_depth = "BACK"
        camera.show_background_images = True
    behind.frame_method = "FIT"
    behind.clip = movie


def load_movie(shown: set, take_ids: set[str], take_id: str, take_path: Path, clip: dict, timing: Timing, report) -> bpy.types.MovieClip | None:
    """The take's movie clip, starting where clip frame 0 is. None, with a report, where the footage cannot be had.

    shown: the clips behind the camera so far. Those of another scene's camera stay as they are: the take may start elsewhere there.
    """
    if clip.get("path") is None and not clip.get("proxy"):
        report("The take knows no footage: no background.")
        return None
    earlier = [m for m in bpy.data.movieclips if tags.is_ours(m, take_ids, "clip")]
    path = picture_path(take_path, clip) or next((file for file in map(_file_of, earlier) if file.exists()), None)
    if path is None:
        report(f"The footage {clip.get('proxy') or clip['path']} is missing: no background. Put it back and import the take again.")
        return None
    movie = next((m for m in earlier if (m in shown or not m.users) and tags.same_path(m.filepath, path)), None)
    if movie is None:
        try:
            movie = bpy.data.movieclips.load(os.path.abspath(path))
        except RuntimeError as error:
            report(f"Blender cannot open {path}: {str(error).strip()}. No background.")
            return None
        movie.filepath = tags.blend_path(path)
    tags.tag(movie, take_id, "clip")
    tags.rename(movie, clip["name"])
    movie.frame_start = timing.start
    seen, wanted = (*movie.size, movie.frame_duration), (clip["width"], clip["height"], clip["frame_count"])
    if seen != wanted:
        report(f"Blender sees {path.name} as {seen[0]} x {seen[1]}, {seen[2]} frames; the take was made from {wanted[0]} x {wanted[1]}, "
               f"{wanted[2]} frames. The background may not match the bodies.")
    if timing.rate != 1:
        report(f"The scene runs at another frame rate than the clip. Bodies and camera are retimed ({timing.rate:.4g} scene frames per clip "
               "frame), but Blender plays a background clip frame by frame: it shows the matching picture only at the start. "
               "Import with Match Scene for an exact overlay.")
    return movie


def put_sound(scene, earlier: str | None, take_id: str, take_path: Path, clip: dict, timing: Timing, report) -> str | None:
    """Put the clip's sound into the sequencer at clip frame 0, in place of the strip named `earlier`. Returns the strip's name, or None.

    A proxy has its own sound, in step with its pictures; that of a clip that needs one may begin elsewhere.
    """
    strips = strips_of(scene)
    old = next((s for s in strips if s.name == earlier and s.type == "SOUND"), None)
    path = picture_path(take_path, clip) or source_path(take_path, clip) or (_file_of(old.sound) if old and old.sound else None)
    if old is not None:
        strips.remove(old)
    if not clip.get("has_audio"):
        return None
    if path is None or not path.is_file():
        report("The clip's sound was left out: its file is missing.")
        return None
    channel = 1 + max((s.channel for s in strips), default=0)
    try:
        strip = strips.new_sound(name=clip["name"], filepath=os.path.abspath(path), channel=channel, frame_start=timing.start)
    except RuntimeError as error:  # some builds of Blender as a Python module have no sound
        report(f"The clip's sound was left out: {str(error).strip().removeprefix('Error: ')}.")
        return None
    strip.sound.filepath = tags.blend_path(path)
    tags.tag(strip.sound, take_id, "sound")
    return strip.name


def _file_of(block) -> Path:
    return Path(bpy.path.abspath(block.filepath))


def strips_of(scene):
    editor = scene.sequence_editor_create()
    return editor.strips if hasattr(editor, "strips") else editor.sequences  # 4.4 renamed them
