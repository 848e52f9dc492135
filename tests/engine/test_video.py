# SPDX-License-Identifier: Apache-2.0
"""Written videos: right size, rate, colours and sound; whole or not there at all."""

import errno
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from body4d_engine.clip import open_clip
from body4d_engine.errors import Body4DError
from body4d_engine.events import Progress
from body4d_engine.video import VideoWriter, write_proxy

from .make_clips import CATALOGUE, NTSC, counter_picture, make_clip, read_counter

COLOURS = np.array([[230, 40, 40], [40, 200, 60], [40, 60, 220], [200, 140, 100], [235, 235, 235], [16, 16, 16], [128, 128, 128]], np.uint8)


@pytest.mark.parametrize("size", [(64, 48), (63, 48), (64, 47), (63, 47), (2, 2), (3, 3), (1, 1), (7, 1)])
@pytest.mark.parametrize("fps", [NTSC, 25])
def test_what_is_written_is_read(tmp_path, size, fps):
    with VideoWriter(tmp_path / "a.mp4", *size, fps) as writer:
        for number in range(20):
            writer.write(counter_picture(number, *size))
    with open_clip(tmp_path / "a.mp4") as clip:
        assert ((clip.width, clip.height), clip.fps, clip.frame_count) == (size, fps, 20)
        assert clip.facts.blender_reasons == [] and clip.start_seconds == 0
        if min(size) > 40:
            assert [read_counter(rgb) for _, rgb in clip.iterate(range(20))] == list(range(20))


@pytest.mark.parametrize("width", [112, 111])
def test_colours_and_tags(tmp_path, width):
    bars = np.repeat(np.repeat(COLOURS[None], 64, 0), 16, 1)[:, :width]
    with VideoWriter(tmp_path / "a.mp4", width, 64, 30, crf=8) as writer:
        for _ in range(3):
            writer.write(bars)
    with av.open(str(tmp_path / "a.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (1, 1, 1, 1)
    assert np.abs(open_clip(tmp_path / "a.mp4").read(1)[32, 8:width:16].astype(int) - COLOURS).max() <= 8


def test_wrong_frames_are_refused(tmp_path):
    with pytest.raises(ValueError, match="for a video of 64 x 48"), VideoWriter(tmp_path / "a.mp4", 64, 48, 30) as writer:
        writer.write(np.zeros((64, 48, 3), np.uint8))
    with pytest.raises(ValueError, match="0 x 48"):
        VideoWriter(tmp_path / "a.mp4", 0, 48, 30)
    assert list(tmp_path.iterdir()) == []


def test_nothing_under_the_name_until_complete(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"the result of an earlier run")
    with pytest.raises(RuntimeError), VideoWriter(path, 64, 48, 30) as writer:
        writer.write(counter_picture(0, 64, 48))
        assert path.read_bytes() == b"the result of an earlier run"
        raise RuntimeError("cancelled")
    assert path.read_bytes() == b"the result of an earlier run" and [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


FULL = """
import resource, signal, sys
import numpy as np
from body4d_engine.errors import Body4DError
from body4d_engine.video import VideoWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
rng = np.random.default_rng(0)
try:
    with VideoWriter(sys.argv[1], 320, 240, 30, gop=1) as writer:
        for _ in range(30):
            writer.write(rng.integers(0, 256, (240, 320, 3), np.uint8))
except Body4DError as error:
    print(error.code, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="uses a file size limit of the system")
def test_disk_full(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path / "a.mp4")], capture_output=True, text=True)
    assert done.stdout.startswith("disk_full") and "a.mp4 could not be written: the disk is full. Free some space" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_disk_full_at_the_last_moment(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("body4d_engine.video.os.replace", fail)
    with pytest.raises(Body4DError, match="disk is full"), VideoWriter(tmp_path / "a.mp4", 64, 48, 30) as writer:
        writer.write(counter_picture(0, 64, 48))
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Body4DError, match="a.mp4 could not be written"):
        VideoWriter(tmp_path / "file" / "a.mp4", 64, 48, 30)


def tone_start(path) -> tuple[float, float, str]:
    """Seconds at which the tone sets in and at which the sound ends, in the clock of the pictures, and its codec."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        onset = None
        for frame in container.decode(stream):
            samples = frame.to_ndarray()
            loud = np.flatnonzero(np.abs(samples.astype(float) / (32768 if samples.dtype == np.int16 else 1)).reshape(-1)[: frame.samples] > 0.1)
            end = frame.time + frame.samples / frame.sample_rate
            if onset is None and len(loud):
                onset = frame.time + loud[0] / frame.sample_rate
        return onset, end, stream.codec_context.name


SOUNDS = [("a.mp4", "aac", {}, "aac"), ("a.mkv", "libmp3lame", {}, "mp3float"), ("a.mkv", "libopus", {}, "aac"),
          ("a.avi", "pcm_s16le", {"codec": "mpeg4", "bframes": 0}, "aac"), ("a.mov", "pcm_s16le", {}, "aac")]


@pytest.mark.parametrize("name, sound_codec, arguments, written", SOUNDS)
@pytest.mark.parametrize("start, end", [(0, 90), (15, 75), (50, 90)])
def test_sound_stays_in_step(tmp_path, name, sound_codec, arguments, written, start, end):
    path = make_clip(tmp_path / name, count=90, sound=True, sound_codec=sound_codec, tone_from=2.0, **arguments)
    clip = open_clip(path, start, end)
    with VideoWriter(tmp_path / "out.mp4", 64, 48, clip.fps, audio_from=clip) as writer:
        for _, rgb in clip.iterate(clip.frames):
            writer.write(rgb)
    onset, over, codec = tone_start(tmp_path / "out.mp4")
    assert codec == written
    assert onset == pytest.approx(2.0 - start / 30, abs=0.012) and over == pytest.approx((end - start) / 30, abs=0.05)
    with open_clip(tmp_path / "out.mp4") as out:
        assert out.start_seconds == 0 and out.frame_count == end - start and out.facts.blender_reasons == []
        assert read_counter(out.read(0)) == start


def test_sound_of_pictures_that_start_late(tmp_path):
    """The first picture stands at 1/3 s; the sound in front of it has no picture and goes."""
    path = make_clip(tmp_path / "late.mp4", count=90, first_pts=10, sound=True, tone_from=2.0)
    for _ in write_proxy(open_clip(path), tmp_path / "proxy.mp4"):
        pass
    assert tone_start(tmp_path / "proxy.mp4")[0] == pytest.approx(2.0 - 1 / 3, abs=0.012)


def test_no_sound_is_no_error(tmp_path):
    path = make_clip(tmp_path / "mute.mp4")
    for source in (path, open_clip(path)):
        with VideoWriter(tmp_path / "out.mp4", 64, 48, 30, audio_from=source) as writer:
            writer.write(counter_picture(1, 64, 48))
        assert not open_clip(tmp_path / "out.mp4").facts.has_audio


@pytest.mark.parametrize("name", ["turned_90.mp4", "wide_pixels.mp4", "variable.mp4", "reordered.avi", "sound_is_longer.mkv", "odd.mp4"])
def test_proxy_is_the_clip_upright_at_a_constant_rate(tmp_path, name):
    clip = open_clip(make_clip(tmp_path / name, **CATALOGUE[name]), 5, 9, 2)  # the proxy holds the whole clip whatever is in use
    events = list(write_proxy(clip, tmp_path / "proxy.mp4"))
    assert events[-1] == Progress("proxy", clip.frame_count, clip.frame_count)
    with open_clip(tmp_path / "proxy.mp4") as proxy:
        assert (proxy.width, proxy.height, proxy.fps, proxy.frame_count) == (clip.width, clip.height, clip.fps, clip.frame_count)
        assert [read_counter(proxy.read(i)) for i in range(proxy.frame_count)] == [read_counter(clip.read(i)) for i in range(clip.frame_count)]
        assert np.diff(np.append(proxy.footage._keys, proxy.frame_count)).max() <= 12
        assert proxy.facts.blender_reasons == [] and proxy.facts.has_audio == clip.facts.has_audio


def test_proxy_of_a_folder(tmp_path):
    import cv2

    (tmp_path / "frames").mkdir()
    for number in range(5):
        cv2.imwrite(str(tmp_path / "frames" / f"{number}.png"), counter_picture(number, 64, 48))
    for _ in write_proxy(open_clip(tmp_path / "frames", image_fps=Fraction(24000, 1001)), tmp_path / "proxy.mp4"):
        pass
    with open_clip(tmp_path / "proxy.mp4") as proxy:
        assert proxy.fps == Fraction(24000, 1001) and [read_counter(proxy.read(i)) for i in range(5)] == list(range(5))


def test_a_folder_is_no_name_for_a_video(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path, "."):
        with pytest.raises(Body4DError, match="is a folder, not a name for a video"):
            VideoWriter(path, 32, 32, 25)
