# SPDX-License-Identifier: GPL-3.0-or-later
"""File > Import > SAM-Body4D, SAM 3D Body: what other tools made becomes a take, with the engine's help, and is built like any other."""

from pathlib import Path

import bpy

from body4d_engine.errors import Body4DError

from .. import connection, generating, retaking
from ..chosen import Dropped, importer, sources_of
from ..generating import Order
from .import_take import SceneOptions


class BODY4D_OT_import_meshes(SceneOptions, bpy.types.Operator):
    """Make animated people of what SAM-Body4D or SAM 3D Body wrote. The engine reads it, and a take is made beside it"""

    bl_idname = "body4d.import_meshes"
    bl_label = "Import Meshes"
    bl_options = {"REGISTER"}  # the result is an undo step of its own

    filepath: bpy.props.StringProperty(name="File Path", description="A SAM-Body4D folder, a file in it, or a .npz of SAM 3D Body", subtype="FILE_PATH",
                                       options={"SKIP_SAVE"})
    directory: bpy.props.StringProperty(subtype="DIR_PATH", options={"SKIP_SAVE", "HIDDEN"})
    files: bpy.props.CollectionProperty(type=bpy.types.OperatorFileListElement, options={"SKIP_SAVE", "HIDDEN"})
    filter_glob: bpy.props.StringProperty(default="*.npz;*.json;*.ply", options={"HIDDEN"})
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN"})

    take: bpy.props.StringProperty(name="Take", subtype="DIR_PATH", options={"SKIP_SAVE"},
                                   description="Folder of the take that is made. Empty: beside the files")
    clip: bpy.props.StringProperty(name="Clip", subtype="FILE_PATH", options={"SKIP_SAVE"},
                                   description="The video, or folder of images, that the meshes belong to. Empty: as the files say")
    topology: bpy.props.StringProperty(name="Faces", description="A .ply, or a .npz with faces, for meshes that come without faces", subtype="FILE_PATH",
                                       options={"SKIP_SAVE"})
    focal_px: bpy.props.FloatProperty(name="Focal Length", description="In pixels. 0: as the files say", min=0.0, options={"SKIP_SAVE"})
    fps: bpy.props.FloatProperty(name="Frame Rate", description="Frames per second. 0: as the files say, else 30", min=0.0, options={"SKIP_SAVE"})
    fresh: bpy.props.BoolProperty(name="Start Over", description="Delete the take that is there and make it anew", options={"SKIP_SAVE"})
    engine: bpy.props.StringProperty(name="Engine", options={"SKIP_SAVE", "HIDDEN"},
                                     description="Path or command to use in place of the engine of the preferences")

    @classmethod
    def poll(cls, context):
        return generating.is_idle(cls)

    def invoke(self, context, event):
        if self.filepath or self.files:  # dropped
            return context.window_manager.invoke_props_dialog(self, width=420, title="Import Meshes", confirm_text="Import")
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def draw(self, context):
        super().draw(context)
        column = self.layout.column()
        for name in ("clip", "topology", "focal_px", "fps", "take"):
            column.prop(self, name)

    def execute(self, context):
        sources = sources_of(self.filepath, self.directory, [file.name for file in self.files])
        if not sources or not all(path.exists() for path in sources):
            self.report({"ERROR"}, f"There is nothing at {sources[0]}." if sources else "No file was chosen.")
            return {"CANCELLED"}
        options = self.scene_options()
        meshes = {"sources": [str(path) for path in sources], "topology": _path(self.topology), "clip": _path(self.clip), "focal_px": self.focal_px or None,
                  "fps": self.fps or None}
        take = Path(_path(self.take) or take_beside(sources[0]))
        try:
            connection.use(self.engine)
            notice = retaking.run(Order(clip=None, take=take, meshes=meshes, scene=context.scene.session_uid, options=options, fresh=self.fresh))
        except (Body4DError, OSError, RuntimeError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        if notice:
            self.report({"WARNING"}, notice)
        return {"FINISHED"}


def _path(text: str) -> str | None:
    return str(Path(bpy.path.abspath(text)).absolute()) if text else None


def take_beside(source: Path) -> Path:
    """Where the take goes that is made of a file or folder."""
    return source.with_name(f"{source.name if source.is_dir() else source.stem}.take")


class BODY4D_FH_meshes(Dropped, bpy.types.FileHandler):
    bl_label = "SAM 3D Body"
    bl_import_operator = "body4d.import_meshes"
    bl_file_extensions = ".npz"


register, unregister = importer(BODY4D_OT_import_meshes, BODY4D_FH_meshes, "SAM-Body4D, SAM 3D Body (folder, .npz)")
