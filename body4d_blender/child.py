# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's process and the threads that read and write its pipes. No bpy.

Threads touch only queues. What the engine sends waits in the inbox, which is bounded by bytes: where nobody takes messages out, the reader
stops, the pipe fills, and the engine waits too.
"""

import collections
import os
import queue
import signal
import subprocess
import threading
from contextlib import suppress
from typing import Callable, NamedTuple

from body4d_engine import wire
from body4d_engine.errors import Body4DError

from .engine import CONTROL, clean_environment

INBOX_BYTES, INBOX_MESSAGES = 64 << 20, 256
LOG_LINES, LOG_LINE = 200, 500
END_SECONDS = 0.3


class Ended(NamedTuple):
    """The last thing in the inbox: why the reader stopped (None where the engine closed its end) and the process's exit code."""

    reason: Exception | None
    code: int


class Inbox:
    """Messages between two threads, bounded by number and bytes; a single larger one passes alone."""

    def __init__(self):
        self._items: collections.deque = collections.deque()
        self._bytes, self._closed, self._changed = 0, False, threading.Condition()

    def put(self, item, size: int = 0) -> None:
        """Add an item, waiting for room. A closed inbox forgets it."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._items
                                   or (self._bytes + size <= INBOX_BYTES and len(self._items) < INBOX_MESSAGES))
            if not self._closed:
                self._items.append((item, size))
                self._bytes += size

    def get(self):
        """The oldest item, or None. Never waits."""
        with self._changed:
            if not self._items:
                return None
            item, size = self._items.popleft()
            self._bytes -= size
            self._changed.notify_all()
            return item

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._items)


class Child:
    """One engine process, from its start to its end. Its standard input stays open as long as this process lives: it ends with us.

    `arriving(message, arrays) -> arrays` is called by the reading thread for every message, in order; what it returns goes into the inbox.
    Raises OSError where the process does not start.
    """

    def __init__(self, command: list[str], log: collections.deque, arriving: Callable[[dict, dict], dict]):
        self.inbox, self.log, self._arriving = Inbox(), log, arriving
        self._outbox: queue.SimpleQueue = queue.SimpleQueue()
        self.heard = False  # whether it greeted
        group = ({"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP} if os.name == "nt"
                 else {"start_new_session": True})
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        env=clean_environment(), **group)
        self._threads = [threading.Thread(target=work, daemon=True, name=f"body4d {work.__name__}") for work in (self._log, self._read, self._write)]
        for thread in self._threads:
            thread.start()

    def send(self, message: dict, arrays=None) -> None:
        """Queue a message. arrays: name -> array, or a function without arguments that the writing thread calls for them. Never waits."""
        self._outbox.put((message, arrays))

    def kill(self) -> None:
        """End the process, and what it started, at once."""
        self.inbox.close()
        self._outbox.put(None)
        _kill(self.process)

    def end(self) -> None:
        """Close its standard input, upon which it ends; kill it where it does not within a moment. Returns when it is gone."""
        self.inbox.close()
        self._outbox.put(None)
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait()
        for thread in self._threads:
            thread.join(1.0)  # a descendant may hold a pipe open; the threads are daemons

    def _write(self) -> None:
        while (item := self._outbox.get()) is not None:
            message, arrays = item
            try:
                wire.send(self.process.stdin, message, arrays() if callable(arrays) else arrays)
            except Body4DError as error:
                self._refuse(message, error.message, error.hint, error.code)
            except OSError as error:
                if error.filename is None:  # the pipe: the reader sees the end as well, and says so
                    break
                self._refuse(message, f"{error.filename} could not be read: {error.strerror}.", "Check that it is still there.", "clip_missing")
        try:
            self.process.stdin.close()
        except OSError:  # what was still buffered has nobody to read it
            return

    def _refuse(self, message: dict, text: str, hint: str, code: str) -> None:
        """Answer in the engine's place."""
        self.inbox.put(({"id": message.get("id"), "error": {"message": text, "data": {"code": code, "hint": hint}}}, {}))

    def _read(self) -> None:
        reason, out = None, self.process.stdout
        try:
            self._note(wire.await_greeting(out).splitlines())
            self.heard = True
            while (received := wire.receive(out)) is not None:
                if self.inbox.closed:  # killed: what still was in the pipe is for nobody, least of all for the next one's requests
                    break
                message, arrays = received
                arrays = self._arriving(message, arrays)
                self.inbox.put((message, arrays), sum(array.nbytes for array in arrays.values()))
        except Exception as error:  # whatever it was, nobody reads any more: the client says so
            reason = error
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:  # it broke the protocol, or lives on with its end closed
            _kill(self.process)
        code = self.process.wait()
        out.close()
        self._threads[0].join(1.0)  # its last words
        self.inbox.put(Ended(reason, code))

    def _log(self) -> None:
        """Keep the last lines of stderr, however much comes."""
        rest = b""
        while data := self.process.stderr.read1(1 << 16):
            *lines, rest = (rest[-LOG_LINE:] + data).split(b"\n")
            self._note(lines)
        self._note([rest])
        self.process.stderr.close()

    def _note(self, lines: list[bytes]) -> None:
        for raw in lines[-LOG_LINES:]:
            line = CONTROL.sub("", raw[-LOG_LINE:].decode("utf-8", "replace")).strip()
            if line:
                self.log.append(line)


def _kill(process: subprocess.Popen) -> None:
    """Kill a process and, where there are process groups, all that it started."""
    if process.poll() is None:  # not yet reaped: the number is still its own
        with suppress(ProcessLookupError):  # it is being reaped just now
            if os.name == "posix":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
