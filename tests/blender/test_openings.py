# SPDX-License-Identifier: GPL-3.0-or-later
"""How a clip comes to the engine: once, however many wait for it, and a folder of images at the rate that the user says. Scripted engines."""

from fractions import Fraction
from unittest.mock import MagicMock

import bpy
import pytest

from body4d_blender import command, connection, generating, opening
from body4d_blender.asking import asker
from body4d_blender.panels.clip import BODY4D_PT_clip
from body4d_engine.take import Take

from .test_generate import start, until


pytestmark = pytest.mark.usefixtures("forgetful")


@pytest.fixture
def far(tmp_path, monkeypatch):
    """A clip that has to be sent, in many pieces."""
    monkeypatch.setattr(opening, "CHUNK", 7)
    path = tmp_path / "far.mp4"
    path.write_bytes(bytes(range(200)))
    return path


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.png").write_bytes(b"x" * (10 * i))
    return folder


@pytest.fixture
def asked(monkeypatch):
    """(method, parameters) of every request."""
    asked, ask = [], connection.ask
    monkeypatch.setattr(connection, "ask", lambda method, params=None, *args, **more: asked.append((method, params)) or ask(method, params, *args, **more))
    return asked


def test_two_that_wait_for_one_clip_send_it_once(addon, engine, far, asked):
    connection.use(engine())
    ended = []
    first = opening.Opening(far, ended.append, ended.append)
    until(lambda: sum(method == "send" for method, _ in asked) > 5)
    second = opening.Opening(far, ended.append, ended.append)
    assert second.words == "Sending the clip" and second.fraction > 0.1
    third = opening.Opening(far, ended.append, ended.append)
    third.cancel()  # which stops none of the others
    assert ended.pop().code == "cancelled"
    until(lambda: len(ended) == 2)
    assert ended[0] is ended[1] and ended[0].path == str(far) and opening.is_open(far, 30.0)
    offsets = [params["offset"] for method, params in asked if method == "send"]
    assert offsets == list(range(0, 200, 7)) and [method for method, _ in asked if method != "send"] == ["offer", "open"]
    assert first.fraction == second.fraction


def test_what_was_sent_before_is_not_sent_again(addon, engine, far, asked):
    connection.use(engine())
    ended = []
    choice = opening.Opening(far, ended.append, ended.append)
    until(lambda: sum(method == "send" for method, _ in asked) > 5)
    choice.cancel()
    again = opening.Opening(far, ended.append, ended.append)  # at once: it does not share the end of the other
    until(lambda: len(ended) == 2)
    assert ended[0].code == "cancelled" and isinstance(ended[1], opening.Clip) and again.words == "Opening the clip"
    offsets = [params["offset"] for method, params in asked if method == "send"]
    assert offsets == list(range(0, 200, 7))


def test_a_folder_goes_on_in_the_right_file(addon, engine, tmp_path, monkeypatch):
    way = opening._Way.__new__(opening._Way)
    way._offer = {"files": [{"bytes": n} for n in (10, 0, 3, 20, 0)]}
    went = []
    monkeypatch.setattr(way, "_send", lambda *place: went.append(place), raising=False)
    for received in (0, 5, 10, 12, 13, 33):
        way._go_on(received)
    assert went == [(0, 0, 0), (0, 5, 5), (2, 0, 10), (2, 2, 12), (3, 0, 13), (5, 0, 33)]


def test_another_clip_chosen_meanwhile_is_the_one_that_is_opened(addon, engine, far, video, asked):
    from body4d_blender.operators.clip import open_clip

    connection.use(engine())
    number = addon.session_uid
    open_clip(number, far)
    until(lambda: sum(method == "send" for method, _ in asked) > 5)
    open_clip(number, video)
    until(lambda: not connection.is_busy())
    assert bpy.context.scene.body4d.clip == str(video) and asker.opening is None and asker.busy is None and not asker.problem
    assert sum(method == "send" for method, _ in asked) < 10


def test_images_are_taken_at_the_rate_that_was_chosen(addon, engine, images, tmp_path, asked):
    addon.body4d.image_fps = 12.5
    connection.use(engine())
    assert bpy.ops.body4d.choose_clip(filepath=str(images)) == {"FINISHED"}
    state = bpy.context.scene.body4d
    assert state.clip_is_images and state.clip_fps == 12.5 and asked[-1][1]["image_fps"] == 12.5
    layout = MagicMock()
    BODY4D_PT_clip.draw(type("Panel", (), {"layout": layout}), type("Context", (), {"scene": bpy.context.scene}))
    assert "image_fps" in str(layout.mock_calls)
    assert opening.is_open(images, 12.5) and not opening.is_open(images, 24.0)
    assert bpy.ops.body4d.generate(engine=engine()) == {"FINISHED"}
    with Take.open(tmp_path / "images.take") as take:
        assert Fraction(*take.clip["fps"]) == Fraction(25, 2)
    state.image_fps = 24.0
    with pytest.raises(RuntimeError, match="at another frame rate"):
        bpy.ops.body4d.generate(engine=engine())
    assert bpy.ops.body4d.generate(filepath=str(images), take=str(tmp_path / "b.take"), image_fps=23.976, engine=engine()) == {"FINISHED"}
    assert Fraction(*Take.open(tmp_path / "b.take").clip["fps"]) == Fraction(24000, 1001)
    connection.stop()


def test_solving_again_keeps_the_rate_of_the_take(addon, engine, images, tmp_path, monkeypatch):
    from body4d_blender import retaking
    from body4d_blender.scene import imported

    assert bpy.ops.body4d.generate(filepath=str(images), image_fps=23.976, engine=engine()) == {"FINISHED"}
    monkeypatch.setattr(retaking, "source_path", lambda take, clip: images)
    order = retaking.order_of(addon, imported.takes_in(addon)[0], lambda people, settings: None)
    assert order.image_fps == 24000 / 1001
    assert bpy.ops.body4d.refine_again(engine=engine(), smoothing=2.0) == {"FINISHED"} and not generating.last_error


def test_the_command_line_says_the_rate(images, monkeypatch):
    orders = []
    monkeypatch.setattr(generating, "make", lambda order, say: orders.append(order))
    monkeypatch.setattr(command, "_build", lambda *_: None)
    assert command.run(["convert", str(images), "--image-fps", "24"]) == 0 == command.run(["convert", str(images)])
    assert [order.image_fps for order in orders] == [24.0, 30.0]


def test_a_video_is_not_told_a_rate(addon, engine, video, asked):
    generation = start(engine, video, image_fps=12.0)
    until(lambda: generation.state == "done")
    assert generation.error is None and not any("image_fps" in (params or {}) for _, params in asked)


def test_a_clip_that_is_removed_is_let_go_of(addon, engine, video, asked):
    connection.use(engine())
    bpy.ops.body4d.choose_clip(filepath=str(video))
    bpy.ops.body4d.add_person()
    assert bpy.ops.body4d.remove_clip() == {"FINISHED"}
    state = bpy.context.scene.body4d
    assert not state.clip and not state.people and not state.clip_frames and asked[-1] == ("close_clip", None) and opening.last is None
    assert not bpy.ops.body4d.remove_clip.poll() and not bpy.ops.body4d.add_person.poll()
    until(lambda: not connection.is_busy())


def test_a_clip_that_the_engine_has_lost_is_opened_anew(addon, engine, video, asked):
    connection.use(engine())
    bpy.ops.body4d.choose_clip(filepath=str(video))
    opening.lost()
    asked.clear()
    asker.look(bpy.context.scene)
    until(lambda: not connection.is_busy())
    assert [method for method, _ in asked] == ["offer", "open"] and not asker.problem
