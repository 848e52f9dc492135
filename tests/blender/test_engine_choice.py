# SPDX-License-Identifier: GPL-3.0-or-later
"""Which engine is used: the one chosen, the installed one, BODY4D_ENGINE, body4d on the search path; and with which command."""

import json
import os
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import bpy
import pytest

import body4d_blender
from body4d_blender import connection, engine, installing, preferences
from body4d_blender.operators import install
from body4d_blender.panels import preferences as box

FAKE = Path(__file__).with_name("fake_engine.py")


@pytest.fixture
def addon(scene, tmp_path, monkeypatch):
    """The add-on, with preferences that can be set and no engine installed."""
    values = SimpleNamespace(engine="", python="", engine_folder=str(tmp_path / "here"), weights_folder="", cache_folder="")
    monkeypatch.setattr(preferences, "current", lambda: values)
    body4d_blender.register()
    yield values
    body4d_blender.unregister()
    engine.VARIABLES.clear()


def programs(folder: Path) -> Path:
    (folder / "bin").mkdir(parents=True)
    for name in ("bin/python", "python3.11", "body4d", "ssh"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return folder


def test_an_engine_that_is_being_installed_is_not_started(addon, tmp_path, monkeypatch):
    root, started = tmp_path / "here" / preferences.ENGINE, []
    python = installing.python_of(root / "engine-1")
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    monkeypatch.setattr(connection, "engine_setting", lambda: str(python))
    monkeypatch.setattr(connection.Client, "start", lambda self: started.append(self.command))
    connection.get()
    lock = installing.environment.hold(root)  # as the installation has it, in this Blender or another
    with pytest.raises(engine.EngineError, match="is being installed or removed just now. Wait until that is done"):
        connection.get()
    failed = []
    connection.ask("cache", failed=failed.append)
    connection.wait(lambda: failed)
    assert failed[0].code == "engine_busy"
    monkeypatch.setattr(connection, "engine_setting", lambda: sys.executable)  # another engine may
    connection.get()
    lock.release()
    monkeypatch.setattr(connection, "engine_setting", lambda: str(python))
    connection.get()
    assert [command[0] for command in started] == [str(python), sys.executable, str(python)]


@pytest.mark.skipif(os.name == "nt", reason="file modes")
def test_an_engine_is_a_python_a_folder_a_program_or_a_command(tmp_path, monkeypatch):
    folder = programs(tmp_path / "with space")
    assert engine.engine_command(str(folder / "python3.11")) == [str(folder / "python3.11"), "-m", "body4d_engine", "serve"]
    assert engine.engine_command(str(folder)) == [str(folder / "bin" / "python"), "-m", "body4d_engine", "serve"]
    assert engine.engine_command(str(folder / "body4d")) == [str(folder / "body4d"), "serve"]
    assert engine.engine_command("sh -c 'x y'")[1:] == ["-c", "x y", "serve"]
    monkeypatch.delenv("BODY4D_ENGINE", raising=False)
    monkeypatch.setenv("PATH", str(folder))
    assert engine.engine_command() == [str(folder / "body4d"), "serve"]
    monkeypatch.setenv("BODY4D_ENGINE", str(folder / "python3.11"))
    assert engine.engine_command()[0] == str(folder / "python3.11")
    monkeypatch.delenv("BODY4D_ENGINE")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(engine.EngineError, match="There is no engine yet. Install the lite engine"):
        engine.engine_command()
    with pytest.raises(engine.EngineError, match="There is no engine at /no/engine"):
        engine.engine_command("/no/engine")


@pytest.mark.skipif(os.name == "nt", reason="file modes")
def test_an_engine_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(programs(tmp_path / "a")))
    added = ["-T", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=15"]
    assert engine.engine_command("ssh gpu-box body4d serve") == ["ssh", *added, "gpu-box", "body4d", "serve"]
    assert engine.engine_command("ssh gpu-box body4d") == ["ssh", *added, "gpu-box", "body4d", "serve"]
    assert engine.engine_command("ssh -o serveraliveinterval=60 gpu-box body4d") == [
        "ssh", "-T", "-o", "BatchMode=yes", "-o", "serveraliveinterval=60", "gpu-box", "body4d", "serve"]


def test_a_command_with_quotes():
    words = engine.split_command(r'"C:\Program Files\py\python.exe" -m body4d_engine', windows=True)
    assert words == [r"C:\Program Files\py\python.exe", "-m", "body4d_engine"]
    with pytest.raises(engine.EngineError, match="cannot be read: No closing quotation"):
        engine.engine_command("body4d 'run")


def test_an_engine_named_relative_to_the_file_is_found(addon, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    addon.engine = "//engine/bin/python"
    assert Path(preferences.engine_setting()) == tmp_path / "engine" / "bin" / "python"


def installed(root: Path, home: str, code: str | None = "1") -> Path:
    """An environment on disk, as far as it is looked at."""
    folder = root / "engine-1"
    program = installing.python_of(folder)
    program.parent.mkdir(parents=True)
    program.write_text("")
    (folder / "pyvenv.cfg").write_text(f"home = {home}\nexecutable = {home}/python3\n")
    (folder / "body4d.json").write_text(json.dumps({"number": 1, "lock": "1", "code": code, "engine": "0.0.9", "python": "3.11.7", "bytes": 480_000_000,
                                                    "seconds": 30}))
    return program


def test_the_installed_engine_is_used_unless_another_is_chosen(addon, tmp_path):
    assert preferences.engine_setting() == ""
    program = installed(preferences.install_root(), str(tmp_path))
    assert preferences.install_root() == tmp_path / "here" / "body4d-engine"
    preferences.refresh()
    assert preferences.engine_setting() == str(program)
    addon.engine = "/another/python"
    assert preferences.engine_setting() == "/another/python"


@pytest.mark.parametrize("home, code, words", [("/gone", "1", "has moved or is gone .*/gone/python3.*: repair it"), (".", None, "was cut short")])
def test_an_installed_engine_that_cannot_be_used_is_told(addon, home, code, words):
    installed(preferences.install_root(), home, code)
    preferences.refresh()
    with pytest.raises(engine.EngineError, match=words):
        preferences.engine_setting()


def test_folders_are_given_to_the_engine(addon, tmp_path):
    addon.cache_folder, addon.weights_folder = str(tmp_path / "clips"), str(tmp_path / "weights")
    preferences.engine_setting()
    variables = engine.clean_environment()
    # in a folder that holds other things, only this one is the engine's to clear
    assert (variables["BODY4D_CACHE"], variables["BODY4D_WEIGHTS"]) == (str(tmp_path / "clips" / "body4d-cache"), str(tmp_path / "weights"))
    addon.cache_folder = addon.weights_folder = ""
    preferences.engine_setting()
    assert not engine.VARIABLES


def test_the_engine_says_what_it_can_do(addon, monkeypatch):
    addon.engine = shlex.join([os.environ.get("BODY4D_ENGINE_PYTHON", sys.executable), "-m", "body4d_engine"])
    assert bpy.ops.body4d.check_engine() == {"FINISHED"}
    assert connection.hello()["engine"] and install.cache_bytes is not None
    assert bpy.ops.body4d.clear_cache() == {"FINISHED"}
    addon.engine = shlex.join([sys.executable, str(FAKE), "dies at start"])
    with pytest.raises(RuntimeError, match="The engine did not start"):
        bpy.ops.body4d.check_engine()
    assert connection.hello() is None and "did not start" in install.asked


class Layout:
    """Notes what is drawn."""

    def __init__(self, said=None):
        self.said = [] if said is None else said

    def label(self, text="", **_):
        self.said.append(text)

    def operator(self, name, text="", **_):
        self.said.append(f"[{text or name}]")
        return SimpleNamespace()

    def prop(self, owner, name, **_):
        assert hasattr(owner, name)
        self.said.append(f"<{name}>")

    def progress(self, text="", **_):
        self.said.append(f"({text})")

    def __getattr__(self, name):
        if name in ("box", "row", "column", "split"):
            return lambda **_: Layout(self.said)
        raise AttributeError(name)


def drawn(values) -> str:
    layout = Layout()
    box.draw(values, layout, bpy.context)
    return " ".join(layout.said)


def test_the_box_tells_what_is_there_and_what_can_be_done(addon, monkeypatch, tmp_path):
    assert "carries no engine to install" in drawn(addon)
    carried = installing.Bundle(*[tmp_path / name for name in ("body4d_engine-1.0-py3-none-any.whl", "models.whl", "pip.whl", "lite.txt", "full.txt")])
    for path in carried:
        path.write_text("")
    monkeypatch.setattr(preferences, "bundle", lambda: carried)
    text = drawn(addon)
    assert "The lite engine is not installed" in text and "[Install Lite Engine]" in text and "[Repair]" not in text
    assert "may not go online" in text and "<use_online_access>" in text
    installed(preferences.install_root(), str(tmp_path))
    preferences.refresh()
    text = drawn(addon)
    assert "Lite engine 0.0.9 is installed; this add-on brings another" in text and "480 MB, Python 3.11.7" in text
    assert "[Update]" in text and "[Repair]" in text and "[body4d.remove_engine]" in text and "[body4d.check_engine]" in text
    installing.remove(preferences.install_root())
    installed(preferences.install_root(), "/gone")
    preferences.refresh()
    assert "moved or is gone" in drawn(addon)


def test_the_box_tells_how_an_installation_goes(addon, monkeypatch, tmp_path):
    job = SimpleNamespace(running=True, progress=installing.Progress(0.4, "Downloading numpy"), error=None, instructions="", log=["a line"], cancel=list,
                          join=list)
    monkeypatch.setattr(install, "job", job)
    text = drawn(addon)
    assert "(Downloading numpy)" in text and "[body4d.cancel_install]" in text and "[Install" not in text
    job.running, job.error, job.instructions = False, engine.EngineError("No connection.", "Check it.", "no_network"), "1. Copy this\n2. there"
    assert "No connection. Check it. 1. Copy this 2. there" in drawn(addon)
