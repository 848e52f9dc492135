# SPDX-License-Identifier: Apache-2.0
"""Where the detector looks: parts, turned pictures and close-ups, with a fake detector and with the real networks."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from body4d_engine.models.blazepose import Roi
from body4d_engine.models.people_detector import Detection
from body4d_engine.tracking import search
from body4d_engine.tracking.tracker import LOST_S, WATCH_S, Tracker

from .fake_people import Actor, World

SIZE = 1000, 600


def track(number, x, y, height=120.0, angle=0.0, missed=0):
    """Somebody followed, around (x, y) px; angle as in Roi."""
    span = np.column_stack([np.tile([-0.2, 0.2], 9)[:17] * height, np.linspace(-height / 2, height / 2, 17)])
    c, s = np.cos(angle), np.sin(angle)
    keypoints = np.column_stack([span @ np.array([[c, s], [-s, c]]) + [x, y], np.full(17, 0.9)])
    return SimpleNamespace(id=number, expected=keypoints, roi=Roi(x, y, 1.25 * height, angle), missed=missed)


def detection(x, y, height=120.0, score=0.6):
    keypoints = track(0, x, y, height).expected
    return Detection(score, np.array([x - height / 5, y - height / 2, x + height / 5, y + height / 2]), keypoints)


class Recorder:
    """A detector that answers the n-th question with the n-th of `answers`, and nobody after that, and remembers the questions."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def detect(self, rgb, part=None, turns=0, long_side=None):
        self.asked.append((part, turns))
        return self.answers.pop(0) if self.answers else []


def picture():
    return np.zeros((SIZE[1], SIZE[0], 3), np.uint8)


@pytest.mark.parametrize("size", [(640, 360), (1920, 1080), (1088, 1920), (3840, 2160), (2, 2)])
def test_looks_for_newcomers_cover_the_picture_and_turn_it_every_way(size):
    looks = search.looks_for_newcomers(*size)
    assert sorted(look.turns for look in looks if look.part is None) == [1, 2, 3]
    parts = [look.part for look in looks if look.part]
    covered = np.zeros(size[::-1], bool)
    for x0, y0, x1, y1 in parts:
        assert 0 <= x0 < x1 <= size[0] and 0 <= y0 < y1 <= size[1]
        covered[y0:y1, x0:x1] = True
    assert bool(parts) == (max(size) > search.PART_PX) and (covered.all() if parts else True)


def test_who_is_well_seen_needs_no_close_up_and_who_is_upside_down_always_gets_one():
    calm = [track(0, 200, 300, 300), track(1, 700, 300, 300)]
    for looking in (False, True):
        detector = Recorder()
        assert search.closely(detector, picture(), calm, [[], []], looking) == [] and not detector.asked
        upside_down = [calm[0], track(1, 700, 300, 300, np.pi)]
        search.closely(detector, picture(), upside_down, [[], []], looking)
        assert [turns for _, turns in detector.asked] == [2]
    detector = Recorder()
    search.closely(detector, picture(), [track(0, 200, 300, 300, np.pi / 2)], [[]], True)
    assert [turns for _, turns in detector.asked] == [1]


@pytest.mark.parametrize("case", ["near each other", "lost", "tiny"])
def test_small_people_get_a_close_up_that_holds_all_of_them(case):
    tracks = {"near each other": [track(0, 300, 300), track(1, 340, 300)], "lost": [track(0, 300, 300, missed=1)], "tiny": [track(0, 300, 300, 60)]}[case]
    near = [[other for other in tracks if other is not t] for t in tracks]
    detector = Recorder()
    search.closely(detector, picture(), tracks, near, True)
    assert len(detector.asked) == 1
    (x0, y0, x1, y1), turns = detector.asked[0]
    points = np.concatenate([t.expected[:, :2] for t in tracks])
    assert turns == 0 and (points.min(0) > [x0, y0]).all() and (points.max(0) < [x1, y1]).all() and max(x1 - x0, y1 - y0) <= search.CLOSE_PX


def test_a_close_up_counts_for_more_and_looks_add_only_who_is_new():
    here, close = detection(300, 300, score=0.7), detection(305, 302, score=0.5)
    other = detection(700, 300, score=0.5)
    assert list(map(id, search.widely(Recorder([here, other]), picture(), [], [close]))) == [id(other), id(close)]
    part = search.Look((500, 200, 1000, 600), 0, 512)
    turned = search.Look(None, 2, 384)

    def found(new, look, tracks=()):
        names = {id(other): "other", id(new): "new"}
        return [names[id(d)] for d in search.widely(Recorder([other], [new]), picture(), list(tracks), [], [look])]

    stranger = detection(850, 400)
    assert found(stranger, part) == ["other", "new"] == found(stranger, turned)
    assert found(detection(850, 400, score=0.35), part) == ["other"]  # not sure enough
    assert found(detection(520, 400), part) == ["other"]  # cut by the part's border
    assert found(stranger, turned, [track(0, 850, 400)]) == ["other"]  # known already
    assert found(detection(705, 300, score=0.55), turned) == ["other"]  # hardly surer than upright
    better = detection(705, 300, score=0.65)
    assert found(better, turned) == ["new"] == found(better, part)


def test_after_somebody_vanished_beside_another_the_detector_looks_often():
    def seen(vanishes):
        world = World([Actor(lambda f: (200, 120)), Actor(lambda f: (245, 120) if f < vanishes else None, (40, 40, 200))], size=(640, 240))
        detector, landmarker = world.networks()
        asked, real = [], detector.detect
        detector.detect = lambda rgb, *where: asked.append(frame) or real(rgb, *where)
        tracker = Tracker(detector, landmarker, 1 / 30)
        for frame in range(60):
            tracker.step(world.read(frame), frame % 5 == 0)
            tracker = Tracker(detector, landmarker, 1 / 30, tracker.state())
        return asked

    gone = [frame for frame in seen(12) if frame % 5]
    soon, later = [f for f in gone if 20 <= f < 20 + 30 * WATCH_S - 4], [f for f in gone if f > 22 + 30 * WATCH_S]
    assert len(soon) >= 5 and not later


def test_who_vanished_inside_the_picture_is_looked_for_closely_there():
    """The whole picture does not show somebody who is against the light; a close-up does."""
    def seen(shows):
        world = World([Actor(lambda f: (200, 120) if f < 20 or f >= shows else None)], size=(640, 240))
        detector, landmarker = world.networks()
        asked, real = [], detector.detect

        def detect(rgb, part=None, turns=0, long_side=None):
            if part:
                asked.append((frame, part))
                return real(rgb) if turns == 0 else []
            return real(rgb) if frame < 20 else []

        detector.detect = detect
        tracker, there = Tracker(detector, landmarker, 1 / 30), []
        for frame in range(130):
            there.append(bool(tracker.step(world.read(frame), frame % 5 == 0)))
            tracker = Tracker(detector, landmarker, 1 / 30, tracker.state())
        return there, asked

    there, asked = seen(60)
    assert not any(there[20:60]) and there[60] and all(there[66:])
    lost = [frame for frame, (x0, y0, x1, y1) in asked if x0 < 200 < x1 and y0 < 120 < y1 and 30 <= frame < 60]
    assert lost == list(range(30, 60, 5))
    there, asked = seen(1000)
    assert not any(there[20:]) and 20 + 30 * LOST_S <= max(frame for frame, _ in asked) <= 30 + 30 * LOST_S


@pytest.fixture(scope="module")
def real():
    pytest.importorskip("ai_edge_litert")
    from body4d_engine.models.blazepose import PoseLandmarker
    from body4d_engine.models.people_detector import PeopleDetector

    return PeopleDetector(), PoseLandmarker()


@pytest.fixture(scope="module")
def frame(demo_clip):
    from body4d_engine.clip import open_clip

    with open_clip(demo_clip) as clip:
        return clip.read(60)


def middles(people):
    return sorted((float(d.keypoints[5:13, 0].mean()), float(d.keypoints[5:13, 1].mean())) for d in people if d.score > 0.4)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_parts_and_turned_pictures_give_px_of_the_whole(real, frame, turns):
    truth = middles(real[0].detect(frame))
    assert len(truth) == 2
    turned = np.ascontiguousarray(np.rot90(frame, -turns))
    height, width = frame.shape[:2]
    back = {1: lambda x, y: (y, height - x), 2: lambda x, y: (width - x, height - y), 3: lambda x, y: (width - y, x)}[turns]
    assert np.allclose(sorted(back(x, y) for x, y in middles(real[0].detect(turned, turns=turns))), truth, atol=4)
    part = (int(truth[0][0]) - 300, 0, int(truth[0][0]) + 300, height)
    assert middles(real[0].detect(frame, part))[0] == pytest.approx(truth[0], abs=15)


def test_people_of_80_px_and_upside_down_are_found_by_looking_again(real, frame):
    detector, _ = real
    truth = detector.detect(frame)
    tall = min(d.box[3] - d.box[1] for d in truth if d.score > 0.4)
    small = cv2.resize(frame, None, fx=80 / tall, fy=80 / tall, interpolation=cv2.INTER_AREA)
    whole = np.full((1080, 1920, 3), 128, np.uint8)
    whole[700 : 700 + small.shape[0], 300 : 300 + small.shape[1]] = small
    looks = search.looks_for_newcomers(1920, 1080)
    assert not middles(detector.detect(whole)) and len(middles(search.widely(detector, whole, [], [], looks))) == 2
    upside_down = np.ascontiguousarray(np.rot90(frame, 2))
    found = search.widely(detector, upside_down, [], [], search.looks_for_newcomers(*upside_down.shape[1::-1]))
    assert len(middles(found)) == 2 and all(d.keypoints[11:13, 1].mean() < d.keypoints[5:7, 1].mean() for d in found if d.score > 0.4)


@pytest.mark.parametrize("kind", ["click", "box"])
def test_a_prompt_on_somebody_upside_down(real, frame, kind):
    from body4d_engine.people import BoxPrompt, Person, Prompt
    from body4d_engine.tracking.prompts import hints_of

    height, width = frame.shape[:2]
    picture = np.ascontiguousarray(np.rot90(frame, 2))
    for d in real[0].detect(frame):
        x, y = np.array([width, height]) - d.keypoints[[5, 6, 11, 12], :2].mean(0)
        prompt = Prompt(0, x, y) if kind == "click" else BoxPrompt(0, width - d.box[2], height - d.box[3], width - d.box[0], height - d.box[1])
        hint, = hints_of([Person(1, prompts=[prompt])], 0, 0, picture, *real)
        assert np.hypot(hint.roi.x - x, hint.roi.y - y) < 0.5 * (d.box[3] - d.box[1]) and search.quarters(hint.roi.angle) == 2
