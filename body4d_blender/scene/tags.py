# SPDX-License-Identifier: GPL-3.0-or-later
"""Custom properties that say what belongs to which take, so that importing it again finds, replaces and cleans up."""

import json
import os

import bpy

TAKE_ID = "body4d_take_id"  # on everything made from a take
TAKE = "body4d_take"  # its folder, relative to the .blend where that is saved
ROLE = "body4d_role"  # "take", "person", "camera", "floor", "material", "mesh", "action", "clip", "sound", "world"
PERSON = "body4d_person"
NAME = "body4d_name"  # the name given by the import: one that still has it follows the take, one that the user renamed does not
FOCAL = "body4d_focal"
FRAMES = "body4d_frames"  # frames per state of a person
CONFIDENCE = "body4d_confidence"  # of a person, by sample, in percent
DOUBTS = "body4d_doubts"  # where a person deserves a look (JSON)
CORRECTIONS = "body4d_corrections"  # what the user marked as wrong (JSON)
NOTICES = "body4d_notices"
BACKEND = "body4d_backend"  # what made the take
ITEMS = "body4d_items"  # what the import put into the scene that cannot carry properties itself (JSON)

PURGED = ("objects", "meshes", "cameras", "materials", "movieclips", "images", "sounds", "actions")


def tag(block, take_id: str, role: str, person: int | None = None) -> None:
    block[TAKE_ID] = take_id
    block[ROLE] = role
    if person is not None:
        block[PERSON] = person


def is_ours(block, take_ids: set[str], role: str, person: int | None = None) -> bool:
    """Whether it was made from the take in this file; what is linked from another file cannot be changed here."""
    return (block is not None and block.library is None and block.get(TAKE_ID) in take_ids and block.get(ROLE) == role
            and (person is None or block.get(PERSON) == person))


def rename(block, name: str) -> None:
    """Name what is new, or still has the name that an earlier import gave it."""
    if block.get(NAME) in (None, block.name):
        if block.name != name:
            block.name = name
        block[NAME] = block.name


def blend_path(path) -> str:
    """The path as it is kept in the file: relative to the .blend where that is saved and on the same drive."""
    path = os.path.abspath(path)
    if not bpy.data.filepath:
        return path
    try:
        return bpy.path.relpath(path)
    except ValueError:  # Windows: another drive
        return path


def same_path(stored: str, path) -> bool:
    there = os.path.normcase(os.path.realpath(bpy.path.abspath(stored)))
    return there == os.path.normcase(os.path.realpath(path))


def find_collection(scene, take_id: str, path) -> bpy.types.Collection | None:
    """The collection that an earlier import of the take made in this scene, or one that is in no scene any more."""
    linked = list(scene.collection.children_recursive)
    elsewhere = {c for other in bpy.data.scenes for c in other.collection.children_recursive}
    loose = [c for c in bpy.data.collections if c not in elsewhere]
    ours = [c for c in [*linked, *loose] if c.get(ROLE) == "take" and c.library is None]
    by_id = (c for c in ours if c.get(TAKE_ID) == take_id)
    return next(by_id, None) or next((c for c in ours if same_path(c.get(TAKE, ""), path)), None)


def find_object(scene, collection, take_ids: set[str], role: str, person: int | None = None) -> bpy.types.Object | None:
    """The object of an earlier import. A copy that the user made of it carries the same tags: the collection's first by name counts."""
    for objects in (collection.objects, scene.objects):
        found = [o for o in objects if is_ours(o, take_ids, role, person)]
        if found:
            return min(found, key=lambda o: o.name)
    return None


def purge(take_ids: set[str]) -> None:
    """Delete data of these takes that nothing uses."""
    again = True
    while again:  # removing an object frees its mesh, which frees its keys' action
        again = False
        for kind in PURGED:
            blocks = getattr(bpy.data, kind)
            for block in [b for b in blocks if b.users == 0 and b.library is None and b.get(TAKE_ID) in take_ids]:
                blocks.remove(block)
                again = True


def read_items(collection) -> dict:
    return json.loads(collection.get(ITEMS) or "{}")


def write_items(collection, items: dict) -> None:
    collection[ITEMS] = json.dumps(items)
