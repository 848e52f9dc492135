# SPDX-License-Identifier: GPL-3.0-or-later
"""Moving meshes: absolute shape keys, or the take's point cache played by Blender's own modifier.

Absolute keys, one per sample and one curve, because they are exact and cost the same however many there are. Relative keys cost 30 to
40 ms per frame at 1000 keys and need a curve each.
"""

import bpy
import numpy as np

from . import fcurves, tags
from .timing import Timing, knots

MODIFIER = "Body4D take"


def to_blender(points: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Points (..., 3) of camera axes (x right, y down, z forward) as float32 in Blender's (x right, y forward, z up). Exact."""
    if out is None:
        out = np.empty(np.shape(points), np.float32)
    out[..., 0] = points[..., 0]
    out[..., 1] = points[..., 2]
    np.negative(points[..., 1], out=out[..., 2])
    return out


def new_mesh(name: str, vertices: np.ndarray, faces: np.ndarray) -> bpy.types.Mesh:
    """A smooth mesh: vertices (V, 3) float32 in Blender's axes, faces (F, 3) counter-clockwise from outside."""
    mesh = bpy.data.meshes.new(name)
    faces = np.ascontiguousarray(faces, np.int32)
    mesh.vertices.add(len(vertices))
    mesh.vertices.foreach_set("co", vertices.ravel())
    mesh.loops.add(faces.size)
    mesh.loops.foreach_set("vertex_index", faces.ravel())
    mesh.polygons.add(len(faces))
    mesh.polygons.foreach_set("loop_start", np.arange(0, faces.size, 3, dtype=np.int32))
    mesh.update(calc_edges=True)
    mesh.shade_smooth()
    return mesh


def still_mesh(name: str, take_id: str, vertices: np.ndarray, faces: np.ndarray) -> bpy.types.Mesh:
    """A mesh of one sample: vertices (V, 3) person space."""
    mesh = new_mesh(name, to_blender(vertices), faces)
    tags.tag(mesh, take_id, "mesh")
    return mesh


def keyed_mesh(name: str, take_id: str, vertices: np.ndarray, faces: np.ndarray, clip_frames: range, timing: Timing) -> bpy.types.Mesh:
    """A mesh with one absolute shape key per sample and the curve that plays them.

    vertices (n, V, 3) person space at clip_frames (n), faces (F, 3); the mesh itself shows the first (in Edit Mode, say).
    No object holds the mesh yet: keys added to an object that a scene shows cost up to 50 ms each.
    """
    mesh = still_mesh(name, take_id, vertices[0], faces)
    carrier = bpy.data.objects.new(name, mesh)
    try:
        carrier.shape_key_add(name="Basis", from_mix=False)  # at eval_time 0
        keys = mesh.shape_keys
        keys.name = name
        keys.use_relative = False
        shape = np.empty(vertices.shape[1:], np.float32)
        flat = shape.ravel()
        for i, frame in enumerate(clip_frames):
            keys.eval_time = i + 1  # the new key lands exactly here; ShapeKey.frame itself is read-only, and automatic spacing drifts
            key = carrier.shape_key_add(name=f"f{frame:06d}", from_mix=False)
            key.interpolation = "KEY_LINEAR"
            to_blender(vertices[i], out=shape)
            key.points.foreach_set("co", flat)  # `data` takes time quadratic in the number of keys
    finally:
        bpy.data.objects.remove(carrier)
    _count_samples(keys, take_id, "eval_time", 1, clip_frames, timing)
    return mesh


def play_cache(body: bpy.types.Object, take_id: str, cache, clip_frames: range, timing: Timing) -> None:
    """Make the object play a point cache file of person-space samples, one per clip frame of the range; before and after it shows the first and last."""
    modifier = body.modifiers.get(MODIFIER)
    if modifier is None or modifier.type != "MESH_CACHE":
        modifier = body.modifiers.new(MODIFIER, "MESH_CACHE")
        body.modifiers.move(len(body.modifiers) - 1, 0)
    modifier.cache_format = "PC2"
    modifier.filepath = tags.blend_path(cache)
    modifier.interpolation = "LINEAR"
    modifier.deform_mode = "OVERWRITE"
    modifier.forward_axis, modifier.up_axis = "NEG_Z", "POS_Y"  # (x, y, z) of the file becomes (x, z, -y)
    modifier.time_mode, modifier.play_mode = "FRAME", "CUSTOM"  # a curve: `frame_scale` rounds, so that no third frame would be exact
    _count_samples(body, take_id, f'modifiers["{MODIFIER}"].eval_frame', 0, clip_frames, timing)


def _count_samples(block, take_id: str, path: str, first: int, clip_frames: range, timing: Timing) -> None:
    """Animate a property so that it is first + i at the scene frame of sample i, exactly."""
    at = knots(len(clip_frames), clip_frames.step)
    fcurves.write_curve(block, take_id, path, 0, timing.scene_frames(clip_frames.start + at * clip_frames.step), first + at)


def stop_cache(body: bpy.types.Object, take_id: str) -> None:
    modifier = body.modifiers.get(MODIFIER)
    if modifier is not None:
        fcurves.remove_curves(body, take_id, {f'modifiers["{MODIFIER}"].eval_frame'})
        body.modifiers.remove(modifier)
