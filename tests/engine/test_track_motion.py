# SPDX-License-Identifier: Apache-2.0
"""Who is who by motion: the filter, the cost of a gap, and people who look alike."""

import numpy as np
import pytest

from body4d_engine.models.blazepose import Pose
from body4d_engine.take import State
from body4d_engine.tracking import appearance
from body4d_engine.tracking.linking import LEAST_END, LOOKS_NEAR, Tracklet, link, link_costs
from body4d_engine.tracking.motion import Motion, bridge, end_state, place_of, scale_of
from body4d_engine.tracking.splitting import CROWDED_LOOKS
from body4d_engine.tracking.tracker import Tracker

from .fake_people import TEMPLATE, Actor, World
from .test_track import BLUE, GREEN, RED, line, run, seen_only, state, who

STEP = 1 / 30


def at(x, y=120.0, scale=80.0):
    return np.array([x, y, np.log(scale)])


def test_the_filter_learns_a_constant_velocity_in_the_picture_and_in_depth():
    motion = Motion.begin(at(100))
    for step in range(1, 40):
        motion.advance(STEP)
        motion.update(at(100 + 4 * step, 120 - step, 80 * np.exp(0.01 * step)))
    assert np.allclose(motion.speed, [120, -30, 0.3], rtol=0.05)
    motion.advance(STEP)
    assert motion.surprise(at(260, 80, 80 * np.exp(0.4))) < 0.3
    assert motion.surprise(at(260, 80, 80 * np.exp(-0.3))) > 4  # in the same place, but twice as far away
    near = motion.surprise(at(330, 80, 80 * np.exp(0.4)))
    for _ in range(6):
        motion.advance(STEP)
    assert motion.surprise(at(330 + 24, 74, 80 * np.exp(0.46))) < near  # the longer unseen, the less certain


def test_the_filter_goes_on_exactly_from_its_json():
    motion = Motion.begin(at(100))
    motion.advance(STEP)
    motion.update(at(103))
    again = Motion.from_json(motion.to_json())
    for one in (motion, again):
        one.advance(STEP)
        one.update(at(107))
    assert np.array_equal(motion.place, again.place) and np.array_equal(motion.spread, again.spread)


def test_scale_and_place_of_a_body():
    pixels, metres = np.column_stack([TEMPLATE * 120 + [300, 90], np.ones(33)]), np.column_stack([TEMPLATE * 1.7, np.zeros(33)])
    assert np.isclose(scale_of(pixels, metres), 120 / 1.7)
    assert np.allclose(place_of(pixels, 70.0), [300, 90, np.log(70)])


def test_going_on_costs_less_than_turning_round_and_than_jumping_in_depth():
    still, right, left = np.zeros(3), np.array([120.0, 0, 0]), np.array([-120.0, 0, 0])
    on = bridge(at(100), right, at(172), right, 0.6)
    assert on < 0.1 < bridge(at(100), right, at(100), left, 0.6) and on < bridge(at(100), right, at(172), still, 0.6)
    assert bridge(at(100), right, at(172, scale=50), right, 0.6) > 4
    many = bridge(np.stack([at(100)] * 2), np.stack([right] * 2), np.stack([at(172), at(100)]), np.stack([right, left]), np.array([0.6, 0.6]))
    assert np.allclose(many, [on, bridge(at(100), right, at(100), left, 0.6)])


def test_the_end_of_a_track_is_the_line_through_it():
    times = np.arange(8) * STEP
    place, speed = end_state(times, np.stack([at(100 + 90 * t, 50 - 30 * t) for t in times]), times[-1])
    assert np.allclose(place, at(100 + 90 * times[-1], 50 - 30 * times[-1])) and np.allclose(speed, [90, -30, 0])
    assert np.array_equal(end_state(times[:1], at(5)[None], 0.0)[1], np.zeros(3))


def tracklet(number, samples, x, looks=None, doubted=(), leaving=False):
    made = Tracklet(0, number)
    for sample in samples:
        place = at(x(sample))
        look = np.ones(appearance.SIZE) if looks is None else looks(sample) if callable(looks) else looks
        made.add(sample, np.array([place[0] - 20, 60, place[0] + 20, 180]), look, place, sample in doubted, leaving)
    return made


@pytest.mark.parametrize("speed", [4.0, -4.0])
def test_look_alikes_that_meet_unseen_are_told_by_their_motion(speed):
    """Two people walk behind a wall, towards one another or apart, and come out 20 samples later."""
    into = [tracklet(0, range(40), lambda s: 100 + speed * s), tracklet(1, range(40), lambda s: 420 - speed * s)]
    out = [tracklet(2, range(60, 90), lambda s: 100 + speed * s), tracklet(3, range(60, 90), lambda s: 420 - speed * s)]
    for one in [*into, *out]:
        one.settle()
    chains = link([*into, *out], STEP, [])
    assert sorted([t.track for t in chain] for chain in chains) == [[0, 2], [1, 3]]


def test_what_cannot_be_told_stays_apart():
    """Two look-alikes stand still next to one another, vanish, and stand half way between."""
    before = [tracklet(n, range(40), lambda s, n=n: 100 + 20 * n) for n in (0, 1)]
    after = tracklet(2, range(60, 90), lambda s: 110)
    for one in [*before, after]:
        one.settle()
    assert all(len(chain) == 1 for chain in link([*before, after], STEP, []))


def test_who_comes_and_goes_keeps_the_id_whatever_happens_once():
    """Somebody walks by ten times; the sixth time beside a look-alike, so that nobody knows who is who then."""
    visits = [tracklet(n, range(200 * n, 200 * n + 40), lambda s: 100 + s % 200) for n in range(10)]
    visits.append(tracklet(10, range(1000, 1040), lambda s: 300 + s % 200))
    for one in visits:
        one.settle()
    assert sorted([t.track for t in chain] for chain in link(visits, STEP, [])) == [[0, 1, 2, 3, 4], [5], [6, 7, 8, 9], [10]]


def test_who_turns_round_outside_the_picture_comes_back_as_the_same():
    """Somebody runs out of the picture and comes in again at once, the other way; inside of it that is hardly the same person."""
    costs = []
    for at_edge in (True, False):
        out = tracklet(0, range(25), lambda s: 100 - 8.0 * s, leaving=at_edge)
        back = tracklet(1, range(31, 70), lambda s: 8.0 * (s - 31) - 92, leaving=at_edge)
        for one in (out, back):
            one.settle()
        costs.append(link_costs([out, back], STEP, [])[0, 1])
    assert costs[0] < 3.1 and costs[1] > 10


def hues(*shares):
    """Looks of these shares of different colours, above and below alike."""
    half = np.zeros(appearance.HALF)
    half[: len(shares)] = shares
    return np.tile(half, 2)


def test_who_walks_into_another_light_is_the_same_person():
    """Somebody walks from the shade into the sun and back, and is lost twice in the sun, where they look different."""
    whole = tracklet(0, range(120), lambda s: 100 + s, lambda s: hues(1, 0) if s < 80 else hues(0, 1))
    piece = tracklet(1, range(130, 190), lambda s: 100 + s, lambda s: hues(0, 1))
    back = tracklet(2, range(200, 320), lambda s: 100 + s, lambda s: hues(0, 1) if s < 240 else hues(1, 0))
    for one in (whole, piece, back):
        one.settle()
    assert [[t.track for t in chain] for chain in link([whole, piece, back], STEP, [])] == [[0, 1, 2]]


def test_looks_at_the_ends_count_only_the_clear_sightings():
    """Beside somebody else, looks are partly theirs; of a backward pass the ends change places."""
    one = tracklet(0, range(100, 40, -1), lambda s: s, lambda s: hues(1, 0) if s > 70 else CROWDED_LOOKS * hues(0, 1))
    assert appearance.distance(one.tail_looks, hues(1, 0)) < 0.25 < appearance.distance(one.looks, hues(0, 1))
    first, last = one.head_looks, one.tail_looks
    one.settle()
    assert one.head_looks is last and one.tail_looks is first


def test_people_are_linked_over_short_gaps_rather_than_over_long_ones():
    """Somebody goes on straight each time, but looks a little different every other time: that is not two people by turns."""
    looks = [hues(1, 0), hues(0.75, 0.25)]
    pieces = [tracklet(n, range(100 * n, 100 * n + 80), lambda s: 100 + s, looks[n % 2]) for n in range(4)]
    for one in pieces:
        one.settle()
    assert 0.3 < appearance.distance(*looks) < LOOKS_NEAR
    assert [[t.track for t in chain] for chain in link(pieces, STEP, [])] == [[0, 1, 2, 3]]


def test_what_was_only_imagined_at_the_end_of_a_track_is_cut_off():
    lost = tracklet(0, range(40), lambda s: 100 + s, doubted=range(30, 40))
    lost.settle()
    assert (lost.first, lost.last) == (0, 29)
    walks_out = tracklet(0, range(40), lambda s: 100 + s, doubted=range(30, 40), leaving=True)
    walks_out.settle()
    to_the_end = tracklet(0, range(40), lambda s: 100 + s, doubted=range(30, 40))
    to_the_end.settle({39})
    assert walks_out.last == to_the_end.last == 39
    backward = tracklet(0, range(40, -1, -1), lambda s: 100 + s, doubted=range(0, 11))
    backward.settle()
    assert (backward.first, backward.last) == (11, 40) and len(backward.head) >= LEAST_END


def test_look_alikes_cross_behind_a_wall(tmp_path):
    """Both are out of sight between x = 260 and x = 380, at the same time."""
    def hidden(path):
        return lambda frame: None if 260 < path(frame)[0] < 380 else path(frame)

    world = World([Actor(hidden(line(100, 540)), RED), Actor(hidden(line(540, 100, 125)), RED)])
    take, _ = run(world, tmp_path)
    assert len(take.people) == 2 and all(who(take, world, p, 10) == who(take, world, p, 80) is not None for p in (1, 2))


def test_somebody_behind_others_for_long_is_hidden_and_keeps_the_id(tmp_path):
    """Red stands behind blue for two seconds. Without blue in front, red is gone meanwhile."""
    red = seen_only(lambda f: (300, 120), (0, 60), (120, 180))
    front = Actor(lambda f: (325, 122), BLUE, 200, front=3)
    take, _ = run(World([Actor(red, RED), front], 180), tmp_path, name="a.take")
    person = next(p["id"] for p in take.people if not (state(take, p["id"]) == State.VISIBLE).all())
    assert len(take.people) == 2 and (state(take, person)[70:115] == State.OCCLUDED).all()
    take, _ = run(World([Actor(red, RED), Actor(lambda f: (600, 122), BLUE, 140)], 180), tmp_path, name="b.take")
    person = next(p["id"] for p in take.people if not (state(take, p["id"]) == State.VISIBLE).all())
    assert len(take.people) == 2 and not state(take, person)[70:115].any()


def test_the_landmarker_imagining_somebody_elsewhere_is_not_followed():
    """The person vanishes; what the landmarker then sees jumps up the wall, in other colours, and the detector sees nobody."""
    world = World([Actor(lambda f: (300, 160) if f < 20 else (300, 160 - 30 * (f - 19)), RED)])
    detector, landmarker = world.networks()
    truth, real = detector.detect, landmarker.detect
    detector.detect = lambda rgb, *where: truth(rgb, *where) if rgb[0, 0, 1] < 20 else []

    def imagine(rgb, roi, own=None, others=()) -> Pose:
        if rgb[0, 0, 1] >= 20:
            world.actors[0].color = GREEN
        return real(rgb, roi, own, others)

    landmarker.detect = imagine
    tracker = Tracker(detector, landmarker, STEP)
    seen = [bool(tracker.step(world.read(frame), frame % 5 == 0)) for frame in range(24)]
    assert all(seen[:20]) and not any(seen[20:])
