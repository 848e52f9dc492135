# SPDX-License-Identifier: Apache-2.0
"""Arms whose tilt in depth was taken for its mirror image."""

import numpy as np
import pytest

from body4d_engine.fit import residuals, tilt
from body4d_engine.fit.observations import Observations
from body4d_engine.fit.residuals import Poses
from body4d_engine.models.anny.body import load
from body4d_engine.models.anny.pose import KEYPOINTS, Rig, neutral_phenotypes, pose_model

SHOULDER, WRIST = KEYPOINTS.index("left_shoulder"), KEYPOINTS.index("left_wrist")
COUNT = 30


@pytest.fixture(scope="module")
def rig():
    return Rig(pose_model(), load().rest(neutral_phenotypes(load())))


def raised(turn):
    """Somebody 4 m away whose left arm is turned by that much about the picture's vertical axis."""
    theta = np.zeros((COUNT, pose_model().angles))
    theta[:, pose_model().names.index("arm.L:1")] = turn
    return Poses(np.tile([0.0, 0.0, 4.0], (COUNT, 1)), np.tile(np.eye(3), (COUNT, 1, 1)), theta)


def observed(rig, poses):
    keypoints = rig.keypoints(*rig.pose(poses.rotation, poses.theta))
    points = keypoints + poses.position[:, None]
    ones = np.ones(points.shape[:2])
    return Observations(1500 * points[..., :2] / points[..., 2:], ones, residuals.about_hips(keypoints), ones, np.ones(COUNT, bool), np.ones(COUNT),
                        np.full(COUNT, 1500.0), np.zeros((COUNT, 2)))


def depth(rig, poses):
    """(N,) of the left wrist from its shoulder."""
    keypoints = rig.keypoints(*rig.pose(poses.rotation, poses.theta))
    return keypoints[:, WRIST, 2] - keypoints[:, SHOULDER, 2]


def test_an_arm_that_tilts_the_wrong_way_is_turned_round_and_nothing_else(rig):
    towards, away = sorted((raised(1.0), raised(-1.0)), key=lambda poses: depth(rig, poses)[0])
    seen = observed(rig, towards)
    arms = tilt.contested(rig, away, seen, 1.0, 1 / 30)
    assert arms[:, WRIST].all() and not arms[:, SHOULDER].any() and not arms[:, KEYPOINTS.index("right_wrist")].any()
    found = tilt.tilted(rig, away, seen, 1.0, 1 / 30)
    assert np.abs(depth(rig, found) - depth(rig, towards)).max() < 0.5 * np.abs(depth(rig, away) - depth(rig, towards)).min()


def test_who_agrees_or_is_hardly_seen_or_only_for_a_moment_stays_as_fitted(rig):
    towards, away = sorted((raised(1.0), raised(-1.0)), key=lambda poses: depth(rig, poses)[0])
    seen = observed(rig, towards)
    assert tilt.tilted(rig, towards, seen, 1.0, 1 / 30) is towards
    seen.solid[:] = 0.1
    assert tilt.tilted(rig, away, seen, 1.0, 1 / 30) is away
    seen.solid[:] = 1.0
    brief = towards.chosen(np.isin(np.arange(COUNT), range(12, 17)), away)
    assert tilt.tilted(rig, brief, seen, 1.0, 1 / 30) is brief
