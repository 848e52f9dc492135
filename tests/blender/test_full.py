# SPDX-License-Identifier: GPL-3.0-or-later
"""The full backend in Blender: chosen, with its own settings, kept where a take goes on or is made again; told what it lacks."""

from types import SimpleNamespace

import bpy
import pytest

from body4d_blender import command, connection, generating, retaking, takes
from body4d_blender.panels import generate as panel
from body4d_blender.panels import take as take_panel
from body4d_blender.scene import imported, tags
from body4d_blender.state import take_path
from body4d_engine.take import Take

from .test_generate import Layout, until


class Panel(Layout):
    """Also knows which properties are shown, and which buttons may be pressed."""

    def __init__(self):
        super().__init__()
        self.props, self.enabled, self.pressable = [], True, {}

    def __getattr__(self, name):
        if name == "row":
            return lambda *_, **__: self._part()
        if name == "prop":
            return lambda owner, name, **_: self.props.append(name) or getattr(owner, name)
        if name == "panel":
            return lambda *_, **__: (self, self)
        if name == "operator":
            return lambda name, text="", **_: self._button(text or name)
        return super().__getattr__(name)

    def _part(self):
        part = Panel()
        part.said, part.operators, part.props, part.pressable = self.said, self.operators, self.props, self.pressable
        return part

    def _button(self, name):
        self.operators.append(name)
        self.pressable[name] = self.enabled
        return SimpleNamespace()


def drawn(state) -> Panel:
    layout = Panel()
    panel._draw_choice(layout, state)
    return layout


def choose(addon, engine, video, how=""):
    """The clip is chosen, and the engine has said what it can do."""
    connection.use(engine(how))
    state = addon.body4d
    state.clip, state.clip_frames = str(video), 40
    asked = []
    connection.ask("cache", done=lambda *_: asked.append(True))
    until(lambda: asked)
    return state


def settings_of(take) -> dict:
    with Take.open(take) as there:
        return {"backend": there.backend, **there.settings}


def test_a_lite_engine_offers_no_choice(addon, engine, video):
    layout = drawn(choose(addon, engine, video))
    assert "backend" not in layout.props and layout.pressable["Generate"]


def test_full_is_chosen_with_its_own_settings(addon, engine, video):
    state = choose(addon, engine, video, "full")
    layout = drawn(state)
    assert "backend" in layout.props and not {"hands", "memory_limit", "models"} & {*layout.props}
    assert "about 3 s" in layout.said
    state.backend = "full"
    layout = drawn(state)
    assert {"hands", "memory_limit", "models"} <= {*layout.props} and layout.pressable["Generate"]
    assert "depends on the GPU" in layout.said and f"+{takes.size_text(80 * 18439 * 12)}" in layout.said
    state.models = "official"  # which this engine cannot run
    layout = drawn(state)
    assert not layout.pressable["Generate"] and any("Full lacks sam3" in text for text in layout.said)


def test_what_full_lacks_is_told_before_it_is_asked_for(addon, engine, video):
    state = choose(addon, engine, video, "full lacks")
    assert drawn(state).pressable["Generate"]  # lite works
    state.backend = "full"
    layout = drawn(state)
    assert "Full lacks the package torch and 1 more." in " ".join(layout.said)
    assert not layout.pressable["Generate"] and {"Install What Is Missing", "body4d.examine"} <= {*layout.operators}


def test_an_engine_without_full_is_not_asked_for_it(addon, engine, video):
    state = choose(addon, engine, video)
    state.backend = "full"  # as an older scene has it
    layout = drawn(state)
    assert "This engine has no backend Full. Update it." in " ".join(layout.said) and not layout.pressable["Generate"] and "backend" in layout.props


def test_settings_go_with_the_run_and_stay_when_it_goes_on(addon, engine, video, slow):
    state = addon.body4d
    state.backend, state.hands, state.memory_limit, state.models = "full", False, 12, "official"
    assert bpy.ops.body4d.generate(filepath=str(video), backend="lite", engine=engine("full")) == {"FINISHED"}
    assert settings_of(video.with_suffix(".take")) == {"backend": "lite"}
    state.clip, state.clip_frames = str(slow), 40
    connection.use(engine("full"))
    generating.start(_order(addon))
    until(lambda: generating.current.stage == "recover" and generating.current.done > 4)
    bpy.ops.body4d.cancel()
    until(lambda: generating.current is None)
    folder = slow.with_suffix(".take")
    assert settings_of(folder) == {"backend": "full", "hands": False, "memory_limit": 12_000_000_000, "models": "official"}
    assert takes.look(folder) == takes.Known(True, False, ("camera", "track"), "full")
    state.memory_limit, state.hands, state.models = 0, True, "ours"  # what the sidebar shows is what is meant
    assert bpy.ops.body4d.generate(engine=engine("full")) == {"FINISHED"}
    assert settings_of(folder) == {"backend": "full", "hands": True, "memory_limit": None, "models": "ours"}


def _order(scene):
    """What the button Generate would order."""
    from body4d_blender.operators.generate import BODY4D_OT_generate

    unset = SimpleNamespace(filepath="", take="", people="", frame_start=0, frame_end=0, step=0, output="SCENE", match_scene="SCENE", backend="SCENE",
                            image_fps=0.0, fresh=False)
    return BODY4D_OT_generate._order(unset, scene)


def test_a_take_of_full_is_refined_again_by_full_within_the_memory_of_this_machine(addon, engine, video):
    state = addon.body4d
    state.hands, state.memory_limit = False, 24
    bpy.ops.body4d.generate(filepath=str(video), backend="full", engine=engine("full"))
    with Take.open(video.with_suffix(".take"), writable=True) as take:  # the scripted engine knows no path
        take.describe(clip={**take.clip, "path": str(video), "name": video.name})
        take.save()
    state.backend, state.hands, state.memory_limit = "lite", True, 8
    order = retaking.order_of(addon, imported.takes_in(addon)[0], lambda people, settings: settings.update(smoothing=2.0))
    assert order.backend == "full" and order.settings["hands"] is False
    assert order.settings["memory_limit"] == 8_000_000_000 and order.settings["smoothing"] == 2.0
    assert bpy.ops.body4d.refine_again(engine=engine("full"), smoothing=0.5) == {"FINISHED"}
    assert settings_of(video.with_suffix(".take")) == {"backend": "full", "hands": False, "memory_limit": 8_000_000_000, "models": "ours", "smoothing": 0.5}


def test_a_take_of_the_other_backend_is_kept_or_replaced(addon, engine, video):
    state = choose(addon, engine, video, "full")
    bpy.ops.body4d.generate(engine=engine("full"))
    lite = take_path(state)
    takes.known(lite)
    takes._look()
    assert drawn(state).operators == ["Generate", "Start Over"]
    state.backend = "full"
    layout = drawn(state)
    assert "clip one.take was made with Lite" in " ".join(layout.said) and layout.operators == ["body4d.keep_take", "Start Over"]
    with pytest.raises(RuntimeError, match="holds a take of the lite backend. Start over, or choose another folder"):
        bpy.ops.body4d.generate(engine=engine("full"))
    assert bpy.ops.body4d.keep_take() == {"FINISHED"} and take_path(state) == lite.with_name("clip one_full.take")
    assert bpy.ops.body4d.generate(engine=engine("full")) == {"FINISHED"}
    assert takes.look(lite).backend == "lite" and takes.look(take_path(state)).backend == "full"
    state.backend = "lite"
    assert bpy.ops.body4d.keep_take() == {"FINISHED"} and take_path(state) == lite
    state.backend = "full"
    assert bpy.ops.body4d.generate(fresh=True, engine=engine("full")) == {"FINISHED"} and takes.look(lite).backend == "full"


def test_what_full_has_to_say_is_shown_while_it_runs_and_kept(addon, engine, slow, capsys):
    connection.use(engine("full"))
    addon.body4d.clip, addon.body4d.clip_frames, addon.body4d.backend = str(slow), 40, "full"
    generation = generating.start(_order(addon))
    until(lambda: generation.stage == "recover" and generation.done > 2)
    layout = Panel()
    panel._draw_progress(layout, generation)
    assert "There is no GPU here." in layout.said and generation.title == "Recovering bodies"
    until(lambda: generation.state == "done")
    collection = imported.takes_in(addon)[0]
    assert [*collection[tags.NOTICES]].count("There is no GPU here.") == 1
    layout = Panel()
    take_panel.BODY4D_PT_take.draw(SimpleNamespace(layout=layout), bpy.context)
    assert "Made with Full" in layout.said


def test_the_command_converts_with_full(scene, video, engine, tmp_path):
    options = ["--backend", "full", "--body-only", "--weights", "w", "--memory-limit", "7.5", "--models", "official"]
    assert command.run(["convert", str(video), "--out", str(tmp_path / "out"), "--engine", engine("full"), *options]) == 0
    assert settings_of(tmp_path / "out" / "clip one.take") == {"backend": "full", "hands": False, "weights": "w", "memory_limit": 7_500_000_000,
                                                              "models": "official"}
    assert command.run(["convert", str(video), "--backend", "best"]) == 2
