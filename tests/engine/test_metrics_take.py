# SPDX-License-Identifier: Apache-2.0
"""`body4d evaluate`: on a real person whose joints are known from four cameras, on the demo clip, on meshes alone, and with bad references."""

import json

import numpy as np
import pytest

from body4d_engine import cli
from body4d_engine.errors import Body4DError
from body4d_engine.fit import flips
from body4d_engine.metrics import COMPARED, Jitter, evaluate, motion_of, read_reference
from body4d_engine.metrics.evaluation import ALONE
from body4d_engine.models.anny.pose import KEYPOINTS, LANDMARKS
from body4d_engine.stages.recover import Recover
from body4d_engine.take import State, Take

from .bodies import ball_take
from .tracked import TRUTH_LANDMARKS, real_walk, run_stage, tracked_take, visible

NAMES = np.array([KEYPOINTS[list(LANDMARKS).index(landmark)] for landmark in TRUTH_LANDMARKS])
SAMPLES = 40


@pytest.fixture(scope="module")
def walk():
    return real_walk(1)


@pytest.fixture(scope="module")
def take(tmp_path_factory, walk):
    """Two people: the real one, absent in samples 20 to 22, and the same a metre to the side and later."""
    pixels, metres, state = walk.px[:SAMPLES].copy(), walk.metres[:SAMPLES], visible(SAMPLES)
    state[20:23] = State.ABSENT
    other = walk.px[60 : 60 + SAMPLES] + np.float32([400, 0, 0]), walk.metres[60 : 60 + SAMPLES], visible(SAMPLES)
    path = tmp_path_factory.mktemp("take") / "walk.take"
    take, persons, clip = tracked_take(path, [other, (pixels, metres, state)], walk.focal, walk.centre, walk.size, walk.fps)
    run_stage(Recover(), take, persons, clip)
    take.close()
    with Take.open(path) as found:
        yield found


@pytest.fixture
def arrays(walk):
    """A reference in its own axes: turned and shifted against the camera."""
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    shift = np.array([0.3, -1.0, 2.0])
    return {"joints_m": (walk.truth[:SAMPLES] - shift) @ turn, "joint_names": NAMES, "frames": np.arange(SAMPLES), "R": turn, "t": shift,
            "K": np.array([[walk.focal, 0, walk.centre[0]], [0, walk.focal, walk.centre[1]], [0, 0, 1]])}


def save(tmp_path, arrays, **changes):
    np.savez(tmp_path / "reference.npz", **{name: array for name, array in {**arrays, **changes}.items() if array is not None})
    return tmp_path / "reference.npz"


def by_name(results, person):
    return {result.name: result for result in results if result.person == person}


def test_a_real_person_against_four_cameras(tmp_path, take, walk, arrays):
    found = evaluate(take, save(tmp_path, arrays))
    other, ours = by_name(found, 1), by_name(found, 2)
    assert "mpjpe" not in other and "person 2 is the nearest" in ours["mpjpe"].note
    assert set(ours) == {metric.name for metric in (*ALONE, *COMPARED)} and set(other) == {metric.name for metric in ALONE}
    place = [list(KEYPOINTS).index(name) for name in NAMES]
    joints = take.read("people/2", "keypoints_m")[:, place].astype(float) + take.read("people/2", "root")[:, None]
    there = np.r_[0:20, 23:SAMPLES]
    hips = [list(NAMES).index(f"{side}_hip") for side in ("left", "right")]
    ours_m, true_m = (points - points[:, hips].mean(1, keepdims=True) for points in (joints[there], walk.truth[:SAMPLES][there]))
    assert ours["mpjpe"].value == pytest.approx(1000 * np.linalg.norm(ours_m - true_m, axis=-1).mean(), rel=1e-5) and ours["mpjpe"].value < 120
    assert ours["mpjpe"].count == len(there) and np.isnan(ours["mpjpe"].per_sample[20:23]).all() and len(ours["mpjpe"].per_sample) == SAMPLES
    assert ours["pa_mpjpe"].value < ours["mpjpe"].value and ours["focal_ratio"].value == pytest.approx(1)
    true_root = walk.truth[:SAMPLES][there][:, hips].mean(1)
    assert ours["root_error"].value == pytest.approx(1000 * np.linalg.norm(joints[there][:, hips].mean(1) - true_root, axis=-1).mean(), rel=1e-5)
    assert ours["jitter"].count == SAMPLES - 3 - 6 and ours["reprojection"].value < 15 and abs(ours["peak_lag"].value) < 3
    assert not ours["pve"].defined and not ours["contact_recall"].defined


def test_somebody_who_comes_late_is_judged_at_the_right_samples(tmp_path, walk, arrays):
    state = visible(SAMPLES)
    state[:12], state[-5:] = State.ABSENT, State.ABSENT
    take, persons, clip = tracked_take(tmp_path / "a.take", [(walk.px[:SAMPLES], walk.metres[:SAMPLES], state)], walk.focal, walk.centre, walk.size, walk.fps)
    run_stage(Recover(), take, persons, clip)
    motion = motion_of(take, 1)
    there = np.isfinite(motion.joints_m).all((1, 2))
    assert np.flatnonzero(there).tolist() == list(range(12, SAMPLES - 5)) and len(motion.vertices_m) == SAMPLES
    joints = take.read("people/1", "keypoints_m")[3].astype(float) + take.read("people/1", "root")[3]  # record 3 is sample 15
    np.testing.assert_allclose(motion.joints_m[15], joints)
    np.testing.assert_allclose(motion.vertices_m[15], take.read("people/1", "vertices")[3].astype(float) + take.read("people/1", "root")[3])
    take.close()


def test_landmarks_are_compared_the_right_way_round(tmp_path, walk):
    """In samples 10 to 13 the tracker takes the front for the back, in 24 and 25 one leg for the other."""
    pixels, metres = walk.px[:SAMPLES].copy(), walk.metres[:SAMPLES].copy()
    pixels[10:14], metres[10:14] = flips.repair(pixels[10:14], metres[10:14])
    swapped = np.zeros((SAMPLES, len(flips.PARTS)), bool)
    swapped[24:26, list(flips.PARTS).index("legs")] = True
    pixels, metres = flips.repair_parts(pixels, metres, swapped)
    take, persons, clip = tracked_take(tmp_path / "a.take", [(pixels, metres, visible(SAMPLES))], walk.focal, walk.centre, walk.size, walk.fps)
    run_stage(Recover(), take, persons, clip)
    np.testing.assert_allclose(motion_of(take, 1).landmarks_px, walk.px[:SAMPLES, LANDMARKS])
    off = by_name(evaluate(take), 1)["reprojection_relative"].per_sample
    assert np.isfinite(off).all() and off.max() < 3 * np.median(off)
    take.close()


def test_one_person_is_chosen(tmp_path, take, arrays):
    found = evaluate(take, save(tmp_path, arrays), person=1)
    assert {result.person for result in found} == {1} and by_name(found, 1)["mpjpe"].value > 150 and by_name(found, 1)["mpjpe"].note == ""
    with pytest.raises(Body4DError, match="no person 3"):
        evaluate(take, person=3)


def test_some_frames_and_some_joints(tmp_path, take, arrays):
    joints = arrays["joints_m"].copy()
    joints[:, 3] = np.nan
    rows = np.arange(5, SAMPLES, 5)  # frames 5, 10, ... : nothing follows on anything
    ours = by_name(evaluate(take, save(tmp_path, arrays, joints_m=joints[rows], frames=rows + 1000 * (rows > 30))), 2)
    assert ours["mpjpe"].count == 5 and "no four samples" in ours["jitter_ratio"].note and "no three samples" in ours["acceleration_error"].note


def test_vertices_and_contacts(tmp_path, take, walk, arrays):
    motion = motion_of(take, 2)
    vertices = np.stack([motion.vertices_m[i] for i in range(SAMPLES)])
    joints = np.where(np.isfinite(motion.joints_m), motion.joints_m, 1.0)
    joints[..., 2] = np.where(np.isfinite(motion.joints_m[..., 2]), joints[..., 2], 4)
    truth = {"joints_m": joints, "joint_names": np.array(motion.names), "frames": np.arange(SAMPLES),
             "vertices_m": (vertices + [0, 0, 0.02]).astype(np.float32), "contact": np.ones((SAMPLES, 2), bool),
             "contact_names": np.array(["left_heel", "right_heel"])}
    ours = by_name(evaluate(take, save(tmp_path, truth), person=2), 2)
    assert ours["mpjpe"].value == pytest.approx(0, abs=1e-3) and ours["pve"].value == pytest.approx(20, rel=1e-3)
    assert "contacts of the reference" in ours["foot_sliding_true"].note and ours["foot_sliding_true"].value > 0


@pytest.mark.parametrize("changes, code, words", [
    ({"joint_names": None}, "incomplete", "joint_names missing"),
    ({"frames": None, "joints_m": None}, "incomplete", "joints_m and frames missing"),
    ({"joints_m": np.zeros((SAMPLES, 12))}, "wrong", "shape"),
    ({"joints_m": np.zeros((3, 12, 3))}, "wrong", r"not \(40, J, 3\)"),
    ({"joints_m": np.full((SAMPLES, 12, 3), np.nan)}, "not_finite", "NaN throughout"),
    ({"joints_m": np.full((SAMPLES, 12, 3), np.inf)}, "not_finite", "inf"),
    ({"joints_m": np.array([["a"] * 12] * SAMPLES)}, "wrong", "not numbers"),
    ({"joint_names": NAMES[:5]}, "wrong", "5 words for 12"),
    ({"joint_names": np.array(["left_hip"] * 12)}, "wrong", "twice: left_hip"),
    ({"joint_names": np.arange(12)}, "wrong", "list of words"),
    ({"frames": np.zeros(SAMPLES)}, "wrong", "rise"),
    ({"frames": np.arange(SAMPLES) + 0.5}, "wrong", "whole frame numbers"),
    ({"frames": np.zeros((0,)), "joints_m": np.zeros((0, 12, 3))}, "wrong", "empty"),
    ({"R": None}, "incomplete", "go together"),
    ({"R": 2 * np.eye(3)}, "wrong", "not a rotation"),
    ({"R": np.diag([1.0, 1, -1])}, "wrong", "not a rotation"),
    ({"t": np.full(3, np.nan)}, "not_finite", r"t\[0\] is nan"),
    ({"K": np.eye(4)}, "wrong", "shape"),
    ({"K": np.diag([-1000.0, 1000, 1])}, "wrong", "not a camera matrix"),
    ({"R": np.eye(3), "t": np.array([0, 0, -100.0])}, "behind_camera", "behind the camera at frame 0"),
    ({"vertices_m": np.zeros((4, 5, 3))}, "wrong", "vertices_m"),
    ({"contact": np.ones((SAMPLES, 2), bool)}, "incomplete", "contact_names missing"),
    ({"contact": np.full((SAMPLES, 1), 7), "contact_names": np.array(["left_heel"])}, "wrong", "between 0 and 1"),
    ({"joint_names": np.array([f"joint {i}" for i in range(12)])}, "no_joints", "no joint in common"),
    ({"frames": np.arange(SAMPLES) + 500}, "no_frames", "none is in both"),
])
def test_bad_references(tmp_path, take, arrays, changes, code, words):
    with pytest.raises(Body4DError, match=words) as error:
        evaluate(take, save(tmp_path, arrays, **changes))
    assert error.value.code == f"reference_{code}" and "reference.npz" in error.value.message and error.value.hint


def test_millimetres_are_noticed(tmp_path, arrays):
    with pytest.raises(Body4DError, match="in metres") as error:
        read_reference(save(tmp_path, arrays, joints_m=1000 * arrays["joints_m"]))
    assert error.value.code == "reference_units"


def test_what_is_no_reference(tmp_path, take):
    with pytest.raises(Body4DError, match="no reference at"):
        read_reference(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("joints")
    np.savez(tmp_path / "pickled.npz", joints_m=np.array([None]))
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    np.savez(tmp_path / "whole.npz", joints_m=np.zeros((99, 9, 3)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:900])
    for name in ("text", "pickled", "one", "cut"):
        with pytest.raises(Body4DError, match="cannot be read") as error:
            read_reference(tmp_path / f"{name}.npz")
        assert error.value.code == "reference_unreadable"


def test_absent_wherever_the_reference_is(tmp_path, take, arrays):
    rows = np.arange(20, 23)
    with pytest.raises(Body4DError, match="absent wherever"):
        evaluate(take, save(tmp_path, arrays, frames=rows, joints_m=arrays["joints_m"][rows]), person=2)


def test_meshes_alone_have_no_joints(tmp_path, arrays):
    with ball_take(tmp_path / "balls.take") as balls:
        found = by_name(evaluate(balls), 1)
        assert not any(result.defined for result in found.values()) and found["jitter"].count == 0
        with pytest.raises(Body4DError, match="no joint in common: left_shoulder.*; none"):
            evaluate(balls, save(tmp_path, arrays))


def test_cuts_and_a_moving_camera_come_from_the_take(tmp_path, walk):
    take, persons, clip = tracked_take(tmp_path / "a.take", [(walk.px[:12], walk.metres[:12], visible(12))], walk.focal, walk.centre, walk.size, 60, step=2)
    take.describe(clip={**take.clip, "shots": [0, 12]})
    take.begin("prepare", "k" * 8)
    take.create_array("camera_motion", "moving", "f4", ())
    take.append("camera_motion", "moving", np.array([0, 0.1, 9, np.nan] + [0] * 8, np.float32))
    take.commit({})
    take.finish()
    run_stage(Recover(), take, persons, clip)
    motion = motion_of(take, 1)
    assert motion.cuts == (6,) and motion.fps == 30 and motion.frames.tolist() == list(range(0, 24, 2))
    assert np.flatnonzero(~motion.still).tolist() == [2] and Jitter()(motion).count == 12 - 3 - 3
    take.close()


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command(tmp_path, take, arrays, capsys):
    out = tmp_path / "made" / "numbers.json"
    assert cli.main(["evaluate", str(take.path), "--reference", str(save(tmp_path, arrays)), "--json", str(out)]) == 0
    data, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert data["frames"] == list(range(SAMPLES)) and data["reference"].endswith("reference.npz")
    named = {(result["person"], result["name"]): result for result in data["results"]}
    assert named[2, "pve"]["value"] is None and named[2, "jitter"]["unit"] == "10 m/s^3" and named[2, "jitter"]["per_sample"][0] is None
    assert len(named[2, "jitter"]["per_sample"]) == SAMPLES
    assert "Person 2 (id 2)" in printed and "mm/frame^2" in printed and f"{named[2, 'mpjpe']['value']:.4g}" in printed and "how far" in printed.lower()


@pytest.mark.parametrize("options, words", [
    (["--reference", "none.npz"], "no reference at none.npz"),
    (["--person", "9"], "no person 9"),
    (["--tracking", "none.npz"], "no tracking truth"),
])
def test_the_command_explains(take, capsys, options, words):
    assert cli.main(["evaluate", str(take.path), *options]) == 1
    assert words in capsys.readouterr().err


def test_a_json_that_cannot_be_written(tmp_path, take, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["evaluate", str(take.path), "--person", "2", "--json", str(tmp_path / "file" / "x.json")]) == 1
    assert "could not be written" in capsys.readouterr().err


def test_the_demo_clip(tmp_path, demo_clip, capsys):
    """The acrobat's first second, from the video to the numbers."""
    pytest.importorskip("ai_edge_litert")
    assert cli.main(["run", str(demo_clip), "-o", str(tmp_path / "demo.take"), "--end", "30"]) == 0
    with Take.open(tmp_path / "demo.take") as demo:
        found = by_name(evaluate(demo), 1)
    assert all(result.defined for result in found.values() if not result.name.startswith("foot") and result.name != "skating_ratio")
    assert found["jitter"].count > 20 and 5 < found["jitter"].value < 500
    assert found["reprojection_relative"].value < 3 and 0 <= found["self_penetration"].value < 8
