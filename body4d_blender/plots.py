# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures of confidence for panels: drawn when they change, kept as icons. There is nothing to draw in without a window.

A panel shows icons only as squares, so one picture is a row of square tiles.
"""

import bpy
import bpy.utils.previews
import numpy as np

from .scene import imported
from .scene.doubts import CONFIDENT
from .scene.plot import column_at, mark, plot

TILE = 64  # px of a tile's side

_icons = None
_drawn: dict[str, tuple] = {}  # what each row of tiles was drawn from; its picture


def tiles(body, scene_frame_column: float | None, count: int) -> list[int]:
    """Icons of a person's confidence, side by side, with the current sample marked; none without a window, or where nothing is known."""
    if _icons is None or count < 1:
        return []
    confidence = imported.confidence_of(body)
    if confidence is None:
        return []
    name, width = f"{body.session_uid}", count * TILE
    now = None if scene_frame_column is None else column_at(scene_frame_column, len(confidence), width)
    source = body.get(imported.tags.DOUBTS), confidence.tobytes(), tuple(body.color), width
    known = _drawn.get(name)
    if known is None or known[0] != source:
        known = source, plot(confidence, doubtful(body, len(confidence)), _srgb(body.color), CONFIDENT, width, TILE), ()
    if known[2] != now or known[2] == ():
        image = mark(known[1], now)
        for i in range(count):
            _show(f"{name}/{i}", image[:, i * TILE : (i + 1) * TILE])
        _drawn[name] = known[0], known[1], now
    return [_icons[f"{name}/{i}"].icon_id for i in range(count)]


def doubtful(body, samples: int) -> np.ndarray:
    """(samples,) bool."""
    flags = np.zeros(samples, bool)
    collection = next((c for c in body.users_collection if c.get(imported.tags.ROLE) == "take"), None)
    frames = imported.frames_of(collection) if collection else range(0)
    for doubt in imported.doubts_of(body):
        if frames:
            flags[max(0, (doubt.first - frames.start) // frames.step) : max(0, (doubt.last - frames.start) // frames.step + 1)] = True
    return flags


def _srgb(color) -> list[float]:
    return [12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055 for c in color[:3]]


def _show(name: str, image: np.ndarray) -> None:
    icon = _icons.get(name) or _icons.new(name)
    if tuple(icon.image_size) != (TILE, TILE):
        icon.image_size = TILE, TILE
    icon.image_pixels_float.foreach_set(np.ascontiguousarray(image).ravel())


def register() -> None:
    global _icons
    if not bpy.app.background:
        _icons = bpy.utils.previews.new()


def unregister() -> None:
    global _icons
    if _icons is not None:
        bpy.utils.previews.remove(_icons)
        _icons = None
    _drawn.clear()
