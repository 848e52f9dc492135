# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium spoken to over a pipe (DevTools protocol), with the standard library only.

    python -m tests.engine.chromium PAGE.html FOLDER      pictures of the page, narrow and wide, light and dark, and what went wrong
"""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
START = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execvp(sys.argv[3], sys.argv[3:])"
PATIENCE_S = 60


def find_chromium() -> str | None:
    """The program: $BODY4D_CHROMIUM, else what is on the path."""
    return os.environ.get("BODY4D_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Chromium:
    """One page of one browser. `problems`: errors and warnings of the page; `requests`: every address it asked for."""

    def __init__(self, program: str):
        self.problems, self.requests, self._events, self._last, self._buffer = [], [], [], 0, b""
        self.folder = tempfile.TemporaryDirectory(prefix="body4d-chromium-", ignore_cleanup_errors=True)
        commands, self._in = os.pipe()
        self._out, replies = os.pipe()
        inherited = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (commands, replies)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, *map(str, inherited), program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage", f"--user-data-dir={self.folder.name}", "--remote-debugging-pipe"],
            pass_fds=inherited, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for end in (commands, replies, *inherited):
            os.close(end)
        target = self.call("Target.createTarget", session=None, url="about:blank")["targetId"]
        self.session = None
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Chromium":
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for end in (self._in, self._out):
            with contextlib.suppress(OSError):
                os.close(end)
        self.folder.cleanup()

    def call(self, method: str, session: str | None = "own", **parameters) -> dict:
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if session and getattr(self, "session", None):
            message["sessionId"] = self.session
        os.write(self._in, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _next(self) -> dict:
        until = time.monotonic() + PATIENCE_S
        while b"\0" not in self._buffer:
            if not select.select([self._out], [], [], max(until - time.monotonic(), 0))[0]:
                raise TimeoutError("Chromium does not answer")
            data = os.read(self._out, 1 << 20)
            if not data:
                raise RuntimeError("Chromium ended")
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict) -> None:
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(str(parameters["exceptionDetails"].get("exception", parameters["exceptionDetails"])))
        elif method == "Log.entryAdded":
            self.problems.append(parameters["entry"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.problems.append(str(parameters["args"]))
        self._events.append(method)

    def open(self, address: str, width: int, height: int = 900, dark: bool = False) -> None:
        """Load a page and wait until it is there."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self._events.clear()
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)
        while self.evaluate("document.readyState + location.href.slice(0, 5)") != "completefile:":
            time.sleep(0.05)

    def evaluate(self, expression: str):
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def move_mouse(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def screenshot(self, whole: bool = True) -> bytes:
        """A PNG file of the page, or of what is in the window."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def pdf(self) -> bytes:
        return base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"])


def main(page: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with Chromium(find_chromium() or sys.exit("There is no Chromium on this machine.")) as browser:
        for width in (1280, 420):
            for dark in (False, True):
                browser.open(page.resolve().as_uri(), width, dark=dark)
                (folder / f"{page.stem}_{width}_{'dark' if dark else 'light'}.png").write_bytes(browser.screenshot())
        (folder / f"{page.stem}.pdf").write_bytes(browser.pdf())
        asked = sorted({address for address in browser.requests if not address.startswith(("data:", "about:"))})
        print("\n".join(browser.problems) or "no problems", "\nasked for:", *asked)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
