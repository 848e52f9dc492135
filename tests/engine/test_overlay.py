# SPDX-License-Identifier: Apache-2.0
"""Meshes over the footage: on the right frames, at the right rate, with the sound."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from body4d_engine.clip import open_clip
from body4d_engine.errors import Body4DError
from body4d_engine.events import Notice, Progress
from body4d_engine.exports import export
from body4d_engine.take import State

from .bodies import ball_take
from .make_clips import make_clip, read_counter

SIZE, RATE = (96, 64), Fraction(30000, 1001)


@pytest.fixture
def film(tmp_path):
    return make_clip(tmp_path / "film.mp4", count=12, size=SIZE, fps=RATE, sound=True)


def take_of(film, path, start=0, end=None, step=1, **options):
    with open_clip(film, start, end, step) as clip:
        return ball_take(path, clip=clip.describe(), fps=RATE, **options)


def difference(shown, source, frame):
    """Where the overlay changes the clip's picture: fraction of pixels."""
    return float((np.abs(shown.astype(int) - source.read(frame)).max(-1) > 24).mean())


@pytest.mark.parametrize("start, end, step", [(0, None, 1), (2, 11, 3)])
def test_frames_rate_and_sound(film, tmp_path, start, end, step):
    take = take_of(film, tmp_path / "a.take", start, end, step)
    events = list(export(take, "overlay", tmp_path / "over.mp4"))
    assert [e.done for e in events if isinstance(e, Progress)] == list(range(1, take.samples + 1))
    with open_clip(tmp_path / "over.mp4") as shown, open_clip(film) as source:
        assert (shown.frame_count, shown.fps, shown.facts.has_audio) == (take.samples, RATE / step, True)
        assert (shown.width, shown.height) == SIZE
        for sample, frame in enumerate(take.frames):
            assert difference(shown.read(sample), source, frame) > 0.02
            assert np.abs(shown.read(sample)[:8, :8].astype(int) - source.read(frame)[:8, :8]).max() < 25


def test_absent_people_are_not_drawn_and_inferred_ones_are_hatched(film, tmp_path):
    states = {1: [State.ABSENT] * 6 + [State.VISIBLE] * 3 + [State.FILLED] * 3}
    take = take_of(film, tmp_path / "a.take", people=(1,), states=states)
    list(export(take, "overlay", tmp_path / "over.mp4"))
    with open_clip(tmp_path / "over.mp4") as shown, open_clip(film) as source:
        assert [read_counter(shown.read(i)) for i in range(6)] == list(range(6))
        changed = [difference(shown.read(i), source, i) for i in range(12)]
        assert max(changed[:6]) < 0.01 < min(changed[6:9])
        strength = [np.abs(shown.read(i).astype(int) - source.read(i)).sum() for i in range(12)]
        assert max(strength[9:]) < 0.8 * min(strength[6:9])


def test_without_footage_over_grey_and_it_says_so(tmp_path):
    events = list(export(ball_take(tmp_path / "a.take"), "overlay", tmp_path / "over.mp4"))
    assert [e.code for e in events if isinstance(e, Notice)] == ["no_footage"]
    with open_clip(tmp_path / "over.mp4") as shown:
        assert shown.frame_count == 6 and abs(int(shown.read(3)[0, 0, 0]) - 48) < 4


def test_a_moved_clip(film, tmp_path):
    take = take_of(film, tmp_path / "a.take")
    moved = film.rename(tmp_path / "moved.mp4")
    with pytest.raises(Body4DError, match=r"The clip of a.take is no longer at .*film.mp4. Give its place with --clip."):
        list(export(take, "overlay", tmp_path / "over.mp4"))
    assert not (tmp_path / "over.mp4").exists()
    list(export(take, "overlay", tmp_path / "over.mp4", clip_path=moved))
    assert (tmp_path / "over.mp4").exists()
    other = make_clip(tmp_path / "other.mp4", count=5, size=SIZE, fps=RATE)
    with pytest.raises(Body4DError, match=r"other.mp4 is not the clip of a.take: it has 5 frames of 96 x 64 px, the take was made of 12"):
        list(export(take, "overlay", tmp_path / "x.mp4", clip_path=other))


def test_a_clip_that_moved_together_with_its_take_is_found(film, tmp_path):
    take_of(film, tmp_path / "a.take").close()
    (tmp_path / "new").mkdir()
    film.rename(tmp_path / "new" / film.name)
    from body4d_engine.take import Take

    with Take.open((tmp_path / "a.take").rename(tmp_path / "new" / "a.take")) as take:
        list(export(take, "overlay", tmp_path / "over.mp4"))


def test_stopped_half_way_leaves_nothing(film, tmp_path):
    take = take_of(film, tmp_path / "a.take")
    events = export(take, "overlay", tmp_path / "over.mp4")
    for _ in range(4):
        next(events)
    events.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.take", "film.mp4"]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read the Linux way")
def test_memory_does_not_grow_with_the_take(tmp_path):
    """Of 100 MB of meshes no more than one is in memory at a time."""
    vertices, samples = 20_000, 400
    take = ball_take(tmp_path / "a.take", samples=samples, people=(1,), masks=False)
    array = take.stage("refine")["arrays"]["people/1/vertices"]
    array["shape"] = [vertices, 3]
    take.save()
    with open(take.path / array["file"], "r+b") as file:
        file.seek(32)
        file.write(bytes(12 * vertices * samples))
    code = """
import resource, sys
from pathlib import Path
from body4d_engine.render.overlay import Cast
from body4d_engine.take import Take
used = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
cast = Cast(Take.open(sys.argv[1]))
before = used()
print(sum(cast.vertices(1, sample).size for sample in range(cast.take.samples)), used() - before)
"""
    done = subprocess.run([sys.executable, "-c", code, str(take.path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    size, grown_mb = done.stdout.split()
    assert int(size) == 3 * vertices * samples and float(grown_mb) < 20
