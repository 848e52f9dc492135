# SPDX-License-Identifier: Apache-2.0
"""What a user reads when a clip cannot be used: what happened, to which file, what to do."""

import av
import numpy as np
import pytest

from body4d_engine.clip import open_clip
from body4d_engine.errors import Body4DError

from .make_clips import make_clip, truncate


def refused(path, *words, **arguments) -> Body4DError:
    with pytest.raises(Body4DError) as caught:
        open_clip(path, **arguments)
    for word in (*words, str(path)):
        assert word in str(caught.value)
    assert caught.value.hint
    return caught.value


def test_no_such_file(tmp_path):
    assert refused(tmp_path / "nothing.mp4", "There is no file").code == "no_such_file"


def test_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert refused(tmp_path, "holds no images", "png").code == "no_images"


@pytest.mark.parametrize("name, content", [("notes.txt", b"hello\n" * 50), ("fake.mp4", b"hello\n" * 50), ("page.html", b"<html></html>"),
                                           ("noise.mkv", np.random.default_rng(0).bytes(5000)), ("archive.zip", b"PK\x03\x04" + bytes(500))])
def test_not_a_video(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert refused(tmp_path / name, "is not a video", "mp4, mov, mkv, webm or avi").code == "not_a_video"


def test_single_image(tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    assert refused(tmp_path / "a.png", "single image", "folder").code == "single_image"


def test_empty_file(tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert refused(tmp_path / "empty.mp4", "is empty").code == "no_frames"


@pytest.mark.parametrize("name, codec", [("song.m4a", "aac"), ("song.wav", "pcm_s16le")])
def test_sound_only(tmp_path, name, codec):
    with av.open(str(tmp_path / name), "w", format="ipod" if name.endswith("m4a") else None) as container:
        stream = container.add_stream(codec, rate=48000, layout="mono")
        for start in range(0, 48000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, start
            for part in av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=48000).resample(frame):
                container.mux(stream.encode(part))
        container.mux(stream.encode())
    assert refused(tmp_path / name, "holds sound but no picture").code == "no_video"


def test_no_frames(tmp_path):
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width = stream.height = 16
        container.start_encoding()
    assert refused(path, "No picture can be found", "it holds none").code == "damaged_file"


def test_recording_that_never_began(tmp_path):
    path = make_clip(tmp_path / "clip.mkv", count=3)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"\x1f\x43\xb6\x75")])  # up to the first cluster
    assert refused(path, "No picture can be found").code == "damaged_file"


def test_index_cut_off(tmp_path):
    path = truncate(make_clip(tmp_path / "whole.mp4"), tmp_path / "cut.mp4", 0.5)
    assert refused(path, "No picture can be found", "its index is missing or cut off", "copy it again").code == "damaged_file"


def test_unreadable_codec(tmp_path):
    path = make_clip(tmp_path / "clip.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz1").replace(b"avcC", b"zzzC"))
    assert refused(path, "codec that cannot be read", "H.264").code == "unreadable_codec"


def test_nothing_decodable(tmp_path):
    from .make_clips import damage_packets

    path = damage_packets(make_clip(tmp_path / "clip.mov", codec="prores_ks", pix_fmt="yuv422p10le", count=4), tmp_path / "bad.mov", range(4))
    assert refused(path, "No picture", "can be decoded").code == "undecodable"


@pytest.mark.parametrize("arguments, words", [
    ({"start": 24}, ("cannot start at frame 24", "24 frames", "from 0 to 23")), ({"start": -1}, ("cannot start at frame -1",)),
    ({"end": 25}, ("cannot end before frame 25", "from 1 to 24")), ({"start": 10, "end": 10}, ("start is 10", "from 11 to 24")),
    ({"step": 0}, ("step of 0",)), ({"step": -2}, ("step of -2",))])
def test_range(tmp_path, arguments, words):
    path = make_clip(tmp_path / "clip.mp4")
    with pytest.raises(Body4DError) as caught:
        open_clip(path, **arguments)
    assert caught.value.code == "bad_range" and all(word in str(caught.value) for word in words)


def test_rate_for_a_video(tmp_path):
    assert refused(make_clip(tmp_path / "clip.mp4"), "its own frame rate", image_fps=24).code == "rate_not_used"


@pytest.mark.parametrize("fps", [0, -5, float("nan"), float("inf"), 5000])
def test_bad_rate_for_images(tmp_path, fps):
    with pytest.raises(Body4DError, match="frames per second"):
        open_clip(tmp_path, image_fps=fps)


def test_cover_art_is_not_a_video(tmp_path):
    """A song with a picture of its cover."""
    path = tmp_path / "song.mka.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=48000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24").reformat(format="yuvj420p")))
        for start in range(0, 9600, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, start
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
        container.mux(cover.encode())
    assert refused(path, "holds sound but no picture").code == "no_video"
