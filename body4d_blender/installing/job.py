# SPDX-License-Identifier: GPL-3.0-or-later
"""Work on what is installed, in a thread of its own: child processes, their output, cancelling, errors in words."""

import abc
import collections
import math
import os
import queue
import subprocess
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from body4d_engine.errors import Body4DError

from . import environment, pip
from .bundle import Bundle
from .environment import python_of


class Progress(NamedTuple):
    fraction: float  # of the whole, 0..1
    text: str


class Cancelled(Body4DError):
    """The user stopped it."""


class Job(abc.ABC, threading.Thread):
    """Something done in `root`, where the engine's environments are. Start it with start(); `progress` and `log` may be read at any time; when `running` is
    False, `result` or `error` is set. `instructions`: how to go on without internet, where that is what failed."""

    alone = True  # whether nobody else may change what is installed meanwhile
    cancelled = ("The installation was cancelled.", "What was there before stays.")

    def __init__(self, root: Path, bundle: Bundle):
        super().__init__(daemon=True, name="body4d install")
        self.root, self.bundle = root.absolute(), bundle
        self.progress = Progress(0.0, "Starting")
        self.log: collections.deque[str] = collections.deque(maxlen=400)
        self.error: Body4DError | None = None
        self.instructions = ""
        self.result = None
        self._cancelled = threading.Event()

    @property
    def running(self) -> bool:
        return self.is_alive()

    def cancel(self) -> None:
        """Stop at once; what was there before stays. Returns before everything is cleaned up: join() waits for that."""
        self._cancelled.set()

    @abc.abstractmethod
    def work(self):
        """What is done; its result. Raises Body4DError and OSError."""

    def run(self) -> None:
        lock = None
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if self.alone:
                lock = environment.hold(self.root)
                environment.sweep(self.root)
            self.result = self.work()
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

    def _pip(self, folder: Path, arguments: list[str], take=None, seeing: list[Path] = ()) -> None:
        self._run(pip.command(python_of(folder), self.bundle.pip, *arguments, seeing=seeing), take=take)

    def _run(self, command: list[str], checked: bool = True, take=None, limit_s: float = math.inf, more: dict[str, str] | None = None,
             given: str | None = None) -> tuple[int, str]:
        """Exit code and output; what takes longer than `limit_s` is killed. `more`: variables on top. `given`: all that is said on its standard input, which
        else stays open while we live. Raises Cancelled, and where `checked` Body4DError for a command that fails."""
        if self._cancelled.is_set():
            raise Cancelled(*self.cancelled, "cancelled")
        temporary = self.root / "temporary-files"
        temporary.mkdir(exist_ok=True)
        quiet = {"creationflags": subprocess.CREATE_NO_WINDOW} if os.name == "nt" else {"start_new_session": True}
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace",
                                       cwd=self.root, env={**pip.variables(temporary), **(more or {})}, **quiet)
        except OSError as error:
            if checked:
                raise Body4DError(f"{command[0]} does not start: {error.strerror}.", "Repair the engine.", "does_not_start") from error
            return -1, str(error)
        lines: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=lambda: [*map(lines.put, process.stdout), lines.put(None)], daemon=True)
        reader.start()
        if given is not None:
            with suppress(OSError):  # it ended before it read that
                process.stdin.write(given)
                process.stdin.close()
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
            raise Cancelled(*self.cancelled, "cancelled")
        try:
            return lines.get(timeout=0.2)
        except queue.Empty:
            return "\n"

    def _tell(self, fraction: float, text: str) -> None:
        self.progress = Progress(max(fraction, self.progress.fraction), text)
