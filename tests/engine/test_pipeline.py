# SPDX-License-Identifier: Apache-2.0
"""Order, keys and resume, with stages that are quick; every crash leaves a take from which the same result comes."""

import itertools
import os
import shutil
import signal
import time
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from body4d_engine.errors import Body4DError
from body4d_engine.events import Committed, Notice, Progress, StageFinished, StageStarted
from body4d_engine.people import Person, Prompt
from body4d_engine.pipeline import run, stage_keys
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
    for zero in (Camera(focal_px=0.0), Camera(focal_mm=0.0)):  # not the same as none
        with pytest.raises(Body4DError, match="focal length of 0 px"):
            go(tmp_path / "b.take", zero)


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
    start = time.monotonic()
    slow(tmp_path / "undisturbed.take")
    seconds = time.monotonic() - start
    while kills < 200:
        child = os.fork()
        if child == 0:
            slow(path)
            os._exit(0)
        time.sleep(rng.uniform(0, seconds))
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
    assert completed


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
    stages = [FakeTrack(), Camera(), FakeRecover()]
    plain = stage_keys(stages, FakeClip(), [], "fake")
    named = stage_keys(stages, FakeClip(), [Person(1, "Ana")], "fake")
    tall = stage_keys(stages, FakeClip(), [Person(1, "Ana", height_m=1.9)], "fake")
    clicked = stage_keys(stages, FakeClip(), [Person(1, "Zoë", prompts=[Prompt(3, 1.0, 2.0)])], "fake")
    other = stage_keys(stages, SimpleNamespace(fingerprint="x", fps=30, frames=range(40)), [], "fake")
    assert plain["camera"] == clicked["camera"] != other["camera"]
    assert named == plain
    assert tall["track"] == plain["track"] and tall["recover"] != plain["recover"]
    assert len({keys["track"] for keys in (plain, clicked, other)}) == 3
    assert clicked["recover"] != plain["recover"]


def test_a_new_name_or_height_is_taken_up_without_tracking_again(whole):
    assert finished(go(whole, people=[Person(1, "Ana")])) == {"track": True, "recover": True}
    with Take.open(whole) as take:
        assert [p["name"] for p in take.people] == ["Ana", "Person 2"]
    assert finished(go(whole, people=[Person(1, "Ana", height_m=1.5)])) == {"track": True, "recover": False}
    with Take.open(whole) as take:
        assert take.people[0]["height_m"] == 1.5


def test_what_is_said_about_somebody_who_is_not_there_is_not_ignored_in_silence(whole):
    events = list(run(FakeClip(), whole, FakeBackend(), [Person(2, "Bo"), Person(5, "Cy")], {"heights": {0: 1.8, 1: 1.7, 9: 1.6}}))
    said = [e for e in events if isinstance(e, Notice)]
    assert [(n.code, n.person) for n in said] == [("person_unknown", 5), ("person_unknown", 9)] and "only person 1, 2" in said[0].message


def test_a_moved_clip_is_found_where_it_is_now(whole):
    clip = FakeClip()
    there = {**clip.describe(), "path": "/new/fake.mp4"}
    clip.describe = lambda: there
    go(whole, clip=clip)
    with Take.open(whole) as take:
        assert take.clip["path"] == "/new/fake.mp4"


def test_another_backend_or_frame_rate_is_refused_by_name(whole):
    other, slower = FakeBackend(), FakeClip()
    other.name = "other"
    with pytest.raises(Body4DError, match="whole.take holds a take of the fake backend"):
        list(run(FakeClip(), whole, other, [], {}))
    there = {**slower.describe(), "fps": [25, 1]}
    slower.describe = lambda: there
    with pytest.raises(Body4DError, match=r"another frame rate \(30/1 per second, now 25/1\)"):
        go(whole, clip=slower)


def test_going_back_after_a_run_with_other_people_was_cut_short(whole):
    """The other run's people, notices and files are gone; what was complete is not made again."""
    before, files = contents(whole), sorted(whole.rglob("*"))

    class Others(FakeTrack):
        def run(self, clip, people, take, cursor):
            take.set_people([Person(7).to_json()])
            take.append_mask("people/7", np.ones((48, 64), bool))
            take.notice({"code": "others"})
            take.commit({})
            raise KeyboardInterrupt
            yield

    with pytest.raises(KeyboardInterrupt):
        go(whole, Others(), FakeRecover(), people=[Person(7, prompts=[Prompt(1, 2.0, 3.0)])])
    assert_same(before, contents(whole))
    assert finished(go(whole)) == {"track": True, "recover": True}
    assert_same(before, contents(whole))
    assert sorted(whole.rglob("*")) == files


def test_a_resumed_stage_goes_on_from_its_own_data_and_not_from_an_older_result(whole, tmp_path):
    go(tmp_path / "expected.take", FakeTrack(), FakeRecover(scale=2.0))
    events = run(FakeClip(), whole, FakeBackend(FakeTrack(), FakeRecover(scale=2.0)), [], {})
    assert any(isinstance(event, Committed) and event.stop == 20 for event in events)
    events.close()
    assert next(e for e in go(whole, FakeTrack(), FakeRecover(scale=2.0)) if isinstance(e, StageStarted)).resumed
    assert_same(contents(tmp_path / "expected.take"), contents(whole))


def test_notices_of_a_stage_killed_at_its_end_are_not_kept_twice(tmp_path):
    events = run(FakeClip(), tmp_path / "a.take", FakeBackend(Camera()), [], {})
    assert any(isinstance(event, Progress) for event in events)
    events.close()
    go(tmp_path / "a.take", Camera())
    with Take.open(tmp_path / "a.take") as take:
        assert [n["code"] for n in take.notices()] == ["focal_assumed"]


class Killed(BaseException):
    """The process is gone: nothing may be done any more."""


@contextmanager
def killed_at(number):
    """From the `number`-th call on that changes the disk for good none takes place."""
    calls = itertools.count(1)

    def until_then(call):
        def attempt(*args, **options):
            if next(calls) >= number:
                raise Killed
            return call(*args, **options)
        return attempt

    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "fsync", "unlink", "rmdir"):
            patch.setattr(os, name, until_then(getattr(os, name)))
        yield


@pytest.mark.parametrize("changed", [False, True])
def test_a_kill_between_any_two_calls_changes_nothing_and_leaves_nothing(tmp_path, changed):
    """Of a first run, and of one that replaces an older result."""
    start, stages = tmp_path / "start.take", (FakeTrack(17), FakeRecover(20, scale=2.0))
    if changed:
        go(start, FakeTrack(17), FakeRecover(20))
    expected_path = tmp_path / "expected.take"
    go(expected_path, *stages)
    expected, files = contents(expected_path), len(list(expected_path.rglob("*")))
    for number in itertools.count(1, 1):
        path = tmp_path / "killed.take"
        if changed:
            shutil.copytree(start, path)
        with killed_at(number):
            try:
                go(path, *stages)
                break
            except Killed:
                pass
        if Take.exists(path):
            Take.open(path).close()
        go(path, *stages)
        assert_same(expected, contents(path))
        assert len(list(path.rglob("*"))) == files, number
        shutil.rmtree(path)
    assert number > 30


def test_fresh_killed_anywhere_leaves_what_the_next_run_can_use(whole, tmp_path):
    expected = contents(whole)
    for number in itertools.count(1, 2):
        path = tmp_path / "killed.take"
        shutil.copytree(whole, path)
        with killed_at(number):
            try:
                go(path, fresh=True)
                break
            except Killed:
                pass
        go(path, fresh=number % 4 == 1)
        assert_same(expected, contents(path))
        shutil.rmtree(path)
    assert number > 30
