# SPDX-License-Identifier: Apache-2.0
"""A thousand takes and hundreds of pipe streams and requests, damaged at random with fixed seeds: nothing but clear errors, and never much memory."""

import copy
import io
import itertools
import json
import random
import shutil
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from body4d_engine import backends, wire
from body4d_engine.errors import Body4DError, TakeError
from body4d_engine.pipeline import run
from body4d_engine.report import summarise
from body4d_engine.serve import Server
from body4d_engine.take import Take

from .fake_people import Actor, World
from .fakes import FakeBackend, FakeClip, FakeRecover, FakeTrack

MOST_BYTES = 256 << 20
ODD = [None, True, False, 0, -1, 1, 7, 1 << 31, 1 << 63, 10**30, -(10**30), 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "x", "../../x",
       "/etc/passwd", "a\0b", "C:\\x", "\ud800", "é" * 300, "<f4", "|O", [], [[]], [0], [-1, 5], [1 << 40, 1 << 40], [0, None, 1], {}, {"": {}}, {"id": 1},
       {"clicks": [[0, 1, 2]]}, [{"id": 1, "prompts": {"clicks": [[0, 5, 5, True]]}}], [[[[[[]]]]]]]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Nothing here is about a loss of power."""
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def memory(request):
    """Fails the test where more than 256 MiB were allocated at once: of the tests that come in parts the first is watched, which is slow; the
    others are not given more, where the system can do that."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if parameters.get("part", 0) == 0:
        tracemalloc.start()
        yield
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MOST_BYTES
    elif sys.platform == "linux":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, hard))
        yield
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    else:
        yield


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, cut out, doubled, put in or cut off."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        length = rng.choice((1, 1, 2, 8, 40))
        kind = rng.randrange(6)
        if kind <= 1 and at < len(data):
            data[at] = rng.choice((data[at] ^ (1 << rng.randrange(8)), rng.randrange(256), rng.choice(b'0123456789-."[]{}:,ne')))
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = rng.randbytes(length)
        elif kind == 4:
            data[at:at] = data[at : at + length]
        elif rng.random() < 0.3:
            del data[at:]
    return bytes(data)


def places(value, path=()):
    """Every place in nested JSON."""
    yield path
    for key, child in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(child, (*path, key))


def changed(value, rng: random.Random):
    """A copy of nested JSON with something odd in one or two places, or without them."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2))):
        path = rng.choice(list(places(value))[1:] or [()])
        if not path:
            continue
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        if rng.random() < 0.2:
            del parent[path[-1]]
        else:
            parent[path[-1]] = copy.deepcopy(rng.choice(ODD))
    return value


# -- takes ----------------------------------------------------------------------------------------------------------------


class Camera:
    name, version, needs, settings = "camera", 1, (), {}

    def run(self, clip, people, take, cursor):
        take.write_npz("camera.npz", focal_px=np.full(take.samples, 50.0), principal_px=np.full((take.samples, 2), 24.0), method=np.array("assumed"),
                       note=np.array("a guess"))
        yield from ()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A take with everything in it, a stage cut short included."""
    path = tmp_path_factory.mktemp("mutations") / "whole.take"
    list(run(FakeClip(10), path, FakeBackend(Camera(), FakeTrack(3), FakeRecover()), [], {}))
    with Take.open(path, writable=True) as take:
        take.begin("refine", "r" * 16)
        take.create_array("people/1", "vertices", "f4", (5, 3), pc2=True, span=(3, 9))
        take.append("people/1", "vertices", np.ones((4, 5, 3)))
        take.commit({"next": 4})
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file() and p.name not in ("lock", "take.json.bak")}


def read_all(path, writable: bool) -> None:
    """What any reader may ask of a take; TakeError at each is fine."""
    with Take.open(path, writable) as take:
        assert take.samples > 0 and take.id is not None and take.backend is not None and take.seed is not None
        assert len(range(take.samples)[:5]) and take.frames[0] >= 0
        entries = take.entries()
        take.notices()
        calls = [take.camera, lambda: summarise(take)]
        for entry in entries:
            calls += [lambda name=name: take.read_npz(name) for name in entry["files"]]
            calls.append(lambda entry=entry: take.is_complete(entry["stage"], entry["key"]))
            for name in entry["arrays"]:
                group, array = name.rsplit("/", 1)
                calls += [lambda g=group, a=array, s=entry["stage"]: np.array(take.read(g, a, s)[:50]), lambda g=group, a=array: take.read(g, a).shape,
                          lambda g=group, a=array, s=entry["stage"]: [take.by_sample(g, a, s)[:50], take.by_sample(g, a, s)[2:9]],
                          lambda g=group, a=array: take.file_of(g, a)]
        for person in take.people:
            calls += [lambda p=person["id"]: take.body(p), lambda p=person["id"]: [take.mask(p, i) for i in range(3)], lambda p=person["id"]: take.mask(p, 9)]
            calls.append(lambda p=person["id"]: take.body(p)["faces"].max())
        calls.append(lambda: [wire.send(io.BytesIO(), *change) for change in itertools.islice(wire.changes(take, {}), 100)])
        if writable:
            calls += [lambda: take.begin("refine", "r" * 16), lambda: take.commit({}), lambda: take.begin("track", "t" * 16), lambda: take.finish(["recover"])]
        for call in calls:
            try:
                call()
            except TakeError as error:
                assert error.message and error.hint and error.code


def put(path, data: bytes | None) -> None:
    if data is None:
        path.unlink(missing_ok=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@pytest.mark.parametrize("part", range(10))
def test_a_hundred_damaged_takes(part, whole, tmp_path, memory):
    folder, there, opened = tmp_path / "t", {}, 0
    for seed in range(100 * part, 100 * part + 100):
        rng = random.Random(seed)
        files = dict(whole)
        if seed % 10 < 4:
            files["take.json"] = json.dumps(changed(json.loads(files["take.json"]), rng)).encode()
        elif seed % 10 < 7:
            files["take.json"] = mutated(files["take.json"], rng)
        else:
            for name in rng.sample(sorted(set(files) - {"take.json"}), 3):
                files[name] = mutated(files[name], rng)
                if rng.random() < 0.1:
                    del files[name]
        for name in whole.keys() | there:
            if files.get(name) is not there.get(name):
                put(folder / name, files.get(name))
        there = files
        try:
            read_all(folder, writable=seed % 4 == 0)
            opened += 1
        except TakeError as error:
            assert error.message and error.hint
        if seed % 4 == 0:
            shutil.rmtree(folder)
            there = {}
    assert 20 < opened < 100


@pytest.mark.parametrize("shape, claimed", [((1 << 33,), 1 << 33), ((1 << 20, 1 << 20), 10), ((-1, 4), 4), ((3,), 4)])
def test_an_npz_that_lies_about_its_size_is_refused(tmp_path, whole, memory, shape, claimed):
    import zipfile

    path = tmp_path / "a.take"
    for name, data in whole.items():
        put(path / name, data)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path / "camera.npz", "w", zipfile.ZIP_DEFLATED) as file:
        with file.open("focal_px.npy", "w") as member:
            member.write(header.getvalue())
            for _ in range(min(claimed, 300 << 20) // (1 << 20) + 1):
                member.write(bytes(1 << 20))
    meta = json.loads(whole["take.json"])
    meta["stages"]["camera"]["files"]["camera.npz"]["bytes"] = (path / "camera.npz").stat().st_size
    (path / "take.json").write_text(json.dumps(meta))
    with Take.open(path) as take, pytest.raises(TakeError, match="damaged"):
        take.camera()


# -- the pipe -------------------------------------------------------------------------------------------------------------


class Filmed(World):
    """Two people on four frames."""

    path, fingerprint, notices, focal_px, origin, watch = None, "world", [], None, None, None
    facts = type("Facts", (), {"blender_reasons": []})

    def __init__(self):
        super().__init__([Actor(lambda frame: (150 + frame, 120)), Actor(lambda frame: (450, 120))], 4)
        self.frame_count = 4

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def describe(self):
        return {**super().describe(), "path": None, "bytes": 1, "frame_count": 4}


class Sink(io.RawIOBase):
    """Takes what the engine says and notes the answers."""

    def __init__(self):
        super().__init__()
        self.answers, self.bytes = [], 0

    def writable(self):
        return True

    def write(self, data):
        if bytes(data[:16]) == b'{"jsonrpc":"2.0"':
            message = json.loads(bytes(data))
            self.answers += [message] if "id" in message else []
        self.bytes += len(data)
        return len(data)


class Patient(io.BytesIO):
    """The end of this pipe comes when everything before it is answered."""

    server = None

    def readline(self, size=-1):
        line = super().readline(size)
        while not line and self.server and len(self.server.writer.answers) < self.server._asked:
            self.server.answered.wait(0.01)
        return line


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Give it a stream; returns all answers."""
    monkeypatch.setattr("body4d_engine.clip.open_clip", lambda *_, **__: Filmed())
    monkeypatch.setattr("body4d_engine.serve.finding.load_networks", lambda: Filmed().networks())
    monkeypatch.setattr("body4d_lite_models.verify", list)  # it reads all the models
    monkeypatch.setitem(backends.BACKENDS, "quick", FakeBackend(FakeTrack(3), FakeRecover()))

    def serve(stream: bytes) -> list[dict]:
        reader, writer = Patient(stream), Sink()
        reader.server = server = Server(reader, writer, tmp_path / "remote")
        server.answered, server._grace_seconds = threading.Event(), 1e6
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        thread.join(60)
        assert not thread.is_alive(), "the engine hangs"
        return writer.answers

    return serve


BYTES = b"a video, more or less"


def requests() -> list[tuple[dict, dict]]:
    """One of each, in an order that works."""
    import hashlib

    sha = hashlib.sha256(BYTES).hexdigest()
    person = {"id": 1, "name": "Ana", "height_m": 1.7,
              "prompts": {"clicks": [[2, 152.0, 120.0, True], [2, 450.0, 120.0, False]], "boxes": [[2, 100, 50, 200, 190]]}}
    run = {"sha256": sha, "take": "t", "backend": "quick", "people": [person], "settings": {"focal_px": 500.0, "heights": {"1": 1.7}}, "range": [0, 4, 1],
           "fresh": True, "until": "recover", "image_fps": None}
    files = [{"name": "a.mp4", "bytes": len(BYTES)}]
    calls = [("hello", {"protocol": 1}), ("offer", {"name": "a.mp4", "files": files, "sha256": sha, "path": "/nowhere/a.mp4"}),
             ("send", {"sha256": sha, "file": "a.mp4", "offset": 0}), ("open", {"sha256": sha, "image_fps": 30}), ("picture", {"frame": 3, "max_side": 100}),
             ("detect", {"frame": 2}), ("mask", {"frame": 2, "person": person}), ("run", run), ("cancel", {}), ("cache", {}), ("close", {"take": "t"}),
             ("offer", {"name": "b", "files": [{"name": "1.png", "bytes": 3}, {"name": "2.png", "bytes": 0}], "sha256": "0" * 64}), ("clear", {})]
    arrays = {"send": {"bytes": np.frombuffer(BYTES, np.uint8)}}
    return [({"id": number, "method": method, "params": params}, arrays.get(method, {})) for number, (method, params) in enumerate(calls, 1)]


def stream_of(messages) -> bytes:
    stream = io.BytesIO()
    for message, arrays in messages:
        wire.send(stream, message, arrays)
    return stream.getvalue()


def test_the_stream_works_unharmed(engine):
    messages = [message for message in requests() if message[0]["method"] not in ("cancel", "close")]  # the run still writes that take
    assert [answer["error"] for answer in engine(stream_of(messages)) if "error" in answer] == []


@pytest.mark.parametrize("part", range(4))
def test_a_hundred_damaged_streams(part, engine, memory):
    """Each is answered as far as it can be understood."""
    whole, told, silent = stream_of(requests()), set(), 0
    for seed in range(100 * part, 100 * part + 100):
        answers = engine(mutated(whole, random.Random(seed)))
        codes = [answer["error"]["data"]["code"] for answer in answers if "error" in answer]
        assert not {"internal", "out_of_memory"} & set(codes), (seed, [answer for answer in answers if "error" in answer])
        told.update(codes)
        silent += not codes
    assert {"bad_message", "bad_request"} <= told and silent < 90


@pytest.mark.parametrize("method", ["hello", "offer", "send", "open", "picture", "detect", "mask", "run", "close"])
def test_sixty_odd_requests_of_a_kind(method, engine, memory):
    """Whatever the parameters are, the answer is a result or says what is wrong with them."""
    rng = random.Random(method)
    messages = [message for message in requests() if message[0]["method"] not in ("cancel", "close", "clear")]
    before = [message for message in messages if message[0]["method"] in ("offer", "send", "open")][:3]
    if method in ("offer", "send", "open"):
        before = before[: ["offer", "send", "open"].index(method)]
    request, arrays = next(message for message in requests() if message[0]["method"] == method)
    odd = [({**request, "id": 1000 + number, "params": changed({"p": request["params"]}, rng).get("p")}, arrays) for number in range(60)]
    answers = [answer for answer in engine(stream_of([*before, *odd])) if answer["id"] >= 1000]
    assert len(answers) == 60
    bad = [answer for answer in answers if "error" in answer]
    internal = [(odd[answer["id"] - 1000][0]["params"], answer["error"]) for answer in bad if answer["error"]["data"]["code"] == "internal"]
    assert not internal, internal[0][1]["data"]["traceback"] + str(internal[0][0])
    assert all(answer["error"]["message"] for answer in bad) and len(bad) > 5


def test_masks_and_takes_that_come_back_damaged(tmp_path, memory):
    """The client's side: what an engine sends may be anything."""
    rng = random.Random(5)
    mask = np.zeros((48, 64), bool)
    mask[10:30, 20:40] = True
    packed = wire.pack_mask(mask).tobytes()
    for _ in range(300):
        try:
            wire.unpack_mask(np.frombuffer(mutated(packed, rng), np.uint8), rng.choice(([48, 64], rng.choice(ODD))))
        except wire.WireError as error:
            assert error.message
    list(run(FakeClip(10), tmp_path / "a.take", FakeBackend(FakeTrack(3), FakeRecover()), [], {}))
    with Take.open(tmp_path / "a.take") as take:
        changes = stream_of(wire.changes(take, {}))
    for number in range(60):
        reader = io.BytesIO(mutated(changes, rng))
        try:
            while (change := wire.receive(reader)) is not None:
                wire.apply_change(tmp_path / f"{number}.take", *change)
        except Body4DError as error:
            assert error.message
    assert all(path.name.endswith(".take") for path in tmp_path.iterdir())
