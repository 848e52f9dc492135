# SPDX-License-Identifier: Apache-2.0
"""Order, keys and resume, with stages that are quick; every crash leaves a take from which the same result comes."""

import os
import shutil
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest

from body4d_engine.errors import Body4DError
from body4d_engine.events import Notice, StageFinished, StageStarted
from body4d_engine.pipeline import run
from body4d_engine.stages.camera import Camera
from body4d_engine.take import Take

from .fakes import FakeBackend, FakeClip, FakeRecover, FakeTrack, assert_same, contents


def go(path, *stages, clip=None, people=(), **options):
    return list(run(clip or FakeClip(), path, FakeBackend(*stages), list(people), {}, **options))


def finished(events):
    return {e.stage: e.skipped for e in events if isinstance(e, StageFinished)}


@pytest.fixture
def whole(tmp_path):
    go(tmp_path / "whole.take")
    return tmp_path / "whole.take"


def test_finished_stages_are_not_run_again(whole):
    assert finished(go(whole)) == {"track": True, "recover": True}


def test_a_changed_setting_reruns_what_depends_on_it_and_no_more(whole):
    assert finished(go(whole, FakeTrack(), FakeRecover(scale=2.0))) == {"track": True, "recover": False}
    assert finished(go(whole, FakeTrack(), FakeRecover(scale=2.0))) == {"track": True, "recover": True}


def test_results_of_a_changed_input_are_forgotten(whole):
    track = FakeTrack()
    track.version = 2
    events = run(FakeClip(), whole, FakeBackend(track, FakeRecover()), [], {})
    for event in events:
        if isinstance(event, StageFinished) and event.stage == "track":
            break
    events.close()
    with Take.open(whole) as take:
        assert take.stage("recover") is None


@pytest.mark.parametrize("track_chunk, recover_chunk", [(1, 1), (3, 40), (100, 2)])
def test_the_result_does_not_depend_on_the_chunk_size(whole, tmp_path, track_chunk, recover_chunk):
    go(tmp_path / "b.take", FakeTrack(track_chunk), FakeRecover(recover_chunk))
    assert_same(contents(whole), contents(tmp_path / "b.take"))


def test_another_clip_or_range_is_refused_and_fresh_replaces(whole):
    with pytest.raises(Body4DError, match=r"whole.take holds another clip or range \(fake.mp4, frames 0 to 39 step 1\)"):
        go(whole, clip=FakeClip(step=2))
    go(whole, clip=FakeClip(step=2), fresh=True)
    with Take.open(whole) as take:
        assert take.samples == 20


def test_fresh_never_deletes_what_is_no_take(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(Body4DError, match="is not a take, so it was not deleted"):
        go(tmp_path / "photos", fresh=True)
    assert (tmp_path / "photos" / "a.jpg").exists()


def test_too_little_memory_is_explained_and_keeps_what_is_done(tmp_path):
    with pytest.raises(Body4DError, match="not enough memory for the stage track.*goes on where it stopped"):
        go(tmp_path / "a.take", FakeTrack(fail_at=30), FakeRecover())
    events = go(tmp_path / "a.take")
    assert next(e for e in events if isinstance(e, StageStarted)).resumed


@pytest.mark.parametrize("settings, expected", [
    ({}, (64.0, "assumed")), ({"focal_px": 99}, (99, "user")), ({"focal_mm": 18}, (32, "user"))])
def test_focal_length_says_where_it_comes_from(tmp_path, settings, expected):
    clip = FakeClip()
    events = go(tmp_path / "a.take", Camera(**settings), clip=clip)
    camera = Take.open(tmp_path / "a.take").camera()
    assert (camera["focal_px"][0], str(camera["method"])) == expected
    assert camera["focal_px"].shape == (40,) and camera["principal_px"][3].tolist() == [32, 24]
    assert [e.code for e in events if isinstance(e, Notice)] == (["focal_assumed"] if expected[1] == "assumed" else [])


def test_focal_length_from_metadata_and_an_impossible_one(tmp_path):
    clip = FakeClip()
    clip.focal_px = (70.0, "35 mm equivalent in the file")
    assert Camera().focal(clip) == (70.0, "metadata", "35 mm equivalent in the file")
    with pytest.raises(Body4DError, match="focal length of 2 px is not possible for a frame of 64 x 48"):
        go(tmp_path / "a.take", Camera(focal_px=2))


def slow(clip_path):
    """A run slow enough to be killed anywhere, in this process."""
    stages = (FakeTrack(3), FakeRecover(2))
    for _ in run(FakeClip(), clip_path, FakeBackend(*stages), [], {}):
        time.sleep(0.0004)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked children")
def test_two_hundred_kills_change_nothing(whole, tmp_path):
    rng = np.random.default_rng(5)
    expected, kills, completed = contents(whole), 0, 0
    path = tmp_path / "killed.take"
    while kills < 200:
        child = os.fork()
        if child == 0:
            slow(path)
            os._exit(0)
        time.sleep(rng.uniform(0.001, 0.05))
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        kills += os.WIFSIGNALED(status)
        if Take.exists(path):
            Take.open(path).close()
        if not os.WIFSIGNALED(status):
            assert_same(expected, contents(path))
            shutil.rmtree(path)
            completed += 1
    go(path)
    assert_same(expected, contents(path))
    assert completed > 3


def test_truncating_any_file_anywhere_changes_nothing(whole, tmp_path):
    rng = np.random.default_rng(6)
    expected = contents(whole)
    files = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file() and p.stat().st_size)
    assert len(files) > 10
    for name in files:
        for offset in rng.integers(0, (whole / name).stat().st_size, 200 // len(files) + 1):
            copy = tmp_path / "copy.take"
            shutil.copytree(whole, copy)
            os.truncate(copy / name, int(offset))
            Take.open(copy).close()
            go(copy)
            assert_same(expected, contents(copy))
            shutil.rmtree(copy)


def test_notices_of_a_stage_that_was_cut_short_are_not_kept_twice(tmp_path):
    events = run(FakeClip(), tmp_path / "a.take", FakeBackend(), [], {})
    for event in events:
        if isinstance(event, Notice):
            break
    events.close()
    go(tmp_path / "a.take")
    with Take.open(tmp_path / "a.take") as take:
        assert [n["code"] for n in take.notices()] == ["late"]


def test_stage_keys_depend_on_prompts_only_where_they_matter():
    from body4d_engine.people import Person, Prompt
    from body4d_engine.pipeline import stage_keys

    stages = [FakeTrack(), Camera(), FakeRecover()]
    plain = stage_keys(stages, FakeClip(), [], "fake")
    named = stage_keys(stages, FakeClip(), [Person(1, "Ana")], "fake")
    clicked = stage_keys(stages, FakeClip(), [Person(1, "Zoë", prompts=[Prompt(3, 1.0, 2.0)])], "fake")
    other = stage_keys(stages, SimpleNamespace(fingerprint="x", fps=30, frames=range(40)), [], "fake")
    assert plain["camera"] == clicked["camera"] != other["camera"]
    assert len({keys["track"] for keys in (plain, named, clicked, other)}) == 4
    assert clicked["recover"] != named["recover"]
