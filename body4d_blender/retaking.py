# SPDX-License-Identifier: GPL-3.0-or-later
"""A take is made again with other settings, heights or corrections: only what depends on them is computed, and nobody is tracked again."""

from fractions import Fraction
from pathlib import Path

import bpy

from body4d_engine.take import Take, TakeError

from . import generating
from .engine import EngineError
from .generating import Order
from .scene import imported
from .scene.clip import source_path
from .state import device_settings


def order_of(scene, collection, change) -> Order:
    """What makes the take of this collection anew, and its bodies in the scene. change(people, settings) changes the take's own: people as
    `Person.to_json`, settings as of a `run`. Raises Body4DError."""
    folder = imported.folder_of(collection)
    with Take.open(folder) as take:
        if take.backend == "import":
            raise EngineError(f"{collection.name} was imported as meshes: there is no footage analysed that could be solved again.",
                              "Generate a take of the clip instead.", "take_imported")
        clip = source_path(take.path, take.clip)
        if clip is None:
            raise EngineError(f"The clip {take.clip['path']} is missing.", "Show where it is now with Find Clip.", "no_such_file")
        people, settings = [dict(entry) for entry in take.people], dict(take.settings)
        if take.backend == "full":
            settings.update(device_settings(scene.body4d))  # of this machine, not of that on which the take was made
        change(people, settings)
        frames = take.frames
        return Order(clip=clip, take=folder, people=people, frames=(frames.start, frames.stop, frames.step), settings=settings, scene=scene.session_uid,
                     options={"mesh_cache": imported.is_cached(collection)}, backend=take.backend, image_fps=float(Fraction(*take.clip["fps"])))


def kept(folder: Path, people: list[dict]) -> tuple[list[dict], dict]:
    """(people, settings) of a run that goes on with the take at the folder: the people as asked for, with what was corrected in that take, and its
    settings. People found without clicks stay those of the take."""
    try:
        with Take.open(folder) as take:
            known, settings = take.people, dict(take.settings)
    except TakeError:  # there is none, or the run itself will say what is wrong with it
        return people, {}
    if not people and not any(any(entry.get("prompts", {}).values()) for entry in known):
        return [dict(entry) for entry in known], settings
    corrections = {entry["id"]: entry["corrections"] for entry in known if entry.get("corrections")}
    return [{**entry, **({"corrections": corrections[entry["id"]]} if entry["id"] in corrections else {})} for entry in people], settings


def run(order: Order) -> str:
    """Begin; without a window also wait. Returns what the result's first notice says. Raises Body4DError, OSError or RuntimeError."""
    if not bpy.app.background:
        generating.start(order)
        return ""
    generating.make(order, say=lambda text: print(text, flush=True))
    return generating.last_notice
