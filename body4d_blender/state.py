# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user chooses before generating, kept on the Scene: the clip, its people and their clicks, and how the result is made.

All of it is saved in the .blend and taken back by undo. What the engine answers (masks, people found) never is.
No property has a callback: Blender redraws by itself when one is edited, and 4.2 as a Python module crashes while it exits where one exists.
Clip frames count from 0 in code. Scene frame 1 shows clip frame 0 while picking; the panel shows and takes scene frames.
"""

from pathlib import Path

import bpy
from body4d_engine.people import PALETTE

from .engine import result_name
from .heights import HEIGHT, USE_HEIGHT, height_m
from .opening import IMAGE_FPS

BACKENDS = [("lite", "Lite", "Small networks on the processor. They come with the engine"),
            ("full", "Full", "The large published networks (SAM 3, MoGe-2, SAM 3D Body), for a GPU. Installed separately")]
MODELS = [("ours", "Ours", "Body4D's own code for the published networks"),
          ("official", "Official", "Their authors' own packages, which you have installed in the engine's environment")]


class Body4DClick(bpy.types.PropertyGroup):
    """A click on a clip frame, in px of the upright clip, from the top left corner."""

    frame: bpy.props.IntProperty(name="Frame", description="Clip frame, counted from 0", min=0)
    x: bpy.props.FloatProperty(name="X", description="Pixels from the left of the upright clip")
    y: bpy.props.FloatProperty(name="Y", description="Pixels from the top of the upright clip")
    positive: bpy.props.BoolProperty(name="On the Person", description="On the person, or on what does not belong to the person", default=True)


class Body4DPerson(bpy.types.PropertyGroup):
    """One person of the clip. The id stays, whatever happens to the list."""

    id: bpy.props.IntProperty(name="ID", description="Number of this person in the take; never given twice", min=1)
    name: bpy.props.StringProperty(name="Name", description="What the person's mesh will be called")
    color: bpy.props.FloatVectorProperty(name="Color", description="Color of the person's mask and mesh", subtype="COLOR_GAMMA", size=3, min=0.0, max=1.0)
    visible: bpy.props.BoolProperty(name="Show Mask", description="Show the person's mask and clicks over the clip", default=True)
    use_height: USE_HEIGHT
    height: HEIGHT
    clicks: bpy.props.CollectionProperty(type=Body4DClick)


class Body4DState(bpy.types.PropertyGroup):
    """`Scene.body4d`."""

    clip: bpy.props.StringProperty(name="Clip", description="Video, or folder of images", subtype="FILE_PATH")
    clip_width: bpy.props.IntProperty(name="Width", description="Width of the upright clip in pixels, 0 until the engine has opened it", min=0)
    clip_height: bpy.props.IntProperty(name="Height", description="Height of the upright clip in pixels", min=0)
    clip_frames: bpy.props.IntProperty(name="Frames", description="Number of frames of the clip", min=0)
    clip_fps: bpy.props.FloatProperty(name="Frame Rate", description="Frames per second of the clip", min=0.0, precision=3)
    clip_is_images: bpy.props.BoolProperty(name="Images", description="Whether the clip is a folder of images, which has no frame rate of its own")
    image_fps: bpy.props.FloatProperty(name="Frame Rate", description="Frames per second of the images. A video has its own", default=IMAGE_FPS, min=0.1,
                                       max=1000.0, soft_max=240.0, precision=3)

    use_range: bpy.props.BoolProperty(name="Frame Range", description="Use only a part of the clip")
    frame_start: bpy.props.IntProperty(name="Start", description="First frame that is used; the clip begins with frame 1", default=1, min=1)
    frame_end: bpy.props.IntProperty(name="End", description="Last frame that is used", default=250, min=1)
    step: bpy.props.IntProperty(name="Step", description="Use every n-th frame", default=1, min=1, soft_max=10)

    people: bpy.props.CollectionProperty(type=Body4DPerson)
    active_person: bpy.props.IntProperty(name="Active Person", description="The person that clicks are added to")
    next_id: bpy.props.IntProperty(name="Next ID", default=1, min=1)

    take: bpy.props.StringProperty(name="Take", description="Folder of the result. Empty: beside the clip", subtype="DIR_PATH")
    output: bpy.props.EnumProperty(
        name="Meshes", default="AUTO", description="How the moving meshes are kept",
        items=[("AUTO", "Automatic", "Shape keys up to 1 GB, a mesh cache above"),
               ("KEYS", "Shape Keys", "Everything is in the .blend file"),
               ("CACHE", "Mesh Cache", "A small .blend file that plays the take's own files: the take must stay where it is")])
    match_scene: bpy.props.EnumProperty(
        name="Match Scene", default="AUTO", description="Give the scene the clip's render size, frame rate, range, sound and camera",
        items=[("AUTO", "If Empty", "Only in a scene that holds nothing, or what a new file begins with"),
               ("YES", "Yes", "Change the scene's settings to those of the clip"),
               ("NO", "No", "Keep the scene's settings; another frame rate retimes the animation")])

    backend: bpy.props.EnumProperty(name="Backend", description="What recovers the bodies", items=BACKENDS)
    hands: bpy.props.BoolProperty(name="Hands", default=True, description="Give each hand a look of its own, for fingers and wrists. Without, it is quicker")
    memory_limit: bpy.props.FloatProperty(
        name="Memory Limit", default=0.0, min=0.0, soft_max=96.0, step=100, precision=1,
        description="How much memory of its GPU (or computer) the backend may take, in GB; 0: what is free. The result is the same")
    models: bpy.props.EnumProperty(name="Networks", description="Whose code runs the networks", items=MODELS)


def clip_path(state) -> Path | None:
    """The clip's file or folder, absolute; None where none is chosen. It may be gone."""
    return Path(bpy.path.abspath(state.clip)) if state.clip else None


def take_path(state) -> Path:
    """The take's folder, absolute: the one that was set, else NAME.take beside the clip. Needs a clip."""
    if state.take:
        return Path(bpy.path.abspath(state.take))
    clip = clip_path(state)
    return clip.with_name(f"{result_name(clip)}.take")


def used_frames(state) -> range:
    """The clip frames that are generated, counted from 0. Empty while no clip is open, or where the range holds nothing."""
    if not state.use_range:
        return range(0, state.clip_frames, state.step)
    return range(state.frame_start - 1, min(state.frame_end, state.clip_frames), state.step)


def clip_frame(scene) -> int:
    """The clip frame that the scene's current frame shows, at most the clip's last."""
    return max(0, min(scene.frame_current - 1, scene.body4d.clip_frames - 1))


def set_clip(state, path: str, width: int, height: int, frames: int, fps: float, images: bool = False) -> None:
    """The clip as the engine has opened it; "" for none. Another clip than before starts with its whole length and nobody picked."""
    if state.clip != path:
        state.people.clear()
        state.active_person, state.next_id, state.take, state.use_range, state.step = 0, 1, "", False, 1
    state.clip, state.clip_width, state.clip_height, state.clip_frames, state.clip_fps, state.clip_is_images = path, width, height, frames, fps, images
    if not state.use_range:
        state.frame_start, state.frame_end = 1, max(1, frames)


def find_person(state, number: int) -> Body4DPerson | None:
    """The person with this id."""
    return next((person for person in state.people if person.id == number), None)


def active_person(state) -> Body4DPerson | None:
    """The person that the list shows as active."""
    return state.people[state.active_person] if 0 <= state.active_person < len(state.people) else None


def add_person(state, name: str = "") -> Body4DPerson:
    """A new person with the next id and its colour, active, with no clicks."""
    person = state.people.add()
    person.id = state.next_id
    state.next_id += 1
    person.name = name or f"Person {person.id}"
    person.color = PALETTE[(person.id - 1) % len(PALETTE)]
    state.active_person = len(state.people) - 1
    return person


def person_json(person) -> dict:
    """One person as `body4d_engine.people.Person.from_json` reads it."""
    clicks = [[click.frame, click.x, click.y, click.positive] for click in person.clicks]
    return {"id": person.id, "name": person.name, "color": [round(c, 4) for c in person.color], "prompts": {"clicks": clicks, "boxes": []},
            "height_m": height_m(person)}


def people_json(state) -> list[dict]:
    """The `people` of a `run`: everyone in the list who has a click. Empty means: find everyone."""
    return [person_json(person) for person in state.people if any(click.positive for click in person.clicks)]


def backend_title(name: str) -> str:
    """A backend for the user: full -> Full."""
    return next((title for known, title, _ in BACKENDS if known == name), name)


def backend_settings(state, backend: str) -> dict:
    """What the sidebar says to this backend, as `settings` of a `run`."""
    if backend != "full":
        return {}
    return {"hands": state.hands, "models": state.models, **device_settings(state)}


def device_settings(state) -> dict:
    """What suits the machine, and changes no result."""
    return {"memory_limit": round(state.memory_limit * 1e9) or None}


CLASSES = (Body4DClick, Body4DPerson, Body4DState)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.Scene.body4d = bpy.props.PointerProperty(type=Body4DState)


def unregister() -> None:
    del bpy.types.Scene.body4d
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
