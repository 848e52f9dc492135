# SPDX-License-Identifier: Apache-2.0
import io
import json
import os
import threading

import numpy as np
import pytest

from body4d_engine import wire
from body4d_engine.take import Take
from tests.engine.test_take import CLIP, write


def test_messages_round_trip_over_a_real_pipe():
    read, write_end = os.pipe()
    arrays = {"a": np.arange(300000, dtype=np.float32).reshape(3, -1), "b": np.zeros((0, 4), np.uint8), "c": np.array(5, np.int64),
              "big endian": np.arange(5, dtype=">f8")}

    def talk():
        with open(write_end, "wb") as out:
            out.write(b"Welcome to gpu-box\n")
            wire.greet(out)
            wire.send(out, {"method": "x", "params": {"name": "Zoë"}}, arrays)
            wire.send(out, {"id": 1, "result": None})

    thread = threading.Thread(target=talk)
    thread.start()
    with open(read, "rb") as reader:
        assert wire.await_greeting(reader) == b"Welcome to gpu-box\n"
        message, got = wire.receive(reader)
        assert message == {"jsonrpc": "2.0", "method": "x", "params": {"name": "Zoë"}}
        for name, array in arrays.items():
            np.testing.assert_array_equal(got[name], array)
        assert wire.receive(reader) == ({"jsonrpc": "2.0", "id": 1, "result": None}, {})
        assert wire.receive(reader) is None
    thread.join()


@pytest.mark.parametrize("data", [
    b"hello\n", b"[1]\n", b'{"arrays": [{"name": "a", "dtype": "|O", "shape": [1], "bytes": 8}]}\n',
    b'{"arrays": [{"name": "a", "dtype": "<f4", "shape": [1], "bytes": 400}]}\n' + bytes(400),
    b'{"arrays": [{"name": "a", "dtype": "<f4", "shape": [-1], "bytes": -4}]}\n',
    b'{"arrays": [{"name": "a", "dtype": "|u1", "shape": [268435457], "bytes": 268435457}]}\n', b"x" * (wire.MAX_LINE + 5), b"[" * 99999 + b"\n"])
def test_malformed_messages_are_refused(data):
    with pytest.raises(wire.WireError, match="could not be understood"):
        wire.receive(io.BytesIO(data))


@pytest.mark.parametrize("data", (b'{"arrays": [{"name": "a", "dtype": "<f4", "shape": [4], "bytes": 16}]}\n' + bytes(9), b'{"cut'))
def test_an_end_in_the_middle_of_a_message_is_told_apart(data):
    with pytest.raises(wire.WireError) as raised:
        wire.receive(io.BytesIO(data))
    assert raised.value.code == "cut_off"


def test_an_engine_that_does_not_start_is_quoted():
    with pytest.raises(wire.WireError, match="it said: python: can't open file"):
        wire.await_greeting(io.BytesIO(b"python: can't open file"))
    with pytest.raises(wire.WireError):
        wire.await_greeting(io.BytesIO(b"x" * 100000 + wire.GREETING))


def test_a_take_is_copied_as_it_grows(tmp_path):
    sent, copy = {}, tmp_path / "copy.take"

    def sync(take):
        for message, arrays in wire.changes(take, sent):
            stream = io.BytesIO()
            wire.send(stream, message, arrays)
            stream.seek(0)
            wire.apply_change(copy, *wire.receive(stream))

    with Take.create(tmp_path / "a.take", CLIP, "lite") as take:
        write(take)
        take.commit({"next": 5})
        sync(take)
        assert len(Take.open(copy).read("people/1", "vertices")) == 5
        take.append("people/1", "vertices", np.full((2, 3, 3), 9))
        take.append("people/1", "state", np.ones(2))
        take.write_npz("camera.npz", focal_px=np.arange(3.0))
        take.finish()
        sync(take)
        ours = {p.relative_to(take.path): p.read_bytes() for p in take.path.rglob("*.*") if p.suffix in (".pc2", ".u8", ".npz")}
        assert len(ours) == 3
        for name, data in ours.items():
            assert (copy / name).read_bytes() == data
        assert json.loads((copy / "take.json").read_text()) == take.to_json()


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "c:\\x", "..\\x"])
def test_files_outside_the_take_are_refused(tmp_path, name):
    with pytest.raises(wire.WireError, match="outside the take"):
        wire.apply_change(tmp_path, {"method": "take/bytes", "params": {"file": name, "offset": 0, "size": None}}, {"bytes": np.zeros(1, np.uint8)})


def test_a_take_json_larger_than_a_line_is_copied(tmp_path):
    with Take.create(tmp_path / "a.take", CLIP, "lite") as take:
        take.begin("track", "t" * 16)
        for i in range(9000):
            take.notice({"stage": "track", "code": "track_too_short", "message": "Somebody seen for 0.1 s was left out (under 0.5 s). " * 3, "frame": i})
        take.finish()
        assert (take.path / "take.json").stat().st_size > wire.MAX_LINE
        sent = {}
        copy(take, tmp_path / "copy.take", sent)
        assert Take.open(tmp_path / "copy.take").to_json() == take.to_json()
        assert not list(wire.changes(take, sent))  # nothing new, no message


def copy(take, folder, sent):
    for message, arrays in wire.changes(take, sent):
        stream = io.BytesIO()
        wire.send(stream, message, arrays)
        stream.seek(0)
        wire.apply_change(folder, *wire.receive(stream))


def test_a_copy_drops_what_the_take_dropped_and_does_not_stumble_over_a_missing_file(tmp_path):
    sent, there = {}, tmp_path / "copy.take"
    with Take.create(tmp_path / "a.take", CLIP, "lite") as take:
        write(take)
        take.finish()
        copy(take, there, sent)
        old = [p for p in there.rglob("*.pc2")]
        write(take, key="z" * 16, value=4)
        take.finish()
        copy(take, there, sent)
        assert len(old) == 1 and not old[0].exists() and Take.open(there).read("people/1", "vertices")[0, 0, 0] == 4
        take.file_of("people/1", "vertices").unlink()
        copy(take, tmp_path / "second.take", {})
        assert len(Take.open(tmp_path / "second.take").read("people/1", "state")) == 5


def test_only_what_a_copy_lacks_is_sent_to_it_again(tmp_path):
    there = tmp_path / "copy.take"
    with Take.create(tmp_path / "a.take", CLIP, "lite") as take:
        write(take)
        take.write_npz("camera.npz", focal_px=np.ones(5, np.float32))
        take.finish()
        copy(take, there, {})
        held = wire.unpack_held(wire.pack_held(Take.open(there)))
        assert not [m for m, _ in wire.changes(take, dict(held)) if m["method"] == "take/bytes"]
        cut, gone = Take.open(there).file_of("people/1", "vertices"), next(iter(path for path in there.rglob("*.npz")))
        cut.write_bytes(cut.read_bytes()[:-1])
        gone.write_bytes(b"damaged")
        sent = {m["params"]["file"] for m, _ in wire.changes(take, wire.held(Take.open(there))) if m["method"] == "take/bytes"}
        assert sent == {path.relative_to(there).as_posix() for path in (cut, gone)}
        copy(take, there, wire.held(Take.open(there)))
        assert cut.read_bytes() == take.file_of("people/1", "vertices").read_bytes() and not wire.held(take).keys() - wire.held(Take.open(there)).keys()


@pytest.mark.parametrize("data", [b"", b"[]", b'{"a": "b"}', b'{"a": -1}', b'{"a": true}', b"\xff"])
def test_what_a_copy_has_is_checked(data):
    with pytest.raises(wire.WireError):
        wire.unpack_held(np.frombuffer(data, np.uint8))
