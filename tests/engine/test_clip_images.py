# SPDX-License-Identifier: Apache-2.0
import struct
from fractions import Fraction

import cv2
import numpy as np
import pytest

from body4d_engine.clip import open_clip
from body4d_engine.errors import Body4DError
from body4d_engine.images import image_size, read_image, turn_by_orientation

from .make_clips import counter_picture, read_counter


def write(path, number=0, size=(64, 48), pixels=None):
    path.parent.mkdir(exist_ok=True)
    rgb = counter_picture(number, *size) if pixels is None else pixels
    order = cv2.COLOR_RGB2BGR if rgb.ndim == 3 and rgb.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    done, data = cv2.imencode(path.suffix, cv2.cvtColor(rgb, order) if rgb.ndim == 3 else rgb)
    assert done
    path.write_bytes(data.tobytes())


def exif(tags: dict[int, int], inner: dict[int, int], order: str = "<") -> bytes:
    """A minimal TIFF structure with 16-bit tags in the main and the Exif folder."""
    count = len(tags) + bool(inner)
    data = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    entries = b"".join(struct.pack(order + "HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    at = 8 + 2 + 12 * count + 4
    if inner:
        entries += struct.pack(order + "HHII", 0x8769, 4, 1, at)
    data += struct.pack(order + "H", count) + entries + struct.pack(order + "I", 0)
    if inner:
        data += struct.pack(order + "H", len(inner)) + b"".join(struct.pack(order + "HHIHH", t, 3, 1, v, 0) for t, v in inner.items()) + bytes(4)
    return data


def add_exif(path, data: bytes) -> None:
    jpeg = path.read_bytes()
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(data) + 8) + b"Exif\0\0" + data + jpeg[2:])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPG", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"])
def test_natural_order_in_every_format(tmp_path, suffix):
    for number in (1, 2, 9, 10, 11, 100):
        write(tmp_path / f"shot2_frame{number}{suffix}", number)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / f"._shot2_frame1{suffix}").write_bytes(b"a companion file of a Mac")
    with open_clip(tmp_path) as clip:
        assert [read_counter(rgb) for _, rgb in clip.iterate(range(clip.frame_count))] == [1, 2, 9, 10, 11, 100]
        assert read_counter(clip.read(3)) == 10 and clip.fps == 30 and (clip.width, clip.height) == (64, 48)
        assert clip.facts.blender_reasons and clip.describe()["frame_count"] == 6
        assert [n.code for n in clip.notices] == ["gap", "gap"]
        assert "skips 3 to 8" in clip.notices[0].message and f"frame9{suffix}" in clip.notices[0].message and clip.notices[0].frame == 2


def test_rate_can_be_set(tmp_path):
    write(tmp_path / "a1.png")
    assert open_clip(tmp_path, image_fps=29.97).fps == Fraction(30000, 1001)
    assert open_clip(tmp_path, image_fps=24).fps == 24


def test_mixed_sizes_name_the_file(tmp_path):
    for number in range(4):
        write(tmp_path / f"a{number}.png", number, (64, 48) if number != 2 else (32, 48))
    with pytest.raises(Body4DError, match="a2.png is 32 x 48, a0.png is 64 x 48"):
        open_clip(tmp_path)


def test_unreadable_image_is_named(tmp_path):
    write(tmp_path / "a0.png")
    (tmp_path / "a1.jpg").write_bytes(b"not a jpeg at all")
    with pytest.raises(Body4DError, match="a1.jpg cannot be read"):
        open_clip(tmp_path)
    whole = tmp_path / "whole.png"
    write(whole)
    (tmp_path / "a1.jpg").unlink()
    (tmp_path / "a1.png").write_bytes(whole.read_bytes()[:60])
    whole.unlink()
    with open_clip(tmp_path) as clip, pytest.raises(Body4DError, match="a1.png cannot be read"):
        clip.read(1)


def test_deep_grey_and_transparent_images(tmp_path):
    grey = np.full((8, 8), 30000, np.uint16)
    write(tmp_path / "deep" / "a.png", pixels=grey)
    glass = np.full((8, 8, 4), 200, np.uint8)
    glass[..., 3] = np.where(np.arange(8) < 4, 0, 255)
    write(tmp_path / "glass" / "a.png", pixels=glass)
    assert np.all(open_clip(tmp_path / "deep").read(0) == 117)
    rgb = open_clip(tmp_path / "glass").read(0)
    assert np.all(rgb[:, :4] == 0) and np.all(rgb[:, 4:] == 200)


# What undoes each orientation of the EXIF standard, as numpy: turned clockwise n times after a left-right flip or not.
STORED = {1: (0, False), 2: (0, True), 3: (2, False), 4: (2, True), 5: (1, True), 6: (1, False), 7: (3, True), 8: (3, False)}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_orientation(tmp_path, orientation, order):
    turns, mirrored = STORED[orientation]
    upright = counter_picture(77, 64, 48)
    stored = np.rot90(upright[:, ::-1] if mirrored else upright, turns)  # anticlockwise: the camera was held the other way
    write(tmp_path / "a.jpg", pixels=np.ascontiguousarray(stored))
    add_exif(tmp_path / "a.jpg", exif({0x0112: orientation}, {0xA405: 28}, order))
    with open_clip(tmp_path) as clip:
        assert (clip.width, clip.height) == (64, 48) and read_counter(clip.read(0)) == 77
        focal, source = clip.focal_px
        assert focal == pytest.approx(28 / 43.2666 * 80, rel=1e-4) and "EXIF" in source and "28 mm" in source


def test_orientations_are_all_different():
    pixels = np.arange(6).reshape(2, 3)
    assert len({(turned.shape, turned.tobytes()) for turned in (np.ascontiguousarray(turn_by_orientation(pixels, o)) for o in range(1, 9))}) == 8


@pytest.mark.parametrize("broken", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"garbage garbage"])
def test_broken_exif_is_no_obstacle(tmp_path, broken):
    write(tmp_path / "a.jpg", 5)
    add_exif(tmp_path / "a.jpg", broken)
    with open_clip(tmp_path) as clip:
        assert read_counter(clip.read(0)) == 5 and clip.focal_px is None


def test_fingerprint_of_a_folder(tmp_path):
    for number in range(3):
        write(tmp_path / f"a{number}.png", number)
    first = open_clip(tmp_path).fingerprint
    assert open_clip(tmp_path).fingerprint == first
    (tmp_path / "a1.png").rename(tmp_path / "a1b.png")
    assert open_clip(tmp_path).fingerprint != first


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
def test_an_image_cut_off_anywhere_or_altered_is_read_or_refused_in_words(tmp_path, suffix):
    random = np.random.default_rng(1)
    data = cv2.imencode(suffix, random.integers(0, 255, (24, 32, 3), np.uint8))[1].tobytes()
    altered = [bytes(b if random.random() > 0.02 else random.integers(256) for b in data[:60]) + data[60:] for _ in range(100)]
    refused = 0
    for broken in [*(data[:n] for n in range(0, len(data), 3)), *altered]:
        (tmp_path / f"a{suffix}").write_bytes(broken)
        for look in (image_size, read_image):
            try:
                look(tmp_path / f"a{suffix}")
            except Body4DError as error:
                refused += 1
                assert f"a{suffix}" in str(error)
    assert refused
