# SPDX-License-Identifier: GPL-3.0-or-later
"""Mark what is wrong, and solve again: only that, or all with other settings. Nobody is tracked again."""

import bpy

from body4d_engine.errors import Body4DError
from body4d_engine.take import Take

from .. import connection, generating, retaking
from ..heights import HEIGHT, USE_HEIGHT, draw_height, height_m, set_height
from ..scene import corrections, imported, tags
from ..scene.corrections import KINDS, LIMBS, Correction
from ..state import find_person, take_path
from .take import OfTake


class BODY4D_OT_mark_wrong(OfTake, bpy.types.Operator):
    """Mark a range of frames in which someone is wrong. Solve Again then corrects it"""

    bl_idname = "body4d.mark_wrong"
    bl_label = "Mark as Wrong"

    person: bpy.props.IntProperty(name="Person", description="Number of the person; 0: the active object's", min=0, options={"SKIP_SAVE"})
    kind: bpy.props.EnumProperty(
        name="What", items=[("SIDES", "Left and Right", "Left and right are taken for each other"),
                            ("DEPTH", "Depth", "The body, or a limb, points away from the camera in place of towards it, or the other way round"),
                            ("LIMB", "Lost Limb", "A limb was taken for something else: it is left out, and follows the rest"),
                            ("BODY", "Everything", "Nothing of it is right: the person is made up between the frames around")])
    limb: bpy.props.EnumProperty(
        name="Limb", items=[("NONE", "Whole Body", "All of the body"), *((name, text.title(), f"The person's own {text}") for name, text in LIMBS.items())])
    frame_start: bpy.props.IntProperty(name="Start", options={"SKIP_SAVE"},
                                       description="First scene frame. 0 in both: the preview range, else the doubtful frames around the current one, else it")
    frame_end: bpy.props.IntProperty(name="End", options={"SKIP_SAVE"}, description="Last scene frame")

    def invoke(self, context, event):
        collection = self.chosen(context)
        body = collection and self._body(context, collection)
        if not body:
            return {"CANCELLED"}
        self.person = body[tags.PERSON]
        self.frame_start, self.frame_end = self._range(context, collection, body)
        return context.window_manager.invoke_props_dialog(self, title=f"Mark {body.name} as Wrong", confirm_text="Mark")

    def draw(self, context):
        layout = self.layout
        layout.use_property_split = True
        layout.prop(self, "kind")
        if self.kind in ("DEPTH", "LIMB"):
            layout.prop(self, "limb")
        column = layout.column(align=True)
        column.prop(self, "frame_start")
        column.prop(self, "frame_end")

    def execute(self, context):
        collection = self.chosen(context)
        body = collection and self._body(context, collection)
        if not body:
            return {"CANCELLED"}
        start, end = self._range(context, collection, body)
        if self.kind == "LIMB" and self.limb == "NONE":
            self.report({"ERROR"}, "Which limb is lost? Choose one, or Everything.")
            return {"CANCELLED"}
        timing, frames = imported.timing_of(collection), imported.frames_of(collection)
        first, last = (round((frame - timing.start) / timing.rate) for frame in (start, end))
        first, last = max(first, frames[0]), min(last, frames[-1])
        if first > last:
            self.report({"ERROR"}, f"There is nothing of {collection.name} from frame {start} to {end}.")
            return {"CANCELLED"}
        limb = LIMBS.get(self.limb, "") if self.kind in ("DEPTH", "LIMB") else ""
        marked = Correction(body[tags.PERSON], first, last, KINDS[self.kind], limb)
        corrections.write(collection, list(dict.fromkeys([*corrections.read(collection), marked])))
        self.report({"INFO"}, f"{body.name}: {marked.words()}. Solve Again corrects it.")
        return {"FINISHED"}

    def _body(self, context, collection):
        """Whom it is about; reports where that is nobody."""
        if not self.person:
            active, bodies = context.object, imported.bodies_of(collection)
            if active in bodies:
                return active
            if len(bodies) == 1:
                return bodies[0]
            self.report({"ERROR"}, "Who is wrong? Select someone of the take.")
            return None
        return self.person_of(collection)

    def _range(self, context, collection, body) -> tuple[int, int]:
        """Scene frames, both inclusive."""
        scene = context.scene
        if self.frame_start or self.frame_end:
            return self.frame_start, self.frame_end
        if scene.use_preview_range:
            return scene.frame_preview_start, scene.frame_preview_end
        now = imported.clip_frame(collection, scene)
        around = [doubt for doubt in imported.doubts_of(body) if doubt.first <= now <= doubt.last]
        ends = [imported.scene_frame(collection, frame) for doubt in around for frame in (doubt.first, doubt.last)]
        return (min(ends), max(ends)) if ends else (scene.frame_current, scene.frame_current)


class BODY4D_OT_unmark(OfTake, bpy.types.Operator):
    """Forget that this was marked as wrong"""

    bl_idname = "body4d.unmark"
    bl_label = "Remove Mark"

    index: bpy.props.IntProperty(name="Index", description="Which mark, counted from 0; -1: the last", default=-1, min=-1, options={"SKIP_SAVE"})

    def execute(self, context):
        collection = self.chosen(context)
        marked = corrections.read(collection) if collection else []
        if collection is None or not -len(marked) <= self.index < len(marked):
            return {"CANCELLED"}
        del marked[self.index]
        corrections.write(collection, marked)
        return {"FINISHED"}


class _Runs(OfTake):
    """An operator that asks the engine. The result is an undo step of its own."""

    bl_options = {"REGISTER"}

    engine: bpy.props.StringProperty(name="Engine", options={"SKIP_SAVE", "HIDDEN"},
                                     description="Path or command to use in place of the engine of the preferences")

    @classmethod
    def poll(cls, context):
        return generating.is_idle(cls) and super().poll(context)

    def run_again(self, context, collection, change) -> set[str]:
        """change(people, settings) says what is other than in the take."""
        try:
            connection.use(self.engine)
            notice = retaking.run(retaking.order_of(context.scene, collection, change))
        except (Body4DError, OSError, RuntimeError, ValueError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        if notice:
            self.report({"WARNING"}, notice)
        return {"FINISHED"}


class BODY4D_OT_solve_again(_Runs, bpy.types.Operator):
    """Solve what was marked as wrong again. The rest stays as it is, and nobody is tracked again"""

    bl_idname = "body4d.solve_again"
    bl_label = "Solve Again"

    def execute(self, context):
        collection = self.chosen(context)
        if collection is None:
            return {"CANCELLED"}
        marked = corrections.read(collection)
        return self.run_again(context, collection, lambda people, settings: corrections.put(marked, people))


class Body4DHeight(bpy.types.PropertyGroup):
    """How tall a person of the take is."""

    person: bpy.props.IntProperty(name="Person", description="Number of the person", min=1)
    use_height: USE_HEIGHT
    height: HEIGHT


class BODY4D_OT_refine_again(_Runs, bpy.types.Operator):
    """Solve the whole take again with another smoothing, focal length or height. Nobody is tracked again"""

    bl_idname = "body4d.refine_again"
    bl_label = "Refine Again"

    smoothing: bpy.props.FloatProperty(name="Smoothing", default=1.0, min=0.0, max=4.0, options={"SKIP_SAVE"},
                                       description="How calm the motion is: 0 as measured, 1 as usual, 2 visibly calmer")
    foot_lock: bpy.props.BoolProperty(name="Foot Lock", default=True, options={"SKIP_SAVE"}, description="Hold feet that stand in their place")
    focal: bpy.props.EnumProperty(
        name="Focal Length", options={"SKIP_SAVE"},
        items=[("FOUND", "As Found", "From the clip's metadata, else assumed"), ("PX", "Pixels", "In pixels of the upright frame"),
               ("MM", "Millimeters", "On a sensor 36 mm long on the longer side of the frame, as in Blender")])
    focal_px: bpy.props.FloatProperty(name="Focal Length", default=1000.0, min=1.0, soft_max=10000.0, subtype="PIXEL", options={"SKIP_SAVE"},
                                      description="In pixels of the upright frame")
    focal_mm: bpy.props.FloatProperty(name="Focal Length", default=35.0, min=1.0, soft_max=400.0, subtype="DISTANCE_CAMERA", options={"SKIP_SAVE"},
                                      description="On a sensor 36 mm long on the longer side of the frame")
    heights: bpy.props.CollectionProperty(type=Body4DHeight, options={"SKIP_SAVE"})

    def invoke(self, context, event):
        collection = self.chosen(context)
        if collection is None:
            return {"CANCELLED"}
        try:
            with Take.open(imported.folder_of(collection)) as take:
                people, settings = take.people, take.settings
                focal_px = float(take.camera()["focal_px"][0])
        except Body4DError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        self.smoothing = settings.get("smoothing", 1.0)
        self.foot_lock = settings.get("foot_lock", True)
        self.focal = "PX" if settings.get("focal_px") else "MM" if settings.get("focal_mm") else "FOUND"
        self.focal_px, self.focal_mm = focal_px, settings.get("focal_mm") or 36 * focal_px / max(take.clip["width"], take.clip["height"])
        self.heights.clear()
        for number, (name, height) in _heights(people, settings).items():
            entry = self.heights.add()
            entry.name, entry.person = name, number
            set_height(entry, height)
        return context.window_manager.invoke_props_dialog(self, title="Refine Again", confirm_text="Refine")

    def draw(self, context):
        layout = self.layout
        layout.use_property_split = True
        layout.prop(self, "smoothing", slider=True)
        layout.prop(self, "foot_lock")
        layout.prop(self, "focal")
        if self.focal != "FOUND":
            layout.prop(self, "focal_px" if self.focal == "PX" else "focal_mm", text=" ")
        column = layout.column(align=True)
        for entry in self.heights:
            draw_height(entry, column, f"Height of {entry.name}")

    def execute(self, context):
        collection = self.chosen(context)
        if collection is None:
            return {"CANCELLED"}
        given = {entry.person: height_m(entry) for entry in self.heights}
        changed = {name for name in ("smoothing", "foot_lock", "focal", "focal_px", "focal_mm") if self.properties.is_property_set(name)}
        values = {name: getattr(self, name) for name in changed}

        def change(people: list[dict], settings: dict) -> None:
            strangers = given.keys() - {entry["id"] for entry in people}
            if strangers:
                raise ValueError(f"There is no person {min(strangers)} in {collection.name}.")
            heights = {number: height for number, (_, height) in _heights(people, settings).items()}
            if {**heights, **given} != heights:
                settings["heights"] = {}  # they are with the people from now on
                for entry in people:
                    entry["height_m"] = {**heights, **given}[entry["id"]]
            settings.update({name: values[name] for name in ("smoothing", "foot_lock") if name in values})
            if changed & {"focal", "focal_px", "focal_mm"}:
                unit = values.get("focal") or ("PX" if "focal_px" in values else "MM")
                settings["focal_px"] = self.focal_px if unit == "PX" else None
                settings["focal_mm"] = self.focal_mm if unit == "MM" else None

        folder, state = imported.folder_of(collection), context.scene.body4d
        if state.clip and take_path(state) == folder:  # or Generate would take them back
            for number, height in given.items():
                person = find_person(state, number)
                if person is not None:
                    set_height(person, height)
        return self.run_again(context, collection, change)


def _heights(people: list[dict], settings: dict) -> dict[int, tuple[str, float | None]]:
    """By person: the name, and the height in metres that the take was made with, None where that is assumed."""
    told = settings.get("heights") or {}
    return {entry["id"]: (entry["name"], told.get(str(entry["id"])) or entry.get("height_m") or told.get("0")) for entry in people}


CLASSES = (BODY4D_OT_mark_wrong, BODY4D_OT_unmark, BODY4D_OT_solve_again, Body4DHeight, BODY4D_OT_refine_again)
register, unregister = bpy.utils.register_classes_factory(CLASSES)
