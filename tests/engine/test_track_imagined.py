# SPDX-License-Identifier: Apache-2.0
"""People whom the landmarker sees in a piece of somebody else, while they are hidden."""

import numpy as np

from body4d_engine.take import State
from body4d_engine.tracking.imagined import imagined

from .fake_people import Actor, World
from .test_track import BLUE, RED, hips, line, run, state, who

STEP = 1 / 30


def off(places, doubted, shot=None, samples=None, seconds=STEP):
    places = np.array(places, float)
    return np.flatnonzero(imagined(np.arange(len(places)) if samples is None else np.array(samples), places, np.isin(np.arange(len(places)), doubted),
                                   np.zeros(len(places), int) if shot is None else np.array(shot), seconds)).tolist()


def walk(count=30, scale=100.0):
    return np.column_stack([100 + 4.0 * np.arange(count), np.full(count, 200.0), np.full(count, np.log(scale))])


def test_what_nobody_confirms_and_lies_off_the_way_was_imagined():
    places = walk()
    assert off(places, range(10, 16)) == []
    places[11:14, 1] -= 45  # px, at 100 px per metre
    assert off(places, range(10, 16)) == [11, 12, 13]
    assert off(places, []) == off(places, [20, 21]) == []  # whom the detector sees too did jump
    places[12] = walk()[12]
    assert off(places, range(10, 16)) == [11, 12, 13]  # in between it is on the way by chance
    small = walk()
    small[12, 2] -= 0.3
    assert off(small, range(10, 16)) == [12]


def test_nothing_is_said_where_the_way_is_not_known():
    places = walk()
    places[10:16, 1] -= 60
    assert off(places[:16], range(10, 16)) == [] and off(places[10:], range(6)) == []
    assert off(places, range(10, 16), shot=[0] * 13 + [1] * 17) == []
    assert off(places, range(10, 16), seconds=0.5) == []


def test_the_longer_unseen_the_further_people_stray():
    places = walk(60)
    places[30, 0] += 50
    assert off(places, [29, 30, 31]) == [30] and off(places, range(12, 49)) == []


def test_who_walks_behind_somebody_is_bridged_and_not_squeezed_into_them(tmp_path):
    """Red walks behind blue; meanwhile the landmarker finds red's head in blue's, and the detector nobody."""
    class Hiding(Actor):
        def points(self, frame):
            points = super().points(frame)
            if 40 <= frame < 48:
                points = (points - points[23]) * 0.9 + [self.path(frame)[0], 75]
            return points

    red = Hiding(line(180, 420), RED, front=1)
    world = World([red, Actor(lambda frame: (330, 120), BLUE, 130, front=2)])
    detector, landmarker = world.networks()
    detect = detector.detect
    detector.detect = lambda rgb, *where: [d for d in detect(rgb, *where) if not (40 <= int(rgb[0, 0, 1]) < 48 and d.keypoints[11:13, 1].mean() < 100)]
    world.networks = lambda: (detector, landmarker)
    take, _ = run(world, tmp_path)
    person = next(p for p in (1, 2) if who(take, world, p, 5) == 0)
    assert len(take.people) == 2 and who(take, world, person, 85) == 0
    assert (state(take, person)[40:48] == State.OCCLUDED).all() and (state(take, person)[:39] == State.VISIBLE).all()
    truth = np.array([line(180, 420)(f) for f in range(38, 50)])
    assert np.abs(hips(take, person)[38:50] - truth).max() < 3  # px
    assert not np.array(take.read(f"people/{person}", "landmarks_px"))[40:48, :, 2].any()
