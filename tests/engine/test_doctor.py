# SPDX-License-Identifier: Apache-2.0
"""`body4d doctor` says what is there, what is broken and what to do next, with and without torch, and changes nothing."""

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest

from body4d_engine import doctor, examining
from body4d_engine.cli import main
from body4d_engine.setup.machine import Gpu, Machine, Torch
from body4d_engine.setup.packages import PACKAGES
from body4d_engine.weights import CATALOGUE, Located, places
from body4d_engine.weights.verifying import Ledger

BARE = Machine("linux", "x86_64", (3, 11))
ADA = Machine("linux", "x86_64", (3, 11), (Gpu("RTX 4090", 24 << 30, (8, 9)),), "580.65.06", (13, 0))


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """A user who has nothing, on a machine whose torch is not asked: that takes seconds."""
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("BODY4D_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("body4d_engine.weights.verifying.settings_folder", lambda: tmp_path / "settings")
    monkeypatch.setattr(doctor, "this_machine", lambda: BARE)


def answering(monkeypatch, stdout: str = "", stderr: str = "", code: int = 0) -> None:
    """A torch that answers so."""
    monkeypatch.setattr(examining.subprocess, "run", lambda *args, **options: subprocess.CompletedProcess(args, code, stdout, stderr))


def test_everything_that_is_missing_has_a_next_step(capsys):
    assert main(["doctor", "--json"]) == 0  # lite works
    result = json.loads(capsys.readouterr().out)
    checks = {check["name"]: check for check in result["checks"]}
    assert checks["Python"]["state"] == checks["FFmpeg"]["state"] == "ok" and checks["GPU"]["state"] == "note"
    for name in ("torch", "packages", "weights sam3", "weights sam-3d-body-dinov3", "weights moge-2-vitl-normal"):
        assert checks[name]["state"] == "missing" and "body4d setup full" in checks[name]["next"], checks[name]
    assert all(check["next"] for check in result["checks"] if check["state"] != "ok")
    assert not any(name.startswith("hub") for name in checks)  # which is asked only when told to
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "backend lite: works" in text and "-> body4d setup full fetches it (SAM License, commercial use allowed)" in text


def test_without_the_hub_library_access_cannot_be_asked(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    (check,) = examining.hub_access([CATALOGUE["sam3"]])
    assert check.state == "missing" and "body4d setup full" in check.next


@pytest.mark.parametrize(("machine", "answer", "state", "words"), [
    (replace(ADA, torch=Torch("2.13.0+cu130", "13.0")), ["2.13.0+cu130", "13.0", ["RTX 4090"], 20 << 30, False], "ok", "computes on RTX 4090 (20.0 GiB free)"),
    (replace(BARE, torch=Torch("2.13.0+cpu")), ["2.13.0+cpu", "", [], 0, False], "ok", "computes on the processor"),
    (replace(BARE, torch=Torch("2.13.0")), ["2.13.0", "", [], 0, True], "ok", "Apple GPU"),
    (replace(ADA, torch=Torch("2.13.0+cpu")), ["2.13.0+cpu", "", [], 0, False], "wrong", "built for the processor only"),
    (replace(ADA, driver="550.54", cuda=(12, 4), torch=Torch("2.13.0", "13.0")), ["2.13.0", "13.0", [], 0, False], "wrong", "runs CUDA 12.x at most"),
    (replace(ADA, torch=Torch("2.13.0", "13.0")), ["2.13.0", "13.0", [], 0, False], "wrong", "does not find the GPU"),
])
def test_whether_torch_fits_the_driver(monkeypatch, machine, answer, state, words):
    answering(monkeypatch, "a banner\nBODY4D" + json.dumps(answer))
    check = examining.torch(machine)
    assert check.state == state and words in check.found and (state == "ok" or check.next)


def test_a_broken_torch_is_told_and_breaks_nothing(monkeypatch):
    machine = replace(ADA, torch=Torch("2.13.0", "13.0"))
    answering(monkeypatch, stderr="Traceback\nImportError: libcudnn.so.9: cannot open shared object file", code=1)
    assert examining.torch(machine).state == "wrong" and "libcudnn" in examining.torch(machine).found
    answering(monkeypatch, code=-11)  # it took its process along
    assert examining.torch(machine).state == "wrong" and "-11" in examining.torch(machine).found
    assert examining.torch(replace(machine, torch=Torch("2.1.0"))).next == "body4d setup full"


def test_packages_are_named_with_what_is_wrong():
    assert "transformers is not installed" in examining.packages(BARE).found
    have = tuple((package.name, "99.0") for package in PACKAGES)
    assert examining.packages(replace(BARE, packages=have)).state == "ok"
    check = examining.packages(replace(BARE, packages=(("transformers", "4.57.1"), *have[1:])))
    assert check.state == "wrong" and check.found == "transformers 4.57.1 is too old" and check.next


def test_weights_that_cannot_be_read(tmp_path, monkeypatch):
    """Cut off with the right size at first sight, of another kind, short: each is told with its file."""
    whole, kind = tmp_path / "model.ckpt", tmp_path / "sam3.pt"
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("archive/data.pkl", b"x" * 1000)
    assert not examining.unreadable(whole)
    os.truncate(whole, 500)
    assert "cut off" in examining.unreadable(whole)
    kind.write_text("<html>Access denied</html>")
    assert "no weights file" in examining.unreadable(kind)
    tensors = tmp_path / "model.safetensors"
    tensors.write_bytes((10_000).to_bytes(8, "little") + b"{}")
    assert "cut off" in examining.unreadable(tensors)
    sam3 = CATALOGUE["sam3"]
    check = examining.weights_check(Located(sam3, {"sam3.pt": kind}, short=("sam3.pt",)))
    assert check.state == "wrong" and f"has {kind.stat().st_size} of 3450062241 bytes" in check.found
    check = examining.weights_check(Located(sam3, {"sam3.pt": kind}))
    assert check.state == "wrong" and str(kind) in check.found and check.next


def test_whether_checksums_were_verified_is_said(tmp_path):
    file = tmp_path / "sam3.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    located = Located(CATALOGUE["sam3"], {"sam3.pt": file})
    check = examining.weights_check(located)
    assert check.state == "ok" and "not verified yet" in check.found and "--only weights" in check.next
    Ledger().trust(file, CATALOGUE["sam3"].file("sam3.pt").sha256)
    check = examining.weights_check(located)
    assert "checksum right" in check.found and not check.next


def test_either_body_will_do(tmp_path, monkeypatch):
    for name in ("model.ckpt", "assets/mhr_model.pt"):
        path = tmp_path / "weights" / "sam-3d-body-vith" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", b"x")
    vith = CATALOGUE["sam-3d-body-vith"]
    monkeypatch.setitem(CATALOGUE, vith.name, replace(vith, files=tuple(replace(file, bytes=None) for file in vith.files)))
    names = [check.name for check in examining.all_checks(BARE)]
    assert "weights sam-3d-body-vith" in names and "weights sam-3d-body-dinov3" not in names


def test_too_little_room_is_told(monkeypatch):
    monkeypatch.setattr(examining.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10**9})())
    check = examining.room([Located(CATALOGUE["sam3"], missing=("sam3.pt",))])
    assert check.state == "wrong" and "3.5 GB are needed" in check.found and "--weights" in check.next
    assert places.weights_folder().name in check.found


def test_it_writes_nothing(tmp_path, capsys):
    main(["doctor"])
    assert not list(tmp_path.iterdir())
