# SPDX-License-Identifier: GPL-3.0-or-later
"""The scene's own settings: touched in an empty scene, or where the user asks."""

from fractions import Fraction

import bpy

from .timing import Timing, fps_parts

WORLD = "Body4D world"
STARTING = {"MESH": (0.0, 0.0, 0.0), "LIGHT": (4.08, 1.01, 5.9), "CAMERA": (7.36, -6.93, 4.96)}  # where File > New > General has what


def scene_fps(scene) -> float:
    return scene.render.fps / scene.render.fps_base


def is_empty(scene) -> bool:
    """Whether it holds nothing, or only what a new file begins with."""
    editor = scene.sequence_editor
    strips = () if editor is None else getattr(editor, "strips", None) or getattr(editor, "sequences", ())
    return all(map(_is_of_new_file, scene.objects)) and not scene.timeline_markers and not len(strips)


def _is_of_new_file(block) -> bool:
    """Whether it is the cube, the light or the camera of File > New > General, as it came."""
    place = tuple(round(x, 2) for x in block.location)
    return (STARTING.get(block.type) == place and block.parent is None and block.animation_data is None and not block.constraints and not block.modifiers
            and tuple(block.scale) == (1, 1, 1) and (block.type != "MESH" or (len(block.data.vertices) == 8 and block.data.shape_keys is None)))


def hide_start_cube(scene) -> str:
    """In a scene with nothing else: it lies around the origin, where the clip's camera goes, and would hide what that sees. Returns its name, or ''."""
    cube = next((block for block in scene.objects if block.type == "MESH"), None)
    if cube is None or not all(map(_is_of_new_file, scene.objects)):
        return ""
    cube.hide_render = True
    for layer in scene.view_layers:
        if cube.name in layer.objects:
            cube.hide_set(True, view_layer=layer)
    return cube.name


def snapshot(scene) -> list:
    """What `match` sets, to be compared later."""
    render = scene.render
    return [render.resolution_x, render.resolution_y, render.resolution_percentage, render.pixel_aspect_x, render.pixel_aspect_y,
            render.fps, render.fps_base, scene.frame_start, scene.frame_end]


def match(scene, clip: dict, clip_frames: range, timing: Timing, camera: bpy.types.Object) -> None:
    """Give the scene the clip's size and frame rate, the range of the take and its camera."""
    render = scene.render
    render.resolution_x, render.resolution_y, render.resolution_percentage = clip["width"], clip["height"], 100
    render.pixel_aspect_x = render.pixel_aspect_y = 1.0
    render.fps, render.fps_base = fps_parts(Fraction(*clip["fps"]))
    scene.frame_start, scene.frame_end = (round(f) for f in timing.scene_frames([clip_frames[0], clip_frames[-1]]))
    scene.camera = camera
    if scene.world is None:
        scene.world = _grey_world()


def _grey_world() -> bpy.types.World:
    """Without one, renders of a new file are black."""
    world = bpy.data.worlds.get(WORLD)
    if world is None:
        world = bpy.data.worlds.new(WORLD)
        if world.node_tree is None:
            world.use_nodes = True  # always on from 5.0
        for node in world.node_tree.nodes:
            if node.type == "BACKGROUND":
                node.inputs["Color"].default_value = (0.8, 0.8, 0.8, 1.0)
    return world


def differences(scene, clip: dict) -> str | None:
    """In words, why an overlay would not match the clip in this scene."""
    render = scene.render
    size = render.resolution_x * render.pixel_aspect_x, render.resolution_y * render.pixel_aspect_y
    if abs(size[0] * clip["height"] - size[1] * clip["width"]) > max(size):
        return (f"The scene keeps its render size {render.resolution_x} x {render.resolution_y}; the clip is {clip['width']} x {clip['height']}, "
                "so the camera crops or widens it. Import with Match Scene for the clip's own frame.")
    return None
