# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong is marked and solved again, or all is refined again, with a scripted engine: what it is asked, and what stays."""

import bpy
import pytest

from body4d_blender import connection, generating, retaking
from body4d_blender.heights import height_m
from body4d_blender.scene import build_take, corrections, imported, tags
from body4d_blender.scene.clip import source_path
from body4d_blender.scene.corrections import Correction
from body4d_engine.take import Take

from .make_take import make_take
from .test_generate import until
from .test_take_panel import DOUBTS, path  # noqa: F401


@pytest.fixture(autouse=True)
def found(video, monkeypatch):
    """The scripted engine's takes say nothing of where their clip is."""
    monkeypatch.setattr(retaking, "source_path", lambda folder, clip: video)


@pytest.fixture
def made(addon, engine, video):
    """The collection of a take that was generated of 40 frames, scene frame 1 the first, two people."""
    assert bpy.ops.body4d.generate(filepath=str(video), engine=engine()) == {"FINISHED"}
    return imported.takes_in(addon)[0]


def folder(video):
    return video.with_suffix(".take")


def test_marks(addon, path):  # noqa: F811
    collection = build_take(path, scene_start=101)
    ana = imported.body_of(collection, 1)
    bpy.context.view_layer.objects.active = ana
    addon.frame_set(107)
    assert bpy.ops.body4d.mark_wrong(kind="SIDES") == {"FINISHED"}  # the doubtful frames around the current one
    addon.frame_set(117)
    assert bpy.ops.body4d.mark_wrong(kind="BODY", limb="LEFT_ARM") == {"FINISHED"}  # where there is no doubt
    addon.use_preview_range, addon.frame_preview_start, addon.frame_preview_end = True, 103, 500
    assert bpy.ops.body4d.mark_wrong(kind="LIMB", limb="RIGHT_LEG", person=2) == {"FINISHED"}
    assert bpy.ops.body4d.mark_wrong(kind="DEPTH", frame_start=90, frame_end=104) == {"FINISHED"}
    first, last = DOUBTS[0][:2]
    wanted = [Correction(1, first, last, "sides"), Correction(1, 16, 16, "body"), Correction(2, 2, 19, "limb", "right leg"), Correction(1, 0, 3, "depth")]
    assert corrections.read(collection) == wanted
    bpy.ops.body4d.mark_wrong(kind="SIDES", frame_start=106, frame_end=109)
    assert len(corrections.read(collection)) == 4
    assert bpy.ops.body4d.unmark(index=1) == {"FINISHED"} and bpy.ops.body4d.unmark(index=0) == {"FINISHED"} and bpy.ops.body4d.unmark(index=7) == {"CANCELLED"}
    assert corrections.read(collection) == [wanted[2], wanted[3]]
    build_take(path, mesh_cache=True)
    bpy.ops.body4d.mark_wrong(person=2, kind="BODY")
    assert bpy.ops.body4d.unmark() == {"FINISHED"} and corrections.read(collection) == [wanted[2], wanted[3]] and corrections.solved(collection) == []
    for words, options in (("Which limb is lost", {"kind": "LIMB"}), ("There is nothing of a from frame 200 to 300", {"frame_start": 200, "frame_end": 300}),
                           ("There is no person 7 in a", {"person": 7})):
        with pytest.raises(RuntimeError, match=words):
            bpy.ops.body4d.mark_wrong(**options)
    bpy.context.view_layer.objects.active = None
    with pytest.raises(RuntimeError, match="Who is wrong. Select someone of the take"):
        bpy.ops.body4d.mark_wrong()


def test_solving_again_sends_everyone_and_everything_marked(addon, made, engine, video):
    bpy.ops.body4d.mark_wrong(person=2, kind="DEPTH", limb="LEFT_ARM", frame_start=3, frame_end=9)
    bpy.ops.body4d.mark_wrong(person=1, kind="SIDES", frame_start=30, frame_end=31)
    bpy.ops.body4d.stand_on_floor(source="VALUES", height=1.0)
    assert bpy.ops.body4d.solve_again(engine=engine()) == {"FINISHED"}
    with Take.open(folder(video)) as take:
        assert [entry["corrections"] for entry in take.people] == [
            [{"first_frame": 29, "last_frame": 30, "kind": "sides"}], [{"first_frame": 2, "last_frame": 8, "kind": "depth", "limb": "left arm"}]]
        assert [entry["prompts"] for entry in take.people] == [{"clicks": [], "boxes": []}] * 2
    assert imported.takes_in(addon) == [made] and sorted(corrections.read(made)) == sorted(corrections.solved(made)) and len(corrections.read(made)) == 2
    assert any(o.get(tags.ROLE) == "floor" for o in made.objects)
    assert bpy.ops.body4d.generate(filepath=str(video), engine=engine()) == {"FINISHED"}  # as it was made without clicks
    assert Take.open(folder(video)).people[0]["corrections"] and corrections.solved(made)
    bpy.ops.body4d.unmark(index=0)
    bpy.ops.body4d.unmark(index=0)
    assert bpy.ops.body4d.solve_again(engine=engine()) == {"FINISHED"}
    assert not any(entry["corrections"] for entry in Take.open(folder(video)).people) and not corrections.solved(made)


def test_corrections_of_picked_people_stay_when_generate_is_pressed_again(addon, engine, video):
    state = addon.body4d
    state.clip, state.clip_frames = str(video), 40
    for number, name in ((1, "Ana"), (2, "Bo")):
        person = state.people.add()
        person.id, person.name = number, name
        click = person.clicks.add()
        click.x, click.y = 10 * number, 20
    bpy.ops.body4d.generate(engine=engine())
    bpy.ops.body4d.mark_wrong(person=2, kind="SIDES", frame_start=3, frame_end=9)
    bpy.ops.body4d.refine_again(engine=engine(), heights=[{"name": "", "person": 2, "use_height": True, "height": 1.7}], smoothing=2.0)
    assert not Take.open(folder(video)).people[1]["corrections"] and height_m(state.people[1]) == pytest.approx(1.7)
    bpy.ops.body4d.solve_again(engine=engine())
    bpy.ops.body4d.generate(engine=engine())
    take = Take.open(folder(video))
    assert len(take.people[1]["corrections"]) == 1 and take.people[1]["height_m"] == pytest.approx(1.7) and take.settings["smoothing"] == 2.0
    bpy.ops.body4d.generate(engine=engine(), fresh=True)
    assert not Take.open(folder(video)).people[1]["corrections"] and not corrections.read(imported.takes_in(addon)[0])


def test_refining_again_changes_what_is_said_and_keeps_the_rest(made, engine, video):
    def settings():
        return Take.open(folder(video)).settings

    assert bpy.ops.body4d.refine_again(engine=engine(), foot_lock=False, focal_px=900) == {"FINISHED"}
    assert settings()["foot_lock"] is False and settings()["focal_px"] == 900 and not settings().get("focal_mm")
    assert bpy.ops.body4d.refine_again(engine=engine(), smoothing=0.5, focal="MM", focal_mm=28) == {"FINISHED"}
    assert settings()["foot_lock"] is False and settings()["smoothing"] == 0.5 and settings()["focal_mm"] == 28 and settings()["focal_px"] is None
    assert bpy.ops.body4d.refine_again(engine=engine(), focal="FOUND") == {"FINISHED"}
    assert not settings()["focal_px"] and not settings()["focal_mm"]
    with pytest.raises(RuntimeError, match="There is no person 9"):
        bpy.ops.body4d.refine_again(engine=engine(), heights=[{"name": "", "person": 9, "use_height": True, "height": 1.7}])


def test_it_says_what_is_missing(addon, engine, tmp_path, made, video, monkeypatch):
    monkeypatch.setattr(retaking, "source_path", source_path)
    video.rename(tmp_path / "elsewhere.mp4")
    with Take.open(folder(video), writable=True) as take:
        take.describe(clip={**take.clip, "path": str(video), "name": video.name})
        take.save()
    with pytest.raises(RuntimeError, match="The clip .* is missing. Show where it is now with Find Clip"):
        bpy.ops.body4d.solve_again(engine=engine())
    build_take(make_take(tmp_path / "b.take", stage="import"))
    with Take.open(tmp_path / "b.take", writable=True) as take:
        take.describe(backend="import")
        take.save()
    with pytest.raises(RuntimeError, match="b was imported as meshes"):
        bpy.ops.body4d.solve_again(take="b", engine=engine())


def test_a_cancelled_solve_leaves_the_take_as_it_was(made, engine, video):
    """The window's way: the operator returns at once."""
    before = Take.open(folder(video)).people
    bpy.ops.body4d.mark_wrong(person=1, kind="SIDES", frame_start=3, frame_end=9)
    order = retaking.order_of(bpy.context.scene, made, lambda people, settings: corrections.put(corrections.read(made), people))
    connection.use(engine())
    generation = generating.start(order)
    assert not bpy.ops.body4d.solve_again.poll() and not bpy.ops.body4d.delete_take.poll()
    generation.cancel()
    until(lambda: generation.state == "done")
    assert Take.open(folder(video)).people == before and len(corrections.read(made)) == 1 and not corrections.solved(made)
