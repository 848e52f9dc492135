# SPDX-License-Identifier: Apache-2.0
"""`convert.py --backend full`: its environment is there, is completed after the user has seen what that means, or the exact command is told."""

import os
import sys
from pathlib import Path

import pytest

import convert
import full_backend
import pythons
import setup_env

from .conftest import SCRIPTS

ENGINE = """
import os, sys
print("asked:", *sys.argv[1:], file=open(os.environ["LOG"], "a"))
if "--show" not in sys.argv and os.environ.get("AGREES"):
    open(os.environ["LOG"] + ".torch", "w").close()
"""
BACKENDS = """
import os
class Full:
    def lacks(self, weights=None):
        return [] if os.path.exists(os.environ["LOG"] + ".torch") else ["the package torch", f"the weights of SAM 3 ({weights})"]
BACKENDS = {"full": Full()}
"""


@pytest.fixture
def variables(tmp_path, monkeypatch, python) -> dict:
    """Of a child that finds an engine in which nothing but torch and weights are missing."""
    monkeypatch.chdir(tmp_path)  # a child looks there first
    package = tmp_path / "code" / "body4d_engine"
    package.mkdir(parents=True)
    for name, text in (("__init__", ""), ("__main__", ENGINE), ("backends", BACKENDS)):
        (package / f"{name}.py").write_text(text)
    monkeypatch.setattr(setup_env, "machine", lambda python: tmp_path / "environment")
    monkeypatch.setattr(setup_env, "executable", lambda folder: Path(sys.executable))
    return {**os.environ, "PYTHONPATH": str(package.parent), "LOG": str(tmp_path / "log")}


def asked(variables) -> list:
    return Path(variables["LOG"]).read_text().splitlines() if Path(variables["LOG"]).exists() else []


def test_what_is_complete_is_used_as_it_is(variables, python, tmp_path):
    Path(variables["LOG"] + ".torch").touch()
    assert full_backend.environment(python, variables, None) == tmp_path / "environment" and not asked(variables)


def test_without_a_terminal_it_is_only_shown_and_the_command_is_told(variables, python, capfd):
    with pytest.raises(pythons.SetupError) as error:
        full_backend.environment(python, {**variables, "AGREES": "1"}, None)
    assert asked(variables) == ["asked: setup full --show"] and not Path(variables["LOG"] + ".torch").exists()
    assert f'`python "{SCRIPTS / "setup_env.py"}" full body4d setup full`' in error.value.text
    assert "The full backend lacks the package torch, the weights of SAM 3 (None)." in capfd.readouterr().out


@pytest.mark.parametrize("agrees", [True, False])
def test_on_a_terminal_the_user_is_asked(variables, python, tmp_path, monkeypatch, agrees):
    monkeypatch.setattr(full_backend, "_can_ask", lambda: True)
    child = {**variables, **({"AGREES": "1"} if agrees else {})}
    if agrees:
        assert full_backend.environment(python, child, tmp_path / "my weights") == tmp_path / "environment"
    else:
        with pytest.raises(pythons.SetupError, match="is not complete") as error:
            full_backend.environment(python, child, tmp_path / "my weights")
        assert f'setup full --weights "{tmp_path / "my weights"}"`' in error.value.text
    assert asked(variables) == [f"asked: setup full --weights {tmp_path / 'my weights'}"]


def test_an_engine_that_does_not_start_is_told(variables, python):
    (Path(variables["PYTHONPATH"]) / "body4d_engine" / "backends.py").write_text("raise ImportError('half a package')")
    with pytest.raises(pythons.SetupError, match="does not start: .*half a package"):
        full_backend.environment(python, variables, None)


def test_it_is_an_environment_of_its_own_with_a_pip(home, python, monkeypatch):
    made = []
    monkeypatch.setattr(setup_env, "environment", lambda kind, what, lock, python, *more: made.append((kind, lock.name, *[path.name for path in more])))
    setup_env.machine(python)
    setup_env.engine(python)
    assert made == [("machine", "lite.txt", "pip.txt"), ("engine", "lite.txt")]


def test_only_full_asks_for_it(monkeypatch, python, tmp_path):
    used = []
    monkeypatch.setattr(setup_env, "code", lambda python: [tmp_path])
    monkeypatch.setattr(setup_env, "engine", lambda python: used.append("lite") or tmp_path / "lite")
    monkeypatch.setattr(full_backend, "environment", lambda python, variables, weights: used.append((variables["PYTHONPATH"], weights)) or tmp_path / "full")
    for arguments, folder in ((["a.mp4"], "lite"), (["a.mp4", "--backend", "full", "--weights", "w"], "full")):
        tools = convert.set_up(python, tmp_path / "blender", convert.parser().parse_args(arguments))
        assert Path(tools.engine[0]) == setup_env.executable(tmp_path / folder)
    assert used == ["lite", (str(tmp_path), Path("w"))]
