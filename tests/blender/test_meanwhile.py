# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens between a question to the engine and its answer: other files, other engines, a Blender that is busy. Scripted engines."""

import threading
import time
from types import SimpleNamespace

import bpy
import pytest

import body4d_blender
from body4d_blender import connection, generating, opening
from body4d_blender.asking import asker
from body4d_blender.client import _error_of
from body4d_blender.receiving import TakeCopy
from body4d_blender.scene import build_take
from body4d_engine.clip_files import identify
from body4d_engine.take import Take

from .make_take import make_take
from .test_generate import previews, start, until


pytestmark = pytest.mark.usefixtures("forgetful")


@pytest.fixture
def held(monkeypatch):
    """Reading a clip takes until this event is set."""
    event = threading.Event()

    def read(*args):
        event.wait(10)
        return identify(*args)

    monkeypatch.setattr(opening, "identify", read)
    yield event
    event.set()


def choose(path) -> None:
    """As the operator does with a window."""
    from body4d_blender.operators.clip import open_clip

    open_clip(bpy.context.scene.session_uid, path)


def test_a_clip_that_is_still_read_when_another_file_is_opened_does_not_get_into_it(addon, engine, video, held):
    connection.use(engine())
    choose(video)
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    held.set()
    until(lambda: not connection.is_busy())
    assert not bpy.context.scene.body4d.clip and asker.busy is None and asker.opening is None and not asker.problem


def test_a_clip_that_is_still_read_when_the_addon_is_disabled_holds_nothing_up(addon, engine, video, held):
    connection.use(engine())
    choose(video)
    body4d_blender.unregister()
    body4d_blender.register()
    held.set()
    connection.use(engine())
    time.sleep(0.1)
    until(lambda: not connection.is_busy())
    assert asker.busy is None and not bpy.context.scene.body4d.clip
    choose(video)
    until(lambda: not connection.is_busy())
    assert bpy.context.scene.body4d.clip == str(video)


def test_an_engine_that_was_started_anew_opens_the_clip_before_it_is_asked_about_it(addon, engine, video, monkeypatch):
    connection.use(engine())
    assert bpy.ops.body4d.choose_clip(filepath=str(video)) == {"FINISHED"}
    connection.stop()
    asked, ask = [], connection.ask
    monkeypatch.setattr(connection, "ask", lambda method, *args, **more: asked.append(method) or ask(method, *args, **more))
    assert bpy.ops.body4d.find_everyone() == {"FINISHED"}
    assert asked == ["offer", "open", "detect"]


def test_another_engine_is_not_taken_while_one_generates(addon, engine, slow, video):
    generation = start(engine, slow)
    until(lambda: generation.state == "running")
    used = connection.get()
    connection.use(engine("banner"))
    assert connection.get() is used and generation.state == "running"
    generation.cancel()
    until(lambda: generation.state == "done")
    assert connection.get() is not used


def test_an_engine_that_sees_our_take_keeps_none_of_its_own(addon, engine, video):
    takes = video.parent / "engine"
    for _ in range(2):  # the second time it goes on with ours
        assert bpy.ops.body4d.generate(filepath=str(video), engine=engine()) == {"FINISHED"}
        until(lambda: not connection.is_busy())
        assert not list(takes.glob("*.take")) and Take.open(video.with_suffix(".take")).stage("refine")


def test_what_the_user_has_in_the_hand_is_not_disturbed(addon, engine, slow, monkeypatch):
    hand = []
    monkeypatch.setattr(generating, "in_hand", lambda: bool(hand))
    generation = start(engine, slow)
    until(previews)
    hand.append("an object that is being moved")
    count, places = len(previews()), {body.name: tuple(body.location) for body in previews()}
    until(lambda: generation.state == "building" and generation.waits)
    assert generation.title == "The result is ready: it comes when you have finished what you are doing" and len(previews()) == count
    assert {body.name: tuple(body.location) for body in previews()} == places
    hand.clear()
    until(lambda: generation.state == "done")
    assert generation.error is None and not previews() and len(bpy.data.objects) == 3


def test_a_cancel_with_something_in_the_hand_takes_the_previews_out_later(addon, engine, slow, monkeypatch):
    hand = []
    monkeypatch.setattr(generating, "in_hand", lambda: bool(hand))
    generation = start(engine, slow)
    until(previews)
    hand.append(1)
    generation.cancel()
    until(lambda: generation.state == "done")
    assert previews() and generating.current is None
    hand.clear()
    until(lambda: not previews())


def test_what_is_in_the_hand(addon, monkeypatch):
    def window(*options):
        return SimpleNamespace(modal_operators=[SimpleNamespace(bl_options=set(option)) for option in options])

    def seen(*windows):
        monkeypatch.setattr(generating.bpy, "context", SimpleNamespace(window_manager=SimpleNamespace(windows=windows)))
        return generating.in_hand()

    assert not generating.in_hand() and not seen() and not seen(window(), window({"REGISTER"}))  # as Pick People
    assert seen(window(), window({"REGISTER"}, {"REGISTER", "UNDO", "BLOCKING"})) and seen(window({"BLOCKING"}))
    monkeypatch.undo()
    assert {"modal_operators"} <= set(bpy.types.Window.bl_rna.properties.keys())


def test_deleting_a_take_deletes_what_the_engine_has_of_it(addon, engine, slow):
    generation = start(engine, slow)
    until(previews)
    generation.cancel()
    until(lambda: generation.state == "done")
    build_take(slow.with_suffix(".take"))
    takes = slow.parent / "engine"
    assert list(takes.glob("*.take"))
    connection.stop()  # it is started for that: the take is not complete
    assert bpy.ops.body4d.delete_take(files=True) == {"FINISHED"}
    assert not list(takes.glob("*.take")) and not slow.with_suffix(".take").exists()


def test_no_engine_is_started_to_delete_a_take_that_is_complete(addon, tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "ask", lambda *_: pytest.fail("it was asked"))
    build_take(make_take(tmp_path / "a.take"))
    assert bpy.ops.body4d.delete_take(files=True) == {"FINISHED"} and not (tmp_path / "a.take").exists()


def test_a_folder_for_a_take_that_never_came_is_not_left(tmp_path):
    TakeCopy(tmp_path / "new.take").close()
    assert not (tmp_path / "new.take").exists()
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "letter.txt").touch()
    TakeCopy(tmp_path / "ours").close()
    assert [path.name for path in (tmp_path / "ours").iterdir()] == ["letter.txt"]


def test_a_range_that_ends_after_the_clip_ends_with_it(addon, engine, video):
    connection.use(engine())
    bpy.ops.body4d.choose_clip(filepath=str(video))
    state = bpy.context.scene.body4d
    state.use_range, state.frame_start, state.frame_end = True, 31, 250
    assert bpy.ops.body4d.generate(engine=engine()) == {"FINISHED"}
    assert list(Take.open(video.with_suffix(".take")).frames) == list(range(30, 40))
    state.frame_start = 41
    with pytest.raises(RuntimeError, match="begins with frame 41, but the clip has 40 frames"):
        bpy.ops.body4d.generate(engine=engine())


@pytest.mark.parametrize("said, shown", [
    ("Ana has a prompt on frame 149, but frames 0 to 99 are used.", "Ana has a prompt on frame 150, but frames 1 to 100 are used."),
    ("a.mp4 has no frame 40: it has 40, numbered from 0.", "a.mp4 has no frame 41: it has 40, numbered from 1."),
    ("It has 40 frames, frames9.png is damaged.", "It has 40 frames, frames9.png is damaged.")])
def test_frames_are_counted_as_the_user_does(said, shown):
    error = _error_of({"message": said, "data": {"code": "prompt_outside_clip", "hint": "Change --start."}})
    assert error.message == shown and "--" not in error.hint


def test_a_sequence_of_very_many_images_is_offered(addon, engine, tmp_path, monkeypatch):
    folder = tmp_path / "frames"
    folder.mkdir()
    files = [{"name": f"a_rather_long_name_{n:06d}.png", "bytes": 1_234_567} for n in range(30_000)]
    monkeypatch.setattr(opening, "clip_files", lambda path: [])
    monkeypatch.setattr(opening, "identify", lambda path, watch: {"name": "frames", "files": files, "sha256": "0" * 64, "path": str(folder), "stamp": "1"})
    connection.use(engine())
    assert bpy.ops.body4d.choose_clip(filepath=str(folder)) == {"FINISHED"}


def test_reading_a_clip_tells_how_far_it_is_and_can_be_stopped(addon, engine, tmp_path):
    clip = tmp_path / "long.mp4"
    clip.write_bytes(bytes(40 << 20))
    connection.use(engine())
    seen, ended = [], []
    choice = opening.Opening(clip, ended.append, ended.append)
    until(lambda: seen.append((choice.words, choice.fraction)) or ended)
    assert any(words == "Reading long.mp4" and 0 < fraction < 1 for words, fraction in seen) and isinstance(ended[0], opening.Clip)
    clip.write_bytes(bytes(40 << 20))
    choice = opening.Opening(clip, ended.append, ended.append)
    choice.cancel()
    until(lambda: len(ended) == 2)
    assert ended[1].code == "cancelled"
