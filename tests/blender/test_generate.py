# SPDX-License-Identifier: GPL-3.0-or-later
"""Generate, from the clip to people in the scene, with scripted engines. Without a window ticks are ours: `until` below is Blender's timer."""

import os
import time

import bpy
import numpy as np
import pytest

import body4d_blender
from body4d_blender import connection, generating, takes
from body4d_blender.generating import Order
from body4d_blender.panels import generate as panel
from body4d_blender.scene import tags
from body4d_engine.take import Take
from tests.engine.fakes import assert_same, contents

from .make_take import make_take
from .test_client import is_alive
from .test_scene import shown, upright

posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits")


def until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        if not connection.step():
            time.sleep(0.002)
        assert time.monotonic() < end, "it takes too long"


def start(engine, clip, how="", **options) -> generating.Generation:
    connection.use(engine(how))
    options = {"take": clip.with_suffix(".take"), "scene": bpy.context.scene.session_uid, **options}
    return generating.start(Order(clip=clip, **options))


def previews():
    return [o for o in bpy.data.objects if o.get(tags.ROLE) == "preview"]


def result():
    return sorted(o.name for o in bpy.data.objects)


PEOPLE = ["Person 1", "Person 2", "clip one camera (focal assumed)"]


def test_generate_makes_a_take_and_builds_it(addon, engine, video):
    assert bpy.ops.body4d.generate(filepath=str(video), engine=engine()) == {"FINISHED"}
    assert result() == PEOPLE and generating.current is None and not generating.last_error
    scene = bpy.context.scene
    with Take.open(video.with_suffix(".take")) as take:
        vertices = take.read("people/1", "vertices", "refine")
        for frame in (1, 17, 40):
            scene.frame_set(frame)
            assert np.array_equal(shown(bpy.data.objects["Person 1"]), upright(vertices[frame - 1]))
    assert not previews() and not [m for m in bpy.data.meshes if m.get(tags.ROLE) == "preview"]


def test_what_is_chosen_in_the_sidebar_is_what_is_generated(addon, engine, video):
    state = addon.body4d
    state.clip, state.clip_frames, state.use_range, state.frame_start, state.frame_end, state.step = str(video), 40, True, 5, 20, 3
    state.output, state.match_scene, state.take = "CACHE", "NO", str(video.with_name("other.take"))
    person = state.people.add()
    person.id, person.name = 1, "Ana"
    click = person.clicks.add()
    click.frame, click.x, click.y = 2, 30, 20
    with pytest.raises(RuntimeError, match="Ana was clicked on frame 3, but the range is frames 5 to 20. Remove that click"):
        bpy.ops.body4d.generate(engine=engine())
    click.frame = 7
    assert bpy.ops.body4d.generate(engine=engine()) == {"FINISHED"}
    with Take.open(video.with_name("other.take")) as take:
        assert take.frames == range(4, 20, 3) and take.people[0]["name"] == "Ana"
        assert take.people[0]["prompts"]["clicks"] == [[7, 30, 20, True]]
    assert bpy.data.objects["Ana"].modifiers and bpy.data.objects["Ana"].data.shape_keys is None


def test_properties_stand_in_for_the_sidebar(addon, engine, video):
    addon.body4d.clip, addon.body4d.use_range, addon.body4d.frame_start = "elsewhere.mp4", True, 30
    ana = '[{"id": 1, "name": "Ana", "prompts": {"clicks": [[0, 1, 2, true]]}}]'
    assert bpy.ops.body4d.generate(filepath=str(video), people=ana, frame_start=3, frame_end=12, step=2, output="CACHE", engine=engine()) == {"FINISHED"}
    with Take.open(video.with_suffix(".take")) as take:
        assert take.frames == range(2, 12, 2) and take.people[0]["name"] == "Ana"


def test_it_says_what_is_wrong(addon, engine, tmp_path, video):
    (tmp_path / "broken.mp4").touch()
    with pytest.raises(RuntimeError, match="broken.mp4 is not a video. Give another"):
        bpy.ops.body4d.generate(filepath=str(tmp_path / "broken.mp4"), engine=engine())
    assert "broken.mp4" in generating.last_error
    with pytest.raises(RuntimeError, match="There is no clip at .*gone.mp4. Choose it again where it is now"):
        bpy.ops.body4d.generate(filepath=str(tmp_path / "gone.mp4"), engine=engine())
    with pytest.raises(RuntimeError, match="There is no engine at /no/engine"):
        bpy.ops.body4d.generate(filepath=str(video), engine="/no/engine")
    with pytest.raises(RuntimeError, match="No clip is chosen"):
        bpy.ops.body4d.generate(engine=engine())
    with pytest.raises(RuntimeError, match="The range from frame 9 to 3 is empty"):
        bpy.ops.body4d.generate(filepath=str(video), frame_start=9, frame_end=3, engine=engine())
    with pytest.raises(RuntimeError, match="The engine did not start .exit code 1.; it said: .*No module named"):
        bpy.ops.body4d.generate(filepath=str(video), engine=engine("dies at start"))
    assert generating.current is None and not result()


def test_bodies_follow_the_newest_frame_and_give_way_to_the_result(addon, engine, slow):
    generation = start(engine, slow)
    until(previews)
    body = previews()[0]
    before = shown(body)
    until(lambda: not np.array_equal(shown(body), before))
    assert generation.first_mesh_s > 0 and generation.title == "Recovering bodies" and 0 < generation.fraction <= 1
    assert [name for _, name in generation.people] == ["Person 1", "Person 2"] and generation.seconds_left == 3.0
    until(lambda: len(previews()) == 2)
    with Take.open(slow.with_suffix(".take")) as take:
        assert np.array_equal(shown(body), upright(take.read("people/1", "vertices", "recover")[-1]))
    until(lambda: generation.state == "done")
    assert generation.error is None and not previews() and len(result()) == 3


def test_preview_and_scene_may_be_deleted_meanwhile(addon, engine, slow):
    generation, scene = start(engine, slow), bpy.context.scene
    until(previews)
    bpy.data.objects.remove(previews()[0])
    until(lambda: generation.done > 30 or generation.stage == "refine")
    assert previews()
    other = bpy.data.scenes.new("other")
    bpy.data.scenes.remove(scene)
    until(lambda: generation.state == "done")
    assert str(generation.error).startswith("The scene that was generated for is gone. Import ") and not result()
    assert bpy.data.scenes[:] == [other] and takes.look(slow.with_suffix(".take")).complete


def test_cancel_keeps_what_is_done_and_continue_goes_on(addon, engine, slow, video):
    generation = start(engine, slow)
    until(previews)
    began = time.monotonic()
    bpy.ops.body4d.cancel()
    assert generation.title == "Stopping"
    until(lambda: generation.state == "done")
    assert time.monotonic() - began < 1.5 and not previews() and not generating.last_error
    folder = slow.with_suffix(".take")
    known = takes.look(folder)
    assert known.there and not known.complete and "track" in known.done
    assert bpy.ops.body4d.generate(filepath=str(slow), engine=engine()) == {"FINISHED"}
    bpy.ops.body4d.generate(filepath=str(video), engine=engine())
    assert_same({k: v for k, v in contents(folder).items() if k != "people"}, {k: v for k, v in contents(video.with_suffix(".take")).items() if k != "people"})


def test_cancel_while_the_clip_is_being_opened(addon, engine, slow):
    generation = start(engine, slow)
    generation.cancel()
    until(lambda: generation.state == "done")
    assert generating.current is None and not generating.last_error and not slow.with_suffix(".take").exists()


@pytest.mark.parametrize("how, words", [("crashes", "The engine ended unexpectedly (exit code 3); it said: Fatal: it broke."),
                                        ("not json", "A message could not be understood"), ("hangs", "")])
def test_whatever_the_engine_does_continue_goes_on(addon, engine, slow, how, words):
    generation = start(engine, slow, how)
    if how == "hangs":
        until(lambda: generation.stage == "recover")
        generation.cancel()
    until(lambda: generation.state == "done")
    assert words in generating.last_error and not previews() and bpy.ops.body4d.generate.poll()
    left = takes.look(slow.with_suffix(".take"))
    assert left.there and not left.complete
    connection.use("")
    assert bpy.ops.body4d.generate(filepath=str(slow), engine=engine()) == {"FINISHED"} and len(result()) == 3


@posix
def test_a_full_disk_stops_the_engine_says_so_and_is_survived(addon, engine, slow):
    import resource

    limits, generation = resource.getrlimit(resource.RLIMIT_FSIZE), start(engine, slow)
    try:
        until(lambda: generation.state == "running")
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 10, limits[1]))  # ours: the engine was started before
        until(lambda: generation.state == "done")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "could not be written: File too large" in generating.last_error and "run again" in generating.last_error
    assert bpy.ops.body4d.generate(filepath=str(slow), engine=engine()) == {"FINISHED"} and len(result()) == 3


def test_a_clip_that_was_moved_is_found_again_by_its_content(addon, engine, slow):
    generation, folder = start(engine, slow), slow.with_suffix(".take")
    until(previews)
    generation.cancel()
    until(lambda: generation.state == "done")
    moved = slow.rename(slow.with_name("moved.mp4"))
    with pytest.raises(RuntimeError, match="There is no clip at .*slow.mp4. Choose it again where it is now"):
        bpy.ops.body4d.generate(filepath=str(slow), take=str(folder), engine=engine())
    assert bpy.ops.body4d.generate(filepath=str(moved), take=str(folder), engine=engine()) == {"FINISHED"}
    assert takes.look(folder).complete and len(result()) == 3


def test_another_file_is_opened_meanwhile(addon, engine, slow):
    generation = start(engine, slow)
    until(previews)
    pid = int((slow.parent / "engine" / "pids").read_text().split()[-1])
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    assert generation.state == "done" and generating.current is None and not previews() and not is_alive(pid)
    assert not connection.is_busy() and connection.get().state == "starting"
    assert bpy.ops.body4d.generate(filepath=str(slow), engine=engine()) == {"FINISHED"} and len(result()) == 3


def test_another_file_is_opened_while_the_clip_is_read(addon, engine, slow):
    generation = start(engine, slow)
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    assert generation.state == "done"
    until(lambda: not connection.is_busy())
    assert generating.current is None and not slow.with_suffix(".take").exists()


def test_an_idle_engine_stays_when_another_file_is_opened(addon, engine, video):
    bpy.ops.body4d.generate(filepath=str(video), engine=engine())
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    assert bpy.ops.body4d.generate(filepath=str(video), engine=engine()) == {"FINISHED"}
    assert len((video.parent / "engine" / "pids").read_text().split()) == 1


def test_the_addon_is_disabled_meanwhile(scene, engine, slow):
    body4d_blender.register()
    generation = start(engine, slow)
    until(previews)
    pid = int((slow.parent / "engine" / "pids").read_text().split()[-1])
    body4d_blender.unregister()
    assert generation.state == "done" and not previews() and not is_alive(pid)
    left = takes.look(slow.with_suffix(".take"))
    assert left.there and not left.complete


def test_a_preview_that_was_saved_is_gone_after_loading(addon, engine, slow, tmp_path):
    generation = start(engine, slow)
    until(previews)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"), copy=True)
    generation.cancel()
    until(lambda: generation.state == "done")
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "a.blend"))
    assert not previews() and not [m for m in bpy.data.materials if m.get(tags.ROLE) == "preview"]


def test_only_one_at_a_time(addon, engine, slow, video):
    generation = start(engine, slow)
    assert not bpy.ops.body4d.generate.poll()
    with pytest.raises(generating.EngineError, match="Something is being generated already"):
        start(engine, video)
    generation.cancel()
    until(lambda: generation.state == "done")
    assert not bpy.ops.body4d.cancel.poll()


def test_a_clip_that_the_engine_cannot_see_is_sent(addon, engine, tmp_path, monkeypatch):
    monkeypatch.setattr("body4d_blender.opening.CHUNK", 7)
    folder = tmp_path / "far frames"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.png").write_bytes(b"x" * (10 * i))
    fractions, generation = [], start(engine, folder, take=tmp_path / "far.take")
    until(lambda: fractions.append(generation._opening.fraction) or generation.state == "done")
    assert generation.error is None and len(set(fractions)) >= 3 and max(fractions) > 0.3


def test_a_take_of_another_range_is_not_replaced_unless_asked(addon, engine, video):
    bpy.ops.body4d.generate(filepath=str(video), engine=engine())
    with pytest.raises(RuntimeError, match="holds another clip or range .*Start over, or choose another folder"):
        bpy.ops.body4d.generate(filepath=str(video), frame_start=3, engine=engine())
    assert Take.open(video.with_suffix(".take")).samples == 40
    assert bpy.ops.body4d.generate(filepath=str(video), frame_start=3, fresh=True, engine=engine()) == {"FINISHED"}
    assert Take.open(video.with_suffix(".take")).samples == 38


def test_a_take_that_the_engine_never_had_is_not_replaced_unless_asked(addon, engine, tmp_path):
    video = tmp_path / "far.mp4"  # and the take is as far from the engine
    video.write_bytes(b"sent")
    path = make_take(video.with_suffix(".take"))
    before = (path / "take.json").read_bytes()
    with pytest.raises(RuntimeError, match="The engine does not have this take. Start over, or choose another folder"):
        bpy.ops.body4d.generate(filepath=str(video), engine=engine())
    assert (path / "take.json").read_bytes() == before
    assert bpy.ops.body4d.generate(filepath=str(video), engine=engine(), fresh=True) == {"FINISHED"}


def test_no_tick_is_long(addon, engine, slow):
    connection.longest_tick_s = 0.0
    generation = start(engine, slow)
    until(lambda: generation.state == "building" or generation.state == "done")
    assert generation.error is None and 0 < connection.longest_tick_s < 1.0  # bench_addon.py measures; this machine may be busy


class Layout:
    """Records what a panel shows."""

    def __init__(self):
        self.said, self.operators = [], []

    def __getattr__(self, name):
        if name in ("row", "column", "box", "grid_flow"):
            return lambda *_, **__: self
        return {"label": lambda text="", **_: self.said.append(text), "prop": lambda *_, **__: None,
                "progress": lambda factor=0, text="", **_: self.said.append(f"{text} [{factor:.2f}]"),
                "operator": lambda name, text="", **_: self.operators.append(text or name) or self}[name]


def drawn():
    layout = Layout()
    context = type("Context", (), {"scene": bpy.context.scene})
    if panel.BODY4D_PT_generate.poll(context):
        panel.BODY4D_PT_generate.draw(type("Panel", (), {"layout": layout}), context)
    return layout


def test_the_panel_says_what_it_costs_and_how_far_it_is(addon, engine, slow, monkeypatch):
    monkeypatch.setattr(takes, "slowness", {"lite": 1.0})
    assert not drawn().operators
    state = addon.body4d
    state.clip, state.clip_frames = str(slow), 1000
    layout = drawn()
    assert layout.operators == ["Generate"] and "1,000, assuming 2 people" in layout.said and "about 85 s" in layout.said
    assert "+329 MB" in layout.said and "720 MB" in layout.said and "up to 1.4 GB" in layout.said and "658 MB" in layout.said
    state.clip_frames, state.output = 10000, "KEYS"
    assert "Mesh Cache plays" in " ".join(drawn().said)
    state.output = "AUTO"
    assert "stays small" in drawn().said
    state.clip_frames = 40
    generation = start(engine, slow)
    until(previews)
    layout = drawn()
    assert layout.operators == ["body4d.cancel"] and layout.said[0] == "Recovering bodies"
    assert any("of 40, 3 s left" in text for text in layout.said) and any("Person 1" in text for text in layout.said)
    generation.cancel()
    until(lambda: generation.state == "done")
    drawn()
    takes._look()  # Blender's timer
    assert drawn().operators == ["Continue", "Start Over"]
    generating.last_error = "The disk is full."
    assert "The disk is full." in drawn().said


def test_sizes_and_times_in_words():
    assert [takes.size_text(n) for n in (12, 1500, 1_234_567, 999_600_000, 15e9)] == ["0.0 KB", "1.5 KB", "1.2 MB", "1.0 GB", "15 GB"]
    assert [takes.time_text(s) for s in (0.4, 75, 600, 4000, 8000)] == ["0 s", "75 s", "10 min", "67 min", "2 h 13 min"]


def test_the_result_is_one_step_for_undo(addon, engine, video):
    bpy.ops.ed.undo_push(message="before")
    bpy.ops.body4d.generate(filepath=str(video), engine=engine())
    assert result() == PEOPLE
    bpy.ops.ed.undo()
    assert not result() and not bpy.context.scene.timeline_markers
    bpy.ops.ed.redo()
    assert result() == PEOPLE


def test_an_undo_to_the_middle_of_a_generation_brings_no_preview_back(addon, engine, slow):
    generation = start(engine, slow)
    until(previews)
    bpy.ops.ed.undo_push(message="something else")
    until(lambda: generation.state == "done")
    bpy.ops.ed.undo()
    assert not previews() and not result()


def test_an_undo_in_the_middle_loses_nothing(addon, engine, slow):
    bpy.ops.ed.undo_push(message="one")
    bpy.ops.ed.undo_push(message="two")
    generation = start(engine, slow)
    until(previews)
    bpy.ops.ed.undo()
    until(lambda: generation.state == "done")
    assert generation.error is None and len(result()) == 3 and not previews()
