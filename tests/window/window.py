# SPDX-License-Identifier: Apache-2.0
"""A real Blender in a window on a virtual screen, with a real mouse and keyboard: for tests."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SIZE = 1600, 900
REDRAW = """
for window in bpy.context.window_manager.windows:
    with bpy.context.temp_override(window=window):
        bpy.ops.wm.redraw_timer(type="DRAW_WIN_SWAP", iterations=2)
"""


class Engines:
    """Engines outside the window's system, one per connection to `port`."""

    def __init__(self, python: str, cache: Path):
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._python, self.children = python, []
        path = os.pathsep.join([str(ROOT), str(ROOT / "packages" / "body4d-lite-models")])
        self._env = {**os.environ, "PYTHONPATH": path, "BODY4D_CACHE": str(cache), "OPENBLAS_NUM_THREADS": "1"}
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._socket.accept()
            except OSError:  # closed
                return
            with link:
                self.children.append(subprocess.Popen([self._python, "-m", "body4d_engine", "serve"], stdin=link.fileno(), stdout=link.fileno(),
                                                      env=self._env))

    def close(self) -> None:
        self._socket.close()
        for child in self.children:
            child.terminate()
            child.wait()


class Window:
    """Blender in the tree at `root`, with `folder` (made inside it, seen there as `inside`) for whatever it shall read and write.

    `ask` runs Python in it, `move`, `click`, `scroll` and `key` are the real ones, in px of the screen from the top left.
    """

    def __init__(self, root: Path, name: str = "test"):
        self.root = Path(root)
        free = (number for number in range(78, 178) if not (self.root / "tmp" / f".X{number}-lock").exists())
        self.display = f":{next(free)}"
        self.inside = f"/screen/{name}"
        self.folder = self.root / "screen" / name
        self._processes: list[subprocess.Popen] = []

    def start(self, engine: str = "", checkout: bool = True, **variables: str) -> None:
        """A new folder and a new Blender with factory settings, the checkout's add-on registered in it unless told otherwise. engine: its command;
        variables: more of the environment."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for part in ("xdg", "resources", "code"):
            (self.folder / part).mkdir(parents=True)
        for part in ("body4d_blender", "body4d_engine"):
            shutil.copytree(ROOT / part, self.folder / "code" / part, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("remote.py", "relay.py"):
            shutil.copy(HERE / file, self.folder)
        self._begin("xvfb.log", "Xvfb", self.display, "-screen", "0", f"{SIZE[0]}x{SIZE[1]}x24", "+extension", "GLX", "+render", "-noreset", "-nolisten", "tcp")
        self.wait_for(lambda: self._run("xdotool", "getmouselocation").returncode == 0, "the virtual screen")
        self._begin("blender.log", *self._environment(LIBGL_ALWAYS_SOFTWARE="1", HOME=self.inside, XDG_RUNTIME_DIR=f"{self.inside}/xdg",
                                                      BLENDER_USER_RESOURCES=f"{self.inside}/resources", BODY4D_ENGINE=engine, PYTHONDONTWRITEBYTECODE="1",
                                                      **variables),
                    "blender", "--factory-startup", "--window-geometry", "0", "0", str(SIZE[0]), str(SIZE[1]), "--gpu-backend", "opengl",
                    "--python", f"{self.inside}/remote.py")
        add = f"import sys; sys.path.insert(0, {self.inside + '/code'!r}); import body4d_blender; body4d_blender.register()"
        self.ask(add if checkout else "import bpy", 120)

    def stop(self) -> None:
        for process in reversed(self._processes):
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._processes.clear()

    def wait_for_end(self, seconds: float) -> int:
        """The exit code of a Blender that quits."""
        return self._processes.pop().wait(seconds)

    def ask(self, source: str, seconds: float = 60) -> str:
        """Run Python on Blender's main thread; what it prints. Raises AssertionError where it raises."""
        answer = self.folder / "ask.out"
        answer.unlink(missing_ok=True)
        (self.folder / "ask.tmp").write_text(source)
        os.rename(self.folder / "ask.tmp", self.folder / "ask.py")
        self.wait_for(answer.exists, "an answer from Blender", seconds)
        text = answer.read_text().strip()
        assert "Traceback (most recent call last)" not in text, text
        return text

    def until(self, expression: str, seconds: float = 20) -> None:
        """Wait until a Python expression is true in Blender."""
        self.wait_for(lambda: self.ask(f"print(bool({expression}))") == "True", expression, seconds)

    def shot(self, path: Path) -> None:
        """What the screen shows, all of it drawn anew."""
        self.ask(REDRAW)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        done = self._run("import", "-window", "root", f"{self.inside}/shot.png")
        assert done.returncode == 0, done.stderr
        shutil.copy(self.folder / "shot.png", path)

    def button(self, operator: str) -> tuple[int, int]:
        """Where on the screen the topmost button of an operator that has a poll is, such as body4d.generate."""
        group, name = operator.split(".")
        return self.what_greys(*_without(f"{group.upper()}_OT_{name}"))

    def header(self, panel: str) -> tuple[int, int]:
        """Where on the screen the title of a panel that has a poll is, such as BODY4D_PT_floor."""
        rows, columns = self._changes(*_without(panel))
        return int(columns[0]) + 4, int(rows[0]) + 4  # what is below moves up

    def what_greys(self, without: str, again: str) -> tuple[int, int]:
        """The middle of the topmost place on the screen that changes with the Python `without` and is back after `again`."""
        rows, columns = self._changes(without, again)
        return int(np.median(columns)), int((rows[0] + rows[-1]) // 2)

    def _changes(self, without: str, again: str) -> tuple[np.ndarray, np.ndarray]:
        """The rows of that place, and where between them something changes."""
        pictures = [self._pixels()]
        for code in (without, again):
            self.ask(code + REDRAW)
            time.sleep(0.3)  # the screen's part
            pictures.append(self._pixels())
        before, grey, after = pictures
        differs = ((np.abs(before - grey) > 8) & (np.abs(after - grey) > 8) & (np.abs(before - after) < 4)).any(2)
        rows = np.flatnonzero(differs.sum(1) > 2)
        assert len(rows), "there is no such thing on the screen"
        end = next((i for i in range(1, len(rows)) if rows[i] > rows[i - 1] + 12), len(rows))
        return rows[:end], np.flatnonzero(differs[rows[0] : rows[end - 1] + 1].any(0))

    def press(self, operator: str) -> None:
        """Click the operator's button, wherever it is."""
        self.move(SIZE[0] // 2, SIZE[1] - 5)  # no tooltip, no highlight
        self.click(*self.button(operator))

    def _pixels(self) -> np.ndarray:
        """(height, width, 3) of the screen, int16."""
        done = self._run("import", "-window", "root", "-depth", "8", f"rgb:{self.inside}/shot.rgb")
        assert done.returncode == 0, done.stderr
        return np.fromfile(self.folder / "shot.rgb", np.uint8).reshape(SIZE[1], SIZE[0], 3).astype(np.int16)

    def engines(self) -> list[int]:
        """The process ids of engines that were installed in this window's folder and run, also after Blender's end."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = entry.read_bytes().split(b"\0")
            except OSError:  # it has just ended
                continue
            if words[0].startswith(self.inside.encode() + b"/") and b"serve" in words:
                found.append(int(entry.parent.name))
        return found

    def move(self, x: float, y: float) -> None:
        self._do("mousemove", round(x), round(y), "sleep", 0.3)

    def click(self, x: float, y: float, button: int = 1, hold: str = "") -> None:
        """Move there and click, with a key held down, long enough that a busy Blender still sees it down."""
        self.move(x, y)
        self._do(*(["keydown", hold, "sleep", 0.2] if hold else []), "click", button, *(["sleep", 0.5, "keyup", hold] if hold else []))

    def double_click(self, x: float, y: float) -> None:
        self.move(x, y)
        self._do("click", "--repeat", 2, "--delay", 80, 1)

    def scroll(self, x: float, y: float, steps: int) -> None:
        """Turn the wheel, up where positive."""
        self.move(x, y)
        self._do("click", "--repeat", abs(steps), "--delay", 150, 4 if steps > 0 else 5)

    def drag(self, start: tuple, end: tuple, button: int = 2) -> None:
        self.move(*start)
        way = [(round(start[0] + part * (end[0] - start[0])), round(start[1] + part * (end[1] - start[1]))) for part in (0.3, 0.6, 1.0)]
        steps = [word for x, y in way for word in ("mousemove", x, y, "sleep", 0.4)]
        self._do("mousedown", button, "sleep", 0.4, *steps, "mouseup", button)

    def key(self, name: str) -> None:
        """Press and release, such as Return or ctrl+z."""
        self._do("key", name)

    def _do(self, *arguments) -> None:
        done = self._run("xdotool", *map(str, arguments))
        assert done.returncode == 0, done.stderr
        time.sleep(0.2)

    def _environment(self, **variables) -> list[str]:
        return ["env", f"DISPLAY={self.display}", *(f"{key}={value}" for key, value in variables.items())]

    def _run(self, *command) -> subprocess.CompletedProcess:
        return subprocess.run([HERE / "enter", self.root, *self._environment(), *command], capture_output=True, text=True, timeout=60)

    def _begin(self, log: str, *command) -> None:
        with open(self.folder / log, "wb") as file:
            self._processes.append(subprocess.Popen([HERE / "enter", self.root, *command], stdout=file, stderr=file, start_new_session=True))

    def wait_for(self, ready, what: str, seconds: float = 30) -> None:
        until = time.monotonic() + seconds
        while not ready():
            ended = [process for process in self._processes if process.poll() is not None]
            assert not ended, f"Blender or its screen has ended: {(self.folder / 'blender.log').read_text()[-2000:]}"
            assert time.monotonic() < until, f"{what} did not come within {seconds:g} s"
            time.sleep(0.05)


def _without(kind: str) -> tuple[str, str]:
    """Python that turns the poll of a type off, and back on."""
    find = f"cls = bpy.types.{kind}\n"
    return (find + "own = cls.__dict__.get('poll')\ncls.poll = classmethod(lambda cls, context: False)\n",
            find + "if own is None:\n    del cls.poll\nelse:\n    cls.poll = own\n")


def reason_to_skip(root: Path | None) -> str:
    """Why there can be no window, or nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a window needs Linux and root"
    if root is None or not (Path(root) / "usr/bin/blender").exists() or not (Path(root) / "usr/bin/xdotool").exists():
        return "no window is set up: python scripts/test_window.py"
    return ""
