# SPDX-License-Identifier: Apache-2.0
"""A person's shape: found from key frames, and of the height that was asked for."""

import numpy as np
import pytest

from body4d_engine.fit.shape import average_shape, key_samples, solve_shape
from body4d_engine.models.anny.body import load
from body4d_engine.models.anny.pose import Rig, pose_model

from .test_fit_solver import motion, seen_by_camera


def solved(seen, height_m=None):
    steps, progress = solve_shape(pose_model(), seen, height_m), []
    while True:
        try:
            progress.append(next(steps))
        except StopIteration as end:
            assert [done for done, _ in progress] == list(range(1, len(progress) + 1)) and progress[-1][0] <= progress[-1][1]
            return end.value


def phenotypes(**known):
    return np.array([{"age": 2 / 3, "height": 0.37, **known}.get(name, 0.5) for name in load().phenotypes])


@pytest.mark.parametrize("true", [dict(height=0.25), dict(height=0.5), dict(age=0.4, height=0.4)], ids=["small", "tall", "child"])
def test_size_follows_the_landmarks_in_space(true):
    rig = Rig(pose_model(), load().rest(phenotypes(**true)))
    shape = solved(seen_by_camera(rig, motion(120)[::5]))
    assert shape.scale == 1 and shape.landmark_scale == 1
    assert load().rest(shape.phenotypes).height == pytest.approx(rig.rest.height, abs=0.06 if "age" not in true else 0.1)


@pytest.mark.parametrize("height_m", [1.1, 1.55, 1.95])
def test_a_known_height_is_met_exactly(height_m):
    true = Rig(pose_model(), load().rest(phenotypes()))  # 1.70 m, as BlazePose sees everyone
    shape = solved(seen_by_camera(true, motion(120)[::5]), height_m)
    assert shape.rig(pose_model()).rest.height == pytest.approx(height_m, abs=1e-6)
    assert shape.landmark_scale == pytest.approx(height_m / 1.70, rel=0.06)
    assert 0.9 < shape.scale < 1.1  # phenotypes, not blowing up, make most of it


def test_an_unseen_person_is_average_or_as_tall_as_asked():
    assert average_shape(pose_model()).rig(pose_model()).rest.height == pytest.approx(1.70, abs=0.01)
    for height_m in (0.6, 1.2, 1.8, 2.3):
        assert average_shape(pose_model(), height_m).rig(pose_model()).rest.height == pytest.approx(height_m, abs=1e-6)


def test_key_samples_are_spread_and_visible():
    visibility = np.tile([0.2, 0.9, 0.5], 40)
    chosen = key_samples(visibility, np.arange(120) >= 20)
    assert len(chosen) == 24 and chosen.min() >= 20 and (visibility[chosen] == 0.9).all() and np.diff(chosen).max() <= 8
    assert key_samples(visibility, np.zeros(120, bool)).tolist() == []
    assert key_samples(visibility[:2], np.ones(2, bool)).tolist() == [0, 1]
