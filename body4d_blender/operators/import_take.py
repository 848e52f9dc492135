# SPDX-License-Identifier: GPL-3.0-or-later
"""File > Import > Body4D take."""

from pathlib import Path

import bpy
from body4d_engine.take import TakeError

from ..scene import build_take

MATCH = {"AUTO": None, "YES": True, "NO": False}


class SceneOptions:
    """How a take goes into the scene; shared by importing and converting."""

    match_scene: bpy.props.EnumProperty(
        name="Match Scene", default="AUTO",
        description="Give the scene the clip's render size, frame rate, range, sound and camera",
        items=[("AUTO", "If Empty", "Only in a scene that holds nothing"),
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


def take_folder(filepath: str, directory: str) -> Path | None:
    """The take that the user means: the folder itself, its take.json, or the folder that the file browser shows."""
    for text in (filepath, directory):
        path = Path(bpy.path.abspath(text)) if text else None
        if path is not None and path.name == "take.json":
            path = path.parent
        if path is not None and (path / "take.json").exists():
            return path
    return Path(bpy.path.abspath(filepath or directory)) if filepath or directory else None


class BODY4D_OT_import_take(SceneOptions, bpy.types.Operator):
    """Make animated people, the camera and the footage of a Body4D take; importing it again replaces them"""

    bl_idname = "body4d.import_take"
    bl_label = "Import Body4D Take"
    bl_options = {"REGISTER", "UNDO"}

    filepath: bpy.props.StringProperty(subtype="FILE_PATH", options={"SKIP_SAVE"})
    directory: bpy.props.StringProperty(subtype="DIR_PATH", options={"SKIP_SAVE"})
    filter_glob: bpy.props.StringProperty(default="take.json", options={"HIDDEN"})
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN"})

    def invoke(self, context, event):
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context):
        path = take_folder(self.filepath, self.directory)
        if path is None:
            self.report({"ERROR"}, "No take was chosen. Choose a folder whose name ends in .take.")
            return {"CANCELLED"}
        try:
            collection = build_take(path, scene=context.scene, report=lambda text: self.report({"WARNING"}, text), **self.scene_options())
        except TakeError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        self.report({"INFO"}, f"Imported {collection.name}")
        return {"FINISHED"}


def _menu(self, context):
    self.layout.operator(BODY4D_OT_import_take.bl_idname, text="Body4D take (.take)")


def register() -> None:
    bpy.utils.register_class(BODY4D_OT_import_take)
    bpy.types.TOPBAR_MT_file_import.append(_menu)


def unregister() -> None:
    bpy.types.TOPBAR_MT_file_import.remove(_menu)
    bpy.utils.unregister_class(BODY4D_OT_import_take)
