# SPDX-License-Identifier: Apache-2.0
"""What bench_import.py makes of its figures."""

import bench_import
import pytest

GOOD = {"keys": {"first_s": 1.0, "best_s": 1.0, "played_ms": 1.0, "error": 0.0}, "relative": {"first_s": 9.0, "best_s": 9.0, "played_ms": 30.0, "error": 1e-6},
        "cache": {"error": 0.0}, "take": {"error": 0.0}}


def test_good_figures():
    lines, ratios, good = bench_import.verdict(GOOD)
    assert good and len(lines) == 4 and not any("FALLS SHORT" in line for line in lines)
    assert ratios == {"faster_first": 9, "faster_best": 9, "cheaper_played": 30}


@pytest.mark.parametrize("way, figure, value, words", [("keys", "first_s", 2.0, "first build"), ("keys", "best_s", 2.0, "best of 3"),
                                                       ("keys", "played_ms", 2.0, "played"), ("take", "error", 1e-9, "largest error")])
def test_each_figure_alone_is_said_to_fall_short(way, figure, value, words):
    lines, _, good = bench_import.verdict({**GOOD, way: {**GOOD[way], figure: value}})
    assert not good and [words in line for line in lines if "FALLS SHORT" in line] == [True]
