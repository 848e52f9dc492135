# SPDX-License-Identifier: Apache-2.0
"""Bursts of swapped left and right are found where they are, and nowhere else."""

import numpy as np
import pytest

from body4d_engine.fit import flips
from body4d_engine.runs import runs

from .tracked import real_walk


@pytest.fixture(scope="module", params=[1])
def walk(request):
    return real_walk(request.param)


def planted(walk, begin, end):
    pixels, metres = walk.px.copy(), walk.metres.copy()
    pixels[begin:end], metres[begin:end] = flips.repair(pixels[begin:end], metres[begin:end])
    return pixels, metres


def test_nothing_is_found_in_a_real_walk(walk):
    assert not flips.find(walk.px, np.ones(100, bool), 1 / 60).any()


@pytest.mark.parametrize("begin, end", [(10, 11), (40, 55), (60, 89)])
def test_a_burst_is_found_and_repaired(walk, begin, end):
    pixels, metres = planted(walk, begin, end)
    found = flips.find(pixels, np.ones(100, bool), 1 / 60)
    assert np.flatnonzero(found).tolist() == list(range(begin, end))
    again = flips.repair(pixels[found], metres[found])
    np.testing.assert_array_equal(again[0], walk.px[found])
    np.testing.assert_array_equal(again[1], walk.metres[found])


def test_a_long_turn_and_a_cut_are_no_burst(walk):
    pixels, _ = planted(walk, 20, 60)  # 0.67 s: a person may really have turned
    assert not flips.find(pixels, np.ones(100, bool), 1 / 60).any()
    pixels, _ = planted(walk, 40, 50)
    assert not flips.find(pixels, np.ones(100, bool), 1 / 60, frozenset({45})).any()


def test_blocks_do_not_hide_an_event(walk, monkeypatch):
    pixels, _ = planted(walk, 40, 50)
    for block in (1, 7, 40, 41):
        monkeypatch.setattr(flips, "BLOCK", block)
        assert np.flatnonzero(flips.find(pixels, np.ones(100, bool), 1 / 60)).tolist() == list(range(40, 50))


def test_what_was_not_seen_starts_nothing(walk):
    pixels, _ = planted(walk, 40, 50)
    pixels[45] = np.nan
    seen = np.arange(100) != 45
    found = flips.find(pixels, seen, 1 / 60)
    assert not found[45] and not found[:40].any() and not found[50:].any()


@pytest.mark.parametrize("part", list(flips.PARTS))
def test_a_swapped_part_is_found_and_repaired(walk, part):
    points, _, roots = flips.PARTS[part]
    pixels, metres = walk.px.copy(), walk.metres.copy()
    rows = np.ix_(range(40, 50), points)
    pixels[rows], metres[rows] = (values[np.ix_(range(40, 50), flips.SWAP[points])] for values in (walk.px, walk.metres))
    if roots is not None:
        metres[rows] *= np.float32([1, 1, -1])
    found = flips.find_parts(pixels, np.ones(100, bool), 1 / 60)
    assert runs(found[:, list(flips.PARTS).index(part)]) == [(40, 50)] and found.sum() == 10
    again = flips.repair_parts(pixels, metres, found)
    np.testing.assert_array_equal(again[0], walk.px)
    np.testing.assert_array_equal(again[1], walk.metres)


def test_no_part_is_found_in_a_real_walk(walk):
    assert not flips.find_parts(walk.px, np.ones(100, bool), 1 / 60).any()
    assert not flips.find_parts(walk.px[::2], np.ones(50, bool), 1 / 30).any()


def test_a_half_that_is_swapped_outside_the_burst_is_left_alone(walk):
    pixels = walk.px.copy()
    pixels[:40, :23], pixels[50:, :23] = pixels[:40, flips.SWAP[:23]], pixels[50:, flips.SWAP[:23]]
    assert not flips.find_parts(pixels, np.ones(100, bool), 1 / 60)[:, 0].any()


def test_a_burst_is_found_though_the_landmarks_at_its_ends_are_neither(walk):
    pixels, metres = planted(walk, 40, 55)
    for i in (40, 55):
        pixels[i] = 0.6 * walk.px[i] + 0.4 * walk.px[i, flips.SWAP] if i == 40 else 0.7 * walk.px[i] + 0.3 * walk.px[i, flips.SWAP]
    found = np.flatnonzero(flips.find(pixels, np.ones(100, bool), 1 / 60)).tolist()
    assert set(range(41, 55)) <= set(found) <= set(range(40, 56))


def test_an_upper_body_over_hips_that_fell_together_is_found(walk):
    """Hips without width point anywhere: they are no witness that all of the body turned."""
    pixels = walk.px.copy()
    pixels[40, :23] = pixels[40, flips.SWAP[:23]]
    middle, across = (pixels[40, 23] + pixels[40, 24]) / 2, (pixels[40, 24] - pixels[40, 23]) / 2
    pixels[40, 23], pixels[40, 24] = middle + 0.1 * across, middle - 0.1 * across
    found = flips.find_parts(pixels, np.ones(100, bool), 1 / 60)
    assert np.argwhere(found).tolist() == [[40, 0]]
