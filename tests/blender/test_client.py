# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine as a child of Blender, and everything that can go wrong with it. Scripted engines (`fake_engine.py`); nothing here needs a scene."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from body4d_blender.client import Client
from body4d_blender.receiving import TakeCopy
from body4d_engine import wire
from body4d_engine.take import Take
from tests.engine.fakes import assert_same, contents

FAKE = Path(__file__).with_name("fake_engine.py")
CLIP = {"name": "a.mp4", "files": [{"name": "a.mp4", "bytes": 1}], "sha256": "0" * 64, "path": str(FAKE)}
posix = pytest.mark.skipif(os.name != "posix", reason="signals")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").exists() or Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.01)


class Run:
    """A client, a take of our own, and what came of the requests."""

    def __init__(self, tmp_path, how="normal", name="a.mp4", **options):
        self.home, self.folder = tmp_path / "home", tmp_path / "a.take"
        self.client = Client([sys.executable, str(FAKE), "--home", str(self.home), *([how] if how else []), "serve"], **options)
        self.clip, self.take, self.answers, self.errors, self.events, self.copy = {**CLIP, "name": name}, uuid.uuid4().hex, [], [], [], None
        self.client.on("event", lambda params, _: self.events.append(params))

    def ask(self, method, params=None, arrays=None):
        return self.client.ask(method, params, arrays, lambda result, got: self.answers.append((result, got)), self.errors.append)

    def generate(self, fresh=False):
        if Take.exists(self.folder):
            self.take = Take.open(self.folder).id
        copy = self.copy = TakeCopy(self.folder)
        for method in ("take/bytes", "take/commit"):
            self.client.on(method, lambda *_: None, lambda params, arrays, method=method: copy.receive(method, params, arrays))
        self.ask("offer", self.clip)
        self.ask("run", {"sha256": CLIP["sha256"], "take": self.take, "people": [], "settings": {}, "range": [0, None, 1], "fresh": fresh})

    def wait(self, condition=lambda: False, seconds=20.0):
        """Tick until there is nothing to wait for, or the condition holds."""
        end = time.monotonic() + seconds
        while self.client.busy and not condition():
            if not self.client.tick():
                time.sleep(0.005)
            assert time.monotonic() < end, "it takes too long"

    @property
    def pids(self):
        return [int(line) for line in (self.home / "pids").read_text().split()] if self.home.exists() else []

    def recovered(self, person=1):
        with Take.open(self.folder) as take:
            return take.count(f"people/{person}", "vertices", "recover") if take.result_stage(person) else 0

    def close(self):
        if self.copy:
            self.copy.close()


@pytest.fixture
def make(tmp_path):
    made = []

    def one(*args, **options):
        made.append(Run(tmp_path, *args, **options))
        return made[-1]

    yield one
    for run in made:
        run.client.stop()
        run.close()
    for run in made:
        until(lambda run=run: not any(map(is_alive, run.pids)), 5)  # no orphan, whatever happened


def whole(make, folder):
    """What an uninterrupted run makes."""
    run = make()
    run.folder = folder
    run.generate()
    run.wait()
    run.close()
    assert not run.errors
    return contents(folder)


def test_requests_are_answered_in_order_and_with_arrays(make):
    run = make()
    assert run.client.state == "off" and not run.client.busy
    for frame in range(3):
        run.ask("picture", {"frame": frame})
    assert run.client.state == "starting" and run.client.busy
    run.wait()
    assert run.client.state == "ready" and run.client.hello["backends"] == {"lite": {"lacks": []}} and not run.errors
    assert [int(arrays["rgb"][0, 0, 0]) for _, arrays in run.answers] == [0, 1, 2] and run.answers[0][1]["rgb"].shape == (480, 640, 3)


def test_a_busy_blender_is_not_taken_for_a_dead_engine(make):
    run = make(start_s=0.5)
    run.ask("cache")
    time.sleep(1.5)  # Blender renders
    run.wait()
    assert not run.errors and len(run.answers) == 1
    run.generate()
    run.wait(lambda: Take.exists(run.folder) and run.recovered())
    run.client.cancel(0.5)
    pid = run.pids[-1]
    time.sleep(1.5)
    run.wait()
    assert [error.code for error in run.errors] == ["cancelled"] and is_alive(pid)


def test_nothing_that_is_called_waits(make):
    """Not even for an engine that does not read, with more bytes than a pipe holds."""
    run = make("mute")
    began = time.perf_counter()
    for _ in range(8):
        run.ask("send", {"sha256": "", "file": "", "offset": 0}, {"bytes": np.zeros(1 << 20, np.uint8)})
    run.client.tick()
    assert time.perf_counter() - began < 1.0
    began = time.perf_counter()
    run.client.stop()
    assert time.perf_counter() - began < 3.0 and run.client.state == "off" and [error.code for error in run.errors] == ["cancelled"] * 8


def test_a_take_arrives_and_is_the_same(make, tmp_path):
    run = make()
    run.generate()
    run.wait()
    assert not run.errors and run.answers[-1][0] == {"summary": {"frames": 40}}
    assert_same(contents(run.folder), contents(run.home / f"{run.take}.take"))
    assert Take.open(run.folder).id == run.take
    assert {"StageStarted", "Progress", "Committed", "StageFinished"} <= {event["event"] for event in run.events}


def test_errors_of_the_engine_keep_words_hint_code_and_trace(make):
    run = make(name="broken.mp4")
    run.ask("offer", run.clip)
    run.ask("open", {"sha256": CLIP["sha256"]})
    run.wait()
    error, = run.errors
    assert (str(error), error.code, error.traceback) == ("broken.mp4 is not a video. Give another.", "not_a_video", "File fake_engine.py")
    assert run.client.state == "ready"


def test_banners_before_the_greeting_are_kept_for_the_log(make):
    run = make("banner")
    run.ask("detect", {"frame": 0})
    run.wait()
    assert not run.errors and list(run.client.log)[:2] == ["Welcome to gpu-box.", "Last login: today"]


@pytest.mark.parametrize("how, words, code", [
    ("dies at start", "The engine did not start (exit code 1); it said: .*No module named 'body4d_engine'. Check the engine in", "no_engine"),
    ("garbage first", "The engine did not start", "no_engine"),
    ("old", "The engine speaks protocol 0, the add-on 1.* Update the older", "protocol"),
    ("old hello", "The engine speaks protocol 0, the add-on 1.* Update the older", "protocol"),
    ("mute", "The engine did not answer within 1 seconds. Check the engine in", "no_engine")])
def test_an_engine_that_does_not_start(make, how, words, code):
    run = make(how, start_s=1 if how == "mute" else 30)
    run.ask("detect", {"frame": 0})
    run.ask("detect", {"frame": 1})
    run.wait()
    assert len(run.errors) == 2 and run.errors[0].code == code
    assert re.search(words.replace("(", r"\(").replace(")", r"\)"), str(run.errors[0])), str(run.errors[0])
    assert run.client.state == "stopped" and run.client.error is run.errors[0]


def test_an_engine_that_is_not_there():
    errors, client = [], Client(["/no/engine", "serve"])
    for _ in range(2):
        client.ask("detect", {"frame": 0}, failed=errors.append)
        while client.busy:
            client.tick()
    said = "The engine /no/engine does not start: No such file or directory. Check the engine in the add-on's preferences."
    assert [str(error) for error in errors] == [said] * 2


@pytest.mark.parametrize("how, words, code", [
    ("crashes", "ended unexpectedly (exit code 3); it said: Fatal: it broke", "engine_stopped"),
    pytest.param("killed", "ended unexpectedly (signal SIGKILL, perhaps for lack of memory)", "engine_stopped", marks=posix),
    pytest.param("killed in between", "ended unexpectedly (signal SIGKILL, perhaps for lack of memory)", "engine_stopped", marks=posix),
    ("closes", "ended unexpectedly", "engine_stopped"),
    ("garbage", "A message could not be understood", "bad_message"), ("not json", "A message could not be understood", "bad_message"),
    ("lists", "A message could not be understood", "bad_message"), ("huge line", "A message could not be understood", "bad_message"),
    ("huge array", "A message could not be understood", "bad_message")])
def test_a_run_that_is_broken_off_goes_on(make, tmp_path, how, words, code):
    """Whatever the engine did: words for the user, what was committed is there, and the next run on the same client ends with the same take."""
    run = make(how)
    run.generate()
    run.wait()
    run.close()
    error, = run.errors
    assert words in str(error) and error.code == code and error.hint, str(error)
    kept = run.recovered()
    assert kept > 0
    run.client.command = [part for part in run.client.command if part != how]
    run.errors.clear(), run.events.clear()
    run.generate()
    run.wait()
    assert not run.errors and {"event": "StageStarted", "stage": "recover", "resumed": True} .items() <= next(
        event for event in run.events if event["event"] == "StageStarted").items()
    assert_same(contents(run.folder), whole(make, tmp_path / "whole.take"), 1e-4)
    assert len(run.pids) == 3


def test_a_file_outside_the_take_is_refused(make, tmp_path):
    run = make("outside")
    run.generate()
    run.wait(lambda: run.copy.error)
    assert "outside the take" in str(run.copy.error) and not (tmp_path.parent / "out.txt").exists() and not (tmp_path / "out.txt").exists()


def test_a_hundred_megabytes_of_stderr_stop_nothing_and_fill_nothing(make):
    run = make("shouts")
    run.generate()
    run.wait(seconds=60)
    assert not run.errors and len(run.client.log) <= 200 and max(map(len, run.client.log)) <= 500


@pytest.mark.parametrize("how", ["hangs", "silent"])
def test_an_engine_that_hangs_is_killed_a_second_after_cancel(make, how):
    run = make(how)
    if how == "hangs":
        run.generate()
        run.wait(lambda: Take.exists(run.folder) and run.recovered())
    else:
        run.ask("detect", {"frame": 0})
        run.wait(lambda: run.client.state == "ready")
    first, = run.pids
    began = time.monotonic()
    run.client.cancel()
    run.client.cancel()  # a second press gives it no more time
    run.wait()
    assert 0.9 < time.monotonic() - began < 1.6 and [error.code for error in run.errors] == ["cancelled"]
    until(lambda: not is_alive(first), 2)
    run.client.command = [part for part in run.client.command if part != how]
    run.errors.clear()
    run.ask("detect", {"frame": 0})
    run.wait()
    assert not run.errors and len(run.pids) == 2


def test_cancel_keeps_the_engine_and_what_is_done(make, tmp_path):
    run = make(name="slow.mp4")
    run.generate()
    run.wait(lambda: Take.exists(run.folder) and run.recovered() > 4)
    began = time.monotonic()
    run.client.cancel()
    run.wait()
    run.close()
    assert time.monotonic() - began < 0.5 and [error.code for error in run.errors] == ["cancelled"] and len(run.pids) == 1
    assert run.client.state == "ready" and not run.client.busy
    run.clip["name"] = "a.mp4"
    run.errors.clear()
    run.generate()
    run.wait()
    assert not run.errors and len(run.pids) == 1
    assert_same(contents(run.folder), whole(make, tmp_path / "whole.take"), 1e-4)


def test_cancel_before_the_engine_is_ready(make):
    run = make()
    run.ask("detect", {"frame": 0})
    run.client.cancel()
    run.wait()
    assert [error.code for error in run.errors] == ["cancelled"] and run.client.state == "ready"


def test_the_reader_waits_where_nobody_takes_messages_out(make):
    """Then the pipe fills and the engine waits too: memory stays bounded."""
    run = make()
    for _ in range(200):  # 184 MB of answers
        run.ask("picture", {"frame": 0})
    run.wait(lambda: run.client.state == "ready")
    time.sleep(1.0)
    inbox = run.client._child.inbox
    assert 32 << 20 < inbox._bytes <= 64 << 20
    run.wait()
    assert len(run.answers) == 200


@posix
def test_a_full_disk_ends_the_copy_in_words_and_the_next_run_completes_it(make, tmp_path):
    import resource

    run, limits = make(name="slow.mp4"), resource.getrlimit(resource.RLIMIT_FSIZE)
    run.ask("offer", run.clip)
    run.wait()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 10, limits[1]))  # ours: the engine was started before
        run.generate()
        run.wait(lambda: run.copy.error)
        run.client.cancel()
        run.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "could not be written: File too large" in str(run.copy.error) and run.copy.error.hint
    run.close()
    contents(run.folder)  # still a take
    run.errors.clear()
    run.generate()
    run.wait()
    assert not run.errors and run.copy.error is None
    assert_same(contents(run.folder), contents(run.home / f"{run.take}.take"))


def test_a_second_writer_of_the_take_is_refused(tmp_path):
    first = TakeCopy(tmp_path / "a.take")
    with pytest.raises(Exception, match="Another Body4D process is writing"):
        TakeCopy(tmp_path / "a.take")
    first.close()
    TakeCopy(tmp_path / "a.take").close()


@posix
def test_kill_minus_nine_of_blender_leaves_no_engine(make, tmp_path):
    run = make()
    command = run.client.command
    script = f"""
import sys, time
sys.path.insert(0, {str(FAKE.parents[2])!r})
from body4d_blender.client import Client
client = Client({command!r})
client.ask("detect", {{"frame": 0}})
while client.busy: client.tick()
print("ready", flush=True)
time.sleep(100)
"""
    ours = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert b"ready\n" in iter(ours.stdout.readline, b"")  # after what Blender has to say
    engine, = run.pids
    assert is_alive(engine)
    os.kill(ours.pid, signal.SIGKILL)
    ours.wait()
    ours.stdout.close()
    until(lambda: not is_alive(engine), 5)


@posix
def test_what_the_engine_started_ends_with_it(tmp_path):
    """An engine that is killed takes its own children along."""
    script = ("import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)']);"
              f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); time.sleep(100)")
    client = Client([sys.executable, "-c", script])
    client.start()
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    grandchild = int((tmp_path / "pid").read_text())
    client.stop()
    until(lambda: not is_alive(grandchild), 5)


def test_no_thread_is_left(make):
    before = threading.active_count()
    for how in ("normal", "crashes", "not json"):
        run = make(how)
        run.generate()
        run.wait()
        run.client.stop()
        run.close()
    until(lambda: threading.active_count() <= before, 5)


def test_arrays_may_be_read_by_the_thread_that_sends_them(make, tmp_path):
    run = make()
    (tmp_path / "file").write_bytes(b"12345")

    def read(name):
        return {"bytes": np.frombuffer(open(tmp_path / name, "rb").read(), np.uint8)}

    run.ask("offer", {**run.clip, "name": "far.mp4"})
    run.ask("send", {"sha256": CLIP["sha256"], "file": "a.mp4", "offset": 0}, lambda: read("file"))
    run.ask("send", {"sha256": CLIP["sha256"], "file": "a.mp4", "offset": 5}, lambda: read("moved"))
    run.ask("detect", {"frame": 0})
    run.wait()
    assert [answer for answer, _ in run.answers] == [{"have": False}, {"received": 5}, {"people": []}]
    assert "moved could not be read: No such file" in str(run.errors[0]) and run.client.state == "ready"


def test_messages_are_dispatched_within_the_budget(make):
    run = make()
    for _ in range(50):
        run.ask("picture", {"frame": 0})
    run.wait(lambda: run.client.state == "ready")
    until(lambda: len(run.client._child.inbox) > 20)
    slow = []
    for request in run.client._asked.values():
        request.done = lambda *_: slow.append(time.sleep(0.005))
    began = time.perf_counter()
    more = run.client.tick(0.02)
    assert more and time.perf_counter() - began < 0.05 and 3 <= len(slow) <= 6


assert wire.PROTOCOL == 1  # what the scripted engines speak against
