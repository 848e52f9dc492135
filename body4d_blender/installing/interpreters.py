# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Python the engine's environment is made from: the one chosen, else one of the system, else Blender's own."""

import glob
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from body4d_engine.errors import Body4DError

VERSIONS = ((3, 11), (3, 13), (3, 12))  # the first two are the tested ones
DOWNLOAD = "https://www.python.org/downloads/"
PROBE = """
import json, os, platform, sys, sysconfig
missing = []
for name in ("venv", "ssl", "zlib", "ctypes"):
    try: __import__(name)
    except ImportError: missing.append(name)
print("BODY4D" + json.dumps([sys.executable, platform.python_version(), sysconfig.get_platform(), platform.machine(),
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")), " ".join(platform.libc_ver()), platform.mac_ver()[0], missing]))
"""


class Python(NamedTuple):
    executable: str
    version: str  # "3.11.7"
    platform: str  # as sysconfig says: "linux-x86_64", "win-amd64", "macosx-14.0-arm64"
    machine: str
    free_threaded: bool
    libc: str  # "glibc 2.36"
    macos: str  # "14.5"
    missing: list  # standard modules that a distribution took out

    @property
    def minor(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.version.split(".")[:2])

    def problem(self) -> str:
        """Why the engine cannot be installed with it; '' where it can."""
        if self.minor not in VERSIONS:
            return f"is Python {self.version}; the engine needs 3.11, 3.12 or 3.13"
        if self.free_threaded:
            return "is a free-threaded Python, for which the packages do not exist"
        if self.missing:
            return f"lacks the standard modules {', '.join(self.missing)}"
        if self.platform.startswith("linux"):
            kind, _, number = self.libc.partition(" ")
            if kind != "glibc" or tuple(int(n) for n in number.split(".")[:2]) < (2, 28):
                return f"runs on {self.libc or 'a system without glibc'}; the packages need glibc 2.28 or newer"
            return "" if self.machine in ("x86_64", "aarch64") else f"runs on {self.machine}, for which the packages do not exist"
        if self.platform.startswith("macosx"):
            if self.machine != "arm64":
                return "runs on an Intel processor; LiteRT, which runs the networks, has no package for Macs with one"
            return "" if int(self.macos.split(".")[0] or 0) >= 14 else f"runs on macOS {self.macos}; PyAV, which reads the video, needs 14 or newer"
        if self.platform == "win-amd64":
            return ""
        return "is not a 64-bit x86 Python, the only one on Windows that all packages exist for" if self.platform.startswith("win") \
            else f"runs on {self.platform}, for which the packages do not exist"


def run_plain(command: list[str]) -> tuple[int, str]:
    """Exit code and output of a command; -1 where it does not start or takes more than 30 s."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, encoding="utf-8", errors="replace", timeout=30, env=environment)
    except (OSError, subprocess.TimeoutExpired) as error:
        return -1, str(error)
    return done.returncode, done.stdout + done.stderr


def probe(command: list[str], run: Callable = run_plain) -> Python | None:
    """The Python that a command line starts, or None where it starts none."""
    found = re.search(r"^BODY4D(\[.*\])\s*$", run([*command, "-I", "-X", "utf8", "-c", PROBE])[1], re.MULTILINE)
    return Python(*json.loads(found[1])) if found else None


def candidates() -> Iterator[list[str]]:
    """Command lines that may start a Python of the system, the likeliest first."""
    for minor in VERSIONS:
        name = "python%d.%d" % minor
        if shutil.which(name):
            yield [shutil.which(name)]
        if os.name == "nt":
            if shutil.which("py"):
                yield ["py", "-%d.%d" % minor]
            patterns = [os.path.join(os.environ.get("LOCALAPPDATA", ""), "Programs", "Python", "Python%d%d" % minor, "python.exe"),
                        os.path.join(os.environ.get("PROGRAMFILES", ""), "Python%d%d" % minor, "python.exe")]
        else:  # a Blender started from a desktop or dock does not have the search path of a shell
            patterns = [f"/usr/bin/{name}", f"/usr/local/bin/{name}", f"/opt/homebrew/bin/{name}",
                        f"/Library/Frameworks/Python.framework/Versions/{minor[0]}.{minor[1]}/bin/{name}",
                        os.path.expanduser(f"~/.pyenv/versions/{minor[0]}.{minor[1]}.*/bin/python"),
                        os.path.expanduser(f"~/.local/share/uv/python/cpython-{minor[0]}.{minor[1]}.*/bin/{name}")]
        for pattern in patterns:
            for path in sorted(glob.glob(pattern), reverse=True):
                yield [path]


def find(chosen: str = "", own: str = "", run: Callable = run_plain) -> Python:
    """The Python to use. `chosen`: the user's choice, used or refused; `own`: Blender's, the last resort. Raises Body4DError."""
    if chosen:
        python = probe([chosen], run) if Path(chosen).is_file() or shutil.which(chosen) else None
        if python is None:
            raise Body4DError(f"{chosen} does not start a Python.", "Choose the python program itself, or leave the field empty to have one found.",
                              "no_python")
        if python.problem():
            raise Body4DError(f"{chosen} {python.problem()}.", "Choose another, or leave the field empty to have one found.", "no_python")
        return python
    tried, seen = [], set()
    for command in [*candidates(), *([[own]] if own else [])]:
        if tuple(command) in seen:
            continue
        seen.add(tuple(command))
        python = probe(command, run)
        if python and not python.problem():
            return python
        if python:
            tried.append(f"{python.executable} {python.problem()}")
    raise Body4DError("No Python for the engine was found on this machine." + "".join(f" {words}." for words in dict.fromkeys(tried)),
                      f"Install Python 3.11, 3.12 or 3.13 (64 bit) from {DOWNLOAD} and try again; it will be found.", "no_python")
