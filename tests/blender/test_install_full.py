# SPDX-License-Identifier: GPL-3.0-or-later
"""The buttons of the full engine in the preferences: shown first, then done; cancelled, refused with the page to open, removed; nothing typed is kept."""

import json
import os
import sys
import time
import venv
from pathlib import Path
from types import SimpleNamespace

import bpy
import pytest

import body4d_blender
from body4d_blender import engine, installing, preferences
from body4d_blender.installing import environment
from body4d_blender.operators import full_engine, install
from body4d_blender.panels import preferences as box

from .test_engine_choice import Layout

ENGINE = """
import json, os, pathlib, sys, time
def say(**line): print(json.dumps(line), flush=True)
here, words = pathlib.Path(__file__).parent, sys.argv[1:]
folder = pathlib.Path(os.environ.get("BODY4D_WEIGHTS", "none"))
if "--login" in words:
    (here / "token").write_text(sys.stdin.readline())
    say(done=True)
    sys.exit()
steps = [] if (folder / "sam3.pt").exists() else [{"kind": "weights", "what": "SAM 3", "why": "for track", "source": "facebook/sam3", "bytes": 3450062241,
    "licence": "SAM License: NON-COMMERCIAL use only", "page": "https://huggingface.co/facebook/sam3", "name": "sam3"}]
steps += json.loads(os.environ.get("TOY_STEPS", "[]"))
say(plan={"steps": steps, "notes": ["It will run on the processor, slowly."], "present": ["torch 2.13.0+cpu"], "bytes": 3450062241 * len(steps),
          "room_bytes": 0},
    weights_folder=str(folder), hub="https://huggingface.co", logged_in=(here / "token").exists())
if "--show" not in words:
    if not (here / "token").exists():
        say(error={"message": "SAM 3 is given only to those who are logged in and were granted access.",
                   "hint": "1. Open https://huggingface.co/facebook/sam3 and press 'Submit'. 2. Log in.", "code": "no_login"})
        sys.exit(1)
    for done in range(1, 11):
        say(event="Progress", stage="sam3", done=done * 345006224, total=3450062241, note="sam3.pt")
        time.sleep(float(os.environ.get("TOY_PAUSE", "0")))
    folder.mkdir(exist_ok=True)
    (folder / "sam3.pt").write_text("weights")
    say(done=True)
"""


@pytest.fixture
def addon(scene, tmp_path, monkeypatch):
    """The add-on with a lite engine installed, whose `setup full` is scripted; the preferences."""
    values = SimpleNamespace(engine="", python="", engine_folder=str(tmp_path / "here"), weights_folder=str(tmp_path / "weights"), cache_folder="")
    carried = installing.Bundle(*[tmp_path / name for name in ("body4d_engine-1.0-py3-none-any.whl", "models.whl", "pip.whl", "lite.txt", "full.txt")])
    for path in carried:
        path.write_text("")
    root = tmp_path / "here" / preferences.ENGINE
    venv.create(root / "engine-1", symlinks=os.name != "nt")
    site = environment.site_packages(root / "engine-1")[0]
    (site / "body4d_engine").mkdir()
    (site / "body4d_engine" / "__main__.py").write_text(ENGINE)
    environment.write_stamp(root / "engine-1", {"number": 1, "lock": carried.lock_key, "code": carried.code_key, "engine": "1.0", "python": "3.11.7",
                                                "bytes": 1, "seconds": 1.0})
    monkeypatch.setattr(preferences, "current", lambda: values)
    monkeypatch.setattr(preferences, "bundle", lambda: carried)
    monkeypatch.setattr(installing, "find_bundle", lambda: carried)
    monkeypatch.setattr(full_engine, "online", lambda: True)
    body4d_blender.register()
    yield values
    body4d_blender.unregister()
    engine.VARIABLES.clear()


class Buttons(Layout):
    """Notes addresses too."""

    def operator(self, name, text="", **_):
        made = super().operator(name, text)
        self.said.append(made)
        return made

    def __getattr__(self, name):
        return (lambda **_: Buttons(self.said)) if name in ("box", "row", "column", "split") else super().__getattr__(name)


def drawn(values) -> tuple[str, list[str]]:
    """What the preferences show, and the addresses of their buttons."""
    layout = Buttons()
    box.draw(values, layout, bpy.context)
    return " ".join(word for word in layout.said if isinstance(word, str)), [made.url for made in layout.said if hasattr(made, "url")]


def site(values) -> Path:
    return environment.site_packages(Path(values.engine_folder) / preferences.ENGINE / "engine-1")[0]


def log_in(values) -> None:
    (site(values) / "body4d_engine" / "token").write_text("hf_x")


def test_what_it_takes_is_shown_before_anything_is_done(addon, capfd):
    assert "[Install Full Engine]" in drawn(addon)[0] and "<weights_folder>" in drawn(addon)[0]
    assert bpy.ops.body4d.look_full_engine() == {"FINISHED"}
    text, pages = drawn(addon)
    assert "SAM 3, 3.45 GB, from facebook/sam3" in text and "NON-COMMERCIAL" in text and "Together 3.45 GB" in text
    assert addon.weights_folder in text.replace(" ", "")
    assert "https://huggingface.co/facebook/sam3" in pages and "Not logged in" in text and "[body4d.hub_login]" in text
    assert "[body4d.install_full_engine]" in text and not Path(addon.weights_folder).exists()
    assert "SAM 3, 3.45 GB" in capfd.readouterr().out, "without a window it is printed"
    assert bpy.ops.body4d.leave_full_engine() == {"FINISHED"} and "[body4d.install_full_engine]" not in drawn(addon)[0]


def test_it_is_installed(addon):
    log_in(addon)
    assert bpy.ops.body4d.install_full_engine() == {"FINISHED"}
    assert (Path(addon.weights_folder) / "sam3.pt").is_file() and "The full engine is installed" in drawn(addon)[0]
    bpy.ops.body4d.look_full_engine()
    text = drawn(addon)[0]
    assert "Nothing has to be installed" in text and "Not logged in" not in text and "[body4d.install_full_engine]" not in text


def test_a_refusal_shows_the_page_to_open(addon):
    with pytest.raises(RuntimeError, match="were granted access.*Submit"):
        bpy.ops.body4d.install_full_engine()
    text, pages = drawn(addon)
    assert "press 'Submit'" in text and pages[-1] == "https://huggingface.co/facebook/sam3" and "[body4d.hub_login]" in text
    assert "[Install Full Engine]" in text, "to try again"


def test_with_a_window_nothing_waits_and_it_can_be_cancelled(addon, monkeypatch):
    """Fails where the operator blocks, the bar does not move, or a cancelled download cannot be gone on with."""
    log_in(addon)
    monkeypatch.setenv("TOY_PAUSE", "0.2")
    began = time.monotonic()
    job = installing.InstallFull(preferences.install_root(), installing.find_bundle(), preferences.weights_folder())
    install.job = job
    job.start()
    assert time.monotonic() - began < 0.5
    until = time.monotonic() + 20
    while "of 3.45 GB" not in job.progress.text:
        assert job.running and time.monotonic() < until
        time.sleep(0.02)
    text = drawn(addon)[0]
    assert "(sam3: sam3.pt, " in text and "[body4d.cancel_install]" in text and "[Install" not in text
    with pytest.raises(RuntimeError, match="poll"):
        bpy.ops.body4d.install_full_engine()
    assert bpy.ops.body4d.cancel_install() == {"FINISHED"}
    job.join(5)
    assert job.error.code == "cancelled" and "installing again goes on" in drawn(addon)[0]
    monkeypatch.setenv("TOY_PAUSE", "0")
    assert bpy.ops.body4d.install_full_engine() == {"FINISHED"}


def test_the_speed_is_told(addon, monkeypatch):
    log_in(addon)
    monkeypatch.setenv("TOY_PAUSE", "0.3")
    told = []
    monkeypatch.setattr(installing.InstallFull, "_tell", lambda self, fraction, text: told.append((fraction, text)))
    assert bpy.ops.body4d.install_full_engine() == {"FINISHED"}
    assert any("/s" in text and "GB" in text for _, text in told), told


def test_a_token_is_taken_from_the_clipboard_and_is_no_property(addon, monkeypatch, tmp_path):
    """Fails where a token could get into a .blend, the user's preferences or what Blender reports."""
    for cls in full_engine.CLASSES:
        assert set(cls.__annotations__) <= {"repair"}
    monkeypatch.setattr(full_engine, "copied", lambda context: "hf_secret\n")
    assert bpy.ops.body4d.hub_login() == {"FINISHED"}
    assert (site(addon) / "body4d_engine" / "token").read_text() == "hf_secret\n"
    assert "Logged in at the hub" in drawn(addon)[0]
    assert "hf_secret" not in str(vars(install.job)) + drawn(addon)[0] + " ".join(install.job.log)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"), compress=False)
    assert b"hf_secret" not in (tmp_path / "a.blend").read_bytes()


def test_an_engine_elsewhere_is_set_up_there(addon, monkeypatch, tmp_path):
    (tmp_path / "ssh").write_text("#!/bin/sh\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    addon.engine = "ssh gpu-box body4d serve"
    text = drawn(addon)[0]
    assert "ssh -t gpu-box body4d setup full" in text and "[Install Full Engine]" not in text
    addon.engine = sys.executable
    assert f"{sys.executable} -m body4d_engine setup full" in drawn(addon)[0]


def test_the_lite_engine_comes_first(addon):
    installing.remove(preferences.install_root())
    preferences.refresh()
    assert "install or update that first" in drawn(addon)[0] and "[Install Full Engine]" not in drawn(addon)[0]
    with pytest.raises(RuntimeError, match="lite engine is not installed"):
        bpy.ops.body4d.look_full_engine()


def test_what_is_installed_can_be_removed(addon):
    root = preferences.install_root()
    packages = environment.site_packages(root / "engine-1")[0].relative_to(root / "engine-1")
    (root / "full-1" / packages / "torch").mkdir(parents=True)
    environment.write_stamp(root / "full-1", {"number": 1, "lock": "older", "python": environment.minor_of(root / "engine-1"), "bytes": 900_000_000,
                                              "torch": "torch==2.13.0+cpu", "seconds": 1.0})
    environment.attach(root, root / "engine-1")
    preferences.refresh()
    text = drawn(addon)[0]
    assert "torch==2.13.0+cpu, 900 MB; this add-on brings other versions" in text and "[Repair]" in text and "[body4d.remove_full_engine]" in text
    assert bpy.ops.body4d.remove_full_engine() == {"FINISHED"}
    assert not list(root.glob("full-*")) and preferences.installed().state == "complete" and "[Install Full Engine]" in drawn(addon)[0]


def test_without_leave_to_go_online_only_what_is_here_is_used(addon, monkeypatch):
    monkeypatch.setattr(full_engine, "online", lambda: False)
    with pytest.raises(RuntimeError, match="may not go online"):
        bpy.ops.body4d.install_full_engine()
    Path(addon.weights_folder).mkdir()
    (Path(addon.weights_folder) / "sam3.pt").write_text("brought on a disk")
    log_in(addon)
    assert bpy.ops.body4d.install_full_engine() == {"FINISHED"}


def test_weights_without_a_size_are_said_to_be(addon, monkeypatch):
    monkeypatch.setenv("TOY_STEPS", json.dumps([{"kind": "weights", "what": "New", "why": "for all", "source": "a/b", "bytes": None, "licence": "MIT",
                                                 "page": "", "name": "new"}]))
    bpy.ops.body4d.look_full_engine()
    assert "New, of unknown size" in drawn(addon)[0] and "and what is of unknown size" in drawn(addon)[0]
