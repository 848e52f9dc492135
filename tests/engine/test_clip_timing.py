# SPDX-License-Identifier: Apache-2.0
from fractions import Fraction

import numpy as np
import pytest

from body4d_engine.timing import frame_grid, snap_rate

MS = Fraction(1, 1000)


def grid(seconds, time_base, declared=(), last=0):
    ticks = np.round(np.asarray(seconds, float) / float(time_base)).astype(np.int64)
    return frame_grid(ticks, time_base, list(declared), last)


@pytest.mark.parametrize("fps", [Fraction(24000, 1001), 24, 25, Fraction(30000, 1001), 30, 50, Fraction(60000, 1001), 60, 120, 240, 17])
@pytest.mark.parametrize("time_base", [MS, Fraction(1, 600), Fraction(1, 90000)])
@pytest.mark.parametrize("start", [0.0, 1.234])
def test_rounding_of_the_clock_is_not_variable_rate(fps, time_base, start):
    rate, shown, variable = grid(start + np.arange(3000) / float(fps), time_base)
    assert not variable and rate == fps and np.array_equal(shown, np.arange(3000))


@pytest.mark.parametrize("declared, fps", [(30, 30), (Fraction(30000, 1001), Fraction(30000, 1001))])
def test_a_short_clip_believes_its_container(declared, fps):
    assert grid(np.arange(8) / 30, MS, [Fraction(declared)])[0] == fps


def test_a_wrong_declaration_is_not_believed():
    assert grid(np.arange(300) / 50, MS, [Fraction(25)])[::2] == (50, False)


def test_jitter_below_half_a_frame_neither_drops_nor_doubles():
    times = (np.arange(300) + np.random.default_rng(0).uniform(-0.2, 0.2, 300)) / 30
    rate, shown, variable = grid(times - times[0], Fraction(1, 90000))
    assert variable and rate == 30 and np.array_equal(shown, np.arange(len(shown)))


def test_one_lost_picture_repeats_its_neighbour():
    rate, shown, variable = grid(np.delete(np.arange(100), 40) / 30, Fraction(1, 90000))
    assert variable and rate == 30 and len(shown) == 100
    assert shown[39] == shown[40] == 39 and shown[41] == 40


def test_half_speed_stretches_keep_every_picture():
    times = np.r_[np.arange(60) / 30, 2 + np.arange(60) / 60]
    rate, shown, variable = grid(times, MS)
    assert variable and rate == 60 and set(shown) == set(range(120)) and len(shown) == 180


def test_last_picture_stays_as_long_as_it_says():
    rate, shown, _ = grid([0, 0.1, 0.2, 0.5], Fraction(1, 10), last=5)
    assert rate == 10 and list(shown) == [0, 1, 2, 2, 2, 3, 3, 3, 3, 3]


def test_a_single_picture():
    assert grid([3.0], MS, [Fraction(25)])[0] == 25 and grid([3.0], MS)[0] == 30


@pytest.mark.parametrize("given, expected", [(Fraction(2997, 100), Fraction(30000, 1001)), (Fraction(29999, 1000), 30), (Fraction(17), 17),
                                             (Fraction(23976, 1000), Fraction(24000, 1001))])
def test_snap_rate(given, expected):
    assert snap_rate(given) == expected
