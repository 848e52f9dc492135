# SPDX-License-Identifier: Apache-2.0
"""The parts of the add-on's installation: which Python can be used, the lock, wheels as files, what pip says."""

import os
import sys
from pathlib import Path

import pytest

import setup_env

from .test_installing import installing, interpreters, pips

# -- which Python -------------------------------------------------------------------------------------------------------------------

LINUX = interpreters.Python("/usr/bin/python3", "3.12.4", "linux-x86_64", "x86_64", False, "glibc 2.36", "", [])
MAC = LINUX._replace(platform="macosx-11.0-universal2", machine="arm64", libc="", macos="14.5")


@pytest.mark.parametrize("python, words", [
    (LINUX, ""), (LINUX._replace(machine="aarch64", platform="linux-aarch64"), ""), (MAC, ""), (LINUX._replace(platform="win-amd64", libc=""), ""),
    (LINUX._replace(version="3.10.1"), "needs 3.11, 3.12 or 3.13"), (LINUX._replace(version="3.14.0"), "needs 3.11, 3.12 or 3.13"),
    (LINUX._replace(free_threaded=True), "free-threaded"), (LINUX._replace(missing=["venv"]), "lacks the standard modules venv"),
    (LINUX._replace(libc="glibc 2.17"), "glibc 2.28"), (LINUX._replace(libc=""), "without glibc"), (LINUX._replace(machine="riscv64"), "riscv64"),
    (MAC._replace(machine="x86_64"), "Intel"), (MAC._replace(macos="13.1"), "needs 14"), (LINUX._replace(platform="win32"), "64-bit"),
    (LINUX._replace(platform="win-arm64"), "64-bit x86")])
def test_pythons_that_can_and_cannot(python, words):
    assert words in python.problem() and bool(words) == bool(python.problem())


def test_the_chosen_python_is_used_or_refused(tmp_path):
    assert interpreters.find(sys.executable).minor == sys.version_info[:2]
    with pytest.raises(interpreters.Body4DError, match="does not start a Python"):
        interpreters.find(str(tmp_path / "python"))


def test_an_old_python_is_refused(old_pythons):
    if not old_pythons:
        pytest.skip("all Pythons here are new enough")
    with pytest.raises(interpreters.Body4DError, match="needs 3.11, 3.12 or 3.13"):
        interpreters.find(old_pythons[0])


def test_blenders_own_python_is_the_last_resort(monkeypatch):
    monkeypatch.setattr(interpreters, "candidates", lambda: iter([["/no/such/python"]]))
    assert interpreters.find(own=sys.executable).executable == sys.executable
    with pytest.raises(interpreters.Body4DError, match="No Python for the engine was found.*python.org"):
        interpreters.find()
    monkeypatch.setattr(interpreters, "probe", lambda command, run: LINUX._replace(missing=["venv"]))
    with pytest.raises(interpreters.Body4DError, match="/usr/bin/python3 lacks the standard modules venv"):
        interpreters.find()


# -- the parts ---------------------------------------------------------------------------------------------------------------------


def test_the_real_lock_is_understood():
    lock = installing.Bundle(Path(), Path(), Path(), setup_env.LOCKS / "lite.txt", setup_env.LOCKS / "full.txt")
    packages = {package.name: package for package in lock.packages()}
    assert {"numpy", "scipy", "av", "ai-edge-litert", "opencv-python-headless"} <= set(packages)
    assert packages["ai-edge-litert"].version == ("2.1.2" if os.name == "nt" else "2.1.1") and ("colorama" in packages) == (os.name == "nt")
    assert all(package.hashes for package in packages.values())


def test_wheels_are_found_under_any_spelling(tmp_path):
    for name in ("Ruamel.YAML-1.0-py3-none-any.whl", "scenedetect_headless-0.7.2-py3-none-any.whl"):
        (tmp_path / name).touch()
    for name, version in (("ruamel-yaml", "1.0"), ("scenedetect-headless", "0.7.2")):
        assert installing.bundle.Package(name, version, ()).found_in(tmp_path)
    assert not installing.bundle.Package("scenedetect", "0.7.2", ()).found_in(tmp_path)


def test_a_checkout_carries_no_engine(tmp_path):
    with pytest.raises(installing.bundle.Body4DError, match="does not carry the engine.*build_extension"):
        installing.find_bundle(tmp_path)


def test_what_pip_says_becomes_progress():
    reading = pips.Reading()
    told = [(reading.line(line), reading.bytes, reading.package, reading.unpacking) for line in (
        "  Downloading av-18.1.0-cp311-abi3-manylinux_2_28_x86_64.whl (40.0 MB)", "Progress 10000000 of 40000000",
        "  Using cached https://host/numpy-2.4.6-cp311-cp311-win_amd64.whl (16.5 MB)", "  Downloading click-8.5.1-py3-none-any.whl (126 kB)",
        "Installing collected packages: av, numpy, click")]
    assert told == [(True, 0, "av", False), (False, 10_000_000, "av", False), (True, 56_500_000, "numpy", False), (True, 56_500_000, "click", False),
                    (True, 56_626_000, "", True)]
