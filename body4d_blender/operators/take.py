# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be done with a take that is in the scene: look at its doubtful frames, show it otherwise, find it again, delete it."""

from pathlib import Path

import bpy

from body4d_engine.clip_files import fingerprint_of
from body4d_engine.errors import Body4DError, TakeError
from body4d_engine.take import Take, delete_take

from .. import connection, generating, takes
from ..chosen import take_folder
from ..scene import build_take, imported, tags
from ..scene.remove import remove_take
from .clip import ClipFile

COLLECTION = "Name of the take's collection. Empty: the take of the active object, or the only one in the scene"


class OfTake:
    """An operator on a take of the scene."""

    bl_options = {"REGISTER", "UNDO"}

    take: bpy.props.StringProperty(name="Take", description=COLLECTION, options={"SKIP_SAVE"})

    @classmethod
    def poll(cls, context):
        if not imported.takes_in(context.scene):
            cls.poll_message_set("There is no take in this scene. Generate or import one")
            return False
        return True

    def chosen(self, context):
        """The take's collection; reports where there is none."""
        found = next((c for c in imported.takes_in(context.scene) if c.name == self.take), None) if self.take else imported.take_of(context)
        if found is None:
            self.report({"ERROR"}, f"There is no take {self.take} in this scene." if self.take else "Which take? Select someone of it.")
        return found

    def person_of(self, collection):
        """The body that `person` means; reports where there is none."""
        body = imported.body_of(collection, self.person)
        if body is None:
            self.report({"ERROR"}, f"There is no person {self.person} in {collection.name}.")
        return body

    def build(self, context, collection, path: Path | None = None, **options) -> set[str]:
        """Import the take again, shown as it was but for the options. What an operator returns."""
        options = {"mesh_cache": imported.is_cached(collection), **options}
        try:
            build_take(path or imported.folder_of(collection), scene=context.scene, report=lambda text: self.report({"WARNING"}, text), **options)
        except (TakeError, OSError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


class BODY4D_OT_jump_to_doubt(OfTake, bpy.types.Operator):
    """Go to the next or previous frame from which someone's motion is doubtful, and say why"""

    bl_idname = "body4d.jump_to_doubt"
    bl_label = "Jump to Doubtful Frame"
    bl_options = {"REGISTER", "UNDO_GROUPED"}
    bl_undo_group = "Frame Change"

    person: bpy.props.IntProperty(name="Person", description="Number of the person; 0: everyone", min=0, options={"SKIP_SAVE"})
    direction: bpy.props.EnumProperty(name="Direction", items=[("NEXT", "Next", "Later"), ("PREVIOUS", "Previous", "Earlier")])

    def execute(self, context):
        collection, scene = self.chosen(context), context.scene
        if collection is None:
            return {"CANCELLED"}
        bodies = [b for b in imported.bodies_of(collection) if self.person in (0, b[tags.PERSON])]
        found = [(imported.scene_frame(collection, doubt.first), body.name, doubt) for body in bodies for doubt in imported.doubts_of(body)]
        later = self.direction == "NEXT"
        frames = [frame for frame, *_ in found if (frame > scene.frame_current if later else frame < scene.frame_current)]
        if not frames:
            self.report({"INFO"}, f"There is no doubtful frame {'after' if later else 'before'} this one.")
            return {"CANCELLED"}
        frame = min(frames) if later else max(frames)
        scene.frame_set(frame)
        self.report({"INFO"}, "; ".join(f"{name}: {doubt.reason}" for there, name, doubt in found if there == frame))
        return {"FINISHED"}


class BODY4D_OT_switch_meshes(OfTake, bpy.types.Operator):
    """Show the take's people by shape keys, which are all in the .blend, or by Mesh Cache, which plays the take's own files"""

    bl_idname = "body4d.switch_meshes"
    bl_label = "Switch Meshes"

    to: bpy.props.EnumProperty(
        name="To", default="OTHER", options={"SKIP_SAVE"},
        items=[("OTHER", "The Other", "To shape keys from Mesh Cache, and back"), ("KEYS", "Shape Keys", "Everything is in the .blend file"),
               ("CACHE", "Mesh Cache", "A small .blend file that plays the take's own files: the take must stay where it is")])

    def execute(self, context):
        collection = self.chosen(context)
        if collection is None:
            return {"CANCELLED"}
        cached = imported.is_cached(collection)
        return self.build(context, collection, mesh_cache=not cached if self.to == "OTHER" else self.to == "CACHE")


class BODY4D_OT_match_scene(OfTake, bpy.types.Operator):
    """Give the scene the render size, frame rate, range, sound and camera of the take's clip"""

    bl_idname = "body4d.match_scene"
    bl_label = "Match Scene to Clip"

    def execute(self, context):
        collection = self.chosen(context)
        return {"CANCELLED"} if collection is None else self.build(context, collection, match_scene=True)


class BODY4D_OT_relink_take(OfTake, bpy.types.Operator):
    """Say where the take's folder is now. Another take is refused"""

    bl_idname = "body4d.relink_take"
    bl_label = "Find Take"

    filepath: bpy.props.StringProperty(name="File Path", description="The take's folder, or the take.json in it", subtype="FILE_PATH", options={"SKIP_SAVE"})
    directory: bpy.props.StringProperty(subtype="DIR_PATH", options={"SKIP_SAVE", "HIDDEN"})
    filter_glob: bpy.props.StringProperty(default="*take.json", options={"HIDDEN"})  # Blender compares whole paths
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN"})

    def invoke(self, context, event):
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context):
        collection, path = self.chosen(context), take_folder(self.filepath, self.directory)
        if collection is None or path is None:
            return {"CANCELLED"}
        try:
            with Take.open(path) as take:
                if take.id != collection[tags.TAKE_ID]:
                    self.report({"ERROR"}, f"{path} is another take, of {take.clip['name']}, than the one that is in this scene. Import it instead, or choose "
                                "the folder that was moved.")
                    return {"CANCELLED"}
        except TakeError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return self.build(context, collection, path)


class BODY4D_OT_relink_clip(ClipFile, OfTake, bpy.types.Operator):
    """Say where the take's video or folder of images is now. Another clip is refused. The take remembers the place"""

    bl_idname = "body4d.relink_clip"
    bl_label = "Find Clip"

    def execute(self, context):
        collection = self.chosen(context)
        path = self.chosen_path() if collection else None
        if path is None:
            return {"CANCELLED"}
        try:
            with Take.open(imported.folder_of(collection), writable=True) as take:
                clip = take.clip
                if clip["path"] is None or fingerprint_of(path) != clip["fingerprint"]:
                    of = clip["name"] if clip["path"] else "meshes without footage"
                    self.report({"ERROR"}, f"{path.name} is not the clip of this take, which is of {of}: its content differs. Choose the file that was moved.")
                    return {"CANCELLED"}
                take.describe(clip={**clip, "path": str(path.absolute()), "name": path.name})
                take.save()
        except (Body4DError, OSError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return self.build(context, collection)


class BODY4D_OT_delete_take(OfTake, bpy.types.Operator):
    """Remove the take's people, camera and footage from the scene, and, where that is chosen, delete the take itself"""

    bl_idname = "body4d.delete_take"
    bl_label = "Delete Take"

    files: bpy.props.BoolProperty(name="Delete the Take's Folder Too", default=False, options={"SKIP_SAVE"},
                                  description="Delete all that was recovered from the disk. This cannot be undone")

    @classmethod
    def poll(cls, context):
        return generating.is_idle(cls) and super().poll(context)

    def invoke(self, context, event):
        if self.chosen(context) is None:
            return {"CANCELLED"}
        return context.window_manager.invoke_props_dialog(self, width=420, title="Delete Take", confirm_text="Delete")

    def draw(self, context):
        collection, layout = imported.take_of(context), self.layout
        if collection is None:
            return
        people = ", ".join(body.name for body in imported.bodies_of(collection)) or "nobody"
        layout.label(text=f"{collection.name}: {people}, the camera, its footage and markers leave the scene.")
        layout.prop(self, "files")
        column = layout.column()
        column.active = self.files
        column.label(text=str(imported.folder_of(collection)), icon="ERROR" if self.files else "FILE_FOLDER")
        column.label(text="is deleted from the disk. That cannot be undone." if self.files else "stays on the disk and can be imported again.", icon="BLANK1")

    def execute(self, context):
        collection = self.chosen(context)
        if collection is None:
            return {"CANCELLED"}
        if any(block.mode != "OBJECT" for block in collection.objects):
            self.report({"ERROR"}, "Someone of the take is in Edit Mode. Leave it (Tab) and try again.")
            return {"CANCELLED"}
        name, folder = collection.name, imported.folder_of(collection)
        if self.files:
            self._close(collection[tags.TAKE_ID], folder)
            try:
                delete_take(folder)
            except TakeError as error:
                self.report({"ERROR"}, str(error))
                return {"CANCELLED"}
        remove_take(context.scene, collection)
        takes.look_again()
        self.report({"INFO"}, f"Deleted {name}" + (f" and {folder}" if self.files else f"; {folder} is still there" if folder.exists() else ""))
        return {"FINISHED"}

    def _close(self, take_id: str, folder: Path) -> None:
        """The engine deletes what it has of the take: of one that is complete it has nothing, unless it runs and has not come to that yet."""
        if connection.hello() is None and takes.look(folder).complete:
            return
        answered = []
        connection.ask("close", {"take": take_id}, None, lambda *_: answered.append(True), lambda _: answered.append(False))
        if bpy.app.background:
            connection.wait(lambda: answered)


CLASSES = (BODY4D_OT_jump_to_doubt, BODY4D_OT_switch_meshes, BODY4D_OT_match_scene, BODY4D_OT_relink_take, BODY4D_OT_relink_clip, BODY4D_OT_delete_take)
register, unregister = bpy.utils.register_classes_factory(CLASSES)
