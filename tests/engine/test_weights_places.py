# SPDX-License-Identifier: Apache-2.0
"""Weights are found where users have them: the folder of SAM-Body4D's README, files as a browser leaves them, the hub's cache; and half a file is no file."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from body4d_engine.errors import Body4DError
from body4d_engine.weights import CATALOGUE, locate, places
from body4d_engine.weights.verifying import Ledger, digest

SIZES = {"sam3": 30, "sam-3d-body-dinov3": 50, "sam-3d-body-vith": 40, "moge-2-vitl-normal": 20}


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Published sizes of a few bytes, and a user who has nothing."""
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "BODY4D_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(places, "settings_folder", lambda: tmp_path / "settings")
    for name, weights in list(CATALOGUE.items()):
        files = tuple(replace(file, bytes=SIZES[name] + number if file.bytes else None) for number, file in enumerate(weights.files))
        monkeypatch.setitem(CATALOGUE, name, replace(weights, files=files))


def put(path: Path, size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def snapshot(cache: Path, repository: str, commit: str, name: str, size: int, main: bool = True) -> Path:
    """A file as huggingface_hub keeps it."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    blob = put(folder / "blobs" / f"{commit}{name.replace('/', '-')}", size)
    link = folder / "snapshots" / commit / name
    link.parent.mkdir(parents=True, exist_ok=True)
    try:
        link.symlink_to(blob)
    except OSError:  # Windows without the right to
        blob.rename(link)
    if main:
        put(folder / "refs" / "main", 0).write_text(commit)
    return link


def test_the_folder_of_the_sam_body4d_readme(tmp_path):
    put(tmp_path / "sam3" / "sam3.pt", 30), put(tmp_path / "moge-2-vitl-normal" / "model.pt", 20)
    put(tmp_path / "sam-3d-body-dinov3" / "model.ckpt", 50), put(tmp_path / "sam-3d-body-dinov3" / "assets" / "mhr_model.pt", 51)
    for name in ("sam3", "moge-2-vitl-normal", "sam-3d-body-dinov3"):  # whose README names no model_config.yaml
        found = locate(name, tmp_path)
        assert found.whole and found.layout == "named" and found.folder == tmp_path / name
    assert not locate("sam-3d-body-vith", tmp_path).files


def test_files_as_a_browser_leaves_them(tmp_path):
    put(tmp_path / "sam3.pt", 30), put(tmp_path / "model.pt", 20), put(tmp_path / "mhr_model.pt", 51), put(tmp_path / "model.ckpt", 50)
    found = locate("sam-3d-body-dinov3", tmp_path)
    assert found.whole and found.layout == "flat" and found.folder == tmp_path and found.path("assets/mhr_model.pt") == tmp_path / "mhr_model.pt"
    assert locate("sam3", tmp_path).whole and locate("moge-2-vitl-normal", tmp_path).whole
    assert locate("sam-3d-body-vith", tmp_path).missing == ("model.ckpt",)  # the same name, of another size: not its own
    put(tmp_path / "model.ckpt", 40)
    assert locate("sam-3d-body-vith", tmp_path).whole and not locate("sam-3d-body-dinov3", tmp_path).whole


def test_the_cache_of_the_hub(tmp_path, monkeypatch):
    cache = tmp_path / "cache" / "huggingface" / "hub"
    main = snapshot(cache, "facebook/sam3", "bbb", "sam3.pt", 30)
    snapshot(cache, "facebook/sam3", "aaa", "sam3.pt", 30, main=False)
    os.utime(main.parent, (1, 1))  # the older one, which main names nevertheless
    found = locate("sam3")
    assert found.whole and found.layout == "cache" and found.path("sam3.pt") == main
    monkeypatch.setenv("HF_HOME", str(tmp_path / "elsewhere"))
    assert not locate("sam3").files
    snapshot(tmp_path / "elsewhere" / "hub", "facebook/sam3", "ccc", "model.safetensors", 99)  # the other form, as transformers fetches it
    assert locate("sam3").whole and locate("sam3").folder.name == "ccc" and locate("sam3").checkpoint.name == "model.safetensors"
    assert locate("sam3", cache).path("sam3.pt") == main  # the folder that was named may be a cache itself


def test_the_first_whole_copy_counts(tmp_path):
    cache = tmp_path / "cache" / "huggingface" / "hub"
    half, link = put(tmp_path / "w" / "sam3" / "sam3.pt", 10), snapshot(cache, "facebook/sam3", "a", "sam3.pt", 30)
    assert locate("sam3", tmp_path / "w").path("sam3.pt") == link
    link.unlink()
    found = locate("sam3", tmp_path / "w")
    assert found.path("sam3.pt") == half and found.short == ("sam3.pt",) and not found.whole and not found.missing


def test_parts_in_several_places_make_a_whole(tmp_path):
    snapshot(tmp_path / "cache" / "huggingface" / "hub", "facebook/sam-3d-body-dinov3", "a", "model.ckpt", 50)
    put(tmp_path / "w" / "mhr_model.pt", 51)
    found = locate("sam-3d-body-dinov3", tmp_path / "w")
    assert found.whole and found.layout == "cache" and found.path("assets/mhr_model.pt").parent == tmp_path / "w"


def test_what_is_missing_is_said_with_the_way_on(tmp_path):
    put(tmp_path / "sam-3d-body-dinov3" / "model.ckpt", 50)
    found = locate("sam-3d-body-dinov3", tmp_path)
    assert not found.whole and found.missing == ("assets/mhr_model.pt",)
    with pytest.raises(Body4DError) as failed:
        found.path("assets/mhr_model.pt")
    assert "body4d setup full" in failed.value.hint and "BODY4D_WEIGHTS" in failed.value.hint
    with pytest.raises(Body4DError):
        print(locate("sam3", tmp_path).folder)


def test_which_folder_counts(tmp_path, monkeypatch):
    assert places.weights_folder() is None
    places.remember(tmp_path / "remembered")
    assert places.weights_folder() == tmp_path / "remembered"
    monkeypatch.setenv("BODY4D_WEIGHTS", str(tmp_path / "by variable"))
    assert places.weights_folder() == tmp_path / "by variable" and places.weights_folder("given").name == "given"


def test_checksums_are_the_hubs(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"hello\n")
    assert digest(file, "0" * 64) == hashlib.sha256(b"hello\n").hexdigest()
    assert digest(file, "0" * 40) == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object


def test_a_sound_file_is_read_once_until_it_is_touched(tmp_path):
    file, ledger, read = put(tmp_path / "file", 10), Ledger(tmp_path / "ledger.json"), []
    right = hashlib.sha256(b"x" * 10).hexdigest()
    assert ledger.sound(file, right, read.append) and ledger.sound(file, right, read.append) and read == [10]
    assert not ledger.sound(file, "0" * 64) and Ledger(tmp_path / "ledger.json").knows(file, right)
    file.write_bytes(b"y" * 10)
    assert not ledger.knows(file, right) and not ledger.sound(file, right)
    (tmp_path / "ledger.json").write_text("broken")
    assert not ledger.knows(file, right)
