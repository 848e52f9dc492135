# SPDX-License-Identifier: GPL-3.0-or-later
"""What is drawn over the clip in an Image Editor: masks in the colours of their people, names, clicks, the outline of who is under the cursor.

Only draws what is known: asking is the tool's. Textures and lines are made once per mask and live as long as it.
"""

from math import cos, pi, sin

import blf
import bpy
import gpu
from gpu_extras.batch import batch_for_shader
from mathutils import Matrix

from .asking import asker, masks_on, unpicked_on
from .picking import Area, texture_of, under_cursor
from .scene.picture import CLIP, find_image
from .state import active_person, clip_frame, clip_path

FILL, OUTLINE = 0.4, 1.5  # opacity; px
DOT = 5.0  # px, a click's radius
FAR = 100.0  # pictures
CIRCLE = [(cos(i * pi / 8), sin(i * pi / 8)) for i in range(16)]

cursor: tuple[float, float] | None = None  # where the tool's mouse is, px of the clip
picking = False  # whether the tool runs
undone = False  # whether undo or redo happened and the clip was not drawn since
_handle = None


def shows_clip(space, state) -> bool:
    """Whether this Image Editor shows the scene's clip."""
    image = space.image if space.type == "IMAGE_EDITOR" else None
    return image is not None and bool(state.clip) and image == find_image(clip_path(state))


def _show_anew() -> None:
    """After a redo to another frame Blender draws the movie's frame of before, and keeps to it."""
    for image in bpy.data.images:
        if CLIP in image and image.has_data:
            image.update()


def _draw() -> None:
    global undone
    context = bpy.context
    scene, space, region = context.scene, context.space_data, context.region
    state = scene.body4d
    if not state.clip_frames or not shows_clip(space, state):
        return
    if undone:
        undone = False
        bpy.app.timers.register(_show_anew, first_interval=0.0)
    scale = context.preferences.system.ui_scale
    view = _View(region, state.clip_width, state.clip_height)
    frame, active = clip_frame(scene), active_person(state)
    masks = masks_on(state, frame)
    gpu.state.blend_set("ALPHA")
    for index, answer in masks.items():
        person = state.people[index]
        if person.visible and answer:
            for area in answer.areas:
                _fill(view, area, (*person.color, FILL if person == active or active is None else FILL * 0.6))
                _outline(view, area, (*person.color, 1.0), OUTLINE * scale * (1.6 if person == active else 1.0))
    if picking and cursor is not None:
        others = [area for area, _ in unpicked_on(state, frame)]
        hovered = under_cursor(others, *cursor)
        if hovered is not None:
            _outline(view, others[hovered], (1.0, 1.0, 1.0, 0.9), OUTLINE * scale)
    for index, person in enumerate(state.people):
        if person.visible:
            _clicks(view, person, frame, scale)
            answer = masks.get(index)
            if answer and answer.areas:
                x0, y0, x1, _ = answer.areas[0].box
                _label(view((x0 + x1) / 2, y0), person.name, person.color, scale)
            elif answer:
                click = next(c for c in person.clicks if c.frame == frame)
                _label(view(click.x, click.y), f"{person.name}: nobody here", person.color, scale)
    gpu.state.blend_set("NONE")


class _View:
    """From px of the clip to px of the region, and the matrix that does the same for what is drawn."""

    def __init__(self, region, width: int, height: int):
        left, top = region.view2d.view_to_region(-FAR, 1 + FAR, clip=False)  # in whole px, so from far away
        right, bottom = region.view2d.view_to_region(1 + FAR, -FAR, clip=False)
        scale_x, scale_y = (right - left) / (1 + 2 * FAR) / width, (bottom - top) / (1 + 2 * FAR) / height
        self._origin, self._scale = (left + FAR * width * scale_x, top + FAR * height * scale_y), (scale_x, scale_y)
        self.matrix = Matrix(((scale_x, 0, 0, self._origin[0]), (0, scale_y, 0, self._origin[1]), (0, 0, 1, 0), (0, 0, 0, 1)))

    def __call__(self, x: float, y: float) -> tuple[float, float]:
        return self._origin[0] + x * self._scale[0], self._origin[1] + y * self._scale[1]


def _fill(view: _View, area: Area, color) -> None:
    if "texture" not in area.owner:
        pixels = texture_of(area)
        height, width = pixels.shape[:2]
        area.owner["texture"] = gpu.types.GPUTexture((width, height), format="RGBA8", data=gpu.types.Buffer("FLOAT", pixels.shape, pixels))
        x0, y0, x1, y1 = area.box
        area.owner["quad"] = batch_for_shader(_shader("IMAGE_COLOR"), "TRI_STRIP", {"pos": ((x0, y1), (x1, y1), (x0, y0), (x1, y0)),
                                                                                    "texCoord": ((0, 0), (1, 0), (0, 1), (1, 1))})
    shader = _shader("IMAGE_COLOR")
    with gpu.matrix.push_pop():
        gpu.matrix.multiply_matrix(view.matrix)
        shader.bind()
        shader.uniform_sampler("image", area.owner["texture"])
        shader.uniform_float("color", color)
        area.owner["quad"].draw(shader)


def _outline(view: _View, area: Area, color, width: float) -> None:
    shader = _shader("POLYLINE_UNIFORM_COLOR")
    if "lines" not in area.owner:
        area.owner["lines"] = batch_for_shader(shader, "LINES", {"pos": area.lines})
    with gpu.matrix.push_pop():
        gpu.matrix.multiply_matrix(view.matrix)
        shader.bind()
        shader.uniform_float("viewportSize", gpu.state.viewport_get()[2:])
        shader.uniform_float("lineWidth", width)
        shader.uniform_float("color", color)
        area.owner["lines"].draw(shader)


def _clicks(view: _View, person, frame: int, scale: float) -> None:
    """A dot per click: a plus on the person, a minus on what is not."""
    for click in person.clicks:
        if click.frame == frame:
            x, y = view(click.x, click.y)
            radius = DOT * scale
            _disc(x, y, radius + 1.5 * scale, (0.0, 0.0, 0.0, 0.8))
            _disc(x, y, radius, (*person.color, 1.0) if click.positive else (1.0, 1.0, 1.0, 1.0))
            arm = radius * 0.6
            lines = [(x - arm, y), (x + arm, y)] + ([(x, y - arm), (x, y + arm)] if click.positive else [])
            shader = _shader("POLYLINE_UNIFORM_COLOR")
            shader.bind()
            shader.uniform_float("viewportSize", gpu.state.viewport_get()[2:])
            shader.uniform_float("lineWidth", 1.5 * scale)
            shader.uniform_float("color", (0.0, 0.0, 0.0, 1.0) if click.positive else (0.8, 0.0, 0.0, 1.0))
            batch_for_shader(shader, "LINES", {"pos": lines}).draw(shader)


def _disc(x: float, y: float, radius: float, color) -> None:
    _shape([(x + radius * c[0], y + radius * c[1]) for c in CIRCLE], color)


def _shape(points, color) -> None:
    """A convex shape."""
    shader = _shader("UNIFORM_COLOR")
    shader.bind()
    shader.uniform_float("color", color)
    batch_for_shader(shader, "TRIS", {"pos": points}, indices=[(0, i, i + 1) for i in range(1, len(points) - 1)]).draw(shader)


def _label(place: tuple[float, float], text: str, color, scale: float) -> None:
    """A text on a tag of the person's colour, above a place in the region."""
    blf.size(0, 12 * scale)
    width, height = blf.dimensions(0, text)
    pad = 5 * scale
    x, y = place[0] - width / 2, place[1] + 8 * scale
    _shape([(x - pad, y - pad), (x + width + pad, y - pad), (x + width + pad, y + height + pad), (x - pad, y + height + pad)], (*color, 0.9))
    dark = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 0.5
    blf.color(0, *((0.0, 0.0, 0.0, 1.0) if dark else (1.0, 1.0, 1.0, 1.0)))
    blf.position(0, x, y, 0)
    blf.draw(0, text)


def _shader(name: str):
    return gpu.shader.from_builtin(name)


def register() -> None:
    global _handle
    if not bpy.app.background:
        _handle = bpy.types.SpaceImageEditor.draw_handler_add(_draw, (), "WINDOW", "POST_PIXEL")


def unregister() -> None:
    global _handle
    if _handle is not None:
        bpy.types.SpaceImageEditor.draw_handler_remove(_handle, "WINDOW")
        _handle = None
    asker.answers.clear()  # their textures have to go before Blender's graphics do
