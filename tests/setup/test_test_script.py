# SPDX-License-Identifier: Apache-2.0
import importlib.util
import re
import sys
from pathlib import Path

import pytest

import pythons
import setup_env

from .conftest import ROOT, SCRIPTS

spec = importlib.util.spec_from_file_location("test_script", SCRIPTS / "test.py")  # `test` is a package of Python's own
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)

TESTS = {
    "good": "def test_a(): pass\ndef test_b(): pass\n",
    "mixed": "import pytest\ndef test_a(): pass\ndef test_b(): assert 0\ndef test_c(): pytest.skip('no')\n@pytest.fixture\ndef f(): raise OSError\ndef test_d(f): pass\n",
    "unreadable": "import no_such_module_at_all\n",
    "dies": "import os\ndef test_a(): os._exit(3)\n",
    "empty": "",
}


@pytest.fixture
def ring(tmp_path, monkeypatch):
    """A ring of one file, in the environment that runs this."""
    monkeypatch.setattr(setup_env, "executable", lambda folder: Path(sys.executable))
    monkeypatch.setattr(setup_env, "engine", lambda python: tmp_path)
    monkeypatch.setattr(setup_env, "test_packages", lambda python: Path(pytest.__file__).parent.parent)

    def make(name: str):
        folder = tmp_path / name
        folder.mkdir()
        (folder / f"test_{name}.py").write_text(TESTS[name])
        return script.Ring(name, (str(folder),), pythons.current())

    return make


@pytest.mark.parametrize("name, expected, words", [
    ("good", (2, 0, 0), ""), ("mixed", (1, 2, 1), ""), ("unreadable", (0, 2, 0), "exit code 2"), ("dies", (0, 1, 0), "exit code 3"),
    ("empty", (0, 1, 0), "there are no tests"),
])
def test_every_end_is_counted(ring, name, expected, words):
    counts, what = script.run(ring(name), [])
    assert tuple(counts) == expected and words in what and bool(words) == bool(what)


def test_nothing_selected_is_no_failure(ring):
    assert tuple(script.run(ring("good"), ["-k", "nothing_like_it"])[0]) == (0, 0, 0)


@pytest.mark.parametrize("chosen, last, code", [(["good"], "2 passed, 0 failed, 0 skipped", 0), (["good", "mixed"], "3 passed, 2 failed, 1 skipped", 1),
                                                (["empty"], "0 passed, 1 failed, 0 skipped", 1)])
def test_the_last_line_is_the_sum(ring, monkeypatch, capfd, chosen, last, code):
    made = [ring(name) for name in chosen] + [script.Ring("5.2", ("x",), None, "5.2", "Python 3.13 was not found on this machine")]
    monkeypatch.setattr(script, "rings", lambda quick, every: iter(made))
    monkeypatch.setattr(pythons, "choose", lambda: pythons.current())
    assert script.main([]) == code
    said = capfd.readouterr().out.rstrip().splitlines()
    passed, failed, skipped = map(int, re.findall(r"\d+", last))
    assert said[-1] == f"{passed} passed, {failed} failed, {skipped + 1} skipped"
    assert re.match(r"Blender 5\.2 .*NOT TESTED: Python 3\.13 was not found", said[-2])


def test_all_blenders_are_tested_where_their_python_is(monkeypatch):
    monkeypatch.setattr(pythons, "find", lambda minor: pythons.current()._replace(version="%d.%d.0" % minor) if minor == (3, 11) else None)
    monkeypatch.setattr(pythons, "choose", lambda: pythons.current()._replace(version="3.11.7"))
    monkeypatch.setattr(pythons, "no_wheels", lambda python, blender_too: "")
    found = {ring.name: ring.missing for ring in script.rings(quick=False, every_python=False)}
    assert list(found) == ["engine", "full", "4.2", "4.5", "5.0", "5.2"] and "Python 3.13 was not found" in found.pop("5.2")
    assert set(found.values()) == {""}
    assert [ring.name for ring in script.rings(quick=True, every_python=False)] == ["engine", "4.5"]
    assert [ring.name for ring in script.rings(quick=False, every_python=True)][:4] == ["engine", "engine-3.13", "full", "full-3.13"]


def test_blender_tests_know_where_the_engines_libraries_are(ring, tmp_path, monkeypatch):
    monkeypatch.setitem(TESTS, "seen", "import os\ndef test_a(): assert os.path.exists(os.environ['BODY4D_ENGINE_PYTHON'])\n")
    monkeypatch.setattr(setup_env, "blender", lambda python, version: tmp_path)
    assert tuple(script.run(ring("seen")._replace(blender="4.5"), [])[0]) == (1, 0, 0)


def test_ci_calls_this_script():
    assert "scripts/test.py" in (ROOT / ".ci" / "run").read_text()
