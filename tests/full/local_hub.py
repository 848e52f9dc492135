# SPDX-License-Identifier: Apache-2.0
"""A hub on this machine that refuses, redirects, truncates, stalls and damages on demand. The storage it redirects to is another host to its clients."""

import hashlib
import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class LocalHub:
    """`files`: content by (repository, name). Faults, each for the next so many requests of content: `cut` (close after half), `stall` (say nothing after
    half), `damaged` (a wrong byte), `dead` (503), `expired` (403, as a signed address that has ended). `refusal`: (status, error code, message) for whoever
    asks. `users`: names by access token. `whole_only`: no ranges. What was asked is kept in `log`: (method, path, range, authorization)."""

    def __init__(self):
        self.files: dict[tuple[str, str], bytes] = {}
        self.faults: Counter = Counter()
        self.refusal: tuple[int, str, str] | None = None
        self.users: dict[str, str] = {}
        self.redirects, self.whole_only = True, False
        self.log: list[tuple[str, str, str | None, str | None]] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.server.daemon_threads, self.server.handle_error = True, lambda *about: None  # a client that hangs up is no news
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def port(self) -> int:
        return self.server.server_address[1]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def asked(self, method: str, start: str = "/") -> list[tuple[str, str, str | None, str | None]]:
        return [one for one in self.log if one[0] == method and one[1].startswith(start)]


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        hub, self.close_connection = self.hub, True
        hub.log.append((self.command, self.path, self.headers.get("Range"), self.headers.get("Authorization")))
        if self.path == "/api/whoami-v2":
            return self._who()
        stored = self.path.startswith("/storage/")
        repository, _, name = self.path.removeprefix("/storage").lstrip("/").partition("/resolve/main/")
        if not name:
            repository, _, name = self.path.removeprefix("/storage").lstrip("/").partition(f"/resolve/{COMMIT}/")
        if hub.refusal and not stored:
            status, code, message = hub.refusal
            return self._send(status, {"X-Error-Code": code, "X-Error-Message": message})
        content = hub.files.get((repository, name))
        if content is None:
            return self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        about = {"X-Repo-Commit": COMMIT, "X-Linked-Etag": etag, "X-Linked-Size": str(len(content)), "Accept-Ranges": "bytes"}
        if hub.redirects and not stored:
            return self._send(302, {**about, "Location": f"http://localhost:{hub.port}/storage{self.path}"})
        if not body:
            return self._send(200, {**about, "ETag": etag}, length=len(content))
        self._content(content, about)

    def _who(self) -> None:
        name = self.hub.users.get((self.headers.get("Authorization") or "").removeprefix("Bearer "))
        said = json.dumps({"type": "user", "name": name, "auth": {"accessToken": {"displayName": "test", "role": "read"}}} if name else {}).encode()
        self._send(200 if name else 401, {"Content-Type": "application/json"}, length=len(said))
        self.wfile.write(said)

    def _content(self, content: bytes, about: dict) -> None:
        hub, start = self.hub, 0
        for fault, status in (("dead", 503), ("expired", 403)):
            if self._has(fault):
                return self._send(status, {})
        if self.headers.get("Range") and not hub.whole_only:
            start = int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
            about = {**about, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        part = content[start:]
        if self._has("damaged"):
            part = part[:-1] + bytes([part[-1] ^ 1])
        self._send(206 if start else 200, about, length=len(part))
        cut, stalled = self._has("cut"), self._has("stall")
        self.wfile.write(part[: len(part) // 2] if cut or stalled else part)
        self.wfile.flush()
        if stalled:
            time.sleep(1.5)

    def _has(self, fault: str) -> bool:
        if self.hub.faults[fault] > 0:
            self.hub.faults[fault] -= 1
            return True
        return False

    def _send(self, status: int, headers: dict, length: int = 0) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.end_headers()
