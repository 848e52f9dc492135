# SPDX-License-Identifier: Apache-2.0
"""The full backend's focal length: one per shot, from MoGe-2 where nobody knows it."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from body4d_engine.errors import Body4DError  # noqa: E402
from body4d_engine.events import Notice, Progress  # noqa: E402
from body4d_engine.stages.camera import Camera as Given  # noqa: E402
from body4d_engine.stages.full import camera as camera_module  # noqa: E402
from body4d_engine.stages.full.camera import FRAMES, Camera  # noqa: E402
from body4d_engine.take import Take  # noqa: E402

from .fake_sam3 import World  # noqa: E402


class FakeMoGe:
    """Tells the focal length that `say(frame)` gives; the frame's number is painted in its picture."""

    device = "cuda"

    def __init__(self, say):
        self.say, self.frames, self.built = say, [], 0

    def focal(self, rgb):
        assert rgb.ndim == 4 and len(rgb) == 1
        self.frames.append(int(rgb[0, 0, 0, 0]))
        return np.array([self.say(self.frames[-1])]), np.array([1.0])

    def build(self):
        self.built += 1
        return self


class Numbered(World):
    def read(self, frame):
        return np.full((self.height, self.width, 3), frame, np.uint8)


def clip(frames=80, **options):
    return Numbered([], frames=frames, size=(640, 360), **options)


def run(clip, tmp_path, stage, name="t.take", stop_after=None):
    path = tmp_path / name
    take = Take.open(path, writable=True) if Take.exists(path) else Take.create(path, clip.describe(), "full")
    events, steps = [], 0
    with take:
        for event in stage.run(clip, [], take, take.begin("camera", "k" * 16)):
            if isinstance(event, Notice):
                take.notice(event)
            events.append(event)
            steps += isinstance(event, Progress)
            if steps == stop_after:
                return None, events
        take.finish()
        return take.camera(), events


def codes(events):
    return [event.code for event in events if isinstance(event, Notice)]


@pytest.mark.parametrize("options", [{"focal_px": 700.0}, {"focal_mm": 24.0}])
def test_what_the_user_says_wins_as_in_lite(tmp_path, options):
    moge = FakeMoGe(lambda frame: 500.0)
    found, events = run(clip(), tmp_path, Camera(**options, networks=moge.build))
    lite, _ = run(clip(), tmp_path, Given(**options), "lite.take")
    assert not moge.built and not codes(events) and all((found[name] == lite[name]).all() for name in lite) and found["method"] == "user"


def test_metadata_wins(tmp_path):
    moge, world = FakeMoGe(lambda frame: 500.0), clip()
    world.focal_px = (812.5, "metadata: 26 mm")
    found, _ = run(world, tmp_path, Camera(networks=moge.build))
    assert not moge.built and found["method"] == "metadata" and (found["focal_px"] == 812.5).all()


def test_impossible_focal_is_told_as_in_lite(tmp_path):
    with pytest.raises(Body4DError) as error:
        run(clip(), tmp_path, Camera(focal_px=1.0, networks=lambda: None))
    assert error.value.code == "bad_focal"


def test_one_focal_that_a_few_wrong_frames_do_not_move(tmp_path):
    moge = FakeMoGe(lambda frame: 5000.0 if frame < 25 else 500.0)  # three of eight
    found, events = run(clip(), tmp_path, Camera(networks=moge.build))
    assert moge.frames == [5 + 10 * k for k in range(FRAMES)]
    assert found["focal_px"].dtype == np.float32 and found["focal_px"].shape == (80,) and (found["focal_px"] == 500).all()
    assert (found["principal_px"] == [320, 180]).all() and found["method"] == "estimated" and "spread 0.0%" in str(found["note"])
    assert codes(events) == ["focal_estimated"] and "500 px" in events[-2].message


def test_one_focal_for_each_shot(tmp_path):
    moge = FakeMoGe(lambda frame: 500.0 if frame < 30 else 900.0)
    found, events = run(clip(shots=(0, 30)), tmp_path, Camera(networks=moge.build))
    assert (found["focal_px"][:30] == 500).all() and (found["focal_px"][30:] == 900).all() and len(moge.frames) == 2 * FRAMES
    assert codes(events) == ["focal_estimated"] and "500 to 900 px" in events[-2].message


def test_spread_is_reported_and_a_wide_one_is_doubted(tmp_path):
    moge = FakeMoGe(lambda frame: 500.0 * (1.3 if frame % 20 < 10 else 1 / 1.3))
    found, events = run(clip(shots=(0, 40)), tmp_path, Camera(networks=moge.build))
    assert codes(events) == ["focal_estimated", "focal_uncertain", "focal_uncertain"]
    assert [(e.frame, e.last_frame) for e in events if isinstance(e, Notice)][1:] == [(0, 39), (40, 79)]
    spread = 1.4826 * math.log(1.3)  # the median of two values of equal weight lies between them
    assert f"{spread:.1%}" in str(found["note"]) and "spread" in events[FRAMES * 2].message


def test_a_shot_without_a_focal_takes_that_of_the_others(tmp_path):
    moge = FakeMoGe(lambda frame: math.nan if 20 <= frame < 40 else 500.0 if frame < 20 else 600.0)
    found, events = run(clip(shots=(0, 20, 40)), tmp_path, Camera(networks=moge.build))
    np.testing.assert_allclose(found["focal_px"][20:40], math.sqrt(500 * 600), rtol=1e-6)
    assert codes(events) == ["focal_estimated", "focal_of_other_shots"]


@pytest.mark.parametrize("value", [math.nan, math.inf, 3.0])
def test_where_nothing_can_be_told_it_is_assumed_and_said(tmp_path, value):
    found, events = run(clip(), tmp_path, Camera(networks=FakeMoGe(lambda frame: value).build))
    assert codes(events) == ["focal_not_seen", "focal_assumed"] and found["method"] == "assumed"
    np.testing.assert_allclose(found["focal_px"], 0.8 * math.hypot(640, 360), rtol=1e-6)


@pytest.mark.parametrize("frames", [1, 3, 8])
def test_short_clips_and_shots(tmp_path, frames):
    moge = FakeMoGe(lambda frame: 500.0)
    found, _ = run(clip(frames, shots=(0, frames // 2) if frames > 1 else (0,)), tmp_path, Camera(networks=moge.build))
    assert sorted(moge.frames) == list(range(frames)) and (found["focal_px"] == 500).all()


@pytest.mark.parametrize("stop_after", [1, 5, 8, 11])
def test_killed_and_gone_on_measures_no_frame_twice(tmp_path, stop_after):
    first, second = (FakeMoGe(lambda frame: 500.0 + frame if frame % 3 else math.nan) for _ in range(2))
    run(clip(shots=(0, 30)), tmp_path, Camera(networks=first.build), stop_after=stop_after)
    found, events = run(clip(shots=(0, 30)), tmp_path, Camera(networks=second.build))
    whole, all_events = run(clip(shots=(0, 30)), tmp_path, Camera(networks=first.build), "whole.take")
    assert first.frames[:stop_after] + second.frames == first.frames[stop_after:] and codes(events) == codes(all_events)
    assert all((found[name] == whole[name]).all() for name in whole)


def test_the_network_is_let_go(tmp_path, monkeypatch):
    """Fails where the stage holds it after its end, or after it was stopped."""
    import weakref

    alive = []
    monkeypatch.setattr(camera_module, "release", lambda: alive.append([r() for r in made]))
    made = []

    def build():
        network = FakeMoGe(lambda frame: 500.0)
        made.append(weakref.ref(network))
        return network

    run(clip(), tmp_path, Camera(networks=build))
    run(clip(), tmp_path, Camera(networks=build), "stopped.take", stop_after=2)
    assert alive == [[None], [None, None]]


@pytest.mark.parametrize("size", [(640, 360), (90, 160)])
def test_with_the_real_tiny_network(tmp_path, size):
    pytest.importorskip("transformers")
    from body4d_engine.models.moge.model import MoGe

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MoGe.build("tiny")
    world = World([], frames=4, size=size)
    found, events = run(world, tmp_path, Camera(networks=lambda: network))
    assert found["focal_px"].shape == (4,) and np.isfinite(found["focal_px"]).all() and (found["focal_px"] > 0).all()
    assert str(found["method"]) in ("estimated", "assumed")
