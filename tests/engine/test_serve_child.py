# SPDX-License-Identifier: Apache-2.0
"""`serve` as a process: how it starts and ends, what a cancel or a kill leaves, and a machine of its own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from body4d_engine import wire
from body4d_engine.clip_files import identify
from body4d_engine.take import Take

from .fakes import assert_same, contents
from .make_clips import make_clip
from .serving import ROOT, Child

FAKE = (sys.executable, "-m", "tests.engine.fake_serve")
posix = pytest.mark.skipif(os.name != "posix", reason="signals")
HELLO = {"protocol": wire.PROTOCOL}


@pytest.fixture
def video(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    path = folder / "Straße 1.mp4"
    make_clip(path)
    return path


def test_the_child_greets_keeps_stdout_clean_and_ends_with_its_stdin(tmp_path):
    with Child(tmp_path).greeted() as child:
        answer = child.result("hello", HELLO)
        assert answer["protocol"] == 1 and "lite" in answer["backends"] and answer["cache_bytes"] == 0
        child.writer.close()
        assert child.process.wait(10) == 0 and child.reader.read() == b""


def test_it_ends_in_silence_when_its_client_is_gone(tmp_path):
    with Child(tmp_path).greeted() as child:
        child.reader.close()
        child.tell("hello", HELLO)
        assert child.process.wait(10) == 0  # though stdin is still open: nobody can get an answer
        child._drain.join(5)
        assert not any(b"Traceback" in line for line in child.log)


def test_what_cannot_be_understood_is_answered_once_and_ends_it(tmp_path):
    with Child(tmp_path).greeted() as child:
        child.writer.write(b"GET / HTTP/1.1\r\n\r\n")
        child.writer.flush()
        message, _ = wire.receive(child.reader)
        assert message["id"] is None and message["error"]["data"]["code"] == "bad_message"
        assert wire.receive(child.reader) is None and child.process.wait(10) == 0


def run_of(clip, backend="busy", take="demo"):
    return {"sha256": clip["sha256"], "take": take, "backend": backend}


def give(child, clip, source):
    """By bytes, as to another machine."""
    assert child.result("offer", clip) == {"have": False}
    data = source.read_bytes()
    for offset in range(0, len(data), 10000):
        part = np.frombuffer(data[offset : offset + 10000], np.uint8)
        child.result("send", {"sha256": clip["sha256"], "file": source.name, "offset": offset}, {"bytes": part})


def test_a_cancel_does_not_wait_for_the_end_of_a_batch(tmp_path, video):
    """Nor does the same process stumble over what the stopped run left."""
    clip, told = identify(video), []

    def cancel(event):
        if event["event"] == "Committed":
            time.sleep(0.2)
            told.append(time.monotonic())
            child.tell("cancel")

    with Child(tmp_path / "remote", program=FAKE, cwd=ROOT).greeted() as child:
        child.result("offer", clip)
        for _ in range(3):  # each time anew
            assert child.code("run", {**run_of(clip), "fresh": True}, copy=tmp_path / "copy.take", on_event=cancel) == "cancelled"
            assert time.monotonic() - told[-1] < 1
        child.result("run", run_of(clip), copy=tmp_path / "copy.take")
        with Take.open(tmp_path / "copy.take") as take:
            half = take.samples // 2
            np.testing.assert_array_equal(take.read("people/1", "root")[:, 0], np.arange(take.samples) < half)
        assert child.close() == 0


def test_cancels_at_any_time_end_nothing_but_what_was_asked_before(tmp_path, video):
    clip = identify(video)
    with Child(tmp_path / "remote", program=FAKE, cwd=ROOT).greeted() as child:
        child.result("offer", clip)
        for _ in range(100):
            child.tell("cancel")
            assert child.result("cache")["bytes"] >= 0
        for delay in np.linspace(0, 0.3, 16):  # anywhere in the run
            number = child.tell("run", {**run_of(clip, "quick"), "fresh": True})
            time.sleep(delay)
            child.tell("cancel")
            answer, _ = child.wait(number)
            assert "result" in answer or answer["error"]["data"]["code"] == "cancelled", answer
        child.result("run", run_of(clip, "quick"))
        assert child.close() == 0


@posix
def test_a_killed_engine_leaves_a_take_that_a_new_one_goes_on_with(tmp_path, video):
    clip, copy = identify(video), tmp_path / "copy.take"

    def kill(event):
        if event["event"] == "Committed":
            child.process.kill()

    with Child(tmp_path / "remote", program=FAKE, cwd=ROOT).greeted() as child:
        child.result("offer", clip)
        with pytest.raises(TypeError):  # there is nothing more to receive
            child.ask("run", run_of(clip), copy=copy, on_event=kill)
    with Take.open(copy) as take:
        assert len(take.read("people/1", "root")) == take.samples // 2
    with Child(tmp_path / "remote", program=FAKE, cwd=ROOT).greeted() as child:
        child.result("offer", clip)
        child.result("run", run_of(clip), copy=copy)
        assert child.events[0]["resumed"]
        assert child.close() == 0
    with Take.open(copy) as take:
        assert take.stage("busy")


CLIENT = """
import sys
from pathlib import Path
from body4d_engine.clip_files import identify
from tests.engine.serving import Child

child = Child(sys.argv[2], program=(sys.executable, "-m", "tests.engine.fake_serve")).greeted()
clip = identify(Path(sys.argv[1]))
child.result("offer", clip)
child.ask("run", {"sha256": clip["sha256"], "take": "demo", "backend": "busy"}, on_event=lambda event: print(event["event"], child.process.pid, flush=True))
"""


@posix
def test_a_killed_client_leaves_no_engine_behind(tmp_path, video):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "packages" / "body4d-lite-models")])
    client = subprocess.Popen([sys.executable, "-c", CLIENT, str(video), str(tmp_path / "remote")], stdout=subprocess.PIPE, text=True, cwd=ROOT,
                              env={**os.environ, "PYTHONPATH": paths})
    engine = None
    for line in client.stdout:
        word, engine = line.split()
        if word == "Committed":
            break
    client.kill()
    client.wait()
    client.stdout.close()
    end = time.monotonic() + 10
    while is_alive(int(engine)):
        assert time.monotonic() < end, "an orphan"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    about = Path(f"/proc/{pid}/stat")
    return not about.exists() or about.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_ctrl_c_ends_an_idle_engine(tmp_path):
    if os.name != "posix":
        pytest.skip("signals")
    with Child(tmp_path).greeted() as child:
        child.result("hello", HELLO)
        child.process.send_signal(signal.SIGINT)
        assert child.process.wait(10) == 130


@pytest.fixture
def elsewhere(tmp_path):
    """Words before a command that run it where the folder `mine` is empty."""
    wrap = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(tmp_path / "mine")]
    if sys.platform != "linux" or not shutil.which("unshare") or not (tmp_path / "mine").is_dir():
        pytest.skip("needs Linux and unshare")
    seen = subprocess.run([*wrap, "ls", "-A", str(tmp_path / "mine")], capture_output=True)
    if seen.returncode or seen.stdout:
        pytest.skip(f"needs the right to mount ({seen.stderr.decode(errors='replace').strip()})")
    return wrap


def test_an_engine_that_cannot_see_our_files_gets_and_gives_everything_by_bytes(tmp_path, video, elsewhere):
    clip, copy, remote = identify(video), video.parent / "copy.take", tmp_path / "remote"
    with Child(remote, wrap=elsewhere, program=FAKE, cwd=ROOT).greeted() as child:
        child.result("hello", HELLO)
        give(child, clip, video)
        assert child.result("open", {"sha256": clip["sha256"]})["clip"]["name"] == "Straße 1.mp4"
        assert child.ask("picture", {"frame": 3})[1]["rgb"].ndim == 3
        child.result("run", run_of(clip, "quick"), copy=copy)
        assert child.close() == 0
    assert not (video.parent / "demo.take").exists()
    theirs = next((remote / "takes").iterdir())
    files = {p.relative_to(theirs): p.read_bytes() for p in theirs.rglob("*") if p.is_file() and p.name not in ("lock", "take.json.bak")}
    assert len(files) > 10 and {name: (copy / name).read_bytes() for name in files} == files
    with Take.open(copy) as take:
        assert take.clip["path"] == str(video) and take.stage("recover")


def test_an_engine_that_sees_our_take_keeps_none_and_goes_on_with_ours(tmp_path, video):
    clip, copy, theirs = identify(video), tmp_path / "copy.take", tmp_path / "remote" / "takes" / "demo.take"
    with Child(tmp_path / "remote", program=FAKE, cwd=ROOT).greeted() as child:
        child.result("offer", clip)
        child.result("run", run_of(clip, "quick"), copy=copy)
        name, before = Take.open(copy).id, contents(copy)
        os.rename(theirs, theirs.with_name(f"{name}.take"))  # as the add-on, which calls it by its id
        child.result("close", {"take": name, "copy": str(copy)})
        assert not any((tmp_path / "remote" / "takes").iterdir())
        again = {**run_of(clip, "quick", name), "copy": str(copy)}
        child.events.clear()
        child.result("run", again, {"held": wire.pack_held(Take.open(copy))}, copy=copy)
        assert all(event["skipped"] for event in child.events if event["event"] == "StageFinished") and child.events
        assert_same(contents(copy), before)
        assert child.close() == 0
