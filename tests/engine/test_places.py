# SPDX-License-Identifier: Apache-2.0
"""Where contacts stand: one place each, a foot's length apart, on one ground."""

import numpy as np
import pytest

from body4d_engine.fit.contact import INDEX
from body4d_engine.fit.places import _plane, find_places
from body4d_engine.fit.record import from_params
from body4d_engine.fit.shape import average_shape
from body4d_engine.models.anny.pose import pose_model

SPACING_S = 1 / 30


@pytest.fixture(scope="module")
def rig():
    return average_shape(pose_model()).rig(pose_model())


def standing(samples: int, way=(0, 0, 0)) -> np.ndarray:
    """(N, 60) params of somebody upright, 4 m away and 0.9 m below the camera, who drifts by `way` metres a sample."""
    params = np.zeros((samples, 60))
    params[:, :3] = np.array([0, 0.9, 4.0]) + np.arange(samples)[:, None] * np.array(way)
    return params


def places_of(rig, params, contacts, shot=None):
    samples = len(params)
    return find_places(rig, params, contacts, np.tile(np.eye(3), (samples, 1, 1)), np.zeros(samples, int) if shot is None else shot, SPACING_S)


def feet_of(rig, params):
    poses = from_params(params)
    return rig.keypoints(*rig.pose(poses.rotation, poses.theta))[:, INDEX] + poses.position[:, None]


def test_a_place_is_where_most_of_the_contact_lies(rig):
    params = standing(40)
    params[:, 0] += np.random.default_rng(0).normal(0, 0.005, 40)
    params[5:8, 2] += 0.6  # a blunder
    contacts = np.zeros((40, 4), np.int32)
    contacts[2:30, 1] = 7
    places = places_of(rig, params, contacts)
    assert (places[2:30, 1] == places[2, 1]).all() and not places[:2].any() and not places[:, 0].any()
    truth = feet_of(rig, standing(1))[0, 1] + [np.median(params[2:30, 0]), 0, 0]
    np.testing.assert_allclose(places[2, 1], truth, atol=0.003)


def test_heel_and_toe_stay_a_foot_apart_however_the_body_drifts(rig):
    params = standing(40, (0, 0, 0.04))  # away, as fits without contacts do
    contacts = np.zeros((40, 4), np.int32)
    contacts[:16, 0], contacts[10:34, 1], contacts[30:, 0] = 1, 2, 3  # the heel, the toe, and the heel of the same foot that comes down again
    places = places_of(rig, params, contacts)
    length = np.linalg.norm(feet_of(rig, params)[0, 0] - feet_of(rig, params)[0, 1])
    for heel in (0, 35):
        assert abs(np.linalg.norm(places[heel, 0] - places[20, 1]) - length) < 1e-3
    np.testing.assert_allclose(places[0, 0], places[35, 0], atol=1e-3)


def steps(rig, wrong_m: float):
    """Params and contacts of somebody who takes twelve steps of 0.4 s to the side and away; the fit has the fifth so much too far away."""
    params, contacts = standing(144, (0.01, 0, 0.01)), np.zeros((144, 4), np.int32)
    for number in range(12):
        part, foot = slice(12 * number, 12 * number + 12), 2 * (number % 2)
        params[part] = params[part.start]
        contacts[part, foot : foot + 2] = [2 * number + 1, 2 * number + 2]
    there = np.linalg.norm(params[48, :3])
    params[48:60, :3] *= 1 + wrong_m / there
    return params, contacts


def test_a_step_that_is_too_far_away_comes_back_to_the_ground_along_its_sight(rig):
    params, contacts = steps(rig, 0.2)
    true, _ = steps(rig, 0.0)
    places, truth, fitted = places_of(rig, params, contacts), feet_of(rig, true), feet_of(rig, params)
    before, after = (np.linalg.norm(found[50, 0] - truth[50, 0]) for found in (fitted, places))
    assert before > 0.19 and after < 0.6 * before  # the ground has to come from somewhere
    sights = [point / np.linalg.norm(point) for point in (places[50, 0], fitted[50, 0])]
    np.testing.assert_allclose(*sights, atol=0.01)
    others = np.r_[0:48, 60:144]
    rows, points = np.nonzero(contacts[others])
    assert np.linalg.norm(places[others][rows, points] - truth[others][rows, points], axis=1).max() < 0.04


def test_another_shot_has_another_ground(rig):
    params, contacts = steps(rig, 0.3)
    alone = np.zeros(144, int)
    alone[48:60] = 1
    alone[60:] = 2
    np.testing.assert_allclose(places_of(rig, params, contacts, alone)[50], places_of(rig, params[48:60], contacts[48:60])[2], atol=1e-5)


def test_a_steep_camera_finds_the_ground_from_upright_bodies_and_steps():
    rng = np.random.default_rng(0)
    pitch = np.radians(40)
    up = np.array([0, -np.cos(pitch), -np.sin(pitch)])
    across = np.linalg.svd(up[None])[2][1:]
    places = np.array([0, 0, 5.0]) + rng.uniform(-1.5, 1.5, (16, 2)) @ across
    sight = places / np.linalg.norm(places, axis=1, keepdims=True)
    places = places + sight * rng.normal(0, 0.1, (16, 1))
    leaning = up + 0.15 * across[0]
    found, level = _plane(places, np.zeros(16), sight, leaning)
    assert np.degrees(np.arccos(found @ up / np.linalg.norm(found))) < 5
