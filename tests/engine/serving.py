# SPDX-License-Identifier: Apache-2.0
"""The add-on's side of `serve` for tests: a server in a thread of this process, or a real child."""

import os
import subprocess
import sys
import threading
from pathlib import Path

from body4d_engine import wire
from body4d_engine.serve import Server

ROOT = Path(__file__).resolve().parents[2]


class Talker:
    """`ask` waits for the answer; events are kept in `events`, takes are written to `copy`."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.events, self.number, self.others = [], 0, {}

    def tell(self, method, params=None, arrays=None) -> int:
        self.number += 1
        wire.send(self.writer, {"id": self.number, "method": method, "params": params or {}}, arrays)
        return self.number

    def ask(self, method, params=None, arrays=None, copy=None, on_event=None):
        """(message, arrays); what else was answered meanwhile is in `others`, by number."""
        return self.wait(self.tell(method, params, arrays), copy, on_event)

    def wait(self, number, copy=None, on_event=None):
        while number not in self.others:
            message, arrays = wire.receive(self.reader)
            if "id" in message:
                self.others[message["id"]] = message, arrays
            elif message["method"] == "event":
                self.events.append(message["params"])
                if on_event:
                    on_event(message["params"])
            elif copy is not None:
                wire.apply_change(copy, message, arrays)
        return self.others.pop(number)

    def result(self, method, params=None, arrays=None, **options):
        message, _ = self.ask(method, params, arrays, **options)
        assert "result" in message, message["error"]["message"] + message["error"]["data"]["traceback"]
        return message["result"]

    def code(self, method, params=None, arrays=None, **options):
        message, _ = self.ask(method, params, arrays, **options)
        error = message["error"]
        assert error["message"] and error["data"]["traceback"] and "hint" in error["data"]
        return error["data"]["code"]


class Threaded(Talker):
    """A server that runs in a thread and sees another folder than we do."""

    def __init__(self, folder):
        there, out = os.pipe()
        inn, back = os.pipe()
        super().__init__(open(inn, "rb"), open(out, "wb"))
        self.server = Server(open(there, "rb"), open(back, "wb"), folder)
        self.server._grace_seconds = 1e6  # its end must not end the tests
        self.thread = threading.Thread(target=self.server.serve, daemon=True)
        self.thread.start()

    def close(self):
        self.writer.close()
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.reader.close()


class Child(Talker):
    """A real child. `wrap`: words before its command."""

    def __init__(self, cache, wrap=(), program=(sys.executable, "-m", "body4d_engine", "serve"), **options):
        paths = [str(ROOT), str(ROOT / "packages" / "body4d-lite-models"), os.environ.get("PYTHONPATH", "")]
        env = {**os.environ, "BODY4D_CACHE": str(cache), "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen([*wrap, *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, **options)
        super().__init__(self.process.stdout, self.process.stdin)
        self.log = []
        self._drain = threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True)
        self._drain.start()

    def greeted(self):
        assert wire.await_greeting(self.reader) == b""
        return self

    def close(self, within=15) -> int:
        """Its exit status."""
        try:
            if not self.writer.closed:
                self.writer.close()
        except OSError:  # it has gone already
            pass
        try:
            return self.process.wait(within)
        finally:
            self.process.kill()
            self._drain.join(5)
            self.reader.close()
            self.process.stderr.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
