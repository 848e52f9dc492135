# SPDX-License-Identifier: Apache-2.0
"""Fingers, wrists and head: angles come back from landmarks made with them, both sides are mirror images, hands that nobody read are never frozen."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from body4d_engine.fit.aim import TILT, Chain
from body4d_engine.fit.detailed import Detailed, Shown
from body4d_engine.fit.hands import HandMotion, fit_fingers, in_space, palm_rotation
from body4d_engine.fit.head import FACE, POINTS, face_rotation, towards
from body4d_engine.fit.record import read_shape
from body4d_engine.fit.residuals import Poses
from body4d_engine.models.anny.body import load
from body4d_engine.models.anny.hands import ANGLES, LIMITS, NAMES, RELAXED, HandRig, hand_model
from body4d_engine.models.anny.pose import Rig, neutral_phenotypes, pose_model
from body4d_engine.stages.recover import Recover
from body4d_engine.take_arrays import BySample

from .tracked import real_walk, run_stage, tracked_take, visible

PALM = [0, 5, 9, 13, 17]


@pytest.fixture(scope="module")
def rig():
    return Rig(pose_model(), load().rest(neutral_phenotypes(load())))


@pytest.fixture(scope="module")
def hands(rig):
    return HandRig(hand_model(), rig.rest)


def some_angles(count: int, seed: int = 0) -> np.ndarray:
    """(count, 17) within the limits, the thumb's twist small."""
    part = np.random.default_rng(seed).uniform(0.2, 0.8, (count, ANGLES))
    part[:, NAMES.index("thumb_twist")] = 0.5
    return LIMITS[:, 0] + part * (LIMITS[:, 1] - LIMITS[:, 0])


@pytest.mark.parametrize("hand", [0, 1])
def test_angles_come_back_from_the_landmarks_they_made(hands, hand):
    angles = some_angles(50)
    points = hands.landmarks(np.repeat(angles[:, None], 2, 1))[:, hand]
    turn = Rotation.random(50, random_state=1).as_matrix()
    seen = np.einsum("nij,nkj->nki", turn, points) * 1.2  # a larger hand, turned
    found = palm_rotation(hands.palm(hand), seen[:, PALM])
    np.testing.assert_allclose(found, turn, atol=1e-6)
    got, error = fit_fingers(hands, hand, np.einsum("nji,nkj->nki", found, seen))
    assert np.degrees(np.abs(got - angles)).max(0).max() < 6 and np.degrees(np.abs(got - angles)).mean() < 1  # a pull towards the relaxed hand
    assert error.max() < 0.05
    _, wrong = fit_fingers(hands, 1 - hand, np.einsum("nji,nkj->nki", found, seen))
    assert np.median(wrong) > 0.3  # a right hand fits a left one badly


def test_sides_are_mirror_images(hands):
    both = np.repeat(some_angles(5, seed=2)[:, None], 2, 1)
    left, right = np.moveaxis(hands.landmarks(both), 1, 0)
    np.testing.assert_allclose(left * [-1, 1, 1], right, atol=1e-9)


def test_bending_closes_the_hand(hands):
    """Fingertips come nearer to the palm as fingers bend, on its inner side."""
    flat = np.where([name.endswith(("bend", "middle")) and not name.startswith("thumb") for name in NAMES], 0.0, RELAXED)
    angles = np.stack([flat + bend * (flat == 0) for bend in (0.0, 0.5, 1.0, 1.4)])
    points = hands.landmarks(np.repeat(angles[:, None], 2, 1))
    reach = np.linalg.norm(points[:, :, [8, 12, 16, 20]], axis=-1)
    assert (np.diff(reach, axis=0) < 0).all()
    wrist, index, pinky = points[0, :, 0], points[0, :, 5], points[0, :, 17]
    inner = np.cross(index - wrist, pinky - wrist) * [[-1], [1]]  # out of the palm, for the left and the right hand
    moved = points[1, :, [8, 12, 16, 20]] - points[0, :, [8, 12, 16, 20]]
    assert ((moved * inner).sum(-1) > 0).all() or ((moved * inner).sum(-1) < 0).all()


def test_pose_moves_finger_joints_as_the_landmarks(hands, rig):
    angles = np.repeat(some_angles(4)[:, None], 2, 1)
    theta = np.random.default_rng(3).normal(0, 0.3, (4, rig.model.angles))
    root = Rotation.random(4, random_state=3).as_matrix()
    rotations, positions = rig.pose(root, theta)
    joints, turns = hands.joints(*hands.pose(rotations, positions, angles))
    names = rig.model.body.joint_names
    for hand, side in enumerate("LR"):
        wrist = names.index(f"wrist.{side}")
        points = np.einsum("nji,nkj->nki", turns[:, wrist], joints - joints[:, wrist : wrist + 1])
        for finger in range(5):
            for joint in range(3):
                np.testing.assert_allclose(points[:, names.index(f"finger{finger + 1}-{joint + 1}.{side}")],
                                           hands.landmarks(angles)[:, hand, 1 + 4 * finger + joint], atol=1e-9)


def test_depth_comes_from_metres_and_the_rest_from_pixels():
    random = np.random.default_rng(4)
    points = random.normal(0, 0.05, (3, 21, 3))
    noisy = points + np.concatenate([random.normal(0, 0.002, (3, 21, 2)), np.zeros((3, 21, 1))], 2)
    np.testing.assert_allclose(in_space(points[..., :2] * 500 + 300, noisy), points - points[:, :1], atol=0.006)


def test_palm_and_head_are_reached_and_the_wrist_stays(rig):
    model = rig.model
    random = np.random.default_rng(5)
    theta, root = random.normal(0, 0.15, (20, model.angles)), Rotation.random(20, random_state=5).as_matrix()
    rotations, positions = rig.pose(root, theta)
    arm, neck = (("elbow.L", "wrist.L"), "wrist.L", (5, 0.3, 20, 1, 1, 1), True), (("neck", "head"), "head", (3, 3, 3, 1, 1, 1), False)
    for groups, bone, stiffness, keep in (arm, neck):
        slot = model.anchor[model.body.joint_names.index(bone)]
        wanted = rotations[:, slot] @ Rotation.from_rotvec(random.normal(0, 0.25, (20, 3))).as_matrix()
        weight = np.linspace(0, 1, 20)
        aimed = Chain(model, groups, stiffness, keep).aimed(rig, theta, rotations, wanted, weight)
        turned, moved = rig.pose(root, aimed)
        left = Rotation.from_matrix(turned[:, slot].transpose(0, 2, 1) @ wanted).magnitude()
        before = Rotation.from_matrix(rotations[:, slot].transpose(0, 2, 1) @ wanted).magnitude()
        np.testing.assert_allclose(left, (1 - weight) * before, atol=0.03)
        np.testing.assert_array_equal(aimed[0], theta[0])
        along = np.array([0.0, 1, 0])
        nod = np.cross([0, 0, 1], wanted @ along)
        nod /= np.linalg.norm(nod, axis=1, keepdims=True)
        tilted, _ = rig.pose(root, Chain(model, groups, stiffness, keep).aimed(rig, theta, rotations, wanted, np.ones(20), along))
        rest = Rotation.from_matrix(wanted @ tilted[:, slot].transpose(0, 2, 1)).as_rotvec()
        asked = Rotation.from_matrix(wanted @ rotations[:, slot].transpose(0, 2, 1)).as_rotvec()
        np.testing.assert_allclose(np.einsum("ni,ni->n", rest, nod), (1 - TILT) * np.einsum("ni,ni->n", asked, nod), atol=0.08)
        assert np.abs(rest - np.einsum("ni,ni->n", rest, nod)[:, None] * nod).max() < 0.12
        if keep:
            assert np.abs(moved[:, slot] - positions[:, slot]).max() < 1e-3
        limits = np.stack([np.minimum(model.limits[:, 0], theta), np.maximum(model.limits[:, 1], theta)])
        assert (aimed >= limits[0] - 1e-12).all() and (aimed <= limits[1] + 1e-12).all()


def test_face_gives_the_heads_rotation_along_the_ray():
    turn = Rotation.from_euler("yx", [[20, 10], [-35, 0], [0, -20]], degrees=True).as_matrix()
    centre, focal = np.tile([500.0, 400.0], (3, 1)), np.full(3, 900.0)
    at = np.array([[500.0, 400], [900, 300], [100, 700]])
    ray = towards(at, focal, centre)
    np.testing.assert_allclose(ray[:, :, 2] / ray[:, 2:, 2], np.column_stack([(at - centre) / 900, np.ones(3)]), atol=1e-12)
    points = np.einsum("nij,kj->nki", turn, FACE) * 30 + np.column_stack([at, np.zeros(3)])[:, None]
    np.testing.assert_allclose(face_rotation(points - [*FACE.mean(0)], focal, centre), ray @ turn, atol=1e-3)
    assert len(POINTS) == len(set(POINTS)) == len(FACE)


def made(path, samples=100, hands=None, shots=(0,)):
    """A take of a real walk, with hands (T, 2, 21, 3) metres that were read in the samples where they are not zero."""
    walk = real_walk()
    take, persons, clip = tracked_take(path, [(walk.px[:samples], walk.metres[:samples], visible(samples))], walk.focal, walk.centre, walk.size, 60,
                                       shots=shots)
    if hands is not None:
        take.begin("detail", "k" * 8)
        read = hands.any((2, 3))
        pixels = np.concatenate([hands[..., :2] * 400 + 500, np.broadcast_to(0.9 * read[..., None, None], (*hands.shape[:3], 1))], 3)
        pixels[~read] = 0
        for name, values in {"hands_px": pixels, "hands_m": hands, "face_px": np.zeros((samples, len(POINTS), 3)), "face_score": np.zeros(samples)}.items():
            take.create_array("people/1", name, "f4", values.shape[1:])
            take.append("people/1", name, values)
        take.commit({})
        take.finish()
    return take, persons, clip


def test_hands_nobody_read_are_alive_smooth_and_the_same_each_time(tmp_path, hands):
    take, *_ = made(tmp_path / "a.take")
    motion = HandMotion(take, 1, hands)
    angles = np.degrees(motion.at(np.arange(100)).angles)
    assert (np.ptp(angles, 0)[:, [NAMES.index(f"{finger}_bend") for finger in ("index", "ring")]] > 0.5).all()  # within 1.7 s
    assert (np.abs(np.diff(angles, axis=0)).max((1, 2)) > 1e-3).all() and np.abs(np.diff(angles, 2, axis=0)).max() < 0.4
    assert not np.allclose(angles[:, 0], angles[:, 1])
    bends = angles[:, :, [NAMES.index(f"{finger}_middle") for finger in ("index", "middle", "ring", "pinky")]]
    assert bends.min() > 15 and bends.max() < 75  # neither flat nor a fist
    pieces = np.concatenate([HandMotion(take, 1, hands).at(np.arange(a, min(a + 13, 100))).angles for a in range(0, 100, 13)])
    np.testing.assert_allclose(pieces, np.radians(angles), atol=1e-9)
    take.close()


def test_measured_hands_are_followed_and_left_without_a_jump(tmp_path, hands):
    """A fist read in a third of a second, every other sample: followed in the middle, faded in and out, nothing beyond a cut."""
    fist = np.where([name.endswith(("bend", "middle")) and not name.startswith("thumb") for name in NAMES], 1.3, 0.0)
    seen = np.zeros((100, 2, 21, 3))
    seen[40:70:2] = hands.landmarks(np.tile(fist, (1, 2, 1)))
    for name, shots in (("a", (0,)), ("b", (0, 70))):
        take, *_ = made(tmp_path / f"{name}.take", hands=seen, shots=shots)
        found = HandMotion(take, 1, hands).at(np.arange(100))
        bend = np.degrees(found.angles[:, 0, NAMES.index("middle_bend")])
        assert found.weight[52:58].min() > 0.99 and bend[52:58].min() > 68 and not found.weight[[0, 10, 99]].any() and bend[[0, 99]].max() < 40
        ray = towards(np.float64([[500, 500]]), np.float64([real_walk().focal]), np.float64([real_walk().centre]))
        np.testing.assert_allclose(found.palms[55], ray.repeat(2, 0), atol=0.03)
        if len(shots) == 1:
            assert np.abs(np.diff(bend)).max() < 12
        else:
            assert not found.weight[70:].any()
        parts = [HandMotion(take, 1, hands).at(np.arange(a, min(a + 9, 100))) for a in range(0, 100, 9)]
        np.testing.assert_allclose(np.concatenate([part.angles for part in parts]), found.angles, atol=1e-9)
        take.close()


def test_body_holds_its_hands_where_they_were_read(tmp_path, hands):
    """Through recover: the take's joints carry the fingers, and an interrupted run ends as a whole one."""
    turned = Rotation.from_rotvec([0.4, 0.2, -0.3]).as_matrix()
    seen = np.zeros((60, 2, 21, 3))
    seen[10:50] = hands.landmarks(np.repeat(some_angles(1, 7)[:, None], 2, 1)) @ turned.T
    found = []
    for name, stop in (("a", None), ("b", 2)):
        take, persons, clip = made(tmp_path / f"{name}.take", 60, seen)
        if stop:
            run_stage(Recover(chunk=11), take, persons, clip, stop_after=stop)
            take.close()
            from body4d_engine.take import Take

            take = Take.open(tmp_path / f"{name}.take", writable=True)
        run_stage(Recover(chunk=7 if not stop else 11), take, persons, clip)
        found.append({key: np.array(take.read("people/1", key, "recover")) for key in ("vertices", "angles", "joints", "rotations")})
        if not stop:
            rig = read_shape(take, 1, "recover").rig(pose_model())
            assert found[0]["angles"].shape == (60, 54 + 34) and len(take.read_npz("people/1/body.recover.npz")["angle_names"]) == 88
            np.testing.assert_allclose(found[0]["angles"][30, 54:71], some_angles(1, 7)[0], atol=0.15)
            whole = Detailed(take, 1, rig)
            weight = whole._motion.at(np.arange(60)).weight
            assert weight[30].min() > 0.99
        take.close()
    for key, values in found[0].items():
        np.testing.assert_allclose(found[1][key], values, atol=1e-5, err_msg=key)


class HeldTake:
    """Just enough of a take for Shown: landmarks from sample 3 on, params already written."""

    def __init__(self, params):
        self.params, self.samples = params, 20

    def by_sample(self, group, name, stage):
        return BySample(self.params, 0, len(self.params), True)

    def read(self, group, name, stage):
        there = np.arange(20) >= 3
        return {"state": there.astype(np.uint8), "landmarks_px": there[:, None, None] * np.ones((20, 33, 3)), "landmarks_m": np.zeros((20, 33, 3))}[name]


def test_held_poses_show_the_hands_of_the_pose_they_hold():
    params = np.zeros((12, 60), np.float32)
    params[:, 3] = [0, 0, 0, 0, 1, 2, 2, 2, 2, 3, 4, 4]
    seen = np.isin(np.arange(12), [3, 4, 5, 9, 10])
    expected = [3, 3, 3, 3, 4, 5, 5, 5, 5, 9, 10, 10]
    assert Shown(HeldTake(params[:0]), "g", "recover").of(0, params, seen).tolist() == expected
    for cut in range(1, 12):
        assert Shown(HeldTake(params[:cut]), "g", "recover").of(cut, params[cut:], seen[cut:]).tolist() == expected[cut:], cut


def test_poses_without_detail_keep_the_fitted_body(tmp_path):
    take, *_ = made(tmp_path / "a.take", 20)
    rig = Rig(pose_model(), load().rest(neutral_phenotypes(load())))
    theta = np.random.default_rng(8).normal(0, 0.2, (20, rig.model.angles))
    poses = Poses(np.zeros((20, 3)), Rotation.random(20, random_state=8).as_matrix(), theta)
    angles, rotations, positions = Detailed(take, 1, rig).pose(np.arange(20), poses)
    np.testing.assert_array_equal(angles[:, :54], theta)
    np.testing.assert_array_equal(positions[:, : len(rig.model.bones)], rig.pose(poses.rotation, theta)[1])
    take.close()
