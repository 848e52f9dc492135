# SPDX-License-Identifier: Apache-2.0
"""The numbers of scripts/bench_hands.py: of made-up hands, and of a few renders of heads with the real network."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import bench_calibrated as calibrated  # noqa: E402
import bench_hands as bench  # noqa: E402

from body4d_engine.models.anny.body import load  # noqa: E402
from body4d_engine.models.anny.pose import exp  # noqa: E402
from body4d_engine.take import Take  # noqa: E402


@pytest.fixture
def hand():
    """Landmarks (21, 3) of a flat hand with its fingers along x, which looks along y."""
    points = np.zeros((21, 3))
    for finger in range(5):
        points[1 + 4 * finger : 5 + 4 * finger] = np.column_stack([0.09 + 0.03 * np.arange(4), np.zeros(4), np.full(4, 0.02 * (finger - 2))])
    return points


def joints_of(hand):
    return np.concatenate([hand[:1], hand[bench.FINGER_LANDMARKS]])


def test_a_hand_is_judged_from_its_wrist(hand):
    turned = hand @ exp(np.radians([0, 0, 30])).T
    same, moved, other = bench.hand_errors(np.stack([joints_of(h) for h in (hand, hand + 0.5, turned)]), np.stack([hand] * 3))
    np.testing.assert_allclose([same, moved], 0, atol=1e-4)
    along = np.linalg.norm(joints_of(hand)[1:, :2], axis=1).mean()
    np.testing.assert_allclose(other, [1000 * 2 * np.sin(np.radians(15)) * along, 30, 30], rtol=1e-6)


def test_a_bent_finger_shows_in_its_joints_and_not_in_the_palm(hand):
    bent = joints_of(hand)
    bent[1 + 8] += [0, 0.03, 0]  # the tip of the middle finger
    joints, palm, picture = bench.hand_errors(bent[None], hand[None])[0]
    assert joints == pytest.approx(30 / 15) and palm == picture == pytest.approx(0, abs=1e-4)


def test_true_hands_are_those_that_two_views_agree_on(tmp_path, hand, monkeypatch):
    matrix = np.array([[1000.0, 0, 500], [0, 1000, 400], [0, 0, 1]])
    views = [calibrated.View(n + 1, exp(np.array([0, n * np.pi / 2 + 0.1, 0.0])), np.array([0, 0, 4.0]), matrix) for n in range(4)]
    monkeypatch.setattr(calibrated, "main_person", lambda take: 1)
    takes = []
    for view in views:
        clip = {"name": "a.mp4", "path": None, "bytes": 1, "fingerprint": "f", "width": 1000, "height": 800, "fps": [60, 1], "frame_count": 4,
                "start": 0, "end": 4, "step": 1, "shots": [0]}
        with Take.create(tmp_path / f"{view.number}.take", clip, "lite") as take:
            take.begin("detail", "k" * 8)
            seen = np.zeros((4, 2, 21, 3))
            seen[:, 1, :, :2], seen[:, 1, :, 2] = view.pixels(hand), 0.9
            seen[1, 1, :, 2] = 0.9 * (view.number == 2)  # one view alone
            seen[2, 1, :, :2] += 200 * view.number  # all disagree
            seen[3, 1, :, :2] = view.pixels(2 * hand)  # as large as no hand is
            take.create_array("people/1", "hands_px", "f4", (2, 21, 3))
            take.append("people/1", "hands_px", seen)
            take.finish()
        takes.append(tmp_path / f"{view.number}.take")
    found = bench.true_hands(takes, views)
    assert np.isfinite(found).all((2, 3)).tolist() == [[False, True], [False, False], [False, False], [False, False]]
    np.testing.assert_allclose(found[0, 1], hand, atol=1e-4)


def test_joints_of_both_hands_are_found_by_name():
    names = load().joint_names
    left, right = bench.finger_joints(names)
    assert [names[i] for i in left[[0, 1, 7, 15]]] == ["wrist.L", "finger1-1.L", "finger3-1.L", "finger5-3.L"]
    assert [names[i].replace(".R", ".L") for i in right] == [names[i] for i in left]


def test_the_turn_of_a_head_is_read_to_a_few_degrees():
    count, errors = bench.head_errors(bench.builds()[:1], bench.turns((-28, 0, 28))[::3])
    assert count == len(errors) == 4 and np.abs(errors).max() < 10
