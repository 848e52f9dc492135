# SPDX-License-Identifier: Apache-2.0
"""What the full backend's refine does to a motion: zero phase, outliers, hands, and real bodies that SAM 3D Body has made."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from scipy.spatial.transform import Rotation  # noqa: E402

from body4d_engine.fit.local import Neighbourhoods  # noqa: E402
from body4d_engine.models.sam_3d_body import fusion  # noqa: E402
from body4d_engine.models.sam_3d_body.figure import Figure  # noqa: E402
from body4d_engine.stages.full.refine import HALF_S  # noqa: E402

from ..engine.tracked import run_stage  # noqa: E402
from .sam_3d_body_nets import network, people  # noqa: E402
from .seen import arrays, seen_take, stage  # noqa: E402
from .upright import person  # noqa: E402

REAL = Path(__file__).parents[3] / "shared" / "data" / "sam_3d_body"
HALF = 30 * HALF_S
FINGERS = np.arange(68, 122)


@pytest.fixture(scope="module")
def net():
    return person()


@pytest.fixture(scope="module")
def figure(net):
    return Figure(net)


def moving(figure, count: int = 60, seed: int = 0) -> tuple:
    """Somebody who bends, waves and makes fists: parameters, root, identity, scale."""
    random, time = np.random.default_rng(seed), np.arange(count) / 30
    params = np.tile(figure.average, (count, 1))
    params[:, 6:130] = random.normal(0, 0.2, 124) * np.sin(2 * np.pi * 0.6 * time[:, None] + random.uniform(0, 6, 124))
    params[:, 4] = 3.1 + 0.3 * time
    root = np.column_stack([0.2 * time, 0.02 * np.sin(3 * time), 3 + 0.2 * time])
    return params.astype(np.float32), root, np.zeros(45, np.float32), np.zeros(28, np.float32)


def backward(truth) -> tuple:
    return truth[0][::-1].copy(), truth[1][::-1].copy(), *truth[2:]


def test_forward_and_backward_are_the_same():
    """Of any rotations and numbers, with gaps, doubts and outliers: smoothed backward they are what is smoothed, backward. Fails for a filter with a phase."""
    random, count = np.random.default_rng(0), 50
    weight, segment = random.uniform(0.05, 1, count), np.repeat([0, 1], [20, 30])
    values = np.cumsum(random.normal(0, 0.1, (count, 3)), axis=0)
    values[[10, 33]] += 2
    turns = Rotation.from_rotvec(np.repeat(values, 2, axis=0))
    near, later = Neighbourhoods(0, count, HALF, segment, weight), Neighbourhoods(0, count, HALF, segment[::-1], weight[::-1])
    np.testing.assert_allclose(later.smooth(values[::-1], 0.2)[::-1], near.smooth(values, 0.2), atol=1e-9)
    quaternions = turns.as_quat().reshape(count, 2, 4)
    found = later.smooth_rotations(Rotation.from_quat(quaternions[::-1].reshape(-1, 4)), 2, 0.2).as_quat().reshape(count, 2, 4)[::-1]
    apart = Rotation.from_quat(found.reshape(-1, 4)).inv() * near.smooth_rotations(turns, 2, 0.2)
    assert apart.magnitude().max() < 1e-7


def test_a_take_backward_is_the_take_backward(tmp_path, net, figure):
    """Poses, way and body of a whole person, with one noise in both. Fails where anything looks back only, or the first sample says more than the last."""
    params, root, shape, scale = moving(figure)
    random = np.random.default_rng(2)
    params = params + np.pad(random.normal(0, 0.03, (len(params), 124)), ((0, 0), (6, 74))).astype(np.float32)
    root = root * (1 + 0.02 * random.normal(size=(len(root), 1)))
    found = []
    for name, truth in (("a", (params, root, shape, scale)), ("b", backward((params, root, shape, scale)))):
        take, persons, clip = seen_take(tmp_path / f"{name}.take", figure, truth, noise=0)
        run_stage(stage(net, foot_lock=False), take, persons, clip)
        found.append(arrays(take))
        take.close()
    for name in ("root", "keypoints_m", "vertices"):
        np.testing.assert_allclose(found[1][name][::-1], found[0][name], atol=2e-5, err_msg=name)


def test_one_wild_sample_is_not_believed(tmp_path, net, figure):
    """A body turned by a right angle with its arms anywhere, in two samples of sixty: less than a twentieth of that is left. Fails for a mean."""
    truth = moving(figure)
    wild, random = truth[0].copy(), np.random.default_rng(3)
    wild[[20, 40], 4] += 1.5
    wild[[20, 40], 30:68] += random.normal(0, 0.8, (2, 38)).astype(np.float32)
    found = []
    for name, seen in (("a", truth[0]), ("b", wild)):
        take, persons, clip = seen_take(tmp_path / f"{name}.take", figure, truth, noise=0, seen=(seen, np.tile(np.arange(70), (60, 1))))
        run_stage(stage(net, foot_lock=False), take, persons, clip)
        before = np.array(take.by_sample("people/1", "joints", "recover"))
        found.append((before, arrays(take)))
        take.close()
    was = np.linalg.norm(found[1][0] - found[0][0], axis=2).max()
    left = np.linalg.norm(found[1][1]["keypoints_m"] - found[0][1]["keypoints_m"], axis=2).max()
    assert was > 0.5 and left < 0.05 * was


def test_each_has_a_body_of_their_own(tmp_path, net, figure):
    """From the samples in which they are seen. Fails for person 1's shape for everyone, or the first frame's, which was not measured."""
    params, root, shape, scale = moving(figure)
    truth = {1: (params, root, shape + 0.5, scale + 0.5), 2: (params, root, shape - 0.8, scale - 0.3)}
    take, persons, clip = seen_take(tmp_path / "a.take", figure, truth, "o" * 20 + "v" * 40, noise=0.02, people=(1, 2))
    run_stage(stage(net, foot_lock=False), take, persons, clip)
    for number, (*_, of_shape, of_scale) in truth.items():
        for name, wanted in (("shape", of_shape), ("scale", of_scale)):
            found = np.array(take.by_sample(f"people/{number}", name, "refine"))
            assert np.ptp(found, axis=0).max() == 0 and np.abs(found[0] - wanted).max() < 0.03
    take.close()


def jitter(figure, params: np.ndarray) -> float:
    """Degrees by which fingers turn, on average, apart from where the samples beside say, in three."""
    turns = figure.angles.rotations(params)
    hands = [number for number, places in enumerate(figure.angles.joints) if set(places.tolist()) <= set(FINGERS.tolist())]
    alone = [number for number, place in enumerate(figure.angles.single) if place in FINGERS]
    vectors = turns.as_quat().reshape(len(params), -1, 4)[:, hands]
    bend = np.abs(np.diff(np.angle(np.exp(1j * params[:, figure.angles.single[alone]])), n=2, axis=0)).mean()
    steps = (Rotation.from_quat(vectors[:-1].reshape(-1, 4)).inv() * Rotation.from_quat(vectors[1:].reshape(-1, 4))).as_rotvec().reshape(len(params) - 1, -1, 3)
    return float(np.degrees((bend + np.linalg.norm(np.diff(steps, axis=0), axis=2).mean()) / 2))


def test_hands_are_as_calm_as_the_rest(tmp_path, net, figure):
    """Fingers seen with 6 degrees of noise jitter less than a quarter as much, and the fists that are made stay: every joint goes as far as it did."""
    truth = moving(figure)
    truth[0][:, FINGERS] *= 2
    take, persons, clip = seen_take(tmp_path / "a.take", figure, truth, noise=0.1)
    run_stage(stage(net), take, persons, clip)
    before, found = np.array(take.by_sample("people/1", "params", "recover"), np.float64), arrays(take)["params"].astype(np.float64)
    calm = [jitter(figure, params) for params in (truth[0].astype(np.float64), before, found)]
    print("finger jitter in degrees: true, recovered, refined", np.round(calm, 2))
    assert calm[2] < 0.25 * calm[1]
    off = [np.abs(np.angle(np.exp(1j * (params - truth[0])[5:-5][:, FINGERS]))).mean() for params in (before, found)]
    assert off[1] < 0.6 * off[0]
    take.close()


def test_the_hands_in_the_take_are_those_of_the_mesh(tmp_path, net, figure):
    """`hands`, as the network writes them, decoded are the fingers of `params`. Fails where they are left as recovered."""
    take, persons, clip = seen_take(tmp_path / "a.take", figure, moving(figure), noise=0.1)
    run_stage(stage(net), take, persons, clip)
    found, head = arrays(take), figure.head
    codes = torch.from_numpy(found["hands"]).unflatten(1, (2, 54))
    fingers = head.hand_angles((head.hand_mean + codes @ head.hand_comps).flatten(0, 1)).unflatten(0, (-1, 2)).flatten(1).numpy()
    places = np.concatenate([head.left_hand.numpy(), head.right_hand.numpy()])
    apart = found["params"].copy()
    apart[:, places] = fingers
    turns = [figure.angles.rotations(params) for params in (found["params"], apart)]
    assert (turns[0].inv() * turns[1]).magnitude().max() < 1e-3
    take.close()


@pytest.mark.skipif(not REAL.is_dir(), reason="the real outputs are not here")
def test_real_bodies_get_calm_and_stay_real(tmp_path, net, figure):
    """From one published pose of SAM 3D Body to the other and back, with 3 degrees of noise in all angles: a fifth of the jitter, and nearer to the truth."""
    real = [np.load(REAL / f"img_subj0{number}.npz") for number in (0, 1)]
    poses, count = [one["mhr_model_params"].astype(np.float64) for one in real], 90
    share = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(count) / 60)
    params = figure.angles.between(poses[0], poses[1], share)
    params[:, 130:136] = poses[0][130:136]
    root = (1 - share)[:, None] * real[0]["pred_cam_t"] + share[:, None] * real[1]["pred_cam_t"]
    truth = figure.with_scale(params, np.zeros(28, np.float32)), root, np.zeros(45, np.float32), np.zeros(28, np.float32)
    take, persons, clip = seen_take(tmp_path / "a.take", figure, truth, noise=0.05, far=0.003)
    run_stage(stage(net), take, persons, clip)
    joints = [np.array(take.by_sample("people/1", "joints", name)) for name in ("recover", "refine")]
    joints.append(figure.posed(truth[0], np.zeros((count, 45), np.float32))["joints"])
    bumps = [np.linalg.norm(np.diff(points, n=3, axis=0), axis=2).mean() for points in joints]
    off = [np.linalg.norm(points - joints[2], axis=2).mean() for points in joints[:2]]
    print("mm of third differences: recovered, refined, true", np.round(1000 * np.array(bumps), 2), "off", np.round(1000 * np.array(off), 1))
    assert bumps[1] < 0.2 * bumps[0] and off[1] < 0.75 * off[0]
    limits = [np.abs(figure.angles.rotations(some).magnitude()).max() for some in (truth[0], arrays(take)["params"])]
    assert limits[1] < limits[0] + 0.2
    take.close()


def test_a_hand_too_small_to_be_looked_at_is_the_body_s(monkeypatch):
    """Where a hand's crop is not believed, as where hands are off, fingers are what the look at the whole body says: never relaxed, never a hand crop's."""
    net, told = network(), []
    merge = fusion.Fusion.merge
    monkeypatch.setattr(fusion, "SMALLEST_CROP", 1e9)
    monkeypatch.setattr(fusion.Fusion, "merge", lambda self, pose, hands, *rest: (told.append((pose.hand, hands.code)), merge(self, pose, hands, *rest))[1])
    found = net.infer(people(), "full")
    (of_body, of_hands), = told
    assert not found["hands_used"].any() and (of_body - of_hands.flatten(1)).abs().max() > 0.1
    torch.testing.assert_close(found["hand_pose_params"], of_body, rtol=0, atol=0)
    fingers = found["mhr_model_params"][:, 68:122]
    head = net.body.pose_head
    still = torch.cat([head.hand_angles(head.hand_mean[None])] * 2, 1)
    assert (fingers - still).abs().max() > 0.05
