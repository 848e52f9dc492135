# SPDX-License-Identifier: Apache-2.0
"""The requests of `serve`, in this process with quick stages."""

import hashlib
import json
import threading
import time
from fractions import Fraction

import numpy as np
import pytest

from body4d_engine import backends, doctor, wire
from body4d_engine.backends import BACKENDS
from body4d_engine.clip_files import identify
from body4d_engine.events import Notice, Progress, StageStarted
from body4d_engine.pipeline import run
from body4d_engine.serve.rates import Rates
from body4d_engine.take import Take

from .fakes import FakeBackend, FakeClip, FakeRecover, FakeTrack, assert_same, contents
from .serving import Threaded

VIDEO = b"not really a video" * 1000
SHA = hashlib.sha256(VIDEO).hexdigest()
OFFER = {"name": "Straße.MP4", "files": [{"name": "Straße.MP4", "bytes": len(VIDEO)}], "sha256": SHA}
RUN = {"sha256": SHA, "take": "demo", "backend": "fake"}


class Shown(FakeClip):
    facts = type("Facts", (), {"blender_reasons": ["it is mirrored"], "rotation_deg": 0, "variable_rate": False, "pixel_aspect": Fraction(1),
                               "has_audio": False})

    def read(self, frame):
        return np.full((48, 64, 3), frame, np.uint8)


@pytest.fixture
def opened():
    """The paths that the engine opened as clips."""
    return []


@pytest.fixture
def client(tmp_path, monkeypatch, opened):
    monkeypatch.setattr("body4d_engine.clip.open_clip", lambda path, *_, **__: opened.append(path) or Shown())
    monkeypatch.setitem(backends.BACKENDS, "fake", FakeBackend(FakeTrack(3), FakeRecover()))
    monkeypatch.setattr("body4d_engine.report.summarise", lambda take: {"frames": take.samples})
    monkeypatch.setattr("body4d_engine.serve.requests.Requests.prepare", lambda self: None)
    client = Threaded(tmp_path / "remote")
    yield client
    client.close()


def data(part):
    return {"bytes": np.frombuffer(part, np.uint8)}


def give_clip(client):
    assert client.result("offer", OFFER) == {"have": False}
    for offset in range(0, len(VIDEO), 7000):
        part = VIDEO[offset : offset + 7000]
        assert client.result("send", {"sha256": SHA, "file": "Straße.MP4", "offset": offset}, data(part)) == {"received": offset + len(part)}


def test_a_run_arrives_as_a_take_of_our_own(client, tmp_path):
    give_clip(client)
    assert client.result("offer", OFFER) == {"have": True}
    client.result("run", RUN, copy=tmp_path / "copy.take")
    list(run(FakeClip(), tmp_path / "local.take", FakeBackend(FakeTrack(3), FakeRecover()), [], {}))
    assert_same(contents(tmp_path / "local.take"), contents(tmp_path / "copy.take"))
    assert {e["event"] for e in client.events} == {"StageStarted", "Progress", "Notice", "Committed", "StageFinished"}
    progress = [e for e in client.events if e["event"] == "Progress"]
    assert all(e["rate"] > 0 and e["seconds_left"] >= 0 for e in progress) and progress[-1]["seconds_left"] == 0


def test_what_an_event_tells_of_has_been_sent_before(client, tmp_path):
    give_clip(client)
    seen = []

    def look(event):
        if event["event"] == "Committed":
            with Take.open(tmp_path / "copy.take") as take:
                seen.append(len(take.read(f"people/{event['person']}", "vertices", "recover")) >= event["stop"])

    client.result("run", RUN, copy=tmp_path / "copy.take", on_event=look)
    assert len(seen) > 4 and all(seen)


def test_a_folder_of_images_comes_file_by_file(client, tmp_path, opened):
    folder = tmp_path / "Läufe"
    folder.mkdir()
    images = {f"img{n}.png": bytes([n]) * (50 * (n % 3)) for n in range(1, 12)}  # some are empty
    for name, content in images.items():
        (folder / name).write_bytes(content)
    clip = identify(folder)
    assert [file["name"] for file in clip["files"]] == [f"img{n}.png" for n in range(1, 12)]
    clip["path"] = None
    assert client.result("offer", clip) == {"have": False}
    received = 0
    for file in clip["files"]:
        for offset in range(0, file["bytes"], 40):
            part = images[file["name"]][offset : offset + 40]
            received += len(part)
            assert client.result("send", {"sha256": clip["sha256"], "file": file["name"], "offset": offset}, data(part)) == {"received": received}
    client.result("run", {**RUN, "sha256": clip["sha256"]})
    assert opened[0].name == "Läufe" and {p.name: p.read_bytes() for p in opened[0].iterdir()} == images


def test_the_hash_of_a_folder_tells_names_and_sizes_apart(tmp_path):
    def name_of(files):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return identify(folder)["sha256"]

    assert len({name_of(files) for files in ({"a.png": b"xy"}, {"b.png": b"xy"}, {"a.png": b"x", "b.png": b"y"}, {"a.png": b"xy", "b.png": b""})}) == 4


def test_a_clip_that_the_engine_sees_is_used_in_place(client, tmp_path, opened):
    file = tmp_path / "clip.mp4"
    file.write_bytes(VIDEO)
    clip = identify(file)
    stamp = clip.pop("stamp")
    assert clip == {"name": "clip.mp4", "files": [{"name": "clip.mp4", "bytes": len(VIDEO)}], "sha256": SHA, "path": str(file)}
    clip["stamp"] = stamp
    assert client.result("offer", clip) == {"have": True}
    client.result("run", RUN)
    assert opened == [file] and not list((tmp_path / "remote" / "clips").glob("*"))
    file.write_bytes(VIDEO[:-1] + b"!")
    assert client.code("run", RUN) == "clip_changed"
    assert client.result("offer", clip) == {"have": False}  # other bytes of the same size
    for path in ("clip.mp4", str(tmp_path), str(tmp_path / "gone.mp4"), "/dev/zero", "\0"):
        assert client.result("offer", {**clip, "path": path}) == {"have": False}


def test_a_clip_that_the_client_has_just_read_is_not_read_again(client, tmp_path, monkeypatch):
    monkeypatch.setattr("body4d_engine.serve.clips.identify", lambda *_: pytest.fail("it was read") if quiet else identify(*_))
    file, quiet = tmp_path / "clip.mp4", True
    file.write_bytes(VIDEO)
    assert client.result("offer", identify(file)) == {"have": True}
    time.sleep(0.02)  # a file's time of change may be that coarse
    quiet, before = False, identify(file)
    file.write_bytes(VIDEO[:-1] + b"!")
    assert client.result("offer", before) == {"have": False} and client.result("offer", identify(file)) == {"have": True}
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(VIDEO)
    quiet = True
    assert client.result("offer", identify(folder)) == {"have": True}


def test_what_was_sent_of_a_clip_need_not_be_sent_again(client):
    assert client.result("offer", OFFER) == {"have": False}
    client.result("send", {"sha256": SHA, "file": "x", "offset": 0}, data(VIDEO[:7000]))
    assert client.result("offer", OFFER) == {"have": False, "received": 7000}
    assert client.code("send", {"sha256": SHA, "file": "x", "offset": 0}, data(VIDEO[:7000])) == "bad_request"
    client.result("send", {"sha256": SHA, "file": "x", "offset": 7000}, data(VIDEO[7000:]))
    assert client.result("offer", OFFER) == {"have": True}
    client.result("run", RUN)


def test_the_clip_is_let_go_of_when_that_is_asked_or_nothing_is(client, monkeypatch):
    closed = []
    monkeypatch.setattr(Shown, "close", lambda self: closed.append(self))
    give_clip(client)
    client.result("open", {"sha256": SHA})
    client.result("close_clip")
    assert len(closed) == 1 and client.code("picture", {"frame": 7}) == "no_clip"
    client.server._idle_seconds = 0.05
    client.result("open", {"sha256": SHA})
    for wanted in (2, 3):  # it is taken up again by the next question, and rests again
        end = time.monotonic() + 5
        while len(closed) < wanted:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert client.ask("picture", {"frame": 7})[1]["rgb"].shape == (48, 64, 3)


def test_the_take_names_the_place_where_the_client_has_the_clip(tmp_path):
    from body4d_engine.clip import Clip

    clip = Shown()
    clip.origin, clip.path, clip.bytes = "D:\\clips\\a.mp4", tmp_path, 1
    assert Clip.describe(clip)["path"] == "D:\\clips\\a.mp4"


def test_open_describes_the_clip_and_picture_shows_it(client):
    give_clip(client)
    assert client.result("open", {"sha256": SHA}) == {"clip": {
        "name": "fake.mp4", "width": 64, "height": 48, "fps": [30, 1], "frames": 40, "notices": [], "blender_reasons": ["it is mirrored"]}}
    message, arrays = client.ask("picture", {"frame": 7})
    assert message["result"] == {} and arrays["rgb"].shape == (48, 64, 3) and arrays["rgb"].dtype == np.uint8 and (arrays["rgb"] == 7).all()
    for largest, shape in ((16, (12, 16, 3)), (1, (1, 1, 3)), (-5, (1, 1, 3)), (0, (48, 64, 3)), (9999, (48, 64, 3))):
        assert client.ask("picture", {"frame": 7, "max_side": largest})[1]["rgb"].shape == shape
    assert client.code("picture", {"frame": 40}) == "no_such_frame" == client.code("picture", {"frame": -1})
    assert client.code("open", {"sha256": SHA, "image_fps": float("inf")}) == "bad_request"


def test_until_ends_after_a_stage_and_the_next_run_goes_on(client, tmp_path):
    give_clip(client)
    assert client.result("run", {**RUN, "until": "track"}, copy=tmp_path / "copy.take") == {"summary": {}}
    with Take.open(tmp_path / "copy.take") as take:
        assert take.stage("track") and not take.stage("recover")
    client.events.clear()
    client.result("run", RUN, copy=tmp_path / "copy.take")
    assert client.events[0] == {"event": "StageFinished", "stage": "track", "seconds": client.events[0]["seconds"], "skipped": True}
    assert client.code("run", {**RUN, "until": "dance"}) == "bad_request"


def test_corrections_and_settings_reach_a_run_and_nothing_is_tracked_again(client, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(backends.BACKENDS["fake"], "stages", lambda settings: told.append(settings) or [FakeTrack(3), FakeRecover()])
    give_clip(client)
    client.result("run", RUN, copy=tmp_path / "copy.take")
    client.events.clear()
    said = [{"first_frame": 3, "last_frame": 5, "kind": "depth", "limb": "left arm"}, {"first_frame": 50, "last_frame": 60, "kind": "body"}]
    client.result("run", {**RUN, "people": [{"id": 1, "corrections": said}], "settings": {"smoothing": 2, "foot_lock": False}}, copy=tmp_path / "copy.take")
    assert {e["stage"]: e["skipped"] for e in client.events if e["event"] == "StageFinished"} == {"track": True, "recover": False}
    assert [e["code"] for e in client.events if e["event"] == "Notice"] == ["correction_outside"]
    assert told[-1]["smoothing"] == 2 and told[-1]["foot_lock"] is False
    with Take.open(tmp_path / "copy.take") as take:
        assert take.people[0]["corrections"] == said and take.settings["foot_lock"] is False
        assert take.stage("recover")["corrections"] == {"1": said} and take.stage("recover")["base"] != take.stage("recover")["key"]


def test_a_take_that_is_gone_here_goes_on_from_the_copy_of_its_owner(client, tmp_path):
    give_clip(client)
    run, copy = {**RUN, "take": "0123456789abcdef" * 2, "copy": str(tmp_path / "mine.take")}, tmp_path / "mine.take"
    client.result("run", {**run, "copy": None, "until": "track"}, copy=copy)
    client.result("close", {"take": run["take"]})
    assert client.code("run", {**run, "copy": str(tmp_path / "nowhere.take")}) == "take_unknown" == client.code("run", {**run, "copy": "\0"})
    client.events.clear()
    client.result("run", run, copy=copy)
    assert client.events[0]["event"] == "StageFinished" and client.events[0]["skipped"]
    with Take.open(copy) as take:
        assert take.stage("recover") and take.id == run["take"]
    client.result("close", {"take": run["take"]})
    client.result("run", {**run, "copy": "/nowhere", "fresh": True})


def slow(monkeypatch, seconds=0.01, stage=None):
    """Make the stages take their time."""
    stage = stage or FakeTrack(3)
    quick = stage.run

    def run(*args):
        for event in quick(*args):
            time.sleep(seconds)
            yield event

    stage.run = run
    monkeypatch.setattr(backends.BACKENDS["fake"], "_stages", (stage, FakeRecover()))


def test_cancel_keeps_what_is_committed_and_a_second_run_goes_on(client, tmp_path, monkeypatch):
    give_clip(client)
    slow(monkeypatch)
    cancelled = []

    def cancel(event):
        if event["event"] == "Progress" and event["done"] == 20:
            cancelled.append(client.tell("cancel"))

    assert client.code("run", RUN, copy=tmp_path / "copy.take", on_event=cancel) == "cancelled"
    assert client.wait(cancelled[0])[0]["result"] == {}
    client.events.clear()
    client.result("run", RUN, copy=tmp_path / "copy.take")
    assert client.events[0] == {"event": "StageStarted", "stage": "track", "resumed": True}
    with Take.open(tmp_path / "copy.take") as take:
        assert take.stage("recover") is not None


def test_other_requests_are_answered_during_a_run_and_a_second_run_after_it(client, monkeypatch):
    give_clip(client)
    client.result("open", {"sha256": SHA})
    slow(monkeypatch)
    asked = {}

    other = {"name": "b.mp4", "files": [{"name": "b.mp4", "bytes": 0}], "sha256": hashlib.sha256(b"").hexdigest()}

    def ask(event):
        if event["event"] == "StageStarted" and not asked:
            client.tell("offer", other)
            client.tell("open", {"sha256": other["sha256"]})
            asked.update({client.tell("run", {**RUN, "take": "second"}): "run", client.tell("picture", {"frame": 3}): "picture",
                          client.tell("cache"): "cache", client.tell("close", {"take": "demo"}): "close", client.tell("clear"): "clear"})

    client.result("run", RUN, on_event=ask)
    answered = {asked[number]: message for number, (message, _) in client.others.items() if number in asked}
    assert answered.keys() == {"picture", "cache", "close", "clear"}
    assert answered["close"]["error"]["data"]["code"] == "take_locked"
    second = next(number for number, name in asked.items() if name == "run")
    assert client.wait(second)[0]["result"] == {"summary": {}}
    assert client.result("offer", OFFER) == {"have": True}  # the run used it: it was not cleared away


def test_a_cancel_right_behind_its_run_is_not_lost(client, monkeypatch):
    """The run has not begun yet when the cancel comes; it does not cancel the next one."""
    give_clip(client)
    busy = threading.Event()
    client.server.requests.hello = lambda *_: busy.wait(5) and ({}, {})
    numbers = [client.tell(method, params) for method, params in (("hello", {"protocol": 1}), ("run", RUN), ("cancel", {}), ("run", RUN))]
    time.sleep(0.2)
    busy.set()
    answers = [client.wait(number)[0] for number in numbers]
    assert answers[1]["error"]["data"]["code"] == "cancelled" and answers[2]["result"] == {} and answers[3]["result"] == {"summary": {}}


@pytest.mark.parametrize("method, params, code", [
    ("dance", {}, "unknown_method"), (["run"], {}, "unknown_method"), ("hello", {"protocol": 99}, "protocol"), ("hello", {}, "bad_request"),
    ("hello", [1], "bad_request"), ("run", {**RUN, "sha256": "../../etc"}, "bad_request"), ("run", {**RUN, "sha256": "0" * 64}, "clip_missing"),
    ("run", {}, "bad_request"), ("run", {**RUN, "fresh": 1}, "bad_request"), ("run", {**RUN, "people": [7]}, "bad_people"),
    ("run", {**RUN, "settings": {"heights": {"x": 1}}}, "bad_settings"), ("run", {**RUN, "backend": "big"}, "no_backend"),
    ("close", {"take": "../x"}, "bad_request"), ("send", {"sha256": SHA, "file": "a", "offset": 0}, "bad_request"),
    ("offer", {**OFFER, "files": []}, "bad_request"), ("offer", {**OFFER, "files": [{"name": "a.mp4", "bytes": -1}]}, "bad_request"),
    ("offer", {**OFFER, "files": [{"name": "a.png", "bytes": 1}, {"name": "a.exe", "bytes": 1}]}, "bad_request"),
    ("offer", {**OFFER, "files": [{"name": "a.png", "bytes": 1}, {"name": "../A.png", "bytes": 1}, {"name": "a.png", "bytes": 1}]}, "bad_request"),
    ("picture", {"frame": 0}, "no_clip"), ("detect", {"frame": 0}, "no_clip"), ("mask", {"frame": 0, "person": {"id": 1}}, "no_clip"),
    ("open", {"sha256": SHA}, "clip_missing")])
def test_bad_requests_are_answered_and_the_engine_goes_on(client, method, params, code):
    assert client.code(method, params) == code
    assert client.result("hello", {"protocol": wire.PROTOCOL})["backends"]["fake"]["lacks"] == []


@pytest.mark.parametrize("given", [[0, 10], [0, 10, 1, 1], ["0", None, 1], [0, 5.0, 1], [None, None, 1], [True, None, 1]])
def test_a_range_is_three_numbers(client, given):
    give_clip(client)
    assert client.code("run", {**RUN, "range": given}) == "bad_request"


def test_hello_says_what_is_here(client, tmp_path):
    give_clip(client)
    hello = client.result("hello", {"protocol": wire.PROTOCOL})
    assert hello["protocol"] == 1 and hello["engine"] and hello["python"] and hello["device"].startswith("CPU")
    assert hello["cache_bytes"] == len(VIDEO) == client.result("cache")["bytes"]
    for name, backend in BACKENDS.items():
        assert hello["backends"][name] == {"lacks": backend.lacks(), "models": {models: backend.lacks(models=models) for models in backend.models}}


def test_the_doctor_is_asked_over_the_pipe(client, monkeypatch):
    asked = []
    monkeypatch.setattr(doctor, "examination", lambda online=False, verify=False: asked.append(online) or {"checks": []})
    assert client.result("doctor") == {"examination": {"checks": []}} and client.result("doctor", {"online": True}) and asked == [False, True]
    assert client.code("doctor", {"online": "yes"}) == "bad_request"


def test_the_whole_examination_fits_a_message(client):
    said = client.result("doctor")["examination"]
    assert {"Python", "FFmpeg", "GPU", "torch", "packages", "disk"} <= {check["name"] for check in said["checks"]}
    assert said == json.loads(json.dumps(said)) and said["backends"].keys() == BACKENDS.keys()


def test_clear_frees_what_nobody_uses(client, tmp_path):
    give_clip(client)
    client.result("run", RUN)
    before = client.result("cache")["bytes"]
    client.result("open", {"sha256": SHA})
    other = {"name": "b.mp4", "files": [{"name": "b.mp4", "bytes": 10}], "sha256": hashlib.sha256(b"b" * 10).hexdigest()}
    client.result("offer", other)
    client.result("send", {"sha256": other["sha256"], "file": "b.mp4", "offset": 0}, data(b"b" * 5))
    assert client.result("clear") == {"bytes": before + 5 - len(VIDEO)}
    assert client.result("cache")["bytes"] == len(VIDEO)
    assert client.code("send", {"sha256": other["sha256"], "file": "b.mp4", "offset": 5}, data(b"b" * 5)) == "bad_request"
    client.result("offer", other)
    client.result("send", {"sha256": other["sha256"], "file": "b.mp4", "offset": 0}, data(b"b" * 10))
    client.result("open", {"sha256": other["sha256"]})
    assert client.result("clear") == {"bytes": len(VIDEO)}


def test_close_deletes_the_take(client, tmp_path):
    give_clip(client)
    client.result("run", RUN)
    assert list((tmp_path / "remote" / "takes").iterdir())
    client.result("close", {"take": "demo"})
    assert not list((tmp_path / "remote" / "takes").iterdir())
    client.result("close", {"take": "demo"})


def test_a_damaged_clip_is_refused(client, tmp_path):
    client.result("offer", {**OFFER, "files": [{"name": "a.mp4", "bytes": 4}]})
    assert client.code("send", {"sha256": SHA, "file": "a.mp4", "offset": 0}, data(bytes(4))) == "clip_damaged"
    assert not list((tmp_path / "remote" / "clips").iterdir())


@pytest.mark.parametrize("offset, size", [(1, 10), (0, 0), (0, len(VIDEO) + 1)])
def test_bytes_that_are_not_the_next_are_refused(client, offset, size):
    client.result("offer", OFFER)
    assert client.code("send", {"sha256": SHA, "file": "x", "offset": offset}, data(bytes(size))) == "bad_request"


def test_a_clip_keeps_its_name_and_a_second_name_needs_no_second_copy(client, tmp_path, opened):
    give_clip(client)
    client.result("run", RUN)
    assert client.result("offer", {**OFFER, "name": "../a:b.mov"}) == {"have": True}
    client.result("run", RUN)
    assert [path.name for path in opened] == ["Straße.MP4", "_a_b.mov"] and opened[1].read_bytes() == VIDEO
    assert len([p for p in (tmp_path / "remote" / "clips").rglob("*") if p.is_file() and p.suffix != ".lock"]) == 1


def test_a_full_disk_is_named_while_a_clip_comes(client, monkeypatch):
    client.result("offer", OFFER)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    message, _ = client.ask("send", {"sha256": SHA, "file": "x", "offset": 0}, data(VIDEO))
    assert message["error"]["data"]["code"] == "disk_full" and SHA in message["error"]["message"]


@pytest.mark.parametrize("reads", [True, False])
def test_a_client_that_has_stopped_to_read_still_ends_the_server(tmp_path, reads):
    """It may have closed its end, or just wait for the process to end."""
    client = Threaded(tmp_path)
    if not reads:
        client.reader.close()
    for _ in range(3):
        client.tell("cancel")
    if reads:
        client.server._writing.acquire()  # as if the main thread hung in a full pipe
        client.tell("cancel")
        time.sleep(0.1)
        client.writer.close()
        time.sleep(0.1)
        assert client.server._cancelled == float("inf")
        client.server._writing.release()
    client.close()


def test_rates_know_the_people_to_come(tmp_path):
    now = [100.0]
    rates = Rates(lambda: now[0])
    list(run(FakeClip(), tmp_path / "a.take", FakeBackend(FakeTrack()), [], {}))

    def after(seconds, event):
        now[0] += seconds
        return rates.of(event, tmp_path / "a.take")

    assert after(1, StageStarted("recover")) == {}
    assert after(2, Progress("recover", 10, 40, 1)) == {"rate": 5.0, "seconds_left": 10.0}  # 30 of the first, 20 of the second, who comes half way
    assert after(0, Notice("recover", "x", "y")) == {}
    assert after(2, Progress("recover", 30, 40, 1)) == {"rate": 7.5, "seconds_left": 4.0}
    assert after(4, Progress("recover", 10, 20, 2)) == {"rate": 2.5, "seconds_left": 4.0}
    assert after(1, Progress("recover", 2, 4, 2, "step"))["seconds_left"] is None
    after(9, StageStarted("refine", resumed=True))
    assert after(1, Progress("refine", 30, 40)) == {"rate": None, "seconds_left": None}  # nobody knows what was done before
    assert after(1, Progress("refine", 35, 40)) == {"rate": 5.0, "seconds_left": 1.0}
