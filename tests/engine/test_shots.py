# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from body4d_engine.clip import open_clip
from body4d_engine.events import Progress
from body4d_engine.video import VideoWriter

SIZE = (160, 96)


class Scenery:
    """Textured footage with a camera that pans, different for every seed."""

    def __init__(self, seed: int, pan: float = 1.0):
        rng = np.random.default_rng(seed)
        coarse = rng.uniform(0, 255, (8, 16, 3))
        y, x = np.mgrid[0:96, 0:400]
        self.wide = sum(coarse[(y // 12) % 8, (x // (20 + 7 * k)) % 16] for k in range(2)) / 2
        self.pan = pan

    def __call__(self, i: int, light: float = 1.0) -> np.ndarray:
        at = int(i * self.pan) % 240
        return np.clip(self.wide[:, at:at + SIZE[0]] * light, 0, 255).astype(np.uint8)


def write(path, pictures):
    with VideoWriter(path, *SIZE, 30) as writer:
        for rgb in pictures:
            writer.write(rgb)
    return open_clip(path)


def test_hard_cuts_are_found_exactly(tmp_path):
    lengths = [40, 22, 31, 60, 9, 25]
    clip = write(tmp_path / "cuts.mp4", (Scenery(k)(i) for k, n in enumerate(lengths) for i in range(n)))
    expected = tuple(int(n) for n in np.cumsum([0, *lengths[:-1]]))
    assert clip.shots == expected
    assert clip.shots is clip._shots  # found once


@pytest.mark.parametrize("what", ["fast pan", "flash", "light"])
def test_what_is_not_a_cut(tmp_path, what):
    scene = Scenery(5, pan=6 if what == "fast pan" else 0.5)
    light = {"fast pan": lambda i: 1.0, "flash": lambda i: 1.8 if i == 30 else 1.0, "light": lambda i: 0.55 if i < 30 else 0.85}[what]
    assert write(tmp_path / "clip.mp4", (scene(i, light(i)) for i in range(60))).shots == (0,)


def test_range_in_use_and_progress(tmp_path):
    clip = write(tmp_path / "cuts.mp4", (Scenery(i // 20)(i) for i in range(80)))
    clip.use(10, 70, 7)
    events = list(clip.find_shots())
    assert clip.shots == (10, 20, 40, 60)  # looked for between the used frames too
    assert all(isinstance(e, Progress) and e.stage == "shots" and e.total == 57 for e in events) and events[-1].done == 57
    assert list(clip.find_shots()) == []
    clip.shots = [10, 33]
    assert clip.shots == (10, 33)


def test_one_frame(tmp_path):
    assert write(tmp_path / "one.mp4", [Scenery(0)(0)]).shots == (0,)


def test_demo_is_one_shot(demo_clip):
    """The sun comes out twice behind the athlete; nothing is cut."""
    assert open_clip(demo_clip).shots == (0,)
