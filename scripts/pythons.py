# SPDX-License-Identifier: Apache-2.0
"""Which Python makes the environments, and what to tell a user who has none that can.

Standard library only, and readable for every Python from 3.8 on: it has to run on the wrong Python far enough to name the right one.
"""

from __future__ import annotations

import glob
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional, Tuple

BLENDER_FOR = {(3, 11): "4.5", (3, 13): "5.2"}  # the Python a Blender module is built for -> the one used
ENGINE = ((3, 11), (3, 12), (3, 13))
DOWNLOAD = "https://www.python.org/downloads/"


class SetupError(Exception):
    """What is wrong on this machine, and what to do about it."""

    def __init__(self, message: str, hint: str = ""):
        super().__init__((message + " " + hint).strip())
        self.message, self.hint = message, hint

    @property
    def text(self) -> str:
        """One line for each of the two."""
        return (self.message + "\n" + self.hint).strip()


class Python(NamedTuple):
    executable: str
    version: str  # "3.11.7"
    platform: str  # as sysconfig says: "linux-x86_64", "win-amd64", "macosx-14.0-arm64"
    threads: str  # "t" for a build without the global lock, for which few wheels exist
    pip: str  # pip's own wheel, which every Python carries for `venv`; "" where a distribution took it out

    @property
    def minor(self) -> Tuple[int, int]:
        return tuple(int(part) for part in self.version.split(".")[:2])


PROBE = """
import glob, json, os, platform, sys, sysconfig
if sys.version_info < (3, 8): sys.exit(9)
folders = [sysconfig.get_config_var("WHEEL_PKG_DIR") or "", os.path.join(sysconfig.get_path("stdlib"), "ensurepip", "_bundled"), "/usr/share/python-wheels"]
pips = [path for folder in folders if folder for path in sorted(glob.glob(os.path.join(folder, "pip-*.whl")))]
print("BODY4D" + json.dumps([sys.executable, platform.python_version(), sysconfig.get_platform(),
    "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else "", pips[0] if pips else ""]))
"""


def probe(command: List[str]) -> Optional[Python]:
    """The Python that a command line starts, or None where it starts none (a pyenv shim of a version that is not active, say)."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
    try:
        done = subprocess.run(command + ["-I", "-c", PROBE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
                              universal_newlines=True, timeout=60, env=environment)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"^BODY4D(\[.*\])$", done.stdout, re.MULTILINE)
    return Python(*json.loads(found.group(1))) if found else None


def current() -> Python:
    python = probe([sys.executable])
    if python is None:
        raise SetupError("This Python (%s) cannot start itself." % sys.executable, "Install Python 3.11 from %s." % DOWNLOAD)
    return python


def places(minor: Tuple[int, int]) -> Iterator[List[str]]:
    """Command lines that may start this Python, the likeliest first."""
    name = "python%d.%d" % minor
    if shutil.which(name):
        yield [name]
    if os.name == "nt":
        if shutil.which("py"):
            yield ["py", "-%d.%d" % minor]
        local = os.environ.get("LOCALAPPDATA", "")
        patterns = [os.path.join(local, "Programs", "Python", "Python%d%d" % minor, "python.exe"), r"C:\Python%d%d\python.exe" % minor,
                    os.path.expanduser(r"~\.pyenv\pyenv-win\versions\%d.%d.*\python.exe" % minor)]
    else:
        pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
        patterns = [os.path.join(pyenv, "versions", "%d.%d.*" % minor, "bin", "python"), "/usr/local/bin/" + name, "/opt/homebrew/bin/" + name,
                    "/Library/Frameworks/Python.framework/Versions/%d.%d/bin/%s" % (*minor, name),
                    os.path.expanduser("~/.local/share/uv/python/cpython-%d.%d.*/bin/%s" % (*minor, name))]
    for pattern in patterns:
        for path in sorted(glob.glob(pattern), reverse=True):
            yield [path]


def find(minor: Tuple[int, int]) -> Optional[Python]:
    """A Python of this version on this machine, this one first."""
    if sys.version_info[:2] == minor:
        here = probe([sys.executable])
        if here and not here.threads:
            return here
    for command in places(minor):
        python = probe(command)
        if python and python.minor == minor and not python.threads:
            return python
    return None


def choose(blender: Optional[Path] = None) -> Python:
    """The Python for the engine's environment, and for Blender's as a module where no installed `blender` is given.

    3.11 and 3.13 serve both. With an installed Blender the engine can also use 3.12, or the Python inside that Blender.
    """
    versions = [sys.version_info[:2]] if sys.version_info[:2] in BLENDER_FOR else []
    versions += [minor for minor in BLENDER_FOR if minor not in versions]
    for minor in versions + ([(3, 12)] if blender else []):
        python = find(minor)
        if python:
            return python
    if blender:
        python = inside(blender)
        if python:
            return python
    here = "This is Python %s%s (%s)" % (platform.python_version(), "t" if "free-threading" in sys.version else "", sys.executable)
    if blender:
        raise SetupError("%s; the engine needs 3.11, 3.12 or 3.13, and none of them was found on this machine." % here,
                         "Install Python 3.11 from %s and run the same command again; it will be found." % DOWNLOAD)
    raise SetupError("%s; Blender as a Python module exists for 3.11 (Blender 4.5 LTS) and 3.13 (Blender 5.2 LTS), and neither was found "
                     "on this machine." % here,
                     "Install Python 3.11 from %s and run the same command again; it will be found beside this one. "
                     "Or pass --blender PATH to use an installed Blender, 4.2 or newer." % DOWNLOAD)


def inside(blender: Path) -> Optional[Python]:
    """The Python that an installed Blender runs on, if the engine can use it."""
    show = "import sys; print('BODY4D' + sys.executable)"
    try:
        done = subprocess.run([str(blender), "--background", "--factory-startup", "--python-expr", show], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, universal_newlines=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"BODY4D(.+)", done.stdout)
    python = probe([found.group(1).strip()]) if found else None
    return python if python and python.minor in ENGINE and not python.threads else None


def no_wheels(python: Python, blender_too: bool, libc: Tuple[str, str] = platform.libc_ver()) -> str:
    """Why the packages cannot be installed for this Python on this machine; '' where they can."""
    kind, _, machine = python.platform.replace("-", "_").rpartition("_")
    machine = "x86_64" if python.platform.endswith(("x86_64", "win-amd64")) else machine
    if python.platform.startswith("linux"):
        if libc[0] != "glibc" or tuple(int(n) for n in libc[1].split(".")[:2]) < (2, 28):
            return "this Linux has %s; the packages need glibc 2.28 or newer (Debian 10, Ubuntu 20.04, Fedora 29 or later)" % (
                " ".join(libc).strip() or "no glibc")
        if machine not in ("x86_64", "aarch64", "arm64"):
            return "there are no packages for Linux on %s" % machine
        if blender_too and machine != "x86_64":
            return "Blender as a Python module does not exist for Linux on %s" % machine
        return ""
    if python.platform.startswith("macosx"):
        if machine == "x86_64" or (kind.endswith("universal2") and platform.machine() == "x86_64"):
            return "LiteRT, which runs the networks, has no package for Macs with an Intel processor"
        version = tuple(int(n) for n in (platform.mac_ver()[0] or "14.0").split(".")[:2])
        return "" if version >= (14, 0) else "PyAV, which reads the video, needs macOS 14 or newer; this is %d.%d" % version
    if python.platform == "win32":
        return "this is a 32-bit Python; install the 64-bit one"
    if python.platform == "win-arm64":
        return "LiteRT, which runs the networks, has no package for an ARM64 Python; install the 64-bit x86 Python, which Windows runs too"
    return "" if python.platform == "win-amd64" else "there are no packages for %s" % python.platform


def restart(python: Python, script: str, arguments: List[str]) -> None:
    """Go on in another Python. Returns only where this one is the right one already."""
    if os.path.realpath(python.executable) == os.path.realpath(sys.executable):
        return
    print("Using Python %s (%s)." % (python.version, python.executable), flush=True)
    command = [python.executable, script] + arguments
    if os.name != "nt":
        os.execv(python.executable, command)
    child = subprocess.Popen(command)  # Windows: exec would give the prompt back while the program still runs
    while True:
        try:
            sys.exit(child.wait())
        except KeyboardInterrupt:
            continue  # the child got the same Ctrl-C and is stopping; its exit code is ours
