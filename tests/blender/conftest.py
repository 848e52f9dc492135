# SPDX-License-Identifier: Apache-2.0
import os
import shlex
import sys
import time
from pathlib import Path

import pytest

bpy = pytest.importorskip("bpy")
STATUS = pytest.StashKey()


def pytest_sessionfinish(session, exitstatus):
    session.config.stash[STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """Leave without the destructors of Blender as a module: those of 4.2 and 4.5 crash or wait for ever, after all is judged and written."""
    if STATUS in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[STATUS])


@pytest.fixture
def scene():
    """The only scene of a new, empty file."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    return bpy.context.scene


@pytest.fixture
def addon(scene):
    """The add-on, enabled; the scene."""
    import body4d_blender

    body4d_blender.register()
    yield bpy.context.scene
    body4d_blender.unregister()


@pytest.fixture
def forgetful():
    """What one test asked of the engine is no answer to another."""
    from body4d_blender import opening
    from body4d_blender.asking import asker

    yield
    asker.busy = asker.opening = opening.last = None
    asker.retry()


@pytest.fixture
def video(tmp_path):
    """A clip for scripted engines."""
    path = tmp_path / "clip one.mp4"
    path.write_bytes(b"not looked at")
    return path


@pytest.fixture
def slow(tmp_path):
    """Another, for which they need a while."""
    path = tmp_path / "slow.mp4"
    path.write_bytes(b"not looked at either")
    return path


@pytest.fixture
def engine(tmp_path):
    """A function: the setting of a scripted engine that behaves as asked (`fake_engine.HOWS`). None of them may outlive the test."""
    from body4d_blender import connection

    from .test_client import is_alive

    def setting(how: str = "") -> str:
        words = [sys.executable, str(Path(__file__).with_name("fake_engine.py")), "--home", str(tmp_path / "engine"), *([how] if how else [])]
        return shlex.join(words) if os.name != "nt" else " ".join(words)

    yield setting
    connection.stop()
    connection.use("")
    started, end = tmp_path / "engine" / "pids", time.monotonic() + 5
    while started.exists() and any(is_alive(int(pid)) for pid in started.read_text().split()):
        assert time.monotonic() < end, "an engine is left"
        time.sleep(0.01)
