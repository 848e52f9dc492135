# SPDX-License-Identifier: GPL-3.0-or-later
"""Bodies that follow the newest frame while a take grows: one unkeyed mesh per person, replaced by the result.

Found by their tags each time, never kept: an undo may take them away, and so may the user.
"""

import bpy

from . import floor, tags
from .material import linear
from .mesh import new_mesh, to_blender

ROLE = "preview"


def update(scene, newest, folder) -> int:
    """Show people of the take at the folder at their newest sample, as `build_take` will; returns how many. newest: `receiving.Newest` each. A body
    that is not there yet takes some 10 ms to make, so one call makes at most one."""
    shown = made = 0
    for person in newest:
        body = _find(scene, person.id, len(person.vertices))
        if body is None:
            if made:
                continue
            body, made = _make(scene, person), 1
            body.parent = _floor(scene, folder)
        else:
            body.data.vertices.foreach_set("co", to_blender(person.vertices).ravel())
            body.data.update()
        body.location = to_blender(person.root)
        shown += 1
    return shown


def bodies(scene) -> list[bpy.types.Object]:
    """The previews in the scene."""
    return [o for o in scene.objects if o.get(tags.ROLE) == ROLE]


def remove() -> None:
    """Take all previews out of the file."""
    for kind in ("objects", "meshes", "materials"):
        blocks = getattr(bpy.data, kind)
        for block in [b for b in blocks if b.library is None and b.get(tags.ROLE) == ROLE]:
            blocks.remove(block)


def _find(scene, person: int, vertices: int) -> bpy.types.Object | None:
    found = (o for o in bodies(scene) if o.get(tags.PERSON) == person and o.type == "MESH" and o.mode == "OBJECT")
    return next((o for o in found if len(o.data.vertices) == vertices), None)


def _floor(scene, folder) -> bpy.types.Object | None:
    """What the take stands on, where it is in the scene already."""
    collection = tags.find_collection(scene, "", folder)
    return floor.find(scene, collection, {collection[tags.TAKE_ID]}) if collection else None


def _make(scene, person) -> bpy.types.Object:
    name = f"{person.name} (preview)"
    mesh = new_mesh(name, to_blender(person.vertices), person.faces)
    material = bpy.data.materials.new(name)
    material.diffuse_color = linear(person.color)
    mesh.materials.append(material)
    body = bpy.data.objects.new(name, mesh)
    body.color = linear(person.color)
    body.hide_select = True  # it will be gone before anything could be done with it
    for block in (body, mesh, material):
        block[tags.ROLE] = ROLE
    body[tags.PERSON] = person.id
    scene.collection.objects.link(body)
    return body
