# SPDX-License-Identifier: Apache-2.0
"""Whom others hide: the landmarks of that time are not taken for the person's."""

import numpy as np
import pytest

from body4d_engine.fit import hidden, observations
from body4d_engine.take import State

from .tracked import real_walk, tracked_take, visible

RATE = 30


def still(count=60):
    """Hips and shoulders of somebody who walks to the right at 1 m/s, 100 px to a metre."""
    trunk = np.zeros((count, 2, 2))
    trunk[..., 0] = 100 / RATE * np.arange(count)[:, None]
    trunk[:, 1, 1] = -50
    return trunk


def squeezed(trunk, suspect, seen=None, shot=None):
    count = len(trunk)
    return np.flatnonzero(hidden.squeezed(trunk, np.full(count, 100.0), np.ones(count, bool) if seen is None else seen, suspect,
                                          np.zeros(count, int) if shot is None else shot, 1 / RATE)).tolist()


def between(begin, stop, count=60):
    return (np.arange(count) >= begin) & (np.arange(count) < stop)


def test_people_meet_whose_boxes_do():
    box = np.array([[100, 100, 150, 300]] * 4, float)
    other = np.array([[140, 100, 200, 300], [165, 100, 200, 300], [180, 100, 220, 300], [0, 0, 0, 0]], float)
    assert hidden.meeting(box, [other]).tolist() == [True, True, False, False]  # a tenth of a height apart is near enough
    assert not hidden.meeting(box, []).any()


def test_a_leap_and_back_where_people_meet_is_not_the_person():
    trunk = still()
    trunk[25:32, 0, 1] -= 40  # the hips go up to where legs can still be seen
    assert squeezed(trunk, between(15, 45)) == list(range(25, 32))
    assert squeezed(trunk, between(15, 28)) == []  # part of it in the clear: a movement
    assert squeezed(trunk, np.zeros(60, bool)) == []


def test_a_movement_in_a_meeting_stays():
    trunk = still()
    trunk[..., 1] -= 100 * 0.35 * np.sin(np.pi * np.clip((np.arange(60) - 20) / 16, 0, 1))[:, None]  # a jump of half a second
    assert squeezed(trunk, between(10, 50)) == []


def test_who_has_leapt_for_long_is_there():
    trunk = still()
    trunk[25:45] += 60
    assert squeezed(trunk, between(15, 55)) == []
    assert squeezed(trunk, between(15, 55), shot=(np.arange(60) >= 26).astype(int)) == [25]  # a cut parts it


def test_moments_between_gaps_have_to_fit():
    trunk, seen = still(), np.ones(60, bool)
    seen[20:40] = False
    seen[[25, 30]] = True
    trunk[25, :, 1] += 60
    assert squeezed(trunk, between(10, 50), seen) == [25]


def test_too_few_or_too_rare_samples_say_nothing():
    trunk = still()
    trunk[25:32] += 60
    everywhere = np.ones(60, bool)
    assert not hidden.squeezed(trunk, np.full(60, 100.0), everywhere, everywhere, np.zeros(60, int), 0.5).any()
    assert squeezed(trunk[:1], everywhere[:1]) == []
    assert squeezed(trunk[24:27], everywhere[:3]) == []  # nobody sure to compare with


@pytest.mark.parametrize("beside", [True, False])
def test_a_squeezed_body_is_not_read_where_somebody_else_is(tmp_path, beside):
    walk = real_walk(1)
    pixels = walk.px.copy()
    top = pixels[:, :11, 1].mean(1)[:, None]
    pixels[50:62, :, 1] = (top + 0.5 * (pixels[..., 1] - top))[50:62]  # all of the body in its upper half
    other = walk.px + [0 if beside else 3000, 0, 0]
    take, _, _ = tracked_take(tmp_path / "a.take", [(pixels, walk.metres, visible(100)), (other, walk.metres, visible(100))],
                              walk.focal, walk.centre, walk.size, 60)
    with take:
        one, two = (observations.survey(take, person) for person in (1, 2))
        assert np.flatnonzero(~one.seen).tolist() == (list(range(50, 62)) if beside else [])
        assert (one.state[~one.seen] == State.OCCLUDED).all() and two.seen.all()
