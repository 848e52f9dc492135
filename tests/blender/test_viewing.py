# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether bodies are seen in a 3D View; what that does with its view is tested in a window."""

import pytest
from mathutils import Matrix, Vector

from body4d_blender.viewing import Viewer, _in_sight

PERSPECTIVE = Matrix(((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, -1, -0.2), (0, 0, -1, 0)))  # 90 degrees, looking along -Z


def person(x: float, y: float, z: float) -> list[Vector]:
    return [Vector((x + i * 0.5, y + j * 1.8, z)) for i in (0, 1) for j in (0, 1)]


@pytest.mark.parametrize("place, seen", [((0, 0, -4), True), ((5, 0, -4), False), ((0, 3, -4), False), ((0, 0, 4), False), ((0, 0, -40), False)])
def test_who_is_in_sight(place, seen):
    assert _in_sight(PERSPECTIVE, person(*place)) == seen


def test_without_a_window_nothing_is_turned(scene):
    viewer = Viewer(scene)
    viewer.show([])
    viewer.look_through_camera(scene, first=True)
