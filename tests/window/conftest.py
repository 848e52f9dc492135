# SPDX-License-Identifier: Apache-2.0
"""The window that the tests share. Set up and run by scripts/test_window.py; skipped where that cannot be."""

import os
import shutil
from pathlib import Path

import pytest

from .window import Engines, Window, reason_to_skip

TREE = os.environ.get("BODY4D_WINDOW")
PYTHON = os.environ.get("BODY4D_ENGINE_PYTHON")


@pytest.fixture(scope="session")
def shots(tmp_path_factory) -> Path:
    """Where pictures of the screen are kept."""
    return Path(os.environ.get("BODY4D_WINDOW_SHOTS") or tmp_path_factory.mktemp("shots"))


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    """A Blender with the add-on and an engine outside the window's system."""
    reason = reason_to_skip(TREE and Path(TREE)) or ("" if PYTHON else "needs BODY4D_ENGINE_PYTHON, a Python with the engine's dependencies")
    if reason:
        pytest.skip(reason)
    engines = Engines(PYTHON, tmp_path_factory.mktemp("engine"))
    window = Window(Path(TREE), "test")
    try:
        window.start(f"/usr/bin/python3 {window.inside}/relay.py {engines.port}")
        yield window
    finally:
        window.stop()
        engines.close()


@pytest.fixture(scope="module")
def clip(window, demo_clip) -> str:
    """The demo clip where the window's system sees it."""
    shutil.copy(demo_clip, window.folder / "demo.mp4")
    return f"{window.inside}/demo.mp4"
