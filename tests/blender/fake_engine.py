# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for the engine: `fake_engine.py [--home DIR] [HOW] serve`. It speaks the protocol over quick stages, or misbehaves as HOW asks.

A video is never looked at, but one called broken is no video. Every frame takes a hundredth of a second where it is called slow.
"""

import os
import queue
import signal
import sys
import tempfile
import threading
import time
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np  # noqa: E402

from body4d_engine import wire  # noqa: E402
from body4d_engine.errors import Body4DError  # noqa: E402
from body4d_engine.events import Committed, Notice, Progress, StageFinished  # noqa: E402
from body4d_engine.people import Person  # noqa: E402
from body4d_engine.pipeline import run  # noqa: E402
from body4d_engine.serve.copies import is_whole, share  # noqa: E402
from body4d_engine.take import Take, delete_take  # noqa: E402
from body4d_engine.timing import snap_rate  # noqa: E402
from tests.blender.make_take import motion, sphere  # noqa: E402
from tests.engine.fakes import FakeBackend, FakeClip, FakeTrack  # noqa: E402

FRAMES = 40
HOWS = ("normal", "banner", "dies at start", "crashes", "killed", "killed in between", "hangs", "silent", "garbage", "garbage first", "shouts", "old", "mute",
        "old hello", "not json", "huge line", "huge array", "outside", "lists", "closes", "full", "full lacks", "no doctor")
LACKS = ["the package torch", "the weights of SAM 3 (sam3.pt)"]


class Clip(FakeClip):
    """The video that was offered."""

    width, height, path = 64, 48, None

    def __init__(self, offered, start=0, end=None, step=1, fps=None):
        super().__init__(FRAMES)
        self.fps = fps or self.fps
        self.name, self.fingerprint = offered["name"], offered["sha256"]
        self.frames = range(start, FRAMES if end is None else min(end, FRAMES), step)

    def describe(self):
        clip = {**super().describe(), "name": self.name, "start": self.frames.start, "end": self.frames.stop, "step": self.frames.step}
        return {**clip, "fps": [self.fps.numerator, self.fps.denominator], "fingerprint": self.fingerprint, "has_audio": False, "proxy": None}


class Camera:
    name, version, needs, settings = "camera", 1, (), {}

    def run(self, clip, people, take, cursor):
        n = take.samples
        take.write_npz("camera.npz", focal_px=np.full(n, 50.0), principal_px=np.tile([32.0, 24.0], (n, 1)), method=np.array("assumed"),
                       note=np.array("0.8 x diagonal"))
        yield Progress(self.name, 1, 1)


class Bodies:
    """Spheres on a random walk, committed four at a time. `result`: whether they replace earlier ones."""

    version, needs, settings = 1, ("track",), {}

    def __init__(self, name):
        self.name = name

    def run(self, clip, people, take, cursor):
        vertices, faces = sphere()
        for person in people:
            group = f"people/{person.id}"
            take.create_array(group, "vertices", "f4", vertices.shape, pc2=True)
            take.create_array(group, "root", "f4", (3,))
            take.create_array(group, "state", "u1", ())
            take.write_npz(f"{group}/body.{self.name}.npz", faces=faces)
            states, walk = take.read(group, "state", "track"), motion(take.samples, vertices, person.id)
            for i in range(take.count(group, "root"), take.samples):
                take.append(group, "vertices", walk[i : i + 1])
                take.append(group, "root", [[person.id - 1.5, 0.1, 4 + 0.01 * i]])
                take.append(group, "state", states[i : i + 1])
                yield Progress(self.name, i + 1, take.samples, person.id)
                if (i + 1) % 4 == 0 or i + 1 == take.samples:
                    take.commit({})
                    yield Committed(self.name, person.id, 0, i + 1)


class Full(Bodies):
    """With something to say."""

    def run(self, clip, people, take, cursor):
        yield Notice(self.name, "no_gpu", "There is no GPU here.")
        yield from super().run(clip, people, take, cursor)


def backend(name: str) -> FakeBackend:
    made = FakeBackend(Camera(), FakeTrack(), (Full if name == "full" else Bodies)("recover"), Bodies("refine"))
    made.name = name
    return made


class Engine:
    def __init__(self, inn, out, home: Path, how: str):
        self.inn, self.out, self.home, self.how = inn, out, home, how
        self.requests, self.cancelled, self.writing = queue.Queue(), 0, threading.Lock()
        self.clips = {}

    def send(self, message, arrays=None):
        with self.writing:
            wire.send(self.out, message, arrays)

    def listen(self):
        asked = 0
        while (request := wire.receive(self.inn)) is not None:
            asked += 1
            if request[0]["method"] == "cancel" and self.how not in ("hangs", "silent"):
                self.cancelled = asked
                self.send({"id": request[0]["id"], "result": {}})
            else:
                self.requests.put((asked, *request))
        os._exit(0)

    def serve(self):
        threading.Thread(target=self.listen, daemon=True).start()
        while True:
            number, message, arrays = self.requests.get()
            try:
                result = getattr(self, f"do_{message['method']}")(number, message["params"], arrays)
                result, answered = result if isinstance(result, tuple) else (result, None)
                self.send({"id": message["id"], "result": result}, answered)
            except Body4DError as error:
                data = {"code": error.code, "hint": error.hint, "traceback": "File fake_engine.py"}
                self.send({"id": message["id"], "error": {"code": -32000, "message": error.message, "data": data}})

    def do_hello(self, number, params, arrays):
        lacks = LACKS if "lacks" in self.how else []
        full = {"full": {"lacks": lacks, "models": {"ours": lacks, "official": ["sam3"]}}} if "full" in self.how else {}
        return {"protocol": 0 if self.how == "old hello" else wire.PROTOCOL, "engine": "0", "python": "3", "device": "nothing",
                "backends": {"lite": {"lacks": []}, **full}, "cache_bytes": 0}

    def do_doctor(self, number, params, arrays):
        if self.how == "no doctor":
            raise Body4DError("The engine does not know the request doctor.", "Update the engine.", "unknown_method")
        hub = [{"name": "hub facebook/sam3", "state": "wrong", "found": "This account has no access to SAM 3.", "next": "Open "
                "https://huggingface.co/facebook/sam3 in a browser, and press 'Submit'."}]
        return {"examination": {
            "engine": "0", "python": "3", "platform": "Nothing",
            "backends": {"lite": {"works": True, "lacks": []}, "full": {"works": False, "lacks": LACKS}},
            "checks": [{"name": "Python", "state": "ok", "found": "3.11", "next": ""},
                       {"name": "torch", "state": "missing", "found": "not installed", "next": "body4d setup full shows which build suits, and installs it."},
                       *(hub if params.get("online") else [])]}}

    def do_cache(self, number, params, arrays):
        return {"bytes": 5_000_000}

    def do_clear(self, number, params, arrays):
        return {"bytes": 5_000_000}

    def do_offer(self, number, params, arrays):
        have = bool(params.get("path")) and Path(params["path"]).exists() and "far" not in params["name"]
        files = wire.unpack_json(arrays["files"]) if "files" in arrays else params["files"]
        clip = self.clips.setdefault(params["sha256"], {**params, "files": files, "got": [b""] * len(files)})
        clip["name"], received = params["name"], sum(map(len, clip["got"]))
        return {"have": have, **({"received": received} if received else {})}

    def do_send(self, number, params, arrays):
        clip = self.clips[params["sha256"]]
        at = [entry["name"] for entry in clip["files"]].index(params["file"])
        assert params["offset"] == len(clip["got"][at])
        clip["got"][at] += arrays["bytes"].tobytes()
        return {"received": len(clip["got"][at])}

    def do_open(self, number, params, arrays):
        clip = self.clips[params["sha256"]]
        if "broken" in clip["name"]:
            raise Body4DError(f"{clip['name']} is not a video.", "Give another.", "not_a_video")
        fps = snap_rate(Fraction(params.get("image_fps") or 30))
        return {"clip": {"name": clip["name"], "width": 64, "height": 48, "fps": [fps.numerator, fps.denominator], "frames": FRAMES, "notices": []}}

    def do_close_clip(self, number, params, arrays):
        return {}

    def do_picture(self, number, params, arrays):
        return {}, {"rgb": np.full((480, 640, 3), params["frame"] % 256, np.uint8)}

    def do_detect(self, number, params, arrays):
        while self.how == "silent":
            time.sleep(1)
        return {"people": []}

    def do_close(self, number, params, arrays):
        take = self.home / f"{params['take']}.take"
        if not params.get("copy") or is_whole(Path(params["copy"]), take):
            delete_take(take)
        return {}

    def do_run(self, number, params, arrays):
        folder, sent, commits = self.home / f"{params['take']}.take", {}, 0
        offered = self.clips[params["sha256"]]
        people = [Person.from_json(entry) for entry in params["people"]]
        if params.get("copy") and not Take.exists(folder):
            if not Take.exists(params["copy"]) or "far" in offered["name"]:
                raise Body4DError("The engine does not have this take.", "Start over.", "take_unknown")
            share(Path(params["copy"]), folder)
        clip = Clip(offered, *params["range"], fps=snap_rate(Fraction(params.get("image_fps") or 30)))
        for event in run(clip, folder, backend(params.get("backend") or "lite"), people, params["settings"], params.get("fresh", False)):
            self.send({"method": "event", "params": {**event.to_json(), "rate": 25.0, "seconds_left": 3.0}})
            if "slow" in offered["name"] and isinstance(event, Progress):
                time.sleep(0.01)
            if isinstance(event, (Committed, StageFinished)):
                with Take.open(folder) as take:
                    for change, data in wire.changes(take, sent):
                        self.send(change, data)
                commits += 1
                if commits == 8:  # in the middle of recover
                    self.misbehave()
            if self.cancelled > number:
                raise Body4DError("The run was stopped.", "Continue goes on where it stopped.", "cancelled")
        with Take.open(folder) as take:
            for change, data in wire.changes(take, sent):
                self.send(change, data)
        return {"summary": {"frames": FRAMES}}

    def misbehave(self):
        raw = {"garbage": b"\x00\xffTraceback (most recent call last):\n" * 3, "not json": b'{"jsonrpc": "2.0", "id": \n', "lists": b"[1, 2]\n",
               "huge line": b"x" * (2 << 20), "huge array": b'{"arrays": [{"name": "a", "dtype": "<f4", "shape": [99999999999], "bytes": 399999999996}]}\n'}
        if self.how in raw:
            self.out.write(raw[self.how])
            self.out.flush()
        elif self.how == "crashes":
            print("Fatal: it broke", file=sys.stderr, flush=True)
            os._exit(3)
        elif self.how.startswith("killed"):
            if self.how == "killed in between":
                self.out.write(b'{"method": "x", "arrays": [{"name": "a", "dtype": "<f4", "shape": [9], "bytes": 36}]}\n' + bytes(20))
                self.out.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.how == "hangs":
            time.sleep(1e6)
        elif self.how == "closes":
            os.close(self.out.fileno())
            os.close(1)
            time.sleep(1e6)
        elif self.how == "shouts":
            for _ in range(1000):
                sys.stderr.write(("x" * 99 + "\n") * 1000)
            sys.stderr.flush()
        elif self.how == "outside":
            self.send({"method": "take/bytes", "params": {"file": "../../out.txt", "offset": 0, "size": None}}, {"bytes": np.zeros(3, np.uint8)})


def main(arguments):
    home = Path(tempfile.gettempdir(), f"body4d-fake-{os.getpid()}")
    if arguments[0] == "--home":
        home, arguments = Path(arguments[1]), arguments[2:]
    assert arguments[-1] == "serve", arguments
    how = " ".join(arguments[:-1]) or "normal"
    assert how in HOWS, how
    home.mkdir(parents=True, exist_ok=True)
    (home / "pids").open("a").write(f"{os.getpid()}\n")
    if how == "dies at start":
        print("Traceback (most recent call last):\nModuleNotFoundError: No module named 'body4d_engine'", file=sys.stderr)
        sys.exit(1)
    if how == "mute":
        sys.stdin.buffer.read()
        return
    if how in ("banner", "garbage first"):
        sys.stdout.write("Welcome to gpu-box.\nLast login: today\n" if how == "banner" else "x" * (70 << 10))
        sys.stdout.flush()
    inn, out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    if how == "old":
        out.write(b"BODY4D/0\n")
        out.flush()
    else:
        wire.greet(out)
    Engine(inn, out, home, how).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
