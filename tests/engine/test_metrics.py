# SPDX-License-Identifier: Apache-2.0
"""Every number on motions whose answer is known beforehand."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from body4d_engine.metrics import (
    FEET,
    MPJPE,
    PAMPJPE,
    PVE,
    RTE,
    WAMPJPE,
    WMPJPE,
    Acceleration,
    AccelerationError,
    ContactPrecision,
    ContactRecall,
    FilteredJitterRatio,
    FocalRatio,
    FootSliding,
    Jitter,
    JitterRatio,
    Motion,
    PeakLag,
    PoseJitter,
    RelativeReprojectionError,
    ReprojectionError,
    RootDepthError,
    RootError,
    RootJitter,
    SeenFootSliding,
    SelfPenetration,
    SkatingRatio,
    TrueFootSliding,
    WorstFootSliding,
    low_pass,
)
from body4d_engine.metrics.penetration import closed, winding_numbers

from .bodies import ball

FPS = 30.0
NAMES = ("left_hip", "right_hip", "left_knee", "right_knee", "left_wrist", "right_wrist", "nose", "left_elbow")
BODY = np.array([[0.1, 0, 0], [-0.1, 0, 0], [0.1, 0.4, 0.05], [-0.1, 0.4, 0], [0.4, -0.2, -0.2], [-0.4, -0.3, 0], [0, -0.7, -0.1], [0.3, -0.3, 0.1]])
FOOT_AT_REST = np.array([[0.1, 0.9, 4.1], [0.1, 0.92, 3.9], [-0.1, 0.9, 4.1], [-0.1, 0.92, 3.9]])


def motion(samples=60, way=(0, 0, 0), fps=FPS, body=BODY, names=NAMES, **more):
    """The body at z = 4 m, moved by `way` (3,) metres per sample or (T, 3)."""
    way = np.asarray(way, float)
    place = np.arange(samples)[:, None] * way if way.ndim == 1 else way
    return Motion(body + place[:, None] + [0, 0, 4], fps, names, **more)


def circling(radius=0.2, hz=1.5, samples=60):
    angle = 2 * np.pi * hz * np.arange(samples) / FPS
    return motion(way=radius * np.stack([np.cos(angle), 0 * angle, np.sin(angle)], 1)), 2 * np.sin(np.pi * hz / FPS)


def noisy(of, size=0.02, seed=0):
    return Motion(of.joints_m + np.random.default_rng(seed).normal(0, size, of.joints_m.shape), of.fps, of.names)


# -- smoothness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [Jitter(), PoseJitter(), RootJitter(), Acceleration()])
def test_a_steady_walk_does_not_tremble(metric):
    result = metric(motion(way=(0.04, 0, 0.01)))
    assert result.value == pytest.approx(0, abs=1e-6) and result.count in (57, 58) and len(result.per_sample) == 60


def test_jitter_and_acceleration_of_a_circle():
    """On a circle every difference shortens by the chord: |d^n x| = r (2 sin(w dt / 2))^n."""
    circle, chord = circling(radius=0.2)
    assert Jitter()(circle).value == pytest.approx(0.2 * chord**3 * FPS**3 / 10, rel=1e-9)
    assert RootJitter()(circle).value == pytest.approx(Jitter()(circle).value, rel=1e-9)
    assert PoseJitter()(circle).value == pytest.approx(0, abs=1e-6)
    assert Acceleration()(circle).value == pytest.approx(1000 * 0.2 * chord**2, rel=1e-9)


def test_jitter_of_a_sine():
    hz, wave = 3.0, motion(samples=int(5 * FPS) + 3)
    phase = 2 * np.pi * hz * np.arange(len(wave)) / FPS
    wave.joints_m[..., 1] += 0.01 * np.sin(phase)[:, None]
    third = 0.01 * (2 * np.sin(np.pi * hz / FPS)) ** 3 * np.abs(np.cos(phase[:-3] + 3 * np.pi * hz / FPS))
    assert Jitter()(wave).value == pytest.approx((third * FPS**3 / 10).mean(), rel=1e-9)


def test_no_difference_over_cuts_and_absences():
    jump = motion(way=np.where(np.arange(60)[:, None] < 30, 0.0, 1.0) * [1, 0, 0])
    assert Jitter()(jump).value > 100
    cut = Jitter()(Motion(jump.joints_m, FPS, NAMES, cuts=(30,)))
    assert cut.value == pytest.approx(0, abs=1e-6) and cut.count == 54
    jump.joints_m[28:32] = np.nan
    gone = Jitter()(jump)
    assert gone.value == pytest.approx(0, abs=1e-6) and gone.count == 25 + 25 and np.isnan(gone.per_sample[26:33]).all()
    assert "not defined" in Jitter()(motion(samples=3)).note


# -- accuracy ---------------------------------------------------------------------------------------------------------


def test_mpjpe_is_the_mean_distance_from_the_hips():
    truth, ours = motion(), motion(way=np.tile([0.5, 0, 1.0], (60, 1)))
    assert MPJPE()(ours, truth).value == pytest.approx(0, abs=1e-9)
    ours.joints_m[:, NAMES.index("nose")] += [0, 0.03, 0.04]
    assert MPJPE()(ours, truth).value == pytest.approx(50 / len(NAMES))
    truth.joints_m[10:, NAMES.index("nose")] = np.nan  # a joint that is not known does not count
    result = MPJPE()(ours, truth)
    assert result.per_sample[9] == pytest.approx(50 / 8) and result.per_sample[10] == pytest.approx(0, abs=1e-9) and result.count == 60
    truth.joints_m[30:, 0] = np.nan  # nor a sample without hips
    assert MPJPE()(ours, truth).count == 30


def test_pa_mpjpe_takes_out_place_turn_and_size():
    truth = motion()
    turn = Rotation.from_rotvec([0.3, -1.0, 0.5])
    ours = Motion(1.2 * turn.apply(truth.joints_m.reshape(-1, 3)).reshape(truth.joints_m.shape) + [1, 2, 3], FPS, NAMES)
    assert PAMPJPE()(ours, truth).value == pytest.approx(0, abs=1e-9) and MPJPE()(ours, truth).value > 300
    shaken = noisy(ours)
    expected = []
    for x, y in zip(shaken.joints_m, truth.joints_m):
        x, y = x - x.mean(0), y - y.mean(0)
        best = Rotation.align_vectors(y, x)[0].apply(x)
        expected.append(np.linalg.norm((best * y).sum() / (best**2).sum() * best - y, axis=1).mean())
    assert PAMPJPE()(shaken, truth).value == pytest.approx(1000 * np.mean(expected), rel=1e-6)
    mirrored = Motion(truth.joints_m * [-1, 1, 1], FPS, NAMES)
    assert PAMPJPE()(mirrored, truth).value > 10  # a mirror image is no rotation


def test_pve_needs_the_same_mesh():
    vertices = ball(0.3)[0] + [0, 0, 4]
    truth = motion(vertices_m=np.tile(vertices, (60, 1, 1)))
    ours = motion(way=np.tile([0.5, 0, 0], (60, 1)), vertices_m=np.tile(vertices + [0.5, 0, 0.01], (60, 1, 1)))
    assert PVE()(ours, truth).value == pytest.approx(10)
    other = motion(vertices_m=np.zeros((60, 5, 3)))
    assert "5 and" in PVE()(other, truth).note and np.isnan(PVE()(other, truth).value)
    assert "no vertices" in PVE()(ours, motion()).note


def test_acceleration_error_is_of_what_the_other_does_not_do():
    circle, chord = circling()
    ours = motion()
    ours.joints_m[:, 2:] += (circle.joints_m - motion().joints_m)[:, :1]  # all but the hips go round
    assert AccelerationError()(ours, motion()).value == pytest.approx(0.2 * chord**2 * FPS**2 * 6 / 8, rel=1e-9)
    assert AccelerationError()(ours, ours).value == 0


def test_root_errors():
    ours = motion(way=np.tile([0.03, 0, 0.04], (60, 1)))
    assert RootError()(ours, motion()).value == pytest.approx(50) and RootDepthError()(ours, motion()).value == pytest.approx(40)


def test_rte_is_a_share_of_the_way():
    truth = motion(way=(0.05, 0, 0))
    ours = motion(way=(0.055, 0, 0))
    x = np.arange(60) * 0.05
    expected = 100 * np.abs(0.1 * (x - x.mean())).mean() / x[-1]
    assert RTE()(ours, truth).value == pytest.approx(expected, rel=1e-9)
    turned = Motion(ours.joints_m @ Rotation.from_rotvec([0.2, 1.0, 0]).as_matrix().T + 3, FPS, NAMES)
    assert RTE()(turned, truth).value == pytest.approx(expected, rel=1e-9)
    assert "cm long" in RTE()(ours, motion()).note


def test_w_and_wa_mpjpe():
    truth = motion(samples=250, way=(0.02, 0, 0))
    turned = Motion(0.9 * truth.joints_m @ Rotation.from_rotvec([0, 1.0, 0]).as_matrix().T, FPS, NAMES)
    assert WMPJPE()(turned, truth).value == pytest.approx(0, abs=1e-6) and WAMPJPE()(turned, truth).value == pytest.approx(0, abs=1e-6)
    faster = motion(samples=250, way=(0.022, 0, 0))
    drift = WMPJPE()(faster, truth).per_sample  # starts anew with each 100
    assert drift[[0, 1, 100, 101, 200]].max() < 2 and drift[99] == pytest.approx(2 * 99, rel=0.1) and drift[249] == pytest.approx(2 * 49, rel=0.1)
    assert WAMPJPE()(faster, truth).value < 0.6 * WMPJPE()(faster, truth).value
    truth.joints_m[20:40] = np.nan  # chunks are of 100 known samples
    drift = WMPJPE()(faster, truth)
    assert drift.count == 230 and np.isnan(drift.per_sample[30]) and drift.per_sample[120] < 2 < drift.per_sample[119]


def test_focal_ratio():
    assert FocalRatio()(motion(focal_px=np.full(60, 1100.0)), motion(focal_px=np.full(60, 1000.0))).value == pytest.approx(1.1)
    assert not FocalRatio()(motion(focal_px=np.full(60, 1100.0)), motion()).defined


# -- timing -----------------------------------------------------------------------------------------------------------


def swinging(late=0.0, noise=0.0, samples=200):
    """Wrists that swing at 0.7 and 1.3 Hz, `late` samples behind, under noise of 12 Hz."""
    out, time = motion(samples=samples), np.arange(samples) / FPS
    for joint, hz in ((4, 0.7), (5, 1.3)):
        out.joints_m[:, joint, 1] += 0.2 * np.sin(2 * np.pi * hz * (time - late / FPS)) + 0.1 * np.sin(2 * np.pi * hz * 0.37 * (time - late / FPS))
        out.joints_m[:, joint, 0] += noise * np.sin(2 * np.pi * 12 * time)
    return out


def test_jitter_ratio_raw_and_filtered():
    truth, clean = swinging(noise=0.01), swinging()
    larger = Motion(3 * truth.joints_m, FPS, NAMES)
    assert JitterRatio()(larger, truth).value == pytest.approx(3)
    assert JitterRatio()(clean, truth).value < 0.2
    assert FilteredJitterRatio()(clean, truth).value == pytest.approx(1, abs=0.15)
    assert FilteredJitterRatio()(truth, truth).value > 5
    assert "too few" in FilteredJitterRatio()(Motion(truth.joints_m, 10, NAMES), Motion(truth.joints_m, 10, NAMES)).note
    assert not JitterRatio()(clean, motion(samples=200)).defined


def test_the_low_pass_has_no_lag_and_stays_within_gaps_and_cuts():
    wave = np.sin(2 * np.pi * 1.0 * np.arange(200) / FPS)[:, None, None] * np.ones((1, 2, 3))
    assert np.abs(low_pass(wave, FPS) - wave)[20:-20].max() < 2e-3
    wave[100:, 0] = np.nan
    jump = low_pass(wave, FPS, cuts=(150,))
    assert np.isnan(jump[100:, 0]).all() and np.isfinite(jump[:100]).all() and np.isfinite(jump[:, 1]).all()
    wave[150:, 1] += 5
    assert np.abs(low_pass(wave, FPS, cuts=(150,))[:, 1] - low_pass(wave, FPS)[:, 1]).max() > 0.5
    assert np.isnan(low_pass(wave[:9], FPS)).all()


@pytest.mark.parametrize("late", [-3.0, 0.0, 0.4, 1.0, 2.75])
def test_peak_lag_between_samples(late):
    lag = PeakLag()(swinging(late, noise=0.01), swinging())
    assert lag.value == pytest.approx(late, abs=0.05), lag.note


def test_no_peaks_no_lag():
    assert "no common peaks" in PeakLag()(noisy(motion(200)), noisy(motion(200), seed=1)).note
    assert not PeakLag()(motion(), motion()).defined


# -- feet -------------------------------------------------------------------------------------------------------------


def feet(points=None, samples=60, **more):
    return Motion(np.tile(FOOT_AT_REST, (samples, 1, 1)) if points is None else points, FPS, FEET, **more)


def test_sliding_of_feet_that_should_stand():
    points = feet().joints_m
    points[:, :2] += np.arange(60)[:, None, None] * [0.003, 0, 0.004]  # the left foot glides by 5 mm per frame
    points[40, 2:] += [0.012, 0, 0]  # the right one jumps once, and back
    gliding = feet(points)
    assert FootSliding("left")(gliding).value == pytest.approx(5)
    assert FootSliding("right")(gliding).value == pytest.approx(12 * 2 / 59)
    both = FootSliding()(gliding)
    assert both.value == pytest.approx((5 + 12 * 2 / 59) / 2) and both.per_sample[41] == pytest.approx(8.5) and np.isnan(both.per_sample[0])
    worst = WorstFootSliding()(gliding)
    assert worst.value == pytest.approx(12) and "frame 40" in worst.note and worst.per_sample[40] == pytest.approx(12)
    assert SkatingRatio()(gliding).value == pytest.approx(100 * 4 / (59 * 4))  # only the jump is faster than 0.2 m/s
    assert FootSliding()(feet()).value == 0


@pytest.mark.parametrize("pitch", [-0.3, 0.0, 0.35])
def test_feet_in_the_air_are_not_planted(pitch):
    """A walk over a floor that the camera looks at from above, then a jump: only the stance counts."""
    points = feet(samples=120).joints_m
    stride = np.concatenate([np.zeros(12), np.linspace(0, 0.8, 8)])  # 12 frames of stance, 8 of swing
    lift = np.concatenate([np.zeros(12), 0.12 * np.sin(np.linspace(0.2, np.pi - 0.2, 8))])
    for side, shift in ((slice(0, 2), 0), (slice(2, 4), 10)):
        steps = (np.arange(100) + shift) // 20 * 0.8 + np.roll(np.tile(stride, 5), -shift)
        points[:100, side, 2] += (steps - steps[0])[:, None]
        points[:100, side, 1] -= np.roll(np.tile(lift, 5), -shift)[:, None]
    points[100:, :, 2] = points[99, :, 2]
    points[100:, :, 1] -= 0.4 * np.sin(np.linspace(0.1, np.pi, 20))[:, None]  # airborne
    walk = feet(points @ Rotation.from_rotvec([pitch, 0, 0]).as_matrix().T)
    result = FootSliding()(walk)
    assert result.value < 1.0 and np.isnan(result.per_sample[103:117]).all() and result.count > 60


def test_contacts_of_the_take_say_what_is_planted():
    points = feet().joints_m
    points[:, :2] += np.arange(60)[:, None, None] * [0.003, 0, 0.004]
    contact = np.zeros((60, 4))
    contact[:, 2:] = 0.9
    told = feet(points, contact=contact, contact_names=FEET)
    assert FootSliding()(told).value == 0 and FootSliding()(told).note == "planted: contacts of the take"
    assert not FootSliding("left")(told).defined


def test_sliding_while_the_landmark_stands_still():
    """Both feet drift in space; in the picture the left one stands until sample 40 and the right one walks all the time."""
    points = feet().joints_m + np.arange(60)[:, None, None] * [0, 0, 0.002]
    pixels = np.ones((60, 4, 3)) + np.random.default_rng(0).normal(0, 1, (60, 4, 1)) * [1, 1, 0]
    pixels[40:, :2, 0] += np.arange(20)[:, None] * 20
    pixels[:, 2:, 0] += np.arange(60)[:, None] * 20
    look = {"landmarks_px": pixels, "focal_px": np.full(60, 1000.0)}
    result = SeenFootSliding()(feet(points, **look))
    assert result.value == pytest.approx(2) and np.flatnonzero(np.isfinite(result.per_sample)).tolist() == list(range(4, 38))
    contact = {"contact": np.zeros((60, 4)), "contact_names": FEET}
    assert SeenFootSliding()(feet(points, **look, **contact)).value == result.value
    pixels[..., 2] = 0.2
    assert not SeenFootSliding()(feet(points, **look)).defined and not SeenFootSliding()(feet(points)).defined


def test_where_the_camera_moves_sliding_is_not_defined():
    still = np.zeros(60, bool)
    for metric in (FootSliding(), WorstFootSliding(), SkatingRatio()):
        assert metric(feet(still=still)).note == "not defined: the camera moves"
    still[:30] = True
    assert FootSliding()(feet(still=still)).count == 29
    assert "camera moves" in Jitter()(feet(still=still)).note


def test_sliding_while_the_truth_stands():
    truth, ours = feet().joints_m, feet().joints_m
    truth[30:, :2] += np.arange(30)[:, None, None] * [0.05, 0, 0]  # the left foot goes away in the second half
    ours += np.arange(60)[:, None, None] * [0.002, 0, 0]
    result = TrueFootSliding()(feet(ours), feet(truth))
    assert result.value == pytest.approx(2) and result.per_sample[50] == pytest.approx(2) and "slower" in result.note
    contact = np.zeros((60, 4))
    assert not TrueFootSliding()(feet(ours), feet(truth, contact=contact, contact_names=FEET)).defined
    contact[10:20] = 1
    assert TrueFootSliding()(feet(ours), feet(truth, contact=contact, contact_names=FEET)).count == 9


def test_contact_precision_and_recall():
    true = np.zeros((60, 4))
    true[:40] = 1
    found = np.zeros((60, 2))
    found[20:50] = 0.8
    found[55:] = np.nan
    names = ("right_big_toe", "left_heel")
    ours, truth = feet(contact=found, contact_names=names), feet(contact=true, contact_names=FEET)
    assert ContactPrecision()(ours, truth).value == pytest.approx(100 * 20 / 30)
    assert ContactRecall()(ours, truth).value == pytest.approx(100 * 20 / 40)
    assert "take has no contacts" in ContactRecall()(feet(), truth).note and "reference has no contacts" in ContactRecall()(ours, feet()).note


# -- the body in itself, and on the picture ---------------------------------------------------------------------------


def solid_angles(points, vertices, faces):
    """Winding numbers by Jacobson et al. 2013: the sum of all faces' solid angles (van Oosterom and Strackee 1983) over 4 pi."""
    a, b, c = (vertices[faces[:, k]] - points[:, None] for k in range(3))
    la, lb, lc = (np.linalg.norm(side, axis=-1) for side in (a, b, c))
    top = (a * np.cross(b, c)).sum(-1)
    return np.arctan2(top, la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb).sum(1) / (2 * np.pi)


def two_balls(apart, rings=14, sectors=20):
    vertices, faces = ball(0.3, rings, sectors)
    return np.concatenate([vertices, vertices + [apart, 0.03, 0.02]]), np.concatenate([faces, faces + len(vertices)])


def test_winding_numbers_are_those_of_the_solid_angles():
    vertices, faces = two_balls(0.35)
    points = np.random.default_rng(2).uniform([-0.4, -0.4, -0.4], [0.8, 0.4, 0.4], (1500, 3))
    ours = winding_numbers(points, vertices, faces)
    np.testing.assert_array_equal(ours, np.round(solid_angles(points, vertices, faces)))
    assert set(ours) == {0, 1, 2}
    np.testing.assert_array_equal(winding_numbers(points, vertices, faces[:, ::-1]), -ours)


def test_a_ball_pushed_into_another():
    rest, faces = two_balls(0.7)
    half = len(rest) // 2
    poses = [two_balls(apart)[0] for apart in (0.7, 0.65, 0.45, 0.3)]
    inside = []
    for pose in poses:
        centres = pose[:half].mean(0), pose[half:].mean(0)
        inside.append((np.linalg.norm(pose[:half] - centres[1], axis=1) < 0.298).sum() + (np.linalg.norm(pose[half:] - centres[0], axis=1) < 0.298).sum())
    body = Motion(np.zeros((4, 0, 3)), FPS, vertices_m=np.array(poses), faces=faces, rest_vertices_m=rest)
    result = SelfPenetration()(body)
    assert result.per_sample[0] == result.per_sample[1] == 0 and result.count == 4
    np.testing.assert_allclose(result.per_sample, 100 * np.array(inside) / len(rest), atol=100 * 6 / len(rest))  # balls have facets
    assert result.per_sample[3] > 15
    clockwise = Motion(body.joints_m, FPS, vertices_m=body.vertices_m, faces=faces[:, ::-1], rest_vertices_m=rest)
    np.testing.assert_array_equal(SelfPenetration()(clockwise).per_sample, result.per_sample)
    already = Motion(body.joints_m, FPS, vertices_m=body.vertices_m, faces=faces, rest_vertices_m=poses[3])
    assert SelfPenetration()(already).value == 0  # what is so at rest does not count
    assert SelfPenetration(samples=2)(body).count == 2 and not SelfPenetration()(motion()).defined


def test_holes_are_closed():
    vertices, faces = ball(0.3, 14, 20)
    full, weights = closed(faces, len(vertices))
    assert len(full) == len(faces) and weights.shape == (0, len(vertices))
    away = (faces != 0).all(1) & (faces != len(vertices) - 1).all(1)  # without its caps
    full, weights = closed(faces[away], len(vertices))
    assert weights.shape == (2, len(vertices))
    points = np.random.default_rng(0).uniform(-0.25, 0.25, (300, 3))
    np.testing.assert_array_equal(winding_numbers(points, np.concatenate([vertices, weights @ vertices]), full), winding_numbers(points, vertices, faces))


def test_reprojection():
    seen = np.random.default_rng(0).uniform(0, 500, (60, 8, 3))
    seen[..., 2] = 0.9
    body = motion(keypoints_px=seen + [3, 4, 0], landmarks_px=seen, height_px=np.full(60, 200.0))
    assert ReprojectionError()(body).value == pytest.approx(5) and RelativeReprojectionError()(body).value == pytest.approx(2.5)
    seen[:50, :, 2] = 0.1
    assert ReprojectionError()(body).count == 10
    assert not ReprojectionError()(motion()).defined
