# SPDX-License-Identifier: Apache-2.0
"""Runs: of flags and of numbers, close to each other, and parted at cuts."""

import numpy as np
import pytest

from body4d_engine.runs import pieces, runs

FLAGS = np.array([0, 1, 1, 0, 0, 1, 0, 0, 0, 1], bool)


@pytest.mark.parametrize("values, options, expected", [
    (FLAGS, {}, [(1, 3), (5, 6), (9, 10)]),
    (FLAGS, {"apart": 1}, [(1, 3), (5, 6), (9, 10)]),
    (FLAGS, {"apart": 2}, [(1, 6), (9, 10)]),
    (FLAGS, {"apart": 9}, [(1, 10)]),
    (FLAGS, {"apart": 9, "cuts": (3,)}, [(1, 3), (5, 10)]),
    (FLAGS, {"apart": 9, "cuts": (4, 9)}, [(1, 3), (5, 6), (9, 10)]),
    (FLAGS, {"cuts": (0, 2, 10, 99)}, [(1, 2), (2, 3), (5, 6), (9, 10)]),
    (np.array([3, 3, 0, 3, 5, 5]), {}, [(0, 2), (3, 4), (4, 6)]),
    (np.array([3, 3, 0, 3, 5, 5]), {"apart": 4}, [(0, 4), (4, 6)]),
    (~FLAGS, {}, [(0, 1), (3, 5), (6, 9)]),
    (FLAGS[:1], {}, []),
    (FLAGS[:0], {"cuts": (0,)}, []),
    (np.ones(3, bool), {"cuts": [1, 2]}, [(0, 1), (1, 2), (2, 3)]),
])
def test_runs(values, options, expected):
    assert runs(values, **options) == expected


def test_pieces_are_chosen_as_a_whole():
    chosen = np.array([0, 0, 1, 1, 1, 1, 1, 0, 0, 0], bool)
    assert pieces(chosen, 3, 2) == [(0, 2, False), (2, 5, True), (5, 7, True), (7, 9, False), (9, 10, False)]
    assert pieces(np.ones(5, bool), 2, 9) == [(0, 2, True), (2, 4, True), (4, 5, True)] and pieces(np.ones(0, bool), 2, 9) == []
