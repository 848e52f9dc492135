# SPDX-License-Identifier: GPL-3.0-or-later
"""Which clip: one of the user's, or the demo."""

from pathlib import Path

import bpy
from body4d_engine.clip_files import SUFFIXES

from .. import connection, demo, opening
from ..asking import asker, redraw
from ..preferences import PACKAGE
from ..state import set_clip
from ..undo import push_undo

downloaded: float | None = None  # how much of the demo clip, 0 to 1; None while there is no download


def run_now(operator, start) -> bool:
    """Call start(done, failed) and, without a window, wait until either was called. False where it failed there, which the operator reports."""
    ended, errors = [], []
    start(lambda *_: ended.append(True), lambda error: errors.append(error))
    if not bpy.app.background:
        return True
    connection.wait(lambda: ended or errors)
    if errors:
        operator.report({"ERROR"}, str(errors[0]))
    return not errors


def find_scene(number: int) -> bpy.types.Scene | None:
    """The scene with this session_uid, which undo does not change; None where it is gone, as after another file was opened."""
    return next((scene for scene in bpy.data.scenes if scene.session_uid == number), None)


def open_clip(scene_number: int, path: Path, done=None, failed=None) -> None:
    """Have the engine open a clip; then it is the scene's (its session_uid), as one undo step."""

    def opened(clip) -> None:
        scene = find_scene(scene_number)
        if scene is not None:
            set_clip(scene.body4d, clip.path, clip.width, clip.height, clip.frames, float(clip.fps), images=clip.image_fps is not None)
            push_undo("Choose Clip")
        if done:
            done()

    scene = find_scene(scene_number)
    asker.open(path, scene.body4d.image_fps if scene else opening.IMAGE_FPS, opened, failed)


class NeedsClip:
    """An operator on the clip of the scene."""

    @classmethod
    def poll(cls, context):
        if not context.scene.body4d.clip_frames:
            cls.poll_message_set("Choose a clip first")
            return False
        return True


class ClipFile:
    """An operator that asks for a clip in the file browser."""

    filepath: bpy.props.StringProperty(name="File Path", description="A video, a folder of images, or one of its images", subtype="FILE_PATH",
                                       options={"SKIP_SAVE"})
    filter_movie: bpy.props.BoolProperty(default=True, options={"HIDDEN"})
    filter_image: bpy.props.BoolProperty(default=True, options={"HIDDEN"})
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN"})

    def invoke(self, context, event):
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def chosen_path(self) -> Path | None:
        """The video, or the folder of images; reports where there is none."""
        path = Path(bpy.path.abspath(self.filepath)) if self.filepath else None
        if path is not None and path.suffix.lower() in SUFFIXES and path.is_file():
            path = path.parent
        if path is None or not path.exists():
            self.report({"ERROR"}, f"There is no clip at {path}." if path else "No clip was chosen.")
            return None
        return path


class BODY4D_OT_choose_clip(ClipFile, bpy.types.Operator):
    """Choose the video, or the folder of images, whose people are to come alive"""

    bl_idname = "body4d.choose_clip"
    bl_label = "Choose Clip"
    bl_options = {"REGISTER"}  # the clip is open, and an undo step of its own, a moment later

    def execute(self, context):
        path = self.chosen_path()
        if path is None:
            return {"CANCELLED"}
        scene = context.scene.session_uid
        return {"FINISHED"} if run_now(self, lambda done, failed: open_clip(scene, path, done, failed)) else {"CANCELLED"}


class BODY4D_OT_remove_clip(bpy.types.Operator):
    """Forget the clip and who was picked in it. The file, and what was generated, stay"""

    bl_idname = "body4d.remove_clip"
    bl_label = "Remove Clip"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context):
        return bool(context.scene.body4d.clip)

    def execute(self, context):
        set_clip(context.scene.body4d, "", 0, 0, 0, 0.0)
        asker.forget()
        return {"FINISHED"}


class BODY4D_OT_demo_clip(bpy.types.Operator):
    bl_idname = "body4d.demo_clip"
    bl_label = "Try the Demo Clip"
    bl_description = f"Download a clip of two people, once ({demo.MEGABYTES} MB), and choose it"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context):
        if not bpy.app.online_access:
            cls.poll_message_set("It is downloaded once: allow online access in Preferences > System")
            return False
        return downloaded is None

    def execute(self, context):
        scene, folder = context.scene.session_uid, demo_folder()

        def start(done, failed) -> None:
            global downloaded
            downloaded = 0.0

            def arrived(path) -> None:
                global downloaded
                downloaded = None
                open_clip(scene, path, done, failed)

            def did_not(error) -> None:
                global downloaded
                downloaded = None
                if getattr(error, "code", "") != "cancelled":
                    asker.problem = str(error)
                redraw()
                failed(error)

            if not bpy.app.background:
                bpy.app.timers.register(_show_progress)
            connection.InThread(lambda: demo.fetch(folder, _progress), arrived, did_not)

        return {"FINISHED"} if run_now(self, start) else {"CANCELLED"}


def _progress(fraction: float) -> None:
    """By the downloading thread."""
    global downloaded
    downloaded = fraction


def _show_progress() -> float | None:
    redraw()
    return None if downloaded is None else 0.2


def demo_folder() -> Path:
    """Where the demo clip is kept: the extension's own folder, that of Blender's data where the add-on is no extension."""
    try:
        return Path(bpy.utils.extension_path_user(PACKAGE, path="demo", create=True))
    except ValueError:
        return Path(bpy.utils.user_resource("DATAFILES", path="body4d", create=True))


CLASSES = (BODY4D_OT_choose_clip, BODY4D_OT_remove_clip, BODY4D_OT_demo_clip)
register, unregister = bpy.utils.register_classes_factory(CLASSES)
