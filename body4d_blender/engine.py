# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine as a child process: found, started, watched, stopped. No bpy."""

import collections
import os
import queue
import re
import shlex
import shutil
import subprocess
import threading
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class EngineError(Exception):
    """The engine is missing, or ended without a result; the text is for the user."""


def engine_command(setting: str = "") -> list[str]:
    """The command that starts the engine. `setting`: an engine's Python, its `body4d` program, or a whole command line; where it is
    empty, the environment variable BODY4D_ENGINE, else `body4d` on the search path. Raises EngineError."""
    setting = (setting or os.environ.get("BODY4D_ENGINE", "")).strip()
    if not setting:
        found = shutil.which("body4d")
        if found is None:
            raise EngineError("No engine is set. Give the Python or the body4d program of an engine environment in the add-on's preferences, "
                              "or with --engine.")
        return [found]
    whole = shutil.which(os.path.expanduser(setting))
    words = [whole] if whole else split_command(setting, os.name == "nt")
    if shutil.which(words[0]) is None:
        raise EngineError(f"There is no engine at {words[0]}. Correct the path in the add-on's preferences, or --engine.")
    is_python = re.match(r"(python|pypy)[\d.]*w?(\.exe)?$", Path(words[0]).name, re.IGNORECASE)
    return [*words, "-m", "body4d_engine"] if is_python and len(words) == 1 else words


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
    env.update(PYTHONIOENCODING="utf-8", PYTHONUNBUFFERED="1", PYTHONNOUSERSITE="1")
    if (CHECKOUT / "body4d_engine" / "cli.py").is_file():
        env["PYTHONPATH"] = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "packages" / "body4d-lite-models")])
    return env


class Job:
    """One run of the engine. Its lines (both streams) come through a queue, so that only the caller's thread ever touches Blender.

    Its standard input stays open as long as this process lives: an engine told to watch it ends with Blender.
    """

    def __init__(self, argv: list[str]):
        self.lines: queue.Queue[str] = queue.Queue(maxsize=256)
        self.log = collections.deque(maxlen=200)
        self.cancelled = False
        group = ({"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP} if os.name == "nt"
                 else {"start_new_session": True})
        try:
            self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                            env=clean_environment(), **group)
        except OSError as error:
            raise EngineError(f"The engine {argv[0]} does not start: {error}.") from error
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for raw in self.process.stdout:
            line = CONTROL.sub("", raw.decode("utf-8", "replace").rstrip().rsplit("\r", 1)[-1])
            if line:
                self.log.append(line)
                self.lines.put(line)

    def drain(self) -> list[str]:
        """The lines that came since the last call. Never waits."""
        lines = []
        while not self.lines.empty():
            lines.append(self.lines.get_nowait())
        return lines

    @property
    def running(self) -> bool:
        """Whether there may be more to drain."""
        return self._reader.is_alive() or self.process.poll() is None or not self.lines.empty()

    def finish(self) -> None:
        """Close up after the child has ended. Raises EngineError where it did not end well, with its own last words."""
        code = self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        if self.cancelled:
            raise EngineError("Stopped. Convert the same video again to go on from here.")
        if code:
            raise EngineError("\n".join(list(self.log)[-6:]) or f"The engine ended with code {code} and said nothing.")

    def cancel(self, grace: float = 2.0) -> None:
        """End the child, gently first. What it has committed to the take stays."""
        self.cancelled = True
        self.process.terminate()
        try:
            self.process.wait(grace)
        except subprocess.TimeoutExpired:
            self.process.kill()


def result_name(video: Path) -> str:
    """What a video's results are called. A point in a folder's name ends nothing."""
    return video.name if video.is_dir() else video.stem


def convert_command(engine: list[str], video, take, people: str = "auto") -> list[str]:
    """The engine's command line that makes (or goes on with) a take of a video."""
    return [*engine, "run", str(video), "--out", str(take), "--people", people, "--stop-with-stdin"]
