# SPDX-License-Identifier: GPL-3.0-or-later
"""File > Import > Body4D Take, and what is dropped on a window."""

from pathlib import Path

import bpy

from body4d_engine.take import Take, TakeError

from ..chosen import Dropped, importer, is_meshes, take_folder
from ..scene import build_take

MATCH = {"AUTO": None, "YES": True, "NO": False}


class SceneOptions:
    """How a take goes into the scene; shared by importing and converting."""

    match_scene: bpy.props.EnumProperty(
        name="Match Scene", default="AUTO",
        description="Give the scene the clip's render size, frame rate, range, sound and camera",
        items=[("AUTO", "If Empty", "Only in a scene that holds nothing, or what a new file begins with"),
               ("YES", "Yes", "Change the scene's settings to those of the clip"),
               ("NO", "No", "Keep the scene's settings; another frame rate retimes the animation")])
    mesh_cache: bpy.props.BoolProperty(
        name="Mesh Cache", default=False,
        description="Play the take's own files instead of making shape keys: a small .blend, but the take must stay where it is")
    use_start: bpy.props.BoolProperty(name="Set Start", default=False, description="Choose the scene frame at which the clip starts")
    start: bpy.props.IntProperty(name="Start", default=1, description="Scene frame of the clip's first frame")

    def draw(self, context):
        layout = self.layout
        layout.use_property_split = True
        layout.prop(self, "match_scene")
        layout.prop(self, "mesh_cache")
        row = layout.row(heading="Start")
        row.prop(self, "use_start", text="")
        column = row.column()
        column.active = self.use_start
        column.prop(self, "start", text="")

    def scene_options(self) -> dict:
        return {"match_scene": MATCH[self.match_scene], "mesh_cache": self.mesh_cache, "scene_start": self.start if self.use_start else None}


class BODY4D_OT_import_take(SceneOptions, bpy.types.Operator):
    """Make animated people, the camera and the footage of a Body4D take; importing it again replaces them"""

    bl_idname = "body4d.import_take"
    bl_label = "Import Body4D Take"
    bl_options = {"REGISTER", "UNDO"}

    filepath: bpy.props.StringProperty(subtype="FILE_PATH", options={"SKIP_SAVE"})
    directory: bpy.props.StringProperty(subtype="DIR_PATH", options={"SKIP_SAVE"})
    files: bpy.props.CollectionProperty(type=bpy.types.OperatorFileListElement, options={"SKIP_SAVE", "HIDDEN"})  # what Blender drops
    filter_glob: bpy.props.StringProperty(default="*take.json", options={"HIDDEN"})  # Blender compares whole paths
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN"})

    def invoke(self, context, event):
        if self.filepath or self._dropped():
            return context.window_manager.invoke_props_dialog(self, title="Import Body4D Take", confirm_text="Import")
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context):
        path = take_folder(self.filepath or self._dropped(), self.directory)
        if path is None:
            self.report({"ERROR"}, "No take was chosen. Choose a folder whose name ends in .take.")
            return {"CANCELLED"}
        if not Take.exists(path) and is_meshes(path):
            return self._import_meshes(path)
        try:
            collection = build_take(path, scene=context.scene, report=lambda text: self.report({"WARNING"}, text), **self.scene_options())
        except TakeError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        self.report({"INFO"}, f"Imported {collection.name}")
        return {"FINISHED"}

    def _dropped(self) -> str:
        return str(Path(self.directory) / self.files[0].name) if self.files and self.files[0].name else ""

    def _import_meshes(self, path: Path) -> set[str]:
        """What was chosen is no take, but what another tool made."""
        try:
            return bpy.ops.body4d.import_meshes(filepath=str(path), match_scene=self.match_scene, mesh_cache=self.mesh_cache, use_start=self.use_start,
                                                start=self.start)
        except RuntimeError as error:
            self.report({"ERROR"}, str(error).removeprefix("Error: ").strip())
            return {"CANCELLED"}


class BODY4D_FH_take(Dropped, bpy.types.FileHandler):
    bl_label = "Body4D Take"
    bl_import_operator = "body4d.import_take"
    bl_file_extensions = ".take;.json"  # the folder, or the take.json in it: some systems drop no folders


register, unregister = importer(BODY4D_OT_import_take, BODY4D_FH_take, "Body4D Take (.take)")
