# SPDX-License-Identifier: GPL-3.0-or-later
"""From the clip to moving people: Generate, which also continues, and Cancel."""

import json
from pathlib import Path

import bpy

from body4d_engine.errors import Body4DError
from body4d_engine.people import load_people

from .. import connection, generating, retaking, takes
from ..engine import result_name
from ..state import BACKENDS, backend_settings, clip_path, people_json, take_path
from .import_take import MATCH

MESH_CACHE = {"AUTO": None, "KEYS": False, "CACHE": True}
AS_SCENE = ("SCENE", "As Chosen", "As it is set in the sidebar")


class BODY4D_OT_generate(bpy.types.Operator):
    """Recover everyone who was picked, or everyone there is, and bring them to life in this scene. Goes on where an earlier run stopped"""

    bl_idname = "body4d.generate"
    bl_label = "Generate"
    bl_options = {"REGISTER"}

    filepath: bpy.props.StringProperty(
        name="Clip", subtype="FILE_PATH", options={"SKIP_SAVE"},
        description="Video or folder of images to use in place of the one chosen in the sidebar, with none of its people and its range")
    take: bpy.props.StringProperty(
        name="Take", subtype="DIR_PATH", options={"SKIP_SAVE"}, description="Folder of the result. Empty: as chosen, else beside the clip")
    people: bpy.props.StringProperty(
        name="People", options={"SKIP_SAVE"}, description="JSON text, or the path of a JSON file, of people with their clicks. Empty: as picked, else everyone")
    frame_start: bpy.props.IntProperty(name="Start", options={"SKIP_SAVE"}, description="First frame, counted from 1. 0: as chosen", min=0)
    frame_end: bpy.props.IntProperty(name="End", options={"SKIP_SAVE"}, description="Last frame. 0: as chosen", min=0)
    step: bpy.props.IntProperty(name="Step", options={"SKIP_SAVE"}, description="Every n-th frame. 0: as chosen", min=0)
    output: bpy.props.EnumProperty(
        name="Meshes", default="SCENE", options={"SKIP_SAVE"}, description="How the moving meshes are kept",
        items=[AS_SCENE, ("AUTO", "Automatic", "Shape keys up to 1 GB, a mesh cache above"), ("KEYS", "Shape Keys", "Everything in the .blend file"),
               ("CACHE", "Mesh Cache", "Played from the take, which must stay where it is")])
    match_scene: bpy.props.EnumProperty(
        name="Match Scene", default="SCENE", options={"SKIP_SAVE"}, description="Give the scene the clip's render size, frame rate, range, sound and camera",
        items=[AS_SCENE, ("AUTO", "If Empty", "Only in a scene that holds nothing, or what a new file begins with"),
               ("YES", "Yes", "Change the scene's settings to those of the clip"), ("NO", "No", "Keep the scene's settings")])
    backend: bpy.props.EnumProperty(
        name="Backend", default="SCENE", options={"SKIP_SAVE"}, description="What recovers the bodies", items=[AS_SCENE, *BACKENDS])
    image_fps: bpy.props.FloatProperty(
        name="Frame Rate", min=0.0, max=1000.0, options={"SKIP_SAVE"}, description="Of a folder of images, frames per second. 0: as chosen in the sidebar")
    fresh: bpy.props.BoolProperty(
        name="Start Over", options={"SKIP_SAVE"}, description="Delete the take that is there and make it anew")
    engine: bpy.props.StringProperty(name="Engine", options={"SKIP_SAVE"}, description="Path or command to use in place of the engine of the preferences")

    @classmethod
    def description(cls, context, properties):
        return "Delete the take that is there and make it anew" if properties.fresh else cls.__doc__

    @classmethod
    def poll(cls, context):
        return generating.is_idle(cls)

    def invoke(self, context, event):
        return context.window_manager.invoke_confirm(self, event) if self.fresh else self.execute(context)

    def execute(self, context):
        try:
            connection.use(self.engine)
            order = self._order(context.scene)
            if bpy.app.background:
                generating.make(order, say=lambda text: print(text, flush=True))
                if generating.last_notice:
                    self.report({"WARNING"}, generating.last_notice)
            else:
                generating.start(order)
        except (Body4DError, OSError, RuntimeError, ValueError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}

    def _order(self, scene) -> generating.Order:
        """What the properties say, and where they say nothing the scene. Raises Body4DError, ValueError."""
        state = scene.body4d
        clip = Path(bpy.path.abspath(self.filepath)) if self.filepath else clip_path(state)
        if clip is None:
            raise ValueError("No clip is chosen. Choose a video first.")
        own = bool(self.filepath)  # then what is chosen in the sidebar is about another clip
        beside = clip.with_name(f"{result_name(clip)}.take")
        take = Path(bpy.path.abspath(self.take)) if self.take else beside if own else take_path(state)
        ranged = not own and state.use_range
        start = self.frame_start or (state.frame_start if ranged else 1)
        end = self.frame_end or (state.frame_end if ranged else None)
        if not own and state.clip_frames:
            end = end and min(end, state.clip_frames)
            if start > state.clip_frames:
                raise ValueError(f"The range begins with frame {start}, but the clip has {state.clip_frames} frames. Choose an earlier start.")
        if end is not None and end < start:
            raise ValueError(f"The range from frame {start} to {end} is empty. Choose a later end.")
        people, settings = _people(self.people) if self.people else [] if own else people_json(state), {}
        if not self.people:
            _check_clicks(people, start, end)
        if not self.fresh:
            people, settings = retaking.kept(take, people)
        backend = state.backend if self.backend == "SCENE" else self.backend
        settings |= backend_settings(state, backend)
        options = {"mesh_cache": MESH_CACHE[state.output if self.output == "SCENE" else self.output],
                   "match_scene": MATCH[state.match_scene if self.match_scene == "SCENE" else self.match_scene]}
        return generating.Order(clip=clip, take=take, people=people, frames=(start - 1, end, self.step or (1 if own else state.step)), settings=settings,
                                scene=scene.session_uid, options=options, fresh=self.fresh, image_fps=self.image_fps or state.image_fps,
                                backend=backend)


def _check_clicks(people: list[dict], start: int, end: int | None) -> None:
    """Raises ValueError where a click is outside the range; in frames counted from 1, as the panel counts."""
    for person in people:
        for frame in (click[0] + 1 for click in person["prompts"]["clicks"]):
            if frame < start or (end is not None and frame > end):
                upto = f"{start} to {end}" if end is not None else f"from {start} on"
                raise ValueError(f"{person['name']} was clicked on frame {frame}, but the range is frames {upto}. Remove that click, or choose a range that "
                                 "holds it.")


def _people(text: str) -> list[dict]:
    """People from JSON text or a file. Raises Body4DError, ValueError."""
    if text.lstrip().startswith("["):
        return json.loads(text)
    return [person.to_json() for person in load_people(bpy.path.abspath(text))]


class BODY4D_OT_cancel(bpy.types.Operator):
    """Stop. What is done is kept, and Continue goes on from there"""

    bl_idname = "body4d.cancel"
    bl_label = "Cancel"

    @classmethod
    def poll(cls, context):
        if generating.current is None:
            cls.poll_message_set("Nothing is being generated")
            return False
        return True

    def execute(self, context):
        generating.current.cancel()
        return {"FINISHED"}


class BODY4D_OT_keep_take(bpy.types.Operator):
    """Leave the take that is there as it is, and use a folder of its own for the chosen backend"""

    bl_idname = "body4d.keep_take"
    bl_label = "Keep Both"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context):
        return clip_path(context.scene.body4d) is not None

    def execute(self, context):
        state = context.scene.body4d
        state.take = ""
        usual = take_path(state)
        if takes.look(usual).backend not in ("", state.backend):
            state.take = str(usual.with_name(f"{usual.stem}_{state.backend}.take"))
        return {"FINISHED"}


CLASSES = (BODY4D_OT_generate, BODY4D_OT_cancel, BODY4D_OT_keep_take)
register, unregister = bpy.utils.register_classes_factory(CLASSES)
