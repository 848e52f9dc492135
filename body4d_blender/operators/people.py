# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of people and their clicks, each change one undo step."""

import bpy

from ..asking import Answer, asker, detect_key, mask_key, redraw, unpicked_on
from ..engine import stopped
from ..state import active_person, add_person, clip_frame, find_person
from ..undo import push_undo
from .clip import NeedsClip, find_scene, run_now

PERSON = "Number of the person; 0: the active one"


class _Changes(NeedsClip):
    """An operator that changes the list."""

    bl_options = {"REGISTER", "UNDO"}

    def chosen(self, context):
        """The person that `person` means; reports where there is none."""
        state = context.scene.body4d
        person = find_person(state, self.person) if self.person else active_person(state)
        if person is None:
            self.report({"ERROR"}, f"There is no person {self.person} in the list." if self.person else "No person is active. Choose one in the list.")
        return person


class BODY4D_OT_add_person(_Changes, bpy.types.Operator):
    """Add a person with no clicks; the next click is theirs"""

    bl_idname = "body4d.add_person"
    bl_label = "Add Person"

    called: bpy.props.StringProperty(name="Name", description="Empty: Person and the number", options={"SKIP_SAVE"})

    def execute(self, context):
        add_person(context.scene.body4d, self.called)
        return {"FINISHED"}


class BODY4D_OT_remove_person(_Changes, bpy.types.Operator):
    """Remove a person and their clicks from the list. The others keep their numbers"""

    bl_idname = "body4d.remove_person"
    bl_label = "Remove Person"

    person: bpy.props.IntProperty(name="Person", description=PERSON, min=0, options={"SKIP_SAVE"})

    def execute(self, context):
        state, person = context.scene.body4d, self.chosen(context)
        if person is None:
            return {"CANCELLED"}
        active, index = active_person(state), list(state.people).index(person)
        kept = 0 if active is None or active == person else active.id
        state.people.remove(index)
        numbers = [person.id for person in state.people]
        state.active_person = numbers.index(kept) if kept else min(index, len(numbers) - 1)
        return {"FINISHED"}


class BODY4D_OT_move_person(_Changes, bpy.types.Operator):
    """Move a person in the list. The numbers stay"""

    bl_idname = "body4d.move_person"
    bl_label = "Move Person"

    person: bpy.props.IntProperty(name="Person", description=PERSON, min=0, options={"SKIP_SAVE"})
    direction: bpy.props.EnumProperty(name="Direction", items=[("UP", "Up", "Towards the top"), ("DOWN", "Down", "Towards the bottom")])

    def execute(self, context):
        state, person = context.scene.body4d, self.chosen(context)
        if person is None:
            return {"CANCELLED"}
        index = list(state.people).index(person)
        there = index + (-1 if self.direction == "UP" else 1)
        if not 0 <= there < len(state.people):
            return {"CANCELLED"}
        state.people.move(index, there)
        if state.active_person in (index, there):
            state.active_person = index + there - state.active_person
        return {"FINISHED"}


class BODY4D_OT_add_click(_Changes, bpy.types.Operator):
    """Add a click to a person; one without a number begins a new person where none is active"""

    bl_idname = "body4d.add_click"
    bl_label = "Add Click"
    bl_options = {"UNDO"}  # a step of the tool: nothing to adjust afterwards

    person: bpy.props.IntProperty(name="Person", description="Number of the person; 0: the active one, or a new one", min=0, options={"SKIP_SAVE"})
    frame: bpy.props.IntProperty(name="Frame", description="Clip frame, counted from 0; -1: the one that the scene shows", default=-1, min=-1,
                                 options={"SKIP_SAVE"})
    x: bpy.props.FloatProperty(name="X", description="Pixels from the left of the upright clip")
    y: bpy.props.FloatProperty(name="Y", description="Pixels from the top of the upright clip")
    positive: bpy.props.BoolProperty(name="On the Person", description="On the person, or on what does not belong to the person", default=True,
                                     options={"SKIP_SAVE"})

    def execute(self, context):
        state = context.scene.body4d
        frame = clip_frame(context.scene) if self.frame < 0 else self.frame
        if not (0 <= self.x < state.clip_width and 0 <= self.y < state.clip_height and frame < state.clip_frames):
            self.report({"ERROR"}, f"({self.x:g}, {self.y:g}) on frame {frame} is outside the clip: it has {state.clip_width} x {state.clip_height} pixels "
                                   f"and {state.clip_frames} frames, numbered from 0.")
            return {"CANCELLED"}
        if self.person:
            person = self.chosen(context)
            if person is None:
                return {"CANCELLED"}
        else:
            person = active_person(state)
        if person is None and not self.positive:
            self.report({"ERROR"}, "Click a person first: what is excluded is excluded from one.")
            return {"CANCELLED"}
        click = (person or add_person(state)).clicks.add()
        click.frame, click.x, click.y, click.positive = frame, self.x, self.y, self.positive
        return {"FINISHED"}


class BODY4D_OT_remove_click(_Changes, bpy.types.Operator):
    """Remove a person's last click"""

    bl_idname = "body4d.remove_click"
    bl_label = "Remove Click"
    bl_options = {"UNDO"}

    person: bpy.props.IntProperty(name="Person", description="Number of the person; 0: the active one, or else the last", min=0, options={"SKIP_SAVE"})
    click: bpy.props.IntProperty(name="Click", description="Which of the person's clicks, counted from 0; -1: the last", default=-1, min=-1,
                                 options={"SKIP_SAVE"})

    def execute(self, context):
        state = context.scene.body4d
        if not self.person and active_person(state) is None and state.people:
            state.active_person = len(state.people) - 1
        person = self.chosen(context)
        if person is None:
            return {"CANCELLED"}
        index = self.click if self.click >= 0 else len(person.clicks) - 1
        if not 0 <= index < len(person.clicks):
            self.report({"INFO"}, f"{person.name} has no such click.")
            return {"CANCELLED"}
        person.clicks.remove(index)
        return {"FINISHED"}


class BODY4D_OT_finish_person(_Changes, bpy.types.Operator):
    """The active person is done: the next click begins a new one"""

    bl_idname = "body4d.finish_person"
    bl_label = "Finish Person"
    bl_options = {"UNDO"}

    def execute(self, context):
        context.scene.body4d.active_person = -1
        return {"FINISHED"}


class BODY4D_OT_find_everyone(_Changes, bpy.types.Operator):
    """Add everyone who is found on a frame and not yet in the list"""

    bl_idname = "body4d.find_everyone"
    bl_label = "Find Everyone"
    bl_options = {"REGISTER"}  # the answer comes a moment later, and is an undo step of its own

    frame: bpy.props.IntProperty(name="Frame", description="Clip frame, counted from 0; -1: the one that the scene shows", default=-1, min=-1,
                                 options={"SKIP_SAVE"})

    def execute(self, context):
        scene = context.scene
        number, state = scene.session_uid, scene.body4d
        frame = min(clip_frame(scene) if self.frame < 0 else self.frame, state.clip_frames - 1)
        asker.retry()

        def start(done, failed) -> None:
            def found(*_) -> None:
                add_found(number, frame)
                done()

            def look(*_) -> None:
                there = find_scene(number)
                if there is None:
                    failed(stopped())
                    return
                key = detect_key(there.body4d, frame)
                if key in asker.answers:
                    found()
                else:
                    asker.ask(key, "detect", {"frame": frame}, found, failed)

            asker.when_open(state, look, failed)

        return {"FINISHED"} if run_now(self, start) else {"CANCELLED"}


def add_found(scene_number: int, frame: int) -> None:
    """Everyone found on the frame and not in the list of the scene (its session_uid) gets into it, as one undo step."""
    scene = find_scene(scene_number)
    if scene is None:
        return
    state, active = scene.body4d, scene.body4d.active_person
    found = [(area, place) for area, place in unpicked_on(state, frame) if place is not None]
    for area, place in found:
        person = add_person(state)
        click = person.clicks.add()
        click.frame, (click.x, click.y) = frame, place
        asker.keep(mask_key(state, person, frame), Answer([area]))  # that position means this person: no need to ask
    state.active_person = active
    if found:
        push_undo("Find Everyone")
        redraw()


CLASSES = (BODY4D_OT_add_person, BODY4D_OT_remove_person, BODY4D_OT_move_person, BODY4D_OT_add_click, BODY4D_OT_remove_click, BODY4D_OT_finish_person,
           BODY4D_OT_find_everyone)
register, unregister = bpy.utils.register_classes_factory(CLASSES)
