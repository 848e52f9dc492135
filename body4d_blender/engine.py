# SPDX-License-Identifier: GPL-3.0-or-later
"""Which engine there is, and what it is started with. No bpy."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from body4d_engine.errors import Body4DError

CHECKOUT = Path(__file__).resolve().parent.parent
VARIABLES: dict[str, str] = {}  # what the preferences add to the engine's environment
PYTHON = re.compile(r"(python|pypy)[\d.]*w?(\.exe)?$", re.IGNORECASE)
SSH = re.compile(r"ssh(\.exe)?$", re.IGNORECASE)
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class EngineError(Body4DError):
    """The engine is missing, refused, or ended without a result. `traceback`: of the engine, for the log."""

    def __init__(self, message: str, hint: str = "", code: str = "engine", traceback: str = ""):
        super().__init__(message, hint, code)
        self.traceback = traceback


def stopped() -> EngineError:
    """What whoever waits is told when the user, or the end of it all, stops the work."""
    return EngineError("Stopped.", "What is finished is kept.", "cancelled")


def engine_command(setting: str = "") -> list[str]:
    """The command that starts the engine's `serve`. `setting`: an engine's Python, its environment's folder, its `body4d` program, or a whole
    command line such as `ssh gpu-box body4d serve`; where it is empty, the environment variable BODY4D_ENGINE, else `body4d` on the search
    path. Raises EngineError."""
    setting = (setting or os.environ.get("BODY4D_ENGINE", "")).strip()
    if not setting:
        found = shutil.which("body4d")
        if found is None:
            raise EngineError("There is no engine yet.", "Install the lite engine in the add-on's preferences, or choose an existing one there or with "
                              "--engine.", "no_engine")
        return [found, "serve"]
    whole = _program(os.path.expanduser(setting))
    words = [whole] if whole else split_command(setting, os.name == "nt")
    if shutil.which(words[0]) is None:
        raise EngineError(f"There is no engine at {words[0]}.", "Correct the path in the add-on's preferences, or --engine.", "no_engine")
    if PYTHON.match(Path(words[0]).name) and len(words) == 1:
        words += ["-m", "body4d_engine"]
    if SSH.match(Path(words[0]).name):
        words[1:1] = _ssh_options(words[1:])
    return words if words[-1] == "serve" else [*words, "serve"]


def setup_words(setting: str) -> str:
    """What sets up the full backend of the engine of that setting, to be typed where it runs. Raises EngineError."""
    words = engine_command(setting)[:-1]
    if SSH.match(Path(words[0]).name):
        words = [words[0], "-t", *[word for word in words[1:] if word not in _ssh_options([]) and word != "-T"]]
    return shlex.join([*words, "setup", "full"]) if os.name != "nt" else subprocess.list2cmdline([*words, "setup", "full"])


def _program(path: str) -> str | None:
    """The program at a path, or the Python of the environment in that folder."""
    inside = os.path.join(path, "Scripts", "python.exe") if os.name == "nt" else os.path.join(path, "bin", "python")
    return shutil.which(inside if os.path.isdir(path) else path)


def _ssh_options(words: list[str]) -> list[str]:
    """What ssh needs to carry the pipe: no terminal, no questions that nobody can answer, and to notice a dead line. The user's own count."""
    given = " ".join(words).lower()
    options = [] if "-T" in words else ["-T"]
    for option in ("BatchMode=yes", "ServerAliveInterval=15"):
        options += [] if option.split("=")[0].lower() in given else ["-o", option]
    return options


def split_command(text: str, windows: bool) -> list[str]:
    """The words of a command line; quotes hold words with spaces together. Raises EngineError."""
    try:
        words = shlex.split(text, posix=not windows)
    except ValueError as error:
        raise EngineError(f"The engine's command {text} cannot be read: {error}. Correct it in the add-on's preferences, or --engine.") from error
    return [word.strip('"') for word in words] if windows else words  # backslashes are no escapes there, but then quotes are left standing


def clean_environment() -> dict[str, str]:
    """This process's environment without what makes another Python load Blender's files."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONUSERBASE", "__PYVENV_LAUNCHER__")}
    env.update(VARIABLES, PYTHONIOENCODING="utf-8", PYTHONUNBUFFERED="1", PYTHONNOUSERSITE="1")
    if (CHECKOUT / "body4d_engine" / "cli.py").is_file():
        env["PYTHONPATH"] = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "packages" / "body4d-lite-models")])
    return env


def result_name(video: Path) -> str:
    """What a video's results are called. A point in a folder's name ends nothing."""
    return video.name if video.is_dir() else video.stem
