# SPDX-License-Identifier: GPL-3.0-or-later
"""*Pick People*: clicks on the clip in an Image Editor.

The tool takes clicks and three keys, and only over that editor; everything else goes on to Blender: zoom, pan, frames, undo, the panels. It keeps
no reference to anything: undo may replace all data between two events, and the user may close the editor.
"""

import bpy
from bpy.app.handlers import persistent

from .. import drawing, opening
from ..asking import asker, is_open, picture_key, unpicked_on
from ..picking import to_clip, under_cursor
from ..scene.picture import fill, find_image, forget, is_filled, show_clip, shows
from ..state import active_person, clip_frame, clip_path
from .clip import NeedsClip

TICK_S = 0.05
KEYS = (("MOUSE_LMB", "Add"), ("EVENT_CTRL", ""), ("MOUSE_LMB", "Exclude"), ("EVENT_BACKSPACE", "Remove Last Click"), ("EVENT_RETURN", "Next Person"),
        ("EVENT_ESC", "Done"))


def editors(screen, state) -> list:
    """The Image Editors that show the clip."""
    return [area for area in screen.areas if area.type == "IMAGE_EDITOR" and drawing.shows_clip(area.spaces.active, state)]


def free_editor(context) -> bpy.types.Area:
    """The Image Editor to show the clip in: one that shows nothing, else the largest, else a new one beside the 3D View."""
    areas = context.window.screen.areas
    there = [area for area in areas if area.ui_type == "IMAGE_EDITOR"]
    if there:
        return max(there, key=lambda area: (area.spaces.active.image is None, area.width * area.height))
    views = [area for area in areas if area.type == "VIEW_3D"] or list(areas)
    before = {area.as_pointer() for area in areas}
    with context.temp_override(area=max(views, key=lambda area: area.width * area.height)):
        bpy.ops.screen.area_split(direction="VERTICAL", factor=0.5)
    area = next(area for area in context.window.screen.areas if area.as_pointer() not in before)
    area.ui_type = "IMAGE_EDITOR"
    return area


def show_in(area, state) -> None:
    """Let the editor show the clip, in step with the scene's frames. The engine has it open."""
    clip = opening.last
    scale = min(1.0, 1280 / max(clip.width, clip.height))
    size = max(1, round(clip.width * scale)), max(1, round(clip.height * scale))
    space = area.spaces.active
    space.image = show_clip(clip_path(state), size, frame_for_frame=not clip.blender_reasons)
    user = space.image_user
    user.frame_duration, user.frame_start, user.frame_offset = state.clip_frames, 1, 0
    user.use_cyclic, user.use_auto_refresh = False, True


class BODY4D_OT_pick_people(NeedsClip, bpy.types.Operator):
    """Click the people that matter, on any frame, in an Image Editor"""

    bl_idname = "body4d.pick_people"
    bl_label = "Pick People"
    bl_options = {"REGISTER"}

    def execute(self, context):
        self.report({"ERROR"}, "There is no window to click in. Use body4d.add_click, or body4d.find_everyone.")
        return {"CANCELLED"}

    def invoke(self, context, event):
        if drawing.picking:  # the button again
            drawing.picking = False
            return {"FINISHED"}
        if context.window is None:
            return self.execute(context)
        asker.retry()
        self._header, self._told, self._shown, self._fit, self._over = "", "", False, False, False
        if not editors(context.window.screen, context.scene.body4d):
            free_editor(context)
        self._timer = context.window_manager.event_timer_add(TICK_S, window=context.window)
        context.window_manager.modal_handler_add(self)
        context.workspace.status_text_set(_status)
        drawing.picking = True
        return {"RUNNING_MODAL"}

    def modal(self, context, event):
        state = context.scene.body4d
        if not drawing.picking or not state.clip_frames:
            return self._leave(context)
        if event.type == "TIMER":
            return {"PASS_THROUGH"} if self._look(context) else self._leave(context)
        if event.type == "ESC" and event.value == "PRESS" and not context.screen.is_animation_playing:
            return self._leave(context)
        area, region = _under(context, event)
        place = _place(region, event, state)
        if event.type in {"MOUSEMOVE", "INBETWEEN_MOUSEMOVE"}:
            self._hover(context, state, region, place)
            return {"PASS_THROUGH"}
        if area is None or event.alt:
            return {"PASS_THROUGH"}
        if event.value in {"PRESS", "DOUBLE_CLICK"} and self._act(context, event, region, place):
            drawing.cursor, self._told = place, ""
            asker.retry()
            asker.look(context.scene)
            self._tell(context)
            area.tag_redraw()
            return {"RUNNING_MODAL"}
        return {"RUNNING_MODAL"} if region is not None and event.type == "LEFTMOUSE" else {"PASS_THROUGH"}

    def cancel(self, context):
        """The window closes or another file is opened."""
        self._leave(context)

    def _act(self, context, event, region, place) -> bool:
        """What a click or one of our keys does, as an undo step. False where it is none of ours."""
        state, operators = context.scene.body4d, bpy.ops.body4d
        try:
            if event.type == "LEFTMOUSE" and region is not None and place is not None:
                exclude = event.ctrl or event.oskey
                operators.add_click("EXEC_DEFAULT", True, x=place[0], y=place[1], frame=clip_frame(context.scene), positive=not exclude)
            elif event.type == "BACK_SPACE" and any(person.clicks for person in state.people):
                operators.remove_click("EXEC_DEFAULT", True)
            elif event.type in {"RET", "NUMPAD_ENTER"}:
                if active_person(state) is not None:
                    operators.finish_person("EXEC_DEFAULT", True)
            else:
                return False
        except RuntimeError as error:  # an operator's own report
            self.report({"WARNING"}, str(error).strip().removeprefix("Error: "))
        return True

    def _look(self, context) -> bool:
        """Show the clip, once it is open; ask what there is to ask. False where there is nothing more to pick in."""
        scene, screen = context.scene, context.window.screen
        state = scene.body4d
        if asker.problem and asker.problem != self._told:
            self._told = asker.problem
            self.report({"ERROR"}, asker.problem)
            if not is_open(state):
                return False
        showing = editors(screen, state)
        if not showing and is_open(state):
            if self._shown and find_image(clip_path(state)) is not None:
                return False  # the user closed the editor, or shows something else in it
            area = free_editor(context)  # again after an undo that knows no image
            show_in(area, state)
            showing, self._fit, self._shown = [area], not self._shown, True
        if self._fit and showing and (region := next(r for r in showing[0].regions if r.type == "WINDOW")).width > 1:
            with context.temp_override(area=showing[0], region=region):
                bpy.ops.image.view_all(fit_view=True)
            self._fit = False
        self._shown = self._shown or bool(showing)
        image = find_image(clip_path(state))
        asker.look(scene, picture=is_filled(image))
        if is_filled(image):
            answer = asker.answers.get(picture_key(state, clip_frame(scene)))
            if answer and answer.picture is not None and not shows(image, clip_frame(scene)):
                fill(image, clip_frame(scene), answer.picture)
        self._tell(context)
        return True

    def _hover(self, context, state, region, place) -> None:
        """Note where the mouse is; redraw where another outline is due."""
        others = [area for area, _ in unpicked_on(state, clip_frame(context.scene))]
        before, after = (under_cursor(others, *spot) if spot else None for spot in (drawing.cursor, place))
        drawing.cursor = place
        if before != after:
            for area in editors(context.window.screen, state):
                area.tag_redraw()
        if self._over != (region is not None):
            self._over = region is not None
            if self._over:
                context.window.cursor_modal_set("CROSSHAIR")
            else:
                context.window.cursor_modal_restore()

    def _tell(self, context) -> None:
        """Whose turn it is, and the keys, in the editor's header."""
        state = context.scene.body4d
        person = active_person(state)
        who = person.name if person else "New person"
        what = who if is_open(state) else "Opening the clip"
        text = f"{what}   |   Click: add   Ctrl: exclude   Backspace: remove last   Enter: next person   Esc: done"
        if text != self._header:
            self._header = text
            for area in editors(context.window.screen, state):
                area.header_text_set(text)

    def _leave(self, context):
        context.window_manager.event_timer_remove(self._timer)
        if self._over and context.window:
            context.window.cursor_modal_restore()
        tidy()
        return {"FINISHED"}


def tidy() -> None:
    """Take back what the tool shows, wherever: since it began the user may have gone to another workspace."""
    drawing.picking, drawing.cursor = False, None
    for workspace in bpy.data.workspaces:
        workspace.status_text_set(None)
    for area in (area for screen in bpy.data.screens for area in screen.areas):
        if area.type == "IMAGE_EDITOR":
            area.header_text_set(None)
        area.tag_redraw()


def _status(header, context) -> None:
    for icon, text in KEYS:
        header.layout.label(text=text, icon=icon)


def _under(context, event):
    """(area, main region) under the mouse, of an Image Editor that shows the clip; (area, None) over its header or side bars; else (None, None)."""

    def inside(part) -> bool:
        return part.x <= event.mouse_x < part.x + part.width and part.y <= event.mouse_y < part.y + part.height

    area = next((area for area in editors(context.window.screen, context.scene.body4d) if inside(area)), None)
    if area is None:
        return None, None
    region = next((region for region in area.regions if region.type == "WINDOW" and inside(region)), None)
    if any(inside(other) for other in area.regions if other.type != "WINDOW" and other.width > 1 and other.height > 1):
        region = None  # they may lie over the picture
    return area, region


def _place(region, event, state) -> tuple[float, float] | None:
    """The position in the clip under the mouse; None beside the picture."""
    if region is None:
        return None
    u, v = region.view2d.region_to_view(event.mouse_x - region.x, event.mouse_y - region.y)
    return to_clip(u, v, state.clip_width, state.clip_height)


@persistent
def _undone(*_) -> None:
    forget()
    drawing.undone = True


HANDLERS = ("undo_post", "redo_post", "load_post")


def register() -> None:
    bpy.utils.register_class(BODY4D_OT_pick_people)
    for name in HANDLERS:
        getattr(bpy.app.handlers, name).append(_undone)


def unregister() -> None:
    if drawing.picking:
        tidy()
    for name in HANDLERS:
        getattr(bpy.app.handlers, name).remove(_undone)
    bpy.utils.unregister_class(BODY4D_OT_pick_people)
