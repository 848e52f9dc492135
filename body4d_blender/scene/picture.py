# SPDX-License-Identifier: GPL-3.0-or-later
"""The clip as an Image that Image Editors show while people are picked.

A movie where Blender shows the file frame for frame; else one picture that is filled with what the engine sees of the current frame, turned
upright and at the clip's own rate.
"""

from pathlib import Path

import bpy
import numpy as np

CLIP = "body4d_clip"  # on the image: the clip's path
FILLED = "body4d_filled"  # on one that is filled

_frames: dict[int, int] = {}  # by session_uid: the clip frame that an image was filled with; never undone, as pixels are not


def find_image(path: Path) -> bpy.types.Image | None:
    """The image that shows this clip."""
    return next((image for image in bpy.data.images if image.get(CLIP) == str(path) and image.library is None), None)


def show_clip(path: Path, size: tuple[int, int], frame_for_frame: bool) -> bpy.types.Image:
    """The image that shows this clip, made where there is none. size: width, height of what the engine will fill it with."""
    image = find_image(path)
    if image is not None and (image.source == "MOVIE") == frame_for_frame:
        return image
    if frame_for_frame:
        image = bpy.data.images.load(str(path))
    else:
        image = bpy.data.images.new(path.name, *size)
        image[FILLED] = True
    image[CLIP] = str(path)
    return image


def is_filled(image) -> bool:
    """Whether the engine's pictures are to be put into it."""
    return image is not None and FILLED in image


def shows(image, frame: int) -> bool:
    """Whether it is filled with this clip frame."""
    return _frames.get(image.session_uid) == frame


def forget() -> None:
    """Undo may have put other pixels into images: fill them again."""
    _frames.clear()


def fill(image: bpy.types.Image, frame: int, rgb: np.ndarray) -> None:
    """Put a picture (H, W, 3) uint8 of a clip frame into the image."""
    height, width = rgb.shape[:2]
    if tuple(image.size) != (width, height):
        image.scale(width, height)
    pixels = np.empty((height, width, 4), np.float32)
    pixels[..., :3], pixels[..., 3] = rgb[::-1], 255
    pixels /= 255
    image.pixels.foreach_set(pixels.ravel())
    image.update()
    _frames[image.session_uid] = frame
