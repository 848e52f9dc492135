# SPDX-License-Identifier: Apache-2.0
"""A take in a real window: it is dropped, its panel draws the plot, two feet are clicked, and all can be undone."""

import time

import numpy as np
import pytest

from tests.blender.make_take import make_take

from .actions import open_tab

VIEW = """
from body4d_blender.scene import imported
window = bpy.context.window_manager.windows[0]
area = next(a for a in window.screen.areas if a.type == "VIEW_3D")
region = next(r for r in area.regions if r.type == "WINDOW")
def later(call):
    def go():
        with bpy.context.temp_override(window=window, area=area, region=region):
            call()
    bpy.app.timers.register(go, first_interval=0.1)
"""
FEET = """
from bpy_extras.view3d_utils import location_3d_to_region_2d
for body in imported.bodies_of(imported.takes_in(bpy.context.scene)[0]):
    place = location_3d_to_region_2d(region, area.spaces.active.region_3d, body.matrix_world.translation)
    print(region.x + place.x, window.height - 1 - region.y - place.y)
"""
FLOORS = "len([o for o in bpy.data.objects if o.get('body4d_role') == 'floor'])"


@pytest.fixture(scope="module")
def take(window):
    """Dropped into an empty scene, seen through its camera, the sidebar beside it."""
    make_take(window.folder / "a.take", confidence={1: np.linspace(0.2, 1, 20)})
    window.ask("for block in list(bpy.data.objects): bpy.data.objects.remove(block)")
    window.ask(f'{VIEW}later(lambda: bpy.ops.wm.drop_import_file("INVOKE_DEFAULT", directory={window.inside!r}, files=[{{"name": "a.take"}}]))')
    time.sleep(2)
    window.key("Return")  # the dialog
    window.until("any(c.get('body4d_role') == 'take' for c in bpy.data.collections)")
    window.ask(f'{VIEW}area.spaces.active.region_3d.view_perspective = "CAMERA"')
    open_tab(window)
    return window


def test_the_panel_draws_its_plot(take, shots):
    take.ask("bpy.context.scene.frame_set(12)")
    take.until("__import__('body4d_blender.plots').plots._drawn")
    time.sleep(1)
    take.shot(shots / "take_panel.png")


def test_two_feet_are_clicked(take, shots):
    places = [tuple(map(float, line.split())) for line in take.ask(VIEW + FEET).splitlines()]
    assert len(places) == 2
    take.ask(VIEW + 'later(lambda: bpy.ops.body4d.click_floor("INVOKE_DEFAULT"))')
    time.sleep(1)
    for place in places:
        take.click(*place)
        time.sleep(1)
    take.until(f"{FLOORS} == 1")
    take.shot(shots / "take_floor.png")
    take.key("ctrl+z")
    take.until(f"{FLOORS} == 0")
