# SPDX-License-Identifier: Apache-2.0
"""Which heels and toes stand: on made paths, on a walk with four-camera truth, on jumps and a backflip."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from body4d_engine.camera_motion import Turns, turns
from body4d_engine.fit import contact, observations
from body4d_engine.fit.contact import Evidence
from body4d_engine.stages.recover import Recover
from body4d_engine.stages.refine import find_stretches

from .tracked import DATA, real_walk, run_stage, tracked_take, visible


def steps(fps, noise_m=0.0, seed=0):
    """A point that stands for 0.6 s and swings 0.6 m in 0.4 s, five times, 4 m away: evidence and truth of four such points."""
    time = np.arange(0, 5, 1 / fps)
    phase, number = time % 1, np.floor(time)
    swing = np.clip((phase - 0.6) / 0.4, 0, 1)
    x = 0.6 * (number + swing**2 * (3 - 2 * swing))
    point = np.zeros((len(time), 4, 3))
    point[..., 0], point[..., 2] = x[:, None], 4
    point[..., :2] += np.random.default_rng(seed).normal(0, noise_m, (len(time), 4, 2))
    return evidence_of(point), phase < 0.6


def evidence_of(points):
    """Of points (T, 4, 3) that are all seen, 0.8 m below the hips of somebody 4 m away."""
    return Evidence(points / np.linalg.norm(points, axis=2, keepdims=True), points, points.mean(1) - [0, 0.8, 0], np.ones(points.shape[:2]),
                    np.full(len(points), 4.0))


def found(evidence, fps):
    stretches = [(0, len(evidence.distance))]
    return contact.stands(contact.probabilities(evidence, 1 / fps, stretches), evidence, 1 / fps, stretches)


def standing_still(samples):
    """Evidence of four points that never move, 4 m away."""
    return evidence_of(np.tile([0.0, 0, 4], (samples, 4, 1)))


@pytest.mark.parametrize("fps", [24, 30, 60, 120, 240])
@pytest.mark.parametrize("noise_m", [0.0, 0.004])
def test_steps_are_told_from_swings_at_any_rate(fps, noise_m):
    evidence, truth = steps(fps, noise_m)
    contacts = found(evidence, fps)
    assert contacts.max() == 20  # five by four, none torn apart
    wrong = (contacts > 0) != truth[:, None]
    assert wrong.mean() < 0.12 and not wrong[np.abs(np.arange(len(truth)) / fps % 1 - 0.3) < 0.2].any()


def test_a_doubtful_moment_is_bridged_and_a_long_one_is_not():
    evidence, truth = steps(30)
    evidence.trust[6:11] = 0  # within the first stance
    evidence.trust[60:80] = 0  # the third stance, unseen
    contacts = found(evidence, 30)
    assert (contacts[6:11] > 0).all() and not contacts[60:80].any()


def test_a_contact_has_a_shortest_length():
    probability = np.zeros((60, 4), np.float32)
    probability[10:12, 0] = probability[30:36, 1] = 1
    contacts = contact.stands(probability, standing_still(60), 1 / 30, [(0, 60)])
    assert not contacts[:, 0].any() and (contacts[30:36, 1] == 1).all() and contacts.max() == 1


def test_contacts_end_with_their_stretch():
    contacts = contact.stands(np.ones((20, 4), np.float32), standing_still(20), 1 / 30, [(0, 10), (10, 20)])
    assert len(np.unique(contacts[:, 0])) == 2 and contacts[9, 0] != contacts[10, 0]


def test_a_shuffle_is_no_contact_but_its_ends_are():
    evidence = standing_still(60)
    evidence.rays[..., 0] += np.clip((np.arange(60) - 20) / 20, 0, 1)[:, None] * 0.3 / 4  # 0.3 m in two thirds of a second
    contacts = contact.stands(np.ones((60, 4), np.float32), evidence, 1 / 30, [(0, 60)])[:, 0]
    assert contacts[0] and contacts[-1] and len(np.unique(contacts[contacts > 0])) >= 2
    for number in np.unique(contacts[contacts > 0]):
        assert np.ptp(4 * evidence.rays[contacts == number, 0, 0]) < 0.16


def test_a_gap_or_an_end_is_no_speed():
    values = np.linspace(0, 1, 30)[:, None, None] * [1.0, 0, 0]  # 29 samples to the metre
    trust = np.ones((30, 1))
    trust[[3, 4, 5, 15, 16]] = 0
    values[trust == 0] = 50
    np.testing.assert_allclose(contact.slopes(values, trust, 1 / 29), 1, atol=1e-4)


def rolling(fps):
    """A foot that stands flat for half a second, then for 0.3 s turns ever faster about its toe until the heel is 0.2 m up, and swings away."""
    time = np.arange(0, 1.2, 1 / fps)
    points = np.zeros((len(time), 4, 3))
    points[..., 2], points[:, [1, 3], 0] = 4, 0.2
    points[..., 0] += 3 * np.maximum(time - 0.8, 0)[:, None]
    points[:, [0, 2], 1] -= 0.2 * (np.clip((time - 0.5) / 0.3, 0, 1) ** 2)[:, None]
    return evidence_of(points), time


@pytest.mark.parametrize("fps", [24, 30, 60, 120])
def test_a_heel_leaves_when_the_foot_begins_to_roll(fps):
    evidence, time = rolling(fps)
    contacts = found(evidence, fps)
    heel, toe = (time[np.flatnonzero(contacts[:, point])[-1]] for point in (0, 1))
    assert abs(heel - 0.5) < 0.06 and abs(toe - 0.8) < 0.08
    back = Evidence(*(np.ascontiguousarray(getattr(evidence, name)[::-1]) for name in Evidence.__dataclass_fields__))
    np.testing.assert_array_equal(found(back, fps) > 0, contacts[::-1] > 0)  # a foot comes down as it leaves, backwards


def test_feet_in_the_air_over_the_hips_stand_on_nothing():
    evidence = standing_still(60)
    evidence.hips[:30] = [0, 0.8, 4]
    contacts = found(evidence, 30)
    assert not contacts[:28].any() and (contacts[32:] > 0).all()
    evidence.hips[:] = [0, 0.3, 4.8]  # lying, away from a camera that looks down
    assert (found(evidence, 30) > 0).all()


def test_a_camera_that_turns_makes_nobody_slide(tmp_path):
    """Someone stands still before a camera that turns by half a radian a second: whatever is far from the middle of the picture still stands."""
    walk = real_walk(1)
    still, metres = np.repeat(walk.px[:1], 45, 0).astype(float), np.repeat(walk.metres[:1], 45, 0)
    turned = Rotation.from_rotvec(np.linspace(0, 0.75, 45)[:, None] * [0, 1.0, 0]).as_matrix()
    rays = np.concatenate([(still[..., :2] - walk.centre) / walk.focal, np.ones((45, 33, 1))], 2)
    rays = np.einsum("nij,nkj->nki", turned @ turned[22].T, rays)
    still[..., :2] = rays[..., :2] / rays[..., 2:] * walk.focal + walk.centre
    take, persons, clip = tracked_take(tmp_path / "a.take", [(still, metres, visible(45))], walk.focal, walk.centre, (3000, 1920), 60)
    run_stage(Recover(), take, persons, clip)
    known = observations.survey(take, 1)
    evidence = contact.gather(take, 1, known, Turns(turned, np.ones(45, bool)))
    assert 4 * np.linalg.norm(np.diff(evidence.rays[:, [1, 3]], axis=0), axis=2).max() * 60 < 0.05  # m/s
    take.close()


def probabilities(take):
    known = observations.survey(take, 1)
    evidence = contact.gather(take, 1, known, turns(take, known.spacing_s))
    return contact.probabilities(evidence, known.spacing_s, find_stretches(known)[0])


# Samples in which a point of the walk stands: slower than 0.5 m/s and within 6 cm of its lowest place, by four-camera triangulation of the same
# landmarks, low-passed at 6 Hz.
STANDING = {"left_heel": [(0, 79)], "left_big_toe": [(0, 22), (25, 82)], "right_heel": [(0, 10), (78, 100)], "right_big_toe": [(0, 14), (78, 100)]}


def test_a_real_walk(tmp_path):
    walk = real_walk(1)
    take, persons, clip = tracked_take(tmp_path / "a.take", [(walk.px, walk.metres, visible(100))], walk.focal, walk.centre, walk.size, walk.fps)
    run_stage(Recover(), take, persons, clip)
    ours = probabilities(take) > 0.5
    truth = np.zeros_like(ours)
    for point, name in enumerate(contact.POINTS):
        for begin, stop in STANDING[name]:
            truth[begin:stop, point] = True
    assert (ours & truth).sum() / ours.sum() > 0.88 and (ours & truth).sum() / truth.sum() > 0.97
    take.close()


@pytest.fixture(scope="module")
def acrobat(tmp_path_factory):
    """The acrobat of Sports2D's demo (BlazePose landmarks as tracked, BSD-3-Clause): jumping jacks on a roof, a backflip off it."""
    with np.load(DATA / "landmarks_backflip.npz") as file:
        focal, cx, cy, width, height = file["camera"].astype(float)
        track = file["landmarks_px"], file["landmarks_m"].astype(np.float32), file["state"]
    take, persons, clip = tracked_take(tmp_path_factory.mktemp("a") / "a.take", [track], focal, (cx, cy), (int(width), int(height)), 30)
    run_stage(Recover(), take, persons, clip)
    yield SimpleNamespace(take=take, contact=probabilities(take))
    take.close()


@pytest.mark.parametrize("first, last", [(14, 18), (30, 36), (47, 55), (65, 69), (169, 189)])
def test_jumps_and_a_backflip_stay_airborne(acrobat, first, last):
    """Frames in which both shoes are off the ground, seen by eye."""
    assert (acrobat.contact[first : last + 1] < 0.5).all()


@pytest.mark.parametrize("first, last", [(1, 7), (22, 26), (40, 42), (76, 86)])
def test_landings_between_jumps_stand(acrobat, first, last):
    assert (acrobat.contact[first : last + 1] > 0.5).mean() > 0.9
