# SPDX-License-Identifier: Apache-2.0
import ast
import os
import subprocess
import sys

import pytest

import pythons
from pythons import Python, SetupError

from .conftest import SCRIPTS

BOOTSTRAP = ("pythons.py", "setup_env.py", "summary.py", "convert.py", "test.py")  # what a wrong Python has to be able to read
HERE = Python(sys.executable, "3.11.7", "linux-x86_64", "", "")


@pytest.mark.parametrize("name", BOOTSTRAP)
def test_a_python_3_8_can_read_the_scripts(name):
    ast.parse((SCRIPTS / name).read_text(encoding="utf-8"), feature_version=(3, 8))


def test_real_old_pythons_say_which_python_to_get(old_pythons):
    if not old_pythons:
        pytest.skip("no Python 3.8 to 3.10 on this machine")
    hide = "import sys; sys.path.insert(0, %r); import pythons, setup_env, convert; pythons.places = lambda minor: iter(()); "
    for old in old_pythons:
        done = subprocess.run([old, "-c", hide % str(SCRIPTS) + "sys.exit(convert.main(['nothing.mp4']))"], capture_output=True, text=True)
        assert done.returncode == 1, done.stderr
        for words in ("This is Python 3.", "3.11", "3.13", "python.org", "--blender PATH"):
            assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_an_old_python_hands_over_to_a_right_one(old_pythons, tmp_path):
    if not old_pythons:
        pytest.skip("no Python 3.8 to 3.10 on this machine")
    script = tmp_path / "it's a script.py"
    script.write_text("import sys; print(sys.version_info[:2], sys.argv[1:]); sys.exit(7)")
    code = "import sys; sys.path.insert(0, %r); import pythons; pythons.restart(pythons.probe([%r]), %r, ['a b', 'ü'])"
    done = subprocess.run([old_pythons[0], "-c", code % (str(SCRIPTS), sys.executable, str(script))], capture_output=True, text=True,
                          env={**os.environ, "PYTHONUTF8": "1"})
    assert done.returncode == 7
    assert done.stdout.splitlines()[-1] == "%s ['a b', 'ü']" % (sys.version_info[:2],)


def test_the_right_python_goes_on_itself():
    assert pythons.restart(pythons.current(), "never started", []) is None


@pytest.mark.parametrize("version, blender, found, expected", [
    ((3, 11), None, {(3, 11), (3, 13)}, (3, 11)),
    ((3, 13), None, {(3, 11), (3, 13)}, (3, 13)),
    ((3, 12), None, {(3, 11), (3, 13), (3, 12)}, (3, 11)),
    ((3, 14), None, {(3, 13)}, (3, 13)),
    ((3, 10), None, set(), None),
    ((3, 12), None, {(3, 12)}, None),  # Blender as a module has no 3.12
    ((3, 12), "blender", {(3, 12)}, (3, 12)),
    ((3, 10), "blender", {(3, 13), (3, 12)}, (3, 13)),
    ((3, 10), "blender", set(), None),
])
def test_which_python_is_taken(monkeypatch, version, blender, found, expected):
    monkeypatch.setattr(sys, "version_info", (*version, 0, "final", 0))
    monkeypatch.setattr(pythons, "find", lambda minor: HERE._replace(version="%d.%d.1" % minor) if minor in found else None)
    monkeypatch.setattr(pythons, "inside", lambda blender: None)
    if expected:
        assert pythons.choose(blender).minor == expected
        return
    with pytest.raises(SetupError) as error:
        pythons.choose(blender)
    assert "Install Python 3.11 from https://www.python.org/downloads/" in error.value.hint
    assert ("--blender PATH" in error.value.hint) == (blender is None)


def test_the_python_inside_an_installed_blender_is_the_last_resort(monkeypatch, tmp_path):
    blender = tmp_path / "blender"
    blender.write_text("#!/bin/sh\necho Blender says hello\necho BODY4D%s\n" % sys.executable)
    blender.chmod(0o755)
    monkeypatch.setattr(pythons, "find", lambda minor: None)
    if os.name == "nt":
        pytest.skip("a shell script stands in for Blender")
    assert pythons.choose(blender).minor == sys.version_info[:2]


@pytest.mark.skipif(os.name == "nt", reason="shell scripts stand in for Pythons")
def test_shims_that_start_nothing_are_passed_over(monkeypatch, tmp_path):
    (tmp_path / "shims").mkdir()
    shim = tmp_path / "shims" / "python3.13"
    shim.write_text("#!/bin/sh\necho 'pyenv: version 3.13 is not active' >&2\nexit 127\n")
    real = tmp_path / "pyenv" / "versions" / "3.13.9" / "bin" / "python"
    real.parent.mkdir(parents=True)
    real.write_text("#!/bin/sh\necho 'BODY4D[\"%s\", \"3.13.9\", \"linux-x86_64\", \"\", \"\"]'\n" % real)
    shim.chmod(0o755)
    real.chmod(0o755)
    monkeypatch.setenv("PATH", "%s:/usr/bin:/bin" % shim.parent)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setattr(sys, "version_info", (3, 8, 0, "final", 0))
    assert pythons.find((3, 13)).executable == str(real)


def test_what_does_not_start_is_no_python(tmp_path):
    assert pythons.probe([str(tmp_path / "none")]) is None
    assert pythons.probe([sys.executable, "-c", "print('BODY4D')", "--"]) is None


@pytest.mark.parametrize("platform, blender, libc, word", [
    ("linux-x86_64", True, ("glibc", "2.36"), ""),
    ("linux-x86_64", True, ("glibc", "2.27"), "glibc 2.28"),
    ("linux-x86_64", False, ("", ""), "no glibc"),
    ("linux-aarch64", False, ("glibc", "2.36"), ""),
    ("linux-aarch64", True, ("glibc", "2.36"), "Blender as a Python module does not exist"),
    ("linux-riscv64", False, ("glibc", "2.39"), "riscv64"),
    ("macosx-14.0-arm64", True, ("", ""), ""),
    ("macosx-10.9-x86_64", False, ("", ""), "Intel"),
    ("win-amd64", True, ("", ""), ""),
    ("win32", False, ("", ""), "64-bit"),
    ("win-arm64", False, ("", ""), "ARM64"),
    ("freebsd-14-amd64", False, ("", ""), "freebsd"),
])
def test_where_there_are_no_packages_it_is_said(platform, blender, libc, word):
    reason = pythons.no_wheels(HERE._replace(platform=platform), blender, libc)
    assert word in reason if word else reason == ""
