# SPDX-License-Identifier: Apache-2.0
"""What of a track a fit is given, and how far it is trusted."""

import numpy as np
import pytest

from body4d_engine.fit import flips, observations
from body4d_engine.models.anny.pose import KEYPOINTS, LANDMARKS
from body4d_engine.take import State

from .tracked import real_walk, tracked_take, visible


@pytest.fixture
def take(tmp_path):
    walk = real_walk(1)
    pixels, metres, state = walk.px.copy(), walk.metres.copy(), visible(100)
    pixels[40:45], metres[40:45] = flips.repair(pixels[40:45], metres[40:45])
    pixels[60:62, :, 2] = 0  # a tracker that says visible and has nothing to show
    state[70:75] = State.ABSENT
    pixels[80, 11, 0] = np.inf
    take, _, _ = tracked_take(tmp_path / "a.take", [(pixels, metres, state)], walk.focal, walk.centre, walk.size, 60, step=2, shots=(0, 31, 100))
    yield take
    take.close()


def test_survey(take):
    known = observations.survey(take, 1, (0, 31, 100, 5000))
    assert np.flatnonzero(~known.seen).tolist() == [60, 61, 70, 71, 72, 73, 74, 80]
    assert np.flatnonzero(known.flipped).tolist() == list(range(40, 45))
    assert known.state[60] == State.OCCLUDED and known.state[70] == State.ABSENT and known.state[0] == State.VISIBLE
    assert known.spacing_s == pytest.approx(2 / 60)
    assert known.cuts == {16, 50}  # the first sample of each shot, with every second frame used
    assert known.shot_of()[[0, 15, 16, 49, 50, 99]].tolist() == [0, 0, 1, 1, 2, 2]


def test_survey_does_not_depend_on_its_blocks(take, monkeypatch):
    whole = observations.survey(take, 1)
    monkeypatch.setattr(observations, "BLOCK", 9)
    for name in ("state", "seen", "visibility", "flipped"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(observations.survey(take, 1), name))


def test_samples_as_a_fit_gets_them(take):
    walk, known = real_walk(1), observations.survey(take, 1)
    seen = observations.read(take, 1, np.arange(38, 75), known)
    assert np.isfinite(seen.xy).all() and np.isfinite(seen.world).all()
    assert seen.weight[0] == 1 and 0 < seen.weight[3] < 0.5 and seen.weight[-1] == 0 and (seen.visibility[-1] == 0).all()
    np.testing.assert_allclose(seen.xy[3], walk.px[41][LANDMARKS, :2])  # sides are put right again
    hips = seen.world[:, [KEYPOINTS.index("left_hip"), KEYPOINTS.index("right_hip")]].mean(1)
    np.testing.assert_allclose(hips, 0, atol=1e-6)
    assert seen[5:7].focal.shape == (2,) and len(seen) == 37


def test_landmarks_at_and_beyond_the_edge_of_the_frame_count_less():
    weights = observations._inside(np.array([[960.0, 540], [960, 1070], [960, 1079], [-50, 540], [1900, 540]]), 1920, 1080)
    assert weights[0] == 1 and 0.15 < weights[1] < 0.2 and weights[2] == weights[3] == 0.15 and 0.3 < weights[4] < 0.4
