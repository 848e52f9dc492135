# SPDX-License-Identifier: Apache-2.0
"""What a user reads when the input is bad or the machine gives up: through the real command, with real files."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from body4d_engine.cli import main
from body4d_engine.video import VideoWriter


def body4d(*arguments, capsys=None):
    code = main([str(a) for a in arguments])
    return code, capsys.readouterr().err


@pytest.fixture
def empty_room(tmp_path):
    """A second of video in which there is nobody."""
    path = tmp_path / "empty room.mp4"
    with VideoWriter(path, 160, 120, 30) as writer:
        for i in range(12):
            writer.write(np.full((120, 160, 3), 90 + i, np.uint8))
    return path


@pytest.mark.parametrize("make, message, hint", [
    (lambda p: p / "no such.mp4", "There is no file .*no such.mp4", "Check the name"),
    (lambda p: _file(p / "notes.mp4", b"These are my notes. " * 99), "notes.mp4", "Give"),
    (lambda p: _file(p / "nothing.mp4", b""), "nothing.mp4", "."),
    (lambda p: (p / "photos").mkdir() or p / "photos", "photos", "."),
])
def test_input_that_is_no_clip(tmp_path, capsys, make, message, hint):
    code, text = body4d("run", make(tmp_path), "--out", tmp_path / "a.take", capsys=capsys)
    assert code == 1 and not (tmp_path / "a.take").exists()
    first, second = text.strip().splitlines()
    assert first.startswith("body4d: ")
    assert re.search(message, first) and hint in second and len(second.strip()) > 10


def _file(path, data):
    path.write_bytes(data)
    return path


def test_nobody_found_says_what_to_try_and_the_next_run_starts_there(tmp_path, capsys, empty_room):
    code, text = body4d("run", empty_room, "--out", tmp_path / "a.take", "--summary-json", tmp_path / "s.json", capsys=capsys)
    assert code == 1 and "empty room.mp4" in text and "--click" in text
    assert json.loads((tmp_path / "s.json").read_text())["error"]["code"] == "nobody_found"
    code, text = body4d("run", empty_room, "--out", tmp_path / "a.take", capsys=capsys)
    assert code == 1 and "prepare: already done" in text


def test_a_click_on_nobody_names_person_frame_and_place(tmp_path, capsys, empty_room):
    code, text = body4d("run", empty_room, "--out", tmp_path / "a.take", "--click", "3:7,20,30", capsys=capsys)
    assert code == 1 and all(part in text for part in ("erson 3", "frame 7", "20", "30"))


@pytest.mark.parametrize("option, message", [
    (["--start", "12"], "cannot start at frame 12"), (["--end", "99"], "cannot end before frame 99"), (["--step", "0"], "step of 0"),
    (["--focal-px", "3"], "focal length of 3 px is not possible"), (["--click", "1:99,5,5"], "frame 99"), (["--height", "9"], "--height 9"),
    (["--backend", "best"], "There is no backend called best"), (["--backend", "full", "--weights", "nowhere"], "body4d setup full")])
def test_options_that_do_not_fit_the_clip(tmp_path, capsys, empty_room, option, message):
    code, text = body4d("run", empty_room, "--out", tmp_path / "a.take", *option, capsys=capsys)
    assert code == 1 and message in text


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small disk")
def test_a_disk_that_is_really_full(tmp_path, capsys, empty_room):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        (disk / "filler").write_bytes(bytes((64 << 10) - 4096))
        code, text = body4d("run", empty_room, "--out", disk / "a.take", capsys=capsys)
        assert code == 1 and "The disk is full" in text and str(disk / "a.take") in text and "nothing is lost" in text
        (disk / "filler").unlink()
        code, text = body4d("run", empty_room, "--out", disk / "a.take", capsys=capsys)
        assert "is not a readable take" not in text and "nobody" in text.lower()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_missing_or_damaged_model_is_named(tmp_path, capsys, empty_room, monkeypatch):
    import body4d_lite_models

    copy = tmp_path / "body4d_lite_models"
    shutil.copytree(Path(body4d_lite_models.__file__).parent, copy)
    monkeypatch.setattr(body4d_lite_models, "__file__", str(copy / "__init__.py"))
    (copy / "movenet_multipose.tflite").unlink()
    os.truncate(copy / "body.npz", 1000)
    code, text = body4d("run", empty_room, "--out", tmp_path / "a.take", capsys=capsys)
    assert code == 1 and "movenet_multipose.tflite (missing or damaged), the model file body.npz" in text and "Install it again" in text
    assert main(["doctor"]) == 1 and "lacks the model file movenet" in capsys.readouterr().out


def test_a_folder_that_may_not_be_written(tmp_path, capsys, empty_room):
    (tmp_path / "a.take").write_text("a file where the folder should be")
    code, text = body4d("run", empty_room, "--out", tmp_path / "a.take", capsys=capsys)
    assert code == 1 and "a.take cannot be made" in text and "--out" in text


def test_doctor(capsys):
    assert main(["doctor", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["backends"]["lite"] == {"works": True, "lacks": []} and result["packages"]["numpy"] and result["disk_free_bytes"]["here"] > 0
    assert main(["doctor"]) == 0 and "backend lite: works" in capsys.readouterr().out


def test_a_summary_that_cannot_be_written_hides_nothing(tmp_path, capsys):
    (tmp_path / "file").touch()
    code, text = body4d("run", tmp_path / "no.mp4", "--out", tmp_path / "a.take", "--summary-json", tmp_path / "file" / "s.json", capsys=capsys)
    assert code == 1 and "There is no file" in text and "s.json could not be written" in text


def test_a_name_that_the_terminal_cannot_show_is_no_reason_to_fail(tmp_path):
    code = "from body4d_engine.cli import main; import sys; main(sys.argv[1:]); print('Zo\\u00eb')"
    done = subprocess.run([sys.executable, "-c", code, "doctor", "--json"], capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, check=True)
    assert done.stdout.strip().endswith(rb"Zo\xeb")


@pytest.mark.parametrize("error", [
    MemoryError(), np.linalg.LinAlgError("std::bad_alloc"), BlockingIOError(11, "Resource temporarily unavailable"),
    ImportError("libgfortran.so.5.0.0: failed to map segment from shared object"), OSError(12, "Cannot allocate memory"),
    RuntimeError("XNNPack delegate failed to reshape runtimeNode number 332 (TfLiteXNNPackDelegate) failed to prepare."),
    RuntimeError("OpenCV(5.0.0) error: (-4:Insufficient memory) Failed to allocate 99 bytes in function 'OutOfMemoryError'")])
def test_too_little_memory_is_explained_in_whatever_words_a_library_says_it(tmp_path, capsys, empty_room, monkeypatch, error):
    """The texts are what the libraries said in processes whose memory was limited."""

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("body4d_engine.stages.camera.Camera.run", fail)
    code, text = body4d("run", empty_room, "--out", tmp_path / "a.take", capsys=capsys)
    assert code == 1 and "There is not enough memory for the stage camera." in text and "goes on where it stopped" in text
    monkeypatch.setattr("body4d_engine.clip.open_clip", fail)
    code, text = body4d("run", empty_room, "--out", tmp_path / "a.take", capsys=capsys)
    assert code == 1 and "There is not enough memory to start." in text


def test_an_internal_error_keeps_its_trace_and_is_owned_up_to(tmp_path, capsys, empty_room, monkeypatch):
    monkeypatch.setattr("body4d_engine.stages.camera.Camera.run", lambda *_: 1 / 0)
    code, text = body4d("run", empty_room, "--out", tmp_path / "a.take", capsys=capsys)
    assert code == 1 and "ZeroDivisionError" in text and "Traceback" in text and "Please report" in text


def test_a_run_ends_with_the_parent_that_holds_its_stdin(tmp_path, demo_clip):
    child = subprocess.Popen([sys.executable, "-m", "body4d_engine", "run", demo_clip, "--out", tmp_path / "a.take", "--stop-with-stdin"],
                             stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert b"shots" in child.stderr.readline()
    child.stdin.close()
    assert child.wait(10) == 130
    child.stderr.close()
