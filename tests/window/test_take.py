# SPDX-License-Identifier: Apache-2.0
"""A take in a real window: it is dropped, its panel draws the plot, two feet are clicked, and all can be undone. Then it is imported from the menu."""

import numpy as np
import pytest

from tests.blender.make_take import make_take

from .actions import import_by_menu, open_tab

VIEW = """
from body4d_blender.scene import imported
window = bpy.context.window_manager.windows[0]
area = next(a for a in window.screen.areas if a.type == "VIEW_3D")
region = next(r for r in area.regions if r.type == "WINDOW")
called = []
def later(call):
    def go():
        with bpy.context.temp_override(window=window, area=area, region=region):
            call()
        called.append(True)
    bpy.app.timers.register(go, first_interval=0.1)
"""
FEET = """
from bpy_extras.view3d_utils import location_3d_to_region_2d
for body in imported.bodies_of(imported.takes_in(bpy.context.scene)[0]):
    place = location_3d_to_region_2d(region, area.spaces.active.region_3d, body.matrix_world.translation)
    print(region.x + place.x, window.height - 1 - region.y - place.y)
"""
TAKES = "len([c for c in bpy.data.collections if c.get('body4d_role') == 'take'])"
FLOORS = "len([o for o in bpy.data.objects if o.get('body4d_role') == 'floor'])"


@pytest.fixture(scope="module")
def take(window):
    """Dropped into an empty scene, seen through its camera, the sidebar beside it."""
    make_take(window.folder / "a.take", confidence={1: np.linspace(0.2, 1, 20)})
    window.ask("for block in list(bpy.data.objects): bpy.data.objects.remove(block)")
    window.ask(f'{VIEW}later(lambda: bpy.ops.wm.drop_import_file("INVOKE_DEFAULT", directory={window.inside!r}, files=[{{"name": "a.take"}}]))')
    window.until("called")
    window.key("Return")  # the dialog
    window.until(f"{TAKES} == 1")
    window.ask(f'{VIEW}area.spaces.active.region_3d.view_perspective = "CAMERA"')
    open_tab(window)
    return window


def test_the_panel_draws_its_plot(take, shots):
    take.ask("bpy.context.scene.frame_set(12)")
    take.until("__import__('body4d_blender.plots').plots._drawn")
    take.shot(shots / "take_panel.png")


def test_two_feet_are_clicked(take, shots):
    places = [tuple(map(float, line.split())) for line in take.ask(VIEW + FEET).splitlines()]
    assert len(places) == 2
    take.click(*take.header("BODY4D_PT_floor"))
    take.press("body4d.click_floor")
    take.shot(shots / "take_feet.png")
    for place in places:
        take.click(*place)
    take.until(f"{FLOORS} == 1")
    take.shot(shots / "take_floor.png")
    take.key("ctrl+z")
    take.until(f"{FLOORS} == 0")


def test_it_is_imported_from_the_file_menu(take, shots):
    take.ask("bpy.ops.body4d.delete_take(\"EXEC_DEFAULT\", True)")  # a step for undo
    take.until(f"{TAKES} == 0")
    import_by_menu(take, shots / "take_import.png")
    take.until(f"{TAKES} == 1")
    take.shot(shots / "take_imported.png")
    take.move(600, 600)
    take.key("ctrl+z")
    take.until(f"{TAKES} == 0")
