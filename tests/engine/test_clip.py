# SPDX-License-Identifier: Apache-2.0
"""Frame i is the picture on screen at i / fps, upright, whatever the file looks like and in whatever order it is read."""

import os
import random
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from body4d_engine.clip import open_clip
from body4d_engine.errors import Body4DError
from body4d_engine.pixels import Upright

from .make_clips import CATALOGUE, NTSC, UNEVEN, counter_picture, make_clip, make_catalogue, read_counter, turned

EXPECTED = {  # name -> (numbers of the frames, fps, size) where they differ from 0..count-1, 30 or NTSC, 64 x 48
    "turned_90.mp4": (None, 30, (48, 64)), "turned_270.mkv": (None, 30, (48, 64)),
    "wide_pixels.mp4": (None, 30, (85, 48)), "tall_pixels.mkv": (None, 30, (64, 72)),
    "variable.mp4": ([sum(t <= i for t in UNEVEN) - 1 for i in range(18)], 30, (64, 48)),
    "variable.mkv": ([sum(t <= i for t in UNEVEN) - 1 for i in range(18)], 30, (64, 48)),
    "edit_list.mp4": (list(range(5, 24)), 30, (64, 48)), "odd.mp4": (None, 30, (63, 47)),
}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    return make_catalogue(tmp_path_factory.mktemp("catalogue"))


def counters(clip, frames) -> list:
    return [read_counter(rgb) for _, rgb in clip.iterate(frames)]


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_frame_in_every_order(catalogue, name):
    arguments = CATALOGUE[name]
    numbers, fps, size = EXPECTED.get(name, (None, arguments.get("fps", 30), (64, 48)))
    numbers = numbers or list(range(arguments.get("count", 24)))
    with open_clip(catalogue[name]) as clip:
        assert (clip.frame_count, clip.fps, (clip.width, clip.height)) == (len(numbers), fps, size)
        assert clip.read(0).shape == (size[1], size[0], 3) and clip.read(0).dtype == np.uint8
        assert counters(clip, range(clip.frame_count)) == numbers
        assert counters(clip, range(clip.frame_count - 1, -1, -1)) == numbers[::-1]
        assert not clip.facts.damaged
    order = random.Random(1).sample(range(len(numbers)), len(numbers))
    with open_clip(catalogue[name]) as clip:
        assert counters(clip, order) == [numbers[i] for i in order]


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_all_eight_orientations(tmp_path, degrees, mirrored):
    def stored(number, width, height):
        return turned(degrees, mirrored)(number, width, height)

    # The display matrix turns first and mirrors after, so the upright picture is: turn what is stored, then mirror it.
    path = tmp_path / "clip.mp4"
    make_clip(path, count=3, picture=stored, rotate=(-degrees or 360, mirrored))
    with open_clip(path) as clip:
        assert counters(clip, range(3)) == [0, 1, 2]
        assert bool(clip.facts.blender_reasons) == bool(degrees or mirrored)
        if not mirrored:
            assert clip.facts.rotation_deg == degrees


@pytest.mark.parametrize("size, options", [((2, 2), {}), ((3, 5), {"pix_fmt": "yuv444p"}), ((1, 1), {"codec": "ffv1", "pix_fmt": "bgr0"})])
def test_tiny_sizes(tmp_path, size, options):
    def flat(number, width, height):
        return np.full((height, width, 3), 40 + 20 * number, np.uint8)

    with open_clip(make_clip(tmp_path / "clip.mkv", size=size, count=8, picture=flat, **options)) as clip:
        assert (clip.width, clip.height) == size
        for frame, rgb in clip.iterate([7, 0, 3]):
            assert np.abs(rgb.astype(int) - (40 + 20 * frame)).max() <= 8


COLOURS = np.array([[230, 40, 40], [40, 200, 60], [40, 60, 220], [200, 140, 100], [235, 235, 235], [16, 16, 16], [128, 128, 128]], np.uint8)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("matrix", [1, 5])
@pytest.mark.parametrize("full_range", [False, True])
def test_colours_follow_the_tags(tmp_path, pix_fmt, matrix, full_range):
    def bars(number, width, height):
        return np.repeat(np.repeat(COLOURS[None], height, 0), 16, 1)

    path = make_clip(tmp_path / "clip.mp4", size=(112, 64), count=2, picture=bars, pix_fmt=pix_fmt, colorspace=matrix,
                     color_range=2 if full_range else 1, options={"crf": 4})
    with open_clip(path) as clip:
        assert np.abs(clip.read(0)[32, 8::16].astype(int) - COLOURS).max() <= 8  # the wrong matrix is 20 off


def test_transparency_lies_over_black(tmp_path):
    def glass(number, width, height):
        rgba = np.dstack([np.full((height, width, 3), 200, np.uint8), np.full((height, width), 255, np.uint8)])
        rgba[:, : width // 2, 3] = 0
        return av.VideoFrame.from_ndarray(rgba, format="rgba")

    with open_clip(make_clip(tmp_path / "clip.mov", codec="prores_ks", pix_fmt="yuva444p10le", count=2, picture=glass)) as clip:
        assert clip.read(0)[24, 8].max() <= 3 and clip.read(0)[24, 56].min() >= 195


@pytest.mark.parametrize("transfer, signal", [(16, 0.58), (18, 0.75)])
def test_high_dynamic_range_white_is_white(transfer, signal):
    """The reference white of PQ (203 cd/m2) and of HLG."""
    frame = av.VideoFrame(64, 48, "yuv420p10le")
    for plane, value in zip(frame.planes, (64 + 876 * signal, 512, 512)):
        plane.update(np.full(plane.buffer_size // 2, round(value), np.uint16).tobytes())
    frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc = 9, 1, 9, transfer
    assert Upright((64, 48), Fraction(1)).rgb(frame).min() >= 240
    frame.color_trc = 1
    assert Upright((64, 48), Fraction(1)).rgb(frame).max() < 200  # the same numbers mean grey in an ordinary video


def test_range_in_use_and_description(catalogue):
    with open_clip(catalogue["plain.mp4"], 4, 20, 3) as clip:
        assert clip.frames == range(4, 20, 3) and clip.frame_count == 24
        assert read_counter(clip.read(23)) == 23  # any frame of the whole clip
        described = clip.describe()
        assert described["fps"] == [30000, 1001] and described["bytes"] == catalogue["plain.mp4"].stat().st_size
        assert (described["start"], described["end"], described["step"], described["name"]) == (4, 20, 3, "plain.mp4")
        assert described["has_audio"] is True
        with pytest.raises(IndexError):
            clip.read(24)
        with pytest.raises(ValueError):
            clip.read(0)[0, 0] = 0  # read-only: nobody draws on a cached frame


def test_fingerprint_names_the_content(tmp_path):
    path = tmp_path / "big.bin.mkv"
    make_clip(path, count=30, size=(320, 240), codec="ffv1", pix_fmt="bgr0", picture=lambda n, w, h: np.random.default_rng(n).integers(0, 256, (h, w, 3), np.uint8))
    first = open_clip(path).fingerprint
    assert open_clip(path).fingerprint == first
    data = bytearray(path.read_bytes())
    assert len(data) > 4 << 20
    for at in (100, len(data) - 5, len(data) * 3 // 9 + 7):
        changed = bytearray(data)
        changed[at] ^= 1
        path.write_bytes(changed)
        try:
            assert open_clip(path).fingerprint != first
        except Body4DError:
            assert at == 100  # the flipped bit made the header unreadable


@pytest.mark.parametrize("key, options", [("com.apple.quicktime.camera.focal_length.35mm_equivalent", {"movflags": "use_metadata_tags"})])
def test_focal_length_from_metadata(tmp_path, key, options):
    path = make_clip(tmp_path / "clip.mov", count=3, metadata={key: "26"}, container_options=options)
    with open_clip(path) as clip:
        focal, source = clip.focal_px
        assert focal == pytest.approx(26 / 43.2666 * 80, rel=1e-4) and "26 mm" in source and "metadata" in source
    assert open_clip(make_clip(tmp_path / "plain.mov", count=3)).focal_px is None


def test_a_title_in_an_old_encoding(tmp_path):
    path = make_clip(tmp_path / "clip.avi", codec="mpeg4", bframes=0, count=4, metadata={"title": "Grossvater"})
    path.write_bytes(path.read_bytes().replace(b"Grossvater", "Großvateé".encode("latin-1").ljust(10)))
    with open_clip(path) as clip:
        assert counters(clip, range(4)) == [0, 1, 2, 3]


def test_going_backwards_decodes_a_group_once_per_batch(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", count=200, size=(640, 480), gop=200, bframes=0, options={"preset": "ultrafast"})
    with open_clip(path) as clip:
        clip.footage._keep = 20
        decoded = 0
        feed = clip.footage._feed

        def counted(key):
            nonlocal decoded
            for packet in feed(key):
                decoded += 1
                yield packet

        clip.footage._feed = counted
        assert counters(clip, range(199, -1, -1)) == list(range(199, -1, -1))
        assert decoded <= 200 * (200 / 20 + 1)  # one pass per batch of 20, not one per frame (20,000)
        assert len(clip.footage._cache) <= 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_the_clip(tmp_path):
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    frames = [av.VideoFrame.from_ndarray(counter_picture(n, 320, 240), format="rgb24").reformat(format="yuv420p") for n in range(8)]
    path = make_clip(tmp_path / "clip.mp4", count=1200, size=(320, 240), picture=lambda n, w, h: frames[n % 8], options={"preset": "ultrafast"})
    with open_clip(path) as clip:
        for _ in clip.iterate(range(300)):
            pass
        before = resident()
        for _ in clip.iterate(range(300, 1200)):
            pass
        assert resident() - before < 12 << 20  # 900 frames are 104 MB as decoded


def test_intra_only_clips_are_not_sought_frame_by_frame(tmp_path):
    with open_clip(make_clip(tmp_path / "clip.avi", codec="mjpeg", pix_fmt="yuvj420p", count=60)) as clip:
        starts = []
        start = clip.footage._start
        clip.footage._start = lambda group: (starts.append(group), start(group))
        assert counters(clip, range(1, 60)) == list(range(1, 60))
        assert len(starts) <= 1


def test_ntsc_is_kept_as_a_fraction(catalogue):
    assert open_clip(catalogue["milliseconds.mkv"]).fps == NTSC == Fraction(30000, 1001)
    assert not open_clip(catalogue["milliseconds.mkv"]).facts.variable_rate
    assert open_clip(catalogue["variable.mkv"]).facts.variable_rate
    notices = open_clip(catalogue["variable.mp4"]).notices
    assert [n.code for n in notices] == ["variable_rate"] and "12 pictures" in notices[0].message and "18 frames at 30 fps" in notices[0].message


def test_interlaced_pictures_show_one_moment(tmp_path):
    """A bar that jumps between the fields leaves no comb, and what stands still keeps every line."""
    def woven(number, width, height):
        picture = np.full((height, width, 3), 60, np.uint8)
        picture[height // 2 :, : width // 2 : 2] = 200  # fine detail at rest
        picture[: height // 2, 10 + 4 * number : 30 + 4 * number] = 220
        picture[1 : height // 2 : 2] = 60
        picture[1 : height // 2 : 2, 20 + 4 * number : 40 + 4 * number] = 220
        return picture

    path = make_clip(tmp_path / "clip.mpg", count=6, size=(160, 96), codec="mpeg2video", fps=25, bframes=0, picture=woven,
                     options={"flags": "+ildct+ilme", "b": "8M"})
    with open_clip(path) as clip:
        assert "interlaced" in {notice.code for notice in clip.notices} and "it is interlaced" in clip.facts.blender_reasons
        for _, rgb in clip.iterate(clip.frames):
            grey = rgb.astype(int).mean(2)
            bar = (grey[4:40] > 140).sum(1)
            assert np.ptp(bar) <= 3 and 18 <= bar.mean() <= 22  # as wide as at one moment, on every line
            assert grey[60:90, 10:70:2].mean() - grey[60:90, 11:71:2].mean() > 90  # untouched
