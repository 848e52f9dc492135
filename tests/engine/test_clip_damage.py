# SPDX-License-Identifier: Apache-2.0
"""A damaged file is read as far as it goes, shows the same pictures in every order of reading, and says what is wrong."""

import random

import pytest

from body4d_engine.clip import open_clip

from .make_clips import damage_packets, make_clip, read_counter, truncate

FORMATS = [("clip.mp4", {"gop": 12}), ("clip.mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}), ("clip.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
           ("hevc.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=0:keyint=12"}})]


def read_in_all_orders(path) -> tuple[list, object]:
    """The numbers of all frames, the same forwards, backwards and at random, and the clip after the forward pass."""
    clip = open_clip(path)
    frames = list(range(clip.frame_count))
    forward = [read_counter(clip.read(i)) for i in frames]
    for order in (frames[::-1], random.Random(3).sample(frames, len(frames))):
        with open_clip(path) as other:
            assert [read_counter(rgb) for _, rgb in other.iterate(order)] == [forward[i] for i in order]
            assert {(n.code, n.frame, n.last_frame) for n in other.notices} == {(n.code, n.frame, n.last_frame) for n in clip.notices}
    return forward, clip


@pytest.mark.parametrize("name, arguments", FORMATS)
@pytest.mark.parametrize("packets", [[6], [0], [12], [5, 17]])
def test_what_cannot_be_decoded_repeats_and_is_named(tmp_path, name, arguments, packets):
    whole = make_clip(tmp_path / name, count=36, **arguments)
    path = damage_packets(whole, tmp_path / f"bad_{name}", packets)
    forward, clip = read_in_all_orders(path)
    assert len(forward) == 36 and not open_clip(whole).notices
    frames = {code: {frame for n in clip.notices if n.code == code for frame in range(n.frame, n.last_frame + 1)} for code in ("repeated", "smeared")}
    repeated = frames["repeated"]
    first_good = min(set(range(36)) - repeated)
    for i in repeated:  # the picture before, or at the start the first one there is
        assert forward[i] == (forward[i - 1] if i > first_good else first_good)
    assert repeated and {i for i in range(36) if forward[i] != i} <= repeated | frames["smeared"]
    assert all("frame" in n.message and clip.name in n.message for n in clip.notices)
    assert any("cannot be decoded" in text for text in clip.facts.damaged) and clip.facts.blender_reasons


def test_a_bad_key_picture_takes_only_its_own_group(tmp_path):
    path = damage_packets(make_clip(tmp_path / "clip.mp4", count=36, gop=12), tmp_path / "bad.mp4", [12])
    forward, clip = read_in_all_orders(path)
    assert forward == [*range(12), *[11] * 12, *range(24, 36)]
    assert [(n.frame, n.last_frame) for n in clip.notices] == [(12, 23)]
    assert "frames 12 to 23 cannot be decoded; the picture before is shown again" in clip.notices[0].message


@pytest.mark.parametrize("name, arguments", [("clip.mkv", {}), ("clip.webm", {"codec": "libvpx-vp9"}), ("clip.avi", {"codec": "mpeg4", "bframes": 0}),
                                             ("fast.mp4", {"container_options": {"movflags": "faststart"}}),
                                             ("parts.mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}})])
def test_truncated_files_are_opened_as_far_as_they_go(tmp_path, name, arguments):
    whole = make_clip(tmp_path / name, count=60, size=(160, 120), **arguments)
    path = truncate(whole, tmp_path / f"cut_{name}", 0.8)
    forward, clip = read_in_all_orders(path)
    assert 10 <= clip.frame_count < 60 and clip.fps == 30
    good = [i for i in range(clip.frame_count) if forward[i] == i]
    assert len(good) >= clip.frame_count - 3 and good[:8] == list(range(8))
    if name != "parts.mp4":  # a file made of parts states nothing about the ones to come
        assert clip.facts.damaged and any(n.code == "damaged" for n in clip.notices) and clip.facts.blender_reasons


def test_a_whole_file_is_not_called_damaged(tmp_path):
    for name, arguments in FORMATS:
        clip = open_clip(make_clip(tmp_path / name, **arguments))
        assert list(clip.facts.damaged) == [] and clip.notices == []
