# SPDX-License-Identifier: Apache-2.0
"""Bursts of swapped left and right are found where they are, and nowhere else."""

import numpy as np
import pytest

from body4d_engine.fit import flips

from .tracked import real_walk


@pytest.fixture(scope="module", params=[1, 3])
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
