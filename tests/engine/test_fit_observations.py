# SPDX-License-Identifier: Apache-2.0
"""What of a track a fit is given, and how far it is trusted."""

import numpy as np
import pytest

from body4d_engine.fit import flips, observations
from body4d_engine.models.anny.pose import KEYPOINTS, LANDMARKS
from body4d_engine.runs import runs
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
    for name in ("state", "seen", "visibility", "steady", "doubtful", "flipped", "swapped"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(observations.survey(take, 1), name))


def test_a_limb_swapped_for_a_moment_comes_out_right(tmp_path):
    walk = real_walk(1)
    pixels, metres = walk.px.copy(), walk.metres.copy()
    for values in (pixels, metres):
        values[40:50, 25:33] = values[40:50, flips.SWAP[25:33]]
    take, _, _ = tracked_take(tmp_path / "a.take", [(pixels, metres, visible(100))], walk.focal, walk.centre, walk.size, 60)
    with take:
        known = observations.survey(take, 1)
        seen = observations.read(take, 1, np.arange(100), known)
        assert runs(known.swapped[:, 3]) == [(40, 50)] and not known.swapped[:, :3].any() and not known.flipped.any()
        np.testing.assert_allclose(seen.xy, walk.px[:, LANDMARKS, :2])


def test_what_is_squeezed_is_hidden_and_hardly_weighs(tmp_path):
    walk = real_walk(1)
    metres = walk.metres.copy()
    metres[30:60] *= 0.55
    take, _, _ = tracked_take(tmp_path / "a.take", [(walk.px, metres, visible(100))], walk.focal, walk.centre, walk.size, 60)
    with take:
        known = observations.survey(take, 1)
        seen = observations.read(take, 1, np.arange(100), known)
        assert (known.state[30:60] == State.OCCLUDED).all() and (known.state[:30] == State.VISIBLE).all() and known.seen.all()
        assert known.doubtful[30:60].all() and not known.doubtful[:30].any()
        assert 0 < seen.visibility[40].max() <= 0.051 and seen.visibility[20].mean() > 0.8


def test_samples_as_a_fit_gets_them(take):
    walk, known = real_walk(1), observations.survey(take, 1)
    seen = observations.read(take, 1, np.arange(38, 75), known)
    assert np.isfinite(seen.xy).all() and np.isfinite(seen.world).all()
    assert seen.weight[0] == 1 and 0 < seen.weight[3] < 0.5 and seen.weight[-1] == 0 and (seen.visibility[-1] == 0).all()
    np.testing.assert_allclose(seen.xy[3], walk.px[41][LANDMARKS, :2])  # sides are put right again
    hips = seen.world[:, [KEYPOINTS.index("left_hip"), KEYPOINTS.index("right_hip")]].mean(1)
    np.testing.assert_allclose(hips, 0, atol=1e-6)
    assert seen[5:7].focal.shape == (2,) and len(seen) == 37


def test_landmarks_in_space_are_turned_from_the_line_of_sight_to_the_cameras_axes():
    ahead = np.array([[[0.0, 0, 1]]])
    for x, y in ((300.0, -500.0), (0.0, 0.0), (-900.0, 10.0)):
        turned = observations.from_sight(ahead, np.array([[x, y]]), np.array([1000.0]))[0, 0]
        assert turned == pytest.approx(np.array([x, y, 1000]) / np.linalg.norm([x, y, 1000]), abs=1e-12)
    random = np.random.default_rng(0).normal(size=(1, 7, 3))
    assert observations.from_sight(random, np.zeros((1, 2)), np.array([1000.0])) == pytest.approx(random)
    aside = observations.from_sight(random, np.array([[400.0, 200]]), np.array([1000.0]))
    assert np.linalg.norm(aside, axis=-1) == pytest.approx(np.linalg.norm(random, axis=-1))
