# SPDX-License-Identifier: GPL-3.0-or-later
"""Standing on the floor: one empty carries camera and people, so that gravity points down and the floor lies at height 0. Nothing else of them changes.

Pitch, roll and height say how the camera was held: pitch radians upwards, roll radians clockwise as one looks along, height metres above the floor.
"""

from math import asin, atan2

import bpy
import numpy as np

from . import tags
from .mesh import to_blender

ROLE = "floor"


def stand(scene, collection, pitch: float, roll: float, height: float) -> list[str]:
    """Put the take on the floor, or, where it stands there already, hold it otherwise. Returns the names of objects that keep a parent of the user."""
    ids, take_id = {collection[tags.TAKE_ID]}, collection[tags.TAKE_ID]
    empty = find(scene, collection, ids)
    if empty is None:
        empty = bpy.data.objects.new(f"{collection.name} floor", None)
        empty.empty_display_size = 0.5
        tags.tag(empty, take_id, ROLE)
        tags.rename(empty, empty.name)
        collection.objects.link(empty)
    empty.rotation_mode = "YXZ"  # about the view's axis first, so that the view's direction over the floor stays
    empty.rotation_euler = (pitch, roll, 0)
    empty.location = (0, 0, height)
    return _adopt(empty, [o for o in collection.objects if o.get(tags.ROLE) in ("person", "camera")])


def _adopt(empty, blocks) -> list[str]:
    strangers = []
    for block in blocks:
        if block.parent is None:
            block.parent = empty
            block.matrix_parent_inverse.identity()
        elif block.parent != empty:
            strangers.append(block.name)
    return strangers


def find(scene, collection, take_ids: set[str]) -> bpy.types.Object | None:
    """The empty that carries the take."""
    return tags.find_object(scene, collection, take_ids, ROLE)


def carry(scene, collection, take_ids: set[str], take_id: str, blocks) -> None:
    """After an import: whoever is new stands on the floor too."""
    empty = find(scene, collection, take_ids)
    if empty is not None:
        tags.tag(empty, take_id, ROLE)
        _adopt(empty, blocks)


def lift(scene, collection) -> bool:
    """Back to the camera's own space. What the user parented to the empty stays where it is. Returns whether it stood on the floor."""
    take_id = collection[tags.TAKE_ID]
    empty = find(scene, collection, {take_id})
    if empty is None:
        return False
    for child in list(empty.children):
        ours, world = child.get(tags.TAKE_ID) == take_id and child.get(tags.ROLE) in ("person", "camera"), child.matrix_world.copy()
        child.parent = None
        if not ours:
            child.matrix_world = world
    bpy.data.objects.remove(empty)
    return True


def held(up) -> tuple[float, float]:
    """(pitch, roll) of a camera in whose axes (x right, y down, z forward) `up` (3,) points against gravity."""
    x, y, z = to_blender(np.asarray(up, np.float64) / np.linalg.norm(up)).tolist()
    return asin(max(-1.0, min(1.0, y))), atan2(-x, z)


def through(first, second) -> tuple[float, float, float]:
    """Pitch, roll and height of the floor through two points (3,) in camera axes, metres: the one over which the camera is turned least.

    Raises ValueError where the points are too near to each other, or above one another.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    along = second - first
    length = float(np.linalg.norm(along))
    if length < 0.05:
        raise ValueError("The two points are less than 5 cm apart. Choose points further from each other.")
    along /= length
    up = np.array([0.0, -1.0, 0.0])
    up -= along * (along @ up)
    if np.linalg.norm(up) < 0.5:
        raise ValueError("One of the two points is above the other. Choose two points on the floor.")
    up /= np.linalg.norm(up)
    return (*held(up), float(-(first + second) @ up / 2))
