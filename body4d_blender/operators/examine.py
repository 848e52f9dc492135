# SPDX-License-Identifier: GPL-3.0-or-later
"""Examine the engine, and hand on what was found."""

import bpy

from .. import connection, examining


class BODY4D_OT_examine(bpy.types.Operator):
    """Look at the engine's machine: what works there, what each backend lacks, and what to do about it"""

    bl_idname = "body4d.examine"
    bl_label = "Examine"

    online: bpy.props.BoolProperty(name="Ask the Hub", description="Also ask the hub of the weights whether you may have them", options={"SKIP_SAVE"})

    @classmethod
    def description(cls, context, properties):
        return "The same, and ask the hub whether you may have the weights" if properties.online else cls.__doc__

    @classmethod
    def poll(cls, context):
        if examining.running:
            cls.poll_message_set("The engine is being examined")
        return not examining.running

    def execute(self, context):
        if self.online and not bpy.app.online_access:
            self.report({"ERROR"}, "Blender may not go online: allow it in Preferences > System.")
            return {"CANCELLED"}
        ended = []
        examining.examine(self.online, lambda: ended.append(True))
        if bpy.app.background:
            connection.wait(lambda: ended)
            print(examining.text(), flush=True)
        return {"FINISHED"}


class BODY4D_OT_copy_examination(bpy.types.Operator):
    """Copy what was found to the clipboard, to ask somebody about it"""

    bl_idname = "body4d.copy_examination"
    bl_label = "Copy"

    @classmethod
    def poll(cls, context):
        return bool(examining.checks)

    def execute(self, context):
        context.window_manager.clipboard = examining.text()
        return {"FINISHED"}


CLASSES = (BODY4D_OT_examine, BODY4D_OT_copy_examination)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    examining.forget()
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
