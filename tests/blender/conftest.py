# SPDX-License-Identifier: Apache-2.0
import pytest

bpy = pytest.importorskip("bpy")


@pytest.fixture
def scene():
    """The only scene of a new, empty file."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    return bpy.context.scene
