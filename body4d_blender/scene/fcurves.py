# SPDX-License-Identifier: GPL-3.0-or-later
"""Animation curves written as arrays, on every action API from 4.2 to 5.2."""

import bpy
import numpy as np

from . import tags

_MODES = bpy.types.Keyframe.bl_rna.properties["interpolation"].enum_items
INTERPOLATION = {name: _MODES[name].value for name in ("LINEAR", "CONSTANT")}


def curves_of(block, take_id: str):
    """The collection of curves that animates `block`; its action (and slot, 4.4 on) is made where missing."""
    data = block.animation_data_create()
    if data.action is None:
        data.action = bpy.data.actions.new(block.name)
        tags.tag(data.action, take_id, "action")
    action = data.action
    if not hasattr(action, "slots"):
        return action.fcurves
    slot = data.action_slot
    if slot is None:
        slot = action.slots.new(id_type=block.id_type, name=block.name)
        data.action_slot = slot  # assigning the action does not always pick it
    layer = action.layers[0] if action.layers else action.layers.new("Layer")
    strip = layer.strips[0] if layer.strips else layer.strips.new(type="KEYFRAME")
    return strip.channelbag(slot, ensure=True).fcurves


def write_curve(block, take_id: str, path: str, index: int, times, values, interpolation: str = "LINEAR") -> None:
    """Put one curve on `block` in place of the one it has: times (n,) scene frames, values (n,). It holds its ends."""
    curves = curves_of(block, take_id)
    old = curves.find(path, index=index)
    if old is not None:
        curves.remove(old)
    curve = curves.new(path, index=index)
    points = np.empty((len(times), 2), np.float32)
    points[:, 0], points[:, 1] = times, values
    curve.keyframe_points.add(len(points))
    curve.keyframe_points.foreach_set("co", points.ravel())
    curve.keyframe_points.foreach_set("interpolation", np.full(len(points), INTERPOLATION[interpolation], np.int32))
    curve.extrapolation = "CONSTANT"
    curve.update()


def remove_curves(block, take_id: str, paths: set[str]) -> bool:
    """Take curves of these paths off `block`; what else animates it stays. Returns whether there were any."""
    if block.animation_data is None or block.animation_data.action is None:
        return False
    curves = curves_of(block, take_id)
    found = [c for c in curves if c.data_path in paths]
    for curve in found:
        curves.remove(curve)
    return bool(found)
