# SPDX-License-Identifier: Apache-2.0
"""Videos and pictures damaged at random with fixed seeds: frames or a clear error, never a crash, and never much memory.

Each format is read by a process of its own, for damage can bring down the libraries that decode.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import pytest

from body4d_engine.footage import _decode

from .make_clips import make_clip
from .test_mutations import MOST_BYTES, mutated

ROOT = Path(__file__).resolve().parents[2]
EACH = 60
FORMATS = {"h264.mp4": {}, "open gop.mov": {"gop": 5}, "h264.mkv": {}, "mpeg4.avi": {"codec": "mpeg4", "bframes": 0}, "h264.ts": {},
           "vp9.webm": {"codec": "libvpx-vp9", "bframes": 0}, "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "bframes": 0}}
READER = """
import json, resource, sys
from pathlib import Path
from types import SimpleNamespace
from body4d_engine.clip import open_clip
from body4d_engine.errors import Body4DError

def read(path):
    try:
        with open_clip(path) as clip:
            for number, (_, rgb) in enumerate(clip.iterate(clip.frames)):
                assert rgb.shape == (clip.height, clip.width, 3)
                if number == 60:
                    break
            clip.facts, clip.notices
        return "frames"
    except Body4DError as error:
        assert error.message
        return error.code

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

whole, *damaged = map(Path, sys.argv[1:])
assert read(whole) == "frames"
before, results = peak(), []
for path in damaged:
    print(path.name, file=sys.stderr, flush=True)
    results.append(read(path))
print(json.dumps({"bytes": peak() - before, "results": results}))
"""


def damage(data: bytes, rng: random.Random) -> bytes:
    """Half of it in the first kilobyte or the last, where the tables are."""
    where = rng.random()
    if where < 0.25:
        return mutated(data[:1024], rng) + data[1024:]
    if where < 0.5:
        return data[:-1024] + mutated(data[-1024:], rng)
    return mutated(data, rng)


@pytest.mark.skipif(sys.platform == "win32", reason="no way to ask a process for its peak memory")
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_videos_are_read_or_refused(tmp_path, name):
    whole = make_clip(tmp_path / name, **FORMATS[name])
    rng, damaged = random.Random(name), []
    for number in range(EACH):
        path = tmp_path / f"{number:03d}{whole.suffix}"
        path.write_bytes(damage(whole.read_bytes(), rng))
        damaged.append(path)
    child = subprocess.run([sys.executable, "-c", READER, str(whole), *map(str, damaged)], capture_output=True, text=True, timeout=120,
                           env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert child.returncode == 0, child.stderr[-2000:]
    said = json.loads(child.stdout)
    assert said["bytes"] < MOST_BYTES
    assert set(said["results"]) <= {"frames", "not_a_video", "damaged_file", "undecodable", "no_video", "no_frames", "unreadable_codec"}
    assert "frames" in said["results"]


def test_a_decoder_that_fails_for_ever_ends():
    class Context:
        def decode(self, packet):
            raise av.error.InvalidDataError(1, "broken")

    class Packet:
        stream = SimpleNamespace(codec_context=Context())

        def decode(self):
            return []

    assert list(_decode(iter([Packet()]))) == []
