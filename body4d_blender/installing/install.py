# SPDX-License-Identifier: GPL-3.0-or-later
"""One installation, in a thread of its own."""

import collections
import json
import math
import os
import queue
import shutil
import subprocess
import threading
import time
import traceback
from pathlib import Path
from typing import NamedTuple

from body4d_engine.errors import Body4DError

from . import environment, interpreters, offline, pip
from .bundle import Bundle
from .environment import Status, python_of, size_bytes, size_text

# Measured with the lock of this version on Linux; other systems differ by some tenths, which only the bar shows.
DOWNLOAD_BYTES, UNPACKED_BYTES = 161e6, 476e6
ROOM_BYTES = {"whole": 750_000_000, "code": 80_000_000}  # packed and unpacked at the same time
LOCKED = ("--require-hashes", "--no-deps", "--only-binary=:all:", "--no-compile")
SPOKEN = ("--progress-bar", "raw", "--retries", "2")  # without a second try pip does not say why there is no connection


class Progress(NamedTuple):
    fraction: float  # of the whole, 0..1
    text: str


class Cancelled(Body4DError):
    """The user stopped it."""


class Install(threading.Thread):
    """Install the engine into `root`, or bring it up to date; all files of Blender's own Python stay as they are.

    `chosen`: the Python to make it from, '' finds one; `own`: Blender's, the last resort; `online`: whether packages may be downloaded;
    `repair`: make everything anew. Start it with start(); `progress` and `log` may be read at any time; when `running` is False, `result`
    or `error` is set. An engine that was there stays until the new one is verified.
    """

    def __init__(self, root: Path, bundle: Bundle, chosen: str = "", own: str = "", online: bool = True, repair: bool = False):
        super().__init__(daemon=True, name="body4d install")
        self.root, self.bundle, self.chosen, self.own, self.online, self.repair = root.absolute(), bundle, chosen, own, online, repair
        self.progress = Progress(0.0, "Starting")
        self.log: collections.deque[str] = collections.deque(maxlen=400)
        self.error: Body4DError | None = None
        self.instructions = ""  # how to go on without internet, where that is what failed
        self.result: Status | None = None
        self._cancelled = threading.Event()
        self._process: subprocess.Popen | None = None

    @property
    def running(self) -> bool:
        return self.is_alive()

    def cancel(self) -> None:
        """Stop at once; what was there before stays. Returns before everything is cleaned up: join() waits for that."""
        self._cancelled.set()

    def run(self) -> None:
        lock = None
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = environment.hold(self.root)
            environment.sweep(self.root)
            self.result = self._install()
        except Body4DError as error:
            self.error = error
        except OSError as error:
            message, hint, code = pip.explain(f"[Errno {error.errno}] {error.strerror}: {error.filename}")
            self.error = Body4DError(message, hint, code)
        except Exception as error:  # a mistake of ours must not leave a bar that never ends
            self.log.extend(traceback.format_exc().splitlines())
            self.error = Body4DError(f"Something went wrong that should not: {error!r}.", "Please report this with the details.", "internal")
        finally:
            if lock:
                environment.sweep(self.root)
                lock.release()

    def _install(self) -> Status:
        began = time.monotonic()
        found = environment.status(self.root)
        stamp = environment.read_stamp(found.folder) if found.folder else None
        if self.repair or not stamp or stamp["lock"] != self.bundle.lock_key or found.state in ("moved", "damaged"):
            folder, stamp = self._packages(stamp)
        else:
            folder = found.folder
            self._check_room("code")
        self._code(folder, stamp)
        self._verify(folder)
        took = time.monotonic() - began
        stamp.update(code=self.bundle.code_key, engine=self.bundle.version, bytes=size_bytes(folder), seconds=round(took, 1))
        environment.write_stamp(folder, stamp)
        for other in [other for other in self.root.glob("engine-*") if other != folder]:
            shutil.rmtree(other, ignore_errors=True)  # an engine that still runs on Windows keeps its files; the next sweep gets them
        self._tell(1.0, f"Installed in {took:.0f} s, {size_text(stamp['bytes'])}")
        return environment.status(self.root, self.bundle)

    def _packages(self, before: dict | None) -> tuple[Path, dict]:
        """A new environment with the packages of the lock, and its stamp, which does not count yet."""
        self._tell(0.0, "Looking for a Python")
        python = interpreters.find(self.chosen, self.own, lambda command: self._run(command, checked=False, limit_s=30))
        self.log.append(f"Python {python.version}, {python.executable}")
        lacks = offline.missing(self.root, self.bundle)
        if not self.online and lacks:
            self.instructions = offline.instructions(self.root, self.bundle, python)
            raise Body4DError("Blender may not go online, and the packages are not here as files.",
                              "Allow online access in Preferences > System > Network, or install without internet as described.", "offline")
        self._check_room("whole")
        number = (before["number"] if before else 0) + 1
        folder = self.root / f"engine-{number}"
        if folder.exists():
            environment.remove_folder(folder)
        self._tell(0.01, "Making the environment")
        self._run([python.executable, "-I", "-X", "utf8", "-m", "venv", "--without-pip", str(folder)])
        sources = ["--find-links", str(offline.wheels_folder(self.root))] if offline.wheels_folder(self.root).is_dir() else []
        sources += ["--no-index"] if not lacks else []
        try:
            self._pip(folder, ["install", *LOCKED, *SPOKEN, *sources, "--requirement", str(self.bundle.lock)], self._downloading(folder))
        except Body4DError as error:
            if error.code in ("no_network", "proxy", "certificate"):
                self.instructions = offline.instructions(self.root, self.bundle, python)
            raise
        for tests in [t for name in ("numpy", "scipy") for p in folder.glob(f"[Ll]ib/**/site-packages/{name}") for t in p.rglob("tests") if t.is_dir()]:
            shutil.rmtree(tests, ignore_errors=True)  # 26 MB that nothing here imports
        return folder, {"number": number, "lock": self.bundle.lock_key, "code": None, "engine": "", "python": python.version, "bytes": 0, "seconds": 0.0}

    def _code(self, folder: Path, stamp: dict) -> None:
        """The engine and its models, from the extension's own wheels."""
        if stamp["code"] is not None:
            environment.write_stamp(folder, {**stamp, "code": None})  # from here on it does not count, until it is verified
        self._tell(0.92, "Installing the engine and its models")
        self._pip(folder, ["install", "--no-index", "--no-deps", "--no-compile", "--force-reinstall", str(self.bundle.engine), str(self.bundle.models)])

    def _verify(self, folder: Path) -> None:
        self._tell(0.96, "Trying the engine")
        code, output = self._run([str(python_of(folder)), "-I", "-X", "utf8", "-m", "body4d_engine", "doctor", "--json"], checked=False)
        try:
            lacks = json.loads(output[output.index("{"):output.rindex("}") + 1])["backends"]["lite"]["lacks"]
        except (ValueError, KeyError):
            raise Body4DError("The engine was installed but does not start. " + pip.last_lines(output, 4) + ".",
                              "Repair it, with another Python if that does not help.", "does_not_start") from None
        if code or lacks:
            raise Body4DError(f"The engine was installed but lacks {', '.join(lacks) or 'a backend'}.", "Repair it.", "incomplete")

    def _check_room(self, what: str) -> None:
        free = shutil.disk_usage(self.root).free
        if free < ROOM_BYTES[what]:
            raise Body4DError(f"The engine needs {size_text(ROOM_BYTES[what])} of free disk space in {self.root} while it is installed; there are "
                              f"{size_text(free)}.", "Make room, or choose a folder on another disk.", "disk_full")

    def _downloading(self, folder: Path):
        """Takes pip's lines, and None about twice a second, and tells how far it is."""
        reading, looked = pip.Reading(), [0.0]

        def take(line: str | None) -> bool:
            kept = line is not None and reading.line(line)
            if not reading.unpacking:
                text = f"Downloading {reading.package}, {size_text(reading.bytes)} so far" if reading.package else "Asking for packages"
                self._tell(0.03 + 0.57 * min(reading.bytes / DOWNLOAD_BYTES, 1.0), text)
            elif time.monotonic() - looked[0] > 1:
                looked[0] = time.monotonic()
                done = size_bytes(folder)
                self._tell(0.6 + 0.32 * min(done / UNPACKED_BYTES, 1.0), f"Unpacking, {size_text(done)} so far")
            return kept

        return take

    def _pip(self, folder: Path, arguments: list[str], take=None) -> None:
        self._run(pip.command(python_of(folder), self.bundle.pip, *arguments), take=take)

    def _run(self, command: list[str], checked: bool = True, take=None, limit_s: float = math.inf) -> tuple[int, str]:
        """Exit code and output; what takes longer than `limit_s` is killed. Raises Cancelled, and where `checked` Body4DError for a command that
        fails."""
        if self._cancelled.is_set():
            raise Cancelled("The installation was cancelled.", "What was there before stays.", "cancelled")
        temporary = self.root / "temporary-files"
        temporary.mkdir(exist_ok=True)
        quiet = {"creationflags": subprocess.CREATE_NO_WINDOW} if os.name == "nt" else {"start_new_session": True}
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace",
                                       cwd=self.root, env=pip.variables(temporary), **quiet)
        except OSError as error:
            if checked:
                raise Body4DError(f"{command[0]} does not start: {error.strerror}.", "Repair the engine.", "does_not_start") from error
            return -1, str(error)
        lines: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=lambda: [*map(lines.put, process.stdout), lines.put(None)], daemon=True)
        reader.start()
        output, until = [], time.monotonic() + limit_s
        try:
            while (line := self._next(lines)) is not None and time.monotonic() < until:
                text = line.rstrip()
                if (take(text or None) if take else True) and text:
                    output.append(text)
                    if checked:  # what is only asked for an answer is no news
                        self.log.append(text)
            code = process.wait() if line is None else -1
        finally:
            process.stdin.close()
            if process.poll() is None:
                process.kill()
                process.wait()
            reader.join()
            process.stdout.close()
        if checked and code:
            raise Body4DError(*pip.explain("\n".join(output)))
        return code, "\n".join(output)

    def _next(self, lines: queue.Queue) -> str | None:
        """The next line, '' now and then while none comes, None at the end. Raises Cancelled."""
        if self._cancelled.is_set():
            raise Cancelled("The installation was cancelled.", "What was there before stays.", "cancelled")
        try:
            return lines.get(timeout=0.2)
        except queue.Empty:
            return "\n"

    def _tell(self, fraction: float, text: str) -> None:
        self.progress = Progress(max(fraction, self.progress.fraction), text)
