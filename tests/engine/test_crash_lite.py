# SPDX-License-Identifier: Apache-2.0
"""The real lite backend on real footage, killed and damaged at random: the result is the one of an undisturbed run."""

import gc
import os
import shutil
import signal
import time

import numpy as np
import pytest

import body4d_engine.stages.recover
import body4d_engine.stages.refine
import body4d_engine.stages.track  # noqa: F401  loaded here, so that a forked run starts at once
from body4d_engine.backends import get_backend
from body4d_engine.clip import open_clip
from body4d_engine.pipeline import run
from body4d_engine.take import Take

from .fakes import assert_same, contents

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked children")]
FRAMES = (66, 84)
TOLERANCE = 1e-4  # metres; and of a pixel
KILLS = TRUNCATIONS = 200


def make(video, path, kill_after=None) -> tuple[bool, float]:
    """Run the pipeline in a child, which is killed after some seconds. Returns whether it ended by itself, and the seconds it took."""
    start = time.monotonic()
    gc.collect()
    child = os.fork()
    if child == 0:
        gc.freeze()  # what other tests left is not freed here: a decoder of theirs would wait for threads that a fork does not take along
        status = 1
        try:
            for _ in run(open_clip(video, *FRAMES), path, get_backend("lite"), [], {"heights": {}}):
                pass
            status = 0
        finally:
            os._exit(status)
    if kill_after is not None:
        while time.monotonic() - start < kill_after and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.005)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return not os.WIFSIGNALED(status), time.monotonic() - start


@pytest.fixture(scope="module")
def whole(demo_clip, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "whole.take"
    done, seconds = make(demo_clip, path)
    assert done
    found = contents(path)
    assert len(found["people"]) == 2 and found["refine:people/1/vertices"].shape[0] == FRAMES[1] - FRAMES[0]
    return path, found, seconds


def test_two_hundred_kills_of_a_real_run(demo_clip, whole, tmp_path):
    _, expected, seconds = whole
    rng, kills, completed, path = np.random.default_rng(7), 0, 0, tmp_path / "killed.take"
    while kills < KILLS:
        done, _ = make(demo_clip, path, kill_after=rng.uniform(0, seconds))
        kills += not done
        if Take.exists(path):
            Take.open(path).close()
        if done:
            assert_same(expected, contents(path), TOLERANCE)
            shutil.rmtree(path)
            completed += 1
    make(demo_clip, path)
    assert_same(expected, contents(path), TOLERANCE)
    assert completed > 5


def test_truncating_files_of_a_real_take(demo_clip, whole, tmp_path):
    path, expected, _ = whole
    rng = np.random.default_rng(8)
    files = sorted(p.relative_to(path) for p in path.rglob("*") if p.is_file() and p.stat().st_size)
    assert len(files) > 20
    for i in range(TRUNCATIONS):
        name = files[i % len(files)]
        copy = tmp_path / "copy.take"
        shutil.copytree(path, copy)
        os.truncate(copy / name, int(rng.integers(0, (path / name).stat().st_size)))
        Take.open(copy).close()
        make(demo_clip, copy)
        assert_same(expected, contents(copy), TOLERANCE)
        shutil.rmtree(copy)
