# SPDX-License-Identifier: Apache-2.0
"""The baked body against Anny's own numbers, and the conventions that readers of a take rely on."""

import os
import subprocess
import sys

import numpy as np
import pytest
from body4d_lite_models import path
from scipy.spatial.transform import Rotation

from body4d_engine.errors import Body4DError
from body4d_engine.models.anny.body import Skinner, forward, load
from body4d_engine.models.anny.pose import KEYPOINTS, Rig, exp, left_jacobian, neutral_phenotypes, pose_model

from .tracked import DATA

MILLIMETRE = 1e-3


@pytest.fixture(scope="module")
def golden():
    with np.load(DATA / "anny_golden.npz") as file:
        return {name: file[name].astype(np.float64) for name in file.files}


def distance(ours, theirs):
    return np.linalg.norm(ours - theirs, axis=-1)


@pytest.mark.parametrize("case", range(8))
def test_bodies_and_poses_are_annys_to_a_millimetre(golden, case):
    body = load()
    rest = body.rest(golden["phenotypes"][case])
    offsets = rest.joints - rest.joints[np.maximum(body.parents, 0)]
    rotations, heads = forward(body.parents, offsets, Rotation.from_rotvec(golden["rotvecs"][case]).as_matrix()[None])
    vertices = Skinner(body.skin, rest.vertices, rest.joints)(rotations, heads)[0]
    errors = distance(vertices[::23], golden["vertices"][case])
    assert errors.max() < MILLIMETRE and errors.mean() < 0.25 * MILLIMETRE
    assert distance(heads[0], golden["joints"][case]).max() < MILLIMETRE
    assert distance(body.keypoints @ vertices, golden["keypoints"][case]).max() < MILLIMETRE
    assert abs(rest.height - golden["height"][case]) < MILLIMETRE
    np.testing.assert_allclose(rest.frames, golden["rest_frames"][case], atol=0.02)


def test_the_file_is_small_and_the_mesh_as_documented():
    body = load()
    assert path("body.npz").stat().st_size < 3e6
    assert body.faces.shape == (27420, 3) and body.faces.min() == 0 and body.faces.max() == 13717
    assert len(body.joint_names) == 104 and body.joint_names[0] == "root" and all(p < i for i, p in enumerate(body.parents))
    np.testing.assert_allclose(np.asarray(body.skin.sum(1)), 1, atol=1e-12)


def test_at_rest_a_body_stands_upright_in_camera_axes_facing_the_camera_with_its_root_at_the_origin():
    body = load()
    rest = body.rest(neutral_phenotypes(body))
    where = dict(zip(body.keypoint_names, body.keypoints @ rest.vertices, strict=True))
    assert where["nose"][1] < -0.5 and where["left_heel"][1] > 0.7  # y down
    assert where["nose"][2] < where["left_ear"][2] - 0.05  # z away from the camera
    assert where["left_wrist"][0] > 0.2 > -0.2 > where["right_wrist"][0]  # its left is on the camera's right
    np.testing.assert_array_equal(rest.joints[0], 0)
    assert rest.height == pytest.approx(1.70, abs=0.01)


def test_faces_turn_outward():
    body = load()
    a, b, c = body.rest(neutral_phenotypes(body)).vertices[body.faces].transpose(1, 0, 2)
    assert 0.04 < (a * np.cross(b, c)).sum() / 6 < 0.12  # the volume of a person in cubic metres


def test_scale_and_height():
    body = load()
    phenotypes = neutral_phenotypes(body)
    scale = body.scale_for_height(phenotypes, 1.9)
    assert body.rest(phenotypes, scale).height == pytest.approx(1.9, abs=1e-6)


def test_vectors_and_rotations():
    vectors = np.random.default_rng(0).normal(0, 1, (50, 3)) * np.array([1e-9, 1e-4, 0.3, 1, 3])[np.arange(50) % 5][:, None]
    np.testing.assert_allclose(exp(vectors), Rotation.from_rotvec(vectors).as_matrix(), atol=1e-12)
    small = np.random.default_rng(1).normal(0, 1e-6, (50, 3))
    np.testing.assert_allclose(exp(vectors + small), exp((left_jacobian(vectors) @ small[..., None])[..., 0]) @ exp(vectors), atol=1e-10)


@pytest.fixture(scope="module")
def posed():
    random = np.random.default_rng(3)
    rig = Rig(pose_model(), load().rest(random.uniform(0, 1, 6), 1.05))
    return rig, exp(random.normal(0, 1, (4, 3))), random.normal(0, 0.5, (4, 54))


def test_keypoints_are_those_of_the_skinned_mesh_and_the_jacobian_is_their_derivative(posed):
    rig, root, theta = posed
    model, body = rig.model, rig.model.body
    keypoints, jacobian = rig.keypoints_and_jacobian(root, theta)
    rotations, heads = rig.pose(root, theta)
    vertices = Skinner(model.skin, rig.rest.vertices, rig.rest.joints[model.bones])(rotations, heads).astype(np.float64)
    for row, name in enumerate(KEYPOINTS):
        if name in body.keypoint_names:
            on_mesh = np.stack([body.keypoints[body.keypoint_names.index(name)] @ v for v in vertices])[:, 0]
            np.testing.assert_allclose(keypoints[:, row], on_mesh, atol=1e-6)

    def moved(step):
        return rig.keypoints(*rig.pose(exp(np.tile(step[:3], (4, 1))) @ root, theta + step[3:]))

    for column in range(57):
        step = np.zeros(57)
        step[column] = 1e-6
        np.testing.assert_allclose(jacobian[..., column], (moved(step) - moved(-step)) / 2e-6, atol=1e-8)


def test_what_a_take_keeps_rebuilds_the_mesh(posed):
    """rotations, joints, inverse binds and skin weights are all a rig needs."""
    rig, root, theta = posed
    model, body, rest = rig.model, rig.model.body, rig.rest
    rotations, heads = rig.pose(root, theta)
    vertices = Skinner(model.skin, rest.vertices, rest.joints[model.bones])(rotations, heads)
    joints, turns = rig.joints(rotations, heads)
    bone = np.zeros((4, len(joints[0]), 4, 4))
    bone[..., :3, :3], bone[..., :3, 3], bone[..., 3, 3] = turns @ rest.frames, joints, 1
    moves = bone @ rest.inverse_binds()
    homogeneous = np.concatenate([rest.vertices, np.ones((len(rest.vertices), 1))], 1)
    dense = body.skin.toarray()
    for frame in range(4):
        again = np.einsum("vj,jab,vb->va", dense, moves[frame], homogeneous, optimize=True)[:, :3]
        assert distance(again, vertices[frame]).max() < 2e-6


def test_a_bent_elbow_and_knee_bend_the_right_way():
    model = pose_model()
    rig = Rig(model, load().rest(neutral_phenotypes(load())))
    theta = np.zeros((2, 54))
    theta[1, [model.names.index(name) for name in ("elbow.L:0", "knee.L:0", "elbow.R:0", "knee.R:0")]] = 1.0
    straight, bent = rig.keypoints(*rig.pose(np.eye(3)[None].repeat(2, 0), theta))
    for side in ("left", "right"):
        at = {part: KEYPOINTS.index(f"{side}_{part}") for part in ("shoulder", "wrist", "hip", "ankle")}
        assert distance(bent[at["wrist"]], bent[at["shoulder"]]) < distance(straight[at["wrist"]], straight[at["shoulder"]]) - 0.1
        assert distance(bent[at["ankle"]], bent[at["hip"]]) < distance(straight[at["ankle"]], straight[at["hip"]]) - 0.05
        assert bent[at["ankle"]][2] > straight[at["ankle"]][2] + 0.2  # to the back


@pytest.mark.parametrize("damage", [None, b"", b"PK\x03\x04 not really", "half"], ids=["missing", "empty", "not a zip", "half"])
def test_a_missing_or_damaged_body_says_what_to_do(tmp_path, monkeypatch, damage):
    file = tmp_path / "body.npz"
    if damage is not None:
        whole = path("body.npz").read_bytes()
        file.write_bytes(whole[: len(whole) // 2] if damage == "half" else damage)
    monkeypatch.setattr("body4d_lite_models.path", lambda name: file)
    with pytest.raises(Body4DError, match="body model cannot be read.*Install body4d-lite-models again"):
        load.__wrapped__()


def test_the_run_path_needs_no_learning_framework():
    code = ("import sys; import body4d_engine.stages.recover, body4d_engine.stages.refine; from body4d_engine.models.anny.body import load; load(); "
            "bad = {'torch', 'warp', 'anny', 'jax', 'tensorflow', 'cv2', 'bpy'} & set(sys.modules); sys.exit(str(bad) if bad else 0)")
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
