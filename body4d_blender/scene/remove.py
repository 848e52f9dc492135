# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking a take out of a scene again: everything that its import made, nothing of the user's."""

import bpy

from . import floor, imported, markers, tags
from .clip import strips_of


def remove_take(scene, collection) -> None:
    """Remove the people, the camera, the footage, the markers and the sound of a take. What the user made or copied moves up to the scene's collection."""
    take_id, items = collection[tags.TAKE_ID], tags.read_items(collection)
    floor.lift(scene, collection)
    people = {body[tags.PERSON] for body in imported.bodies_of(collection)}
    made = [tags.find_object(scene, collection, {take_id}, "person", number) for number in people]
    for block in [*made, tags.find_object(scene, collection, {take_id}, "camera")]:
        if block is not None:
            bpy.data.objects.remove(block)
    for kind in ("objects", "children"):
        for block in getattr(collection, kind):
            if block.name not in getattr(scene.collection, kind):
                getattr(scene.collection, kind).link(block)
    markers.remove_markers(scene, items.get("markers", []))
    if items.get("sound"):
        strips = strips_of(scene)
        for strip in [s for s in strips if s.name == items["sound"] and s.type == "SOUND"]:
            strips.remove(strip)
    bpy.data.collections.remove(collection)
    tags.purge({take_id})
