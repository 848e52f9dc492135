# SPDX-License-Identifier: GPL-3.0-or-later
"""The doctor in Blender: asked over the pipe, listed with what to do next, handed on as text."""

import os
import shlex
import sys
from types import SimpleNamespace

import bpy
import pytest

from body4d_blender import connection, examining, preferences
from body4d_blender.panels import examination

from .test_engine_choice import Layout
from .test_generate import until


@pytest.fixture(autouse=True)
def unexamined():
    yield
    examining.forget()
    connection.use("")


class Urls(Layout):
    def __init__(self, said=None, urls=None):
        super().__init__(said)
        self.urls = [] if urls is None else urls

    def operator(self, name, text="", **_):
        made = super().operator(name, text)
        if name == "wm.url_open":
            self.urls.append(made)
        return made

    def __getattr__(self, name):
        if name in ("box", "row", "column"):
            return lambda **_: Urls(self.said, self.urls)
        raise AttributeError(name)


def drawn(how) -> Urls:
    layout = Urls()
    how(layout)
    return layout


def test_every_check_is_listed_with_the_next_step(addon, engine, capsys):
    connection.use(engine("full lacks"))
    assert "Examine" not in examining.text() and drawn(examination.draw).said == ["Examination", "[body4d.examine]"]
    assert bpy.ops.body4d.examine() == {"FINISHED"}
    assert [(check.name, check.state) for check in examining.checks] == [("Backend lite", "ok"), ("Backend full", "missing"), ("Python", "ok"),
                                                                        ("torch", "missing")]
    printed = capsys.readouterr().out
    assert "missing torch: not installed" in printed and "        -> body4d setup full shows which build suits" in printed
    said = " ".join(drawn(examination.draw).said)
    assert "Engine 0, Python 3, Nothing" in said and "Python: 3.11" in said and "lacks the package torch, the weights of SAM 3" in said
    assert "[body4d.copy_examination]" in said
    examining.checks.append(examining.Check("GPU", "note", "no NVIDIA GPU"))
    short = " ".join(drawn(examination.draw_short).said)
    assert "NVIDIA" not in short and "NVIDIA" in " ".join(drawn(examination.draw).said)
    assert "torch: not installed" in short and "installs it." in short and "Python: 3.11" not in short and "Backend" not in short


def test_pages_to_open_are_buttons(addon, engine, monkeypatch):
    connection.use(engine("full lacks"))
    with pytest.raises(RuntimeError, match="Blender may not go online"):
        bpy.ops.body4d.examine(online=True)
    asked = []
    monkeypatch.setattr(connection, "ask", lambda method, params=None, **_: asked.append((method, params)))
    examining.examine(online=True)
    assert asked == [("doctor", {"online": True})] and not bpy.ops.body4d.examine.poll()
    assert drawn(examination.draw).said == ["Examination", "Examining the engine"]
    monkeypatch.undo()
    examining.forget()
    examining.examine(online=True)
    until(lambda: not examining.running)
    layout = drawn(examination.draw_short)
    assert [made.url for made in layout.urls] == ["https://huggingface.co/facebook/sam3"] and "[huggingface.co/facebook/sam3]" in layout.said


@pytest.mark.parametrize("text, pages", [("Look at https://a.b/c.", ["https://a.b/c"]), ("(http://a.b/c?x=1), 'https://a.b/d'", ["http://a.b/c?x=1", "https://a.b/d"]),
                                         ("https://a.b/c and https://a.b/c", ["https://a.b/c"]), ("no page", [])])
def test_an_address_ends_where_its_sentence_does(text, pages):
    assert examining.Check("hub", "wrong", "", text).pages == pages


def test_the_installed_engine_speaks_of_our_button(addon, engine, monkeypatch):
    connection.use(engine("full lacks"))
    bpy.ops.body4d.examine()
    assert "body4d setup full shows" in " ".join(drawn(examination.draw_short).said)  # an engine of the user's own
    monkeypatch.setattr(preferences, "current", lambda: SimpleNamespace(engine=""))
    monkeypatch.setattr(preferences, "installed", lambda: SimpleNamespace(usable=True))
    assert "Install Full Engine shows which build suits" in " ".join(drawn(examination.draw_short).said)
    assert "body4d setup full" in examining.text()  # for whoever helps


def test_no_engine_and_an_old_one_are_findings_too(addon, engine):
    connection.use("/no/engine")
    assert bpy.ops.body4d.examine() == {"FINISHED"}
    assert [(check.name, check.state) for check in examining.checks] == [("Engine", "wrong")] and "There is no engine at /no/engine" in examining.text()
    connection.use(engine("dies at start"))
    bpy.ops.body4d.examine()
    assert "The engine did not start" in " ".join(drawn(examination.draw).said)
    connection.use(engine("no doctor"))
    bpy.ops.body4d.examine()
    assert examining.checks == [examining.Check("Engine", "wrong", "The engine does not know the request doctor.", "Update the engine.")]


@pytest.mark.parametrize("answer", [None, {}, {"backends": [], "checks": []}, {"backends": {"a": {}}, "checks": []}, {"backends": {}, "checks": [3]}])
def test_an_answer_of_any_shape_is_survived(addon, monkeypatch, answer):
    monkeypatch.setattr(connection, "ask", lambda method, params=None, done=None, failed=None: done({"examination": answer}, {}))
    examining.examine()
    assert [(check.name, check.state) for check in examining.checks] == [("Engine", "wrong")] and not examining.running


def test_another_engine_is_not_said_to_be_like_the_one_before(addon, engine):
    connection.use(engine("full"))
    bpy.ops.body4d.examine()
    from body4d_blender.operators import install

    install.forget()
    assert not examining.checks and not bpy.ops.body4d.copy_examination.poll()


def test_the_real_engine_is_examined(addon):
    connection.use(shlex.join([os.environ.get("BODY4D_ENGINE_PYTHON", sys.executable), "-m", "body4d_engine"]))
    assert bpy.ops.body4d.examine() == {"FINISHED"}
    names = [check.name for check in examining.checks]
    assert names[:2] == ["Backend lite", "Backend full"] and {"Python", "FFmpeg", "torch", "weights sam3", "disk"} <= {*names}
    weights = next(check for check in examining.checks if check.name == "weights sam3")
    assert weights.state != "missing" or weights.pages == ["https://huggingface.co/facebook/sam3"]
