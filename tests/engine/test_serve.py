# SPDX-License-Identifier: Apache-2.0
"""The engine as a child: its own process for start and end, in this process with quick stages for the requests."""

import hashlib
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from body4d_engine import wire
from body4d_engine.pipeline import run
from body4d_engine.serve import Server
from body4d_engine.take import Take

from .fakes import FakeBackend, FakeClip, FakeRecover, FakeTrack, assert_same, contents

VIDEO = b"not really a video" * 1000
SHA = hashlib.sha256(VIDEO).hexdigest()


class Client:
    """The add-on's side of a server that runs in a thread and sees another folder than we do."""

    def __init__(self, folder):
        there, self.out = os.pipe()
        self.inn, back = os.pipe()
        self.reader, self.writer = open(self.inn, "rb"), open(self.out, "wb")
        self.server = Server(open(there, "rb"), open(back, "wb"), folder)
        self.thread = threading.Thread(target=self.server.serve, daemon=True)
        self.thread.start()
        self.events, self.number = [], 0

    def ask(self, method, params=None, arrays=None, copy=None, on_event=None):
        self.number += 1
        wire.send(self.writer, {"id": self.number, "method": method, "params": params or {}}, arrays)
        while True:
            message, got = wire.receive(self.reader)
            if message.get("id") == self.number:
                return message
            if message.get("method") == "event":
                self.events.append(message["params"])
                if on_event:
                    on_event(message["params"])
            elif message.get("method", "").startswith("take/"):
                wire.apply_change(copy, message, got)


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.setattr("body4d_engine.serve.GRACE_SECONDS", 1e6)  # the thread's end must not end the tests
    monkeypatch.setattr("body4d_engine.clip.open_clip", lambda path, *_: FakeClip())
    monkeypatch.setitem(__import__("body4d_engine.backends").backends.BACKENDS, "fake", FakeBackend(FakeTrack(3), FakeRecover()))
    monkeypatch.setattr("body4d_engine.report.summarise", lambda take: {"frames": take.samples})
    client = Client(tmp_path / "remote")
    yield client
    client.writer.close()
    client.thread.join(5)
    assert not client.thread.is_alive()


def give_clip(client):
    assert client.ask("offer", {"name": "Straße.MP4", "bytes": len(VIDEO), "sha256": SHA})["result"] == {"have": False}
    for offset in range(0, len(VIDEO), 7000):
        part = np.frombuffer(VIDEO[offset : offset + 7000], np.uint8)
        client.ask("send", {"sha256": SHA, "offset": offset}, {"bytes": part})


RUN = {"sha256": SHA, "take": "demo", "backend": "fake"}


def test_a_run_arrives_as_a_take_of_our_own(client, tmp_path):
    give_clip(client)
    assert client.ask("offer", {"name": "Straße.MP4", "bytes": len(VIDEO), "sha256": SHA})["result"] == {"have": True}
    answer = client.ask("run", RUN, copy=tmp_path / "copy.take")
    assert answer["result"]["summary"] == {"frames": 40}
    list(run(FakeClip(), tmp_path / "local.take", FakeBackend(FakeTrack(3), FakeRecover()), [], {}))
    assert_same(contents(tmp_path / "local.take"), contents(tmp_path / "copy.take"))
    assert {e["event"] for e in client.events} == {"StageStarted", "Progress", "Notice", "Committed", "StageFinished"}


def test_cancel_keeps_what_is_committed_and_a_second_run_goes_on(client, tmp_path):
    give_clip(client)
    cancelled = []

    def cancel(event):
        if event["event"] == "Progress" and event["done"] == 20 and not cancelled:
            cancelled.append(wire.send(client.writer, {"id": 999, "method": "cancel"}))
            time.sleep(0.2)

    client.server.run = lambda params, arrays, run=client.server.run: (time.sleep(0), run(params, arrays))[1]
    stage = FakeTrack(3)
    slow_run = stage.run

    def slowly(*args):
        for event in slow_run(*args):
            time.sleep(0.01)
            yield event

    stage.run = slowly
    __import__("body4d_engine.backends").backends.BACKENDS["fake"]._stages = (stage, FakeRecover())
    answer = client.ask("run", RUN, copy=tmp_path / "copy.take", on_event=cancel)
    assert answer["error"]["data"]["code"] == "cancelled"
    client.events.clear()
    client.ask("run", RUN, copy=tmp_path / "copy.take")
    assert client.events[0] == {"event": "StageStarted", "stage": "track", "resumed": True}
    with Take.open(tmp_path / "copy.take") as take:
        assert take.stage("recover") is not None


@pytest.mark.parametrize("method, params, code", [
    ("dance", {}, "unknown_method"), ("hello", {"protocol": 99}, "protocol"), ("run", {**RUN, "sha256": "../../etc"}, "bad_request"),
    ("run", {**RUN, "sha256": "0" * 64}, "clip_missing"), ("close", {"take": "../x"}, "bad_request"), ("send", {"sha256": SHA}, "bad_request"),
    ("run", {}, "internal")])
def test_bad_requests_are_answered_and_the_engine_goes_on(client, method, params, code):
    answer = client.ask(method, params)
    assert answer["error"]["data"]["code"] == code and answer["error"]["message"] and answer["error"]["data"]["traceback"]
    assert client.ask("hello", {"protocol": wire.PROTOCOL})["result"]["backends"]["fake"] == {"lacks": []}


def test_a_damaged_clip_is_refused(client):
    client.ask("offer", {"name": "a.mp4", "bytes": 4, "sha256": SHA})
    answer = client.ask("send", {"sha256": SHA, "offset": 0}, {"bytes": np.zeros(4, np.uint8)})
    assert answer["error"]["data"]["code"] == "clip_damaged"


def test_the_child_greets_keeps_stdout_clean_and_ends_with_its_stdin(tmp_path):
    child = subprocess.Popen([sys.executable, "-m", "body4d_engine", "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             env={**os.environ, "BODY4D_CACHE": str(tmp_path)})
    assert wire.await_greeting(child.stdout) == b""
    wire.send(child.stdin, {"id": 1, "method": "hello", "params": {"protocol": wire.PROTOCOL}})
    answer = wire.receive(child.stdout)[0]["result"]
    assert answer["protocol"] == 1 and "lite" in answer["backends"]
    child.stdin.close()
    assert child.wait(5) == 0 and child.stdout.read() == b""


def test_a_cancel_right_behind_its_run_is_not_lost(client, tmp_path):
    """The run has not begun yet when the cancel comes; it does not cancel the next one."""
    give_clip(client)
    busy = threading.Event()
    client.server.hello = lambda *_: busy.wait(5) and {}
    for number, method in enumerate(("hello", "run", "cancel", "run"), 100):
        wire.send(client.writer, {"id": number, "method": method, "params": RUN})
    time.sleep(0.2)
    busy.set()
    answers = {}
    while not answers.keys() >= {100, 101, 102, 103}:
        message, _ = wire.receive(client.reader)
        answers[message.get("id")] = message
    assert answers[101]["error"]["data"]["code"] == "cancelled"
    assert answers[103]["result"]["summary"] == {"frames": 40}


@pytest.mark.parametrize("reads", [True, False])
def test_a_client_that_has_stopped_to_read_still_ends_the_server(client, reads):
    """It may have closed its end, or just wait for the process to end."""
    give_clip(client)
    if not reads:
        client.reader.close()
    for _ in range(3):
        wire.send(client.writer, {"id": 1, "method": "cancel"})
    if reads:
        client.server._writing.acquire()  # as if the main thread hung in a full pipe
        wire.send(client.writer, {"id": 1, "method": "cancel"})
        time.sleep(0.1)
        client.writer.close()
        time.sleep(0.1)
        assert client.server._cancelled == float("inf")
        client.server._writing.release()
    client.thread.join(5)
    assert not client.thread.is_alive()


def test_a_clip_keeps_its_name_and_a_second_name_needs_no_second_copy(client, tmp_path):
    give_clip(client)
    opened = []
    client_open = lambda path, *_: opened.append(path) or FakeClip()  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("body4d_engine.clip.open_clip", client_open)
        client.ask("run", RUN, copy=tmp_path / "a.take")
        assert client.ask("offer", {"name": "../a:b.mov", "bytes": len(VIDEO), "sha256": SHA})["result"] == {"have": True}
        client.ask("run", RUN, copy=tmp_path / "a.take")
    assert [path.name for path in opened] == ["Straße.MP4", "_a_b.mov"] and opened[1].read_bytes() == VIDEO
    assert len([p for p in (tmp_path / "remote").rglob("*") if p.is_file() and p.parent.name == SHA]) == 1


def test_a_full_disk_is_named_while_a_clip_comes(client, monkeypatch):
    client.ask("offer", {"name": "a.mp4", "bytes": len(VIDEO), "sha256": SHA})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    answer = client.ask("send", {"sha256": SHA, "offset": 0}, {"bytes": np.frombuffer(VIDEO, np.uint8)})
    assert answer["error"]["data"]["code"] == "disk_full" and SHA in answer["error"]["message"]


def test_the_child_ends_in_silence_when_its_client_is_gone(tmp_path):
    child = subprocess.Popen([sys.executable, "-m", "body4d_engine", "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             env={**os.environ, "BODY4D_CACHE": str(tmp_path)})
    wire.await_greeting(child.stdout)
    child.stdout.close()
    wire.send(child.stdin, {"id": 1, "method": "hello", "params": {"protocol": wire.PROTOCOL}})
    assert child.wait(10) == 0  # though stdin is still open: nobody can get an answer
    assert b"Traceback" not in child.stderr.read()
    child.stderr.close()
    child.stdin.close()
