# SPDX-License-Identifier: GPL-3.0-or-later
"""What an import left in the file about its take, read back without the take: it may be gone. Costs little: for panels."""

import json
from pathlib import Path

import bpy
import numpy as np

from . import tags
from .doubts import Doubt
from .mesh import MODIFIER
from .timing import Timing

UNKNOWN = -1  # in place of a confidence, where the person is absent


def takes_in(scene) -> list[bpy.types.Collection]:
    """The collections of all takes in the scene, by name."""
    return sorted((c for c in scene.collection.children_recursive if c.get(tags.ROLE) == "take" and c.library is None), key=lambda c: c.name)


def take_of(context) -> bpy.types.Collection | None:
    """The take's collection that the active object, or else the active collection, belongs to; the scene's only take where none of them does."""
    block = context.object
    candidates = [*(block.users_collection if block else ()), context.collection]
    chosen = next((c for c in candidates if c is not None and c.get(tags.ROLE) == "take" and c.library is None), None)
    if chosen is None and len(there := takes_in(context.scene)) == 1:
        return there[0]
    return chosen


def folder_of(collection) -> Path:
    """Where the take was when it was imported."""
    return Path(bpy.path.abspath(collection[tags.TAKE]))


def bodies_of(collection) -> list[bpy.types.Object]:
    """The take's people, in the order of their numbers; copies that the user made of them are among them."""
    return sorted((o for o in collection.objects if o.get(tags.ROLE) == "person"), key=lambda o: (o[tags.PERSON], o.name))


def body_of(collection, person: int) -> bpy.types.Object | None:
    return next((body for body in bodies_of(collection) if body[tags.PERSON] == person), None)


def is_cached(collection) -> bool:
    """Whether its people play the take's files, in place of shape keys."""
    return any(modifier.name == MODIFIER for body in bodies_of(collection) for modifier in body.modifiers)


def timing_of(collection) -> Timing:
    items = tags.read_items(collection)
    return Timing(items.get("start", 1), items.get("rate", 1.0))


def clip_frame(collection, scene) -> int:
    """The clip frame that is shown at the scene's current frame; it may lie before or after the clip."""
    timing = timing_of(collection)
    return round((scene.frame_current_final - timing.start) / timing.rate)


def scene_frame(collection, clip_frame: int) -> int:
    return int(round(float(timing_of(collection).scene_frames(clip_frame))))


def frames_of(collection) -> range:
    """The clip frames of the take; empty after an import by an older Body4D."""
    return range(*tags.read_items(collection).get("frames", (0, 0, 1)))


def write(body, confidence: np.ndarray | None, state: np.ndarray, doubts: list[Doubt]) -> None:
    """Keep on the body what panels show of it: confidence (n,) 0..1 or None, state (n,)."""
    percent = [] if confidence is None else np.where(state == 0, UNKNOWN, np.round(100 * np.clip(confidence, 0, 1))).astype(int).tolist()
    body[tags.CONFIDENCE] = percent or ""  # an empty list has no kind
    body[tags.DOUBTS] = json.dumps(doubts)


def confidence_of(body) -> np.ndarray | None:
    """(n,) 0..1 by sample, NaN where the person is absent; None where there is none."""
    percent = body.get(tags.CONFIDENCE)
    if not percent:
        return None
    values = np.array(percent, np.float32) / 100
    return np.where(values < 0, np.nan, values)


def doubts_of(body) -> list[Doubt]:
    return [Doubt(*entry) for entry in json.loads(body.get(tags.DOUBTS) or "[]")]
