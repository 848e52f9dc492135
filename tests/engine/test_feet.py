# SPDX-License-Identifier: Apache-2.0
"""Planted feet do not slide, nothing pops, and the pose is no worse for it."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from body4d_engine.camera_motion import GROUP
from body4d_engine.fit import contact
from body4d_engine.fit.contact import INDEX
from body4d_engine.fit.feet import Held, firmness, foot_shifts, planted, reach
from body4d_engine.fit.record import from_params, read_shape
from body4d_engine.fit.residuals import Linear
from body4d_engine.models.anny.pose import KEYPOINTS, pose_model
from body4d_engine.stages.recover import Recover
from body4d_engine.stages.refine import Refine
from body4d_engine.take import Take

from .test_recover import mpjpe_mm
from .tracked import real_walk, run_stage, tracked_take, visible


@pytest.fixture(scope="module")
def walk():
    return real_walk(1)


def made(path, walk, warps=None, pixels=None):
    pixels = walk.px if pixels is None else pixels
    take, persons, clip = tracked_take(path, [(pixels, walk.metres, visible(100))], walk.focal, walk.centre, walk.size, walk.fps)
    if warps is not None:
        take.begin("prepare", "k" * 8)
        take.create_array(GROUP, "warp", "f4", (3, 3))
        take.append(GROUP, "warp", warps)
        take.finish()
    run_stage(Recover(), take, persons, clip)
    run_stage(Refine(), take, persons, clip)
    return take


@pytest.fixture(scope="module")
def held(tmp_path_factory, walk):
    take = made(tmp_path_factory.mktemp("held") / "a.take", walk)
    yield take
    take.close()


@pytest.fixture(scope="module")
def loose(tmp_path_factory, walk):
    """The same without feet being held."""
    take = made_loose(tmp_path_factory.mktemp("loose") / "a.take", walk)
    yield take
    take.close()


def made_loose(path, walk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contact, "stands", lambda probability, *_: np.zeros(probability.shape, np.int32))
        return made(path, walk)


def feet(take: Take):
    return take.read("people/1", "keypoints_m", "refine")[:, INDEX].astype(float) + take.read("people/1", "root", "refine")[:, None]


def contacts(take: Take):
    """(100, 4) the number of the contact, by the array of probabilities alone."""
    standing = take.read("people/1", "contact", "refine") > contact.LIKELY
    begins = standing & ~np.concatenate([np.zeros((1, 4), bool), standing[:-1]])
    return begins.cumsum(0) * standing


def slides_mm(points, contacts):
    both = (contacts[1:] > 0) & (contacts[1:] == contacts[:-1])
    return 1e3 * np.linalg.norm(np.diff(points, axis=0), axis=-1)[both]


def test_planted_feet_do_not_slide(held, loose):
    standing = contacts(held)
    before, after = slides_mm(feet(loose), standing), slides_mm(feet(held), standing)
    assert before.mean() > 10 * after.mean() and after.mean() < 0.5 and np.percentile(after, 95) < 2


def test_the_pose_is_no_worse(held, loose, walk):
    assert mpjpe_mm(held, walk.truth, "refine") < mpjpe_mm(loose, walk.truth, "refine") + 2


def test_nor_is_it_from_another_side(tmp_path):
    walk = real_walk(2)
    held, loose = made(tmp_path / "held.take", walk), made_loose(tmp_path / "loose.take", walk)
    standing = contacts(held)
    before, after = slides_mm(feet(loose), standing), slides_mm(feet(held), standing)
    assert (standing > 0).mean() > 0.3 and before.mean() > 3 and after.mean() < 0.5
    assert mpjpe_mm(held, walk.truth, "refine") < mpjpe_mm(loose, walk.truth, "refine") + 2
    held.close()
    loose.close()


def test_nothing_pops_where_contacts_change(held, loose):
    standing = contacts(held) > 0
    changes = np.flatnonzero((standing[1:] != standing[:-1]).any(1))
    near = np.unique(np.clip(changes[:, None] + np.arange(-3, 4), 0, 97))

    def fastest(take):
        points = take.read("people/1", "keypoints_m", "refine") + take.read("people/1", "root", "refine")[:, None]
        return np.linalg.norm(np.diff(points, 2, axis=0), axis=-1)[near].max(1) * 60**2

    assert np.percentile(fastest(held), 95) < np.percentile(fastest(loose), 95) + 15  # m/s^2; where a foot is set down it brakes with 30 anyhow
    legs = [i for i, name in enumerate(KEYPOINTS) if name.endswith(("knee", "ankle"))]
    moved = np.linalg.norm(np.diff(held.read("people/1", "keypoints_m", "refine")[:, legs], 2, axis=0), axis=-1).max() * 60**2
    assert moved < 120  # m/s^2; a swinging foot has 60


def test_a_camera_that_turns_holds_feet_in_space(tmp_path, walk, held):
    """The picture of the same walk through a camera that follows the person by turning."""
    lens = np.array([[walk.focal, 0, walk.centre[0]], [0, walk.focal, walk.centre[1]], [0, 0, 1]])
    turned = Rotation.from_rotvec(np.linspace(0, 1, 100)[:, None] * [0.03, 0.2, 0.02]).as_matrix()
    warps = lens @ turned @ np.linalg.inv(lens)
    ends = np.einsum("nij,nkj->nki", warps, np.concatenate([walk.px[..., :2], np.ones((100, 33, 1))], 2))
    pixels = np.concatenate([ends[..., :2] / ends[..., 2:], walk.px[..., 2:]], 2)
    steps = np.array([np.eye(3), *(warps[i + 1] @ np.linalg.inv(warps[i]) for i in range(99))])
    take = made(tmp_path / "a.take", walk, steps, pixels)
    standing = contacts(take)
    assert ((standing > 0) == (contacts(held) > 0)).mean() > 0.93
    world = np.einsum("nji,nkj->nki", turned, feet(take))
    assert slides_mm(world, standing).mean() < 0.5 and slides_mm(feet(take), standing).mean() > 5
    take.close()


def test_a_camera_that_moves_along_holds_nothing_and_says_so(tmp_path, walk):
    zoom = np.array([[1.004, 0, -1.5], [0, 1.004, -4], [0, 0, 1]])
    steps = np.array([np.eye(3)] * 30 + [zoom] * 70)
    take = made(tmp_path / "a.take", walk, steps)
    assert not contacts(take)[60:].any()
    notices = [n for n in take.notices() if n["code"] == "feet_not_held"]
    assert len(notices) == 1 and 0 < notices[0]["frame"] <= 45 and notices[0]["last_frame"] == 99
    take.close()


@pytest.fixture(scope="module")
def poses(loose):
    return read_shape(loose, 1, "recover").rig(pose_model()), from_params(loose.read("people/1", "params", "refine")[::5])


def test_the_pull_is_the_gradient_of_its_energy(poses):
    rig, some = poses
    rng = np.random.default_rng(0)
    some = some[:4]
    places = rig.keypoints(*rig.pose(some.rotation, some.theta))[:, INDEX] + some.position[:, None] + rng.normal(0, 0.03, (4, 4, 3))
    held = Held(rng.uniform(0, 1, (4, 4)), places)

    def linear(at):
        keypoints, jacobian = rig.keypoints_and_jacobian(at.rotation, at.theta)
        out = Linear(np.zeros(4), np.zeros((4, 60)), np.zeros((4, 60, 60)), keypoints, jacobian)
        held.add(out, at)
        return out

    gradient = linear(some).gradient
    for column in (0, 2, 4, 6, 40, 50, 58):
        step = np.zeros((4, 60))
        step[:, column] = 1e-5
        slope = (linear(some.moved(step)).energy - linear(some.moved(-step)).energy) / 2e-5
        np.testing.assert_allclose(2 * gradient[:, column], slope, rtol=1e-4, atol=1e-5)


def test_legs_reach_what_they_can(poses):
    rig, some = poses

    def at(poses):
        return rig.keypoints(*rig.pose(poses.rotation, poses.theta))[:, INDEX] + poses.position[:, None]

    shifts = np.random.default_rng(1).normal(0, 0.01, (len(some), 2, 1, 3)).repeat(2, 2).reshape(-1, 4, 3)
    shifts[..., 1] = -np.abs(shifts[..., 1])  # y points down: lift
    there = reach(rig, some, shifts)
    assert np.median(np.linalg.norm(at(there) - at(some) - shifts, axis=-1)) < 5e-4
    np.testing.assert_array_equal(there.theta[:, :30], some.theta[:, :30])  # spine and head
    far = reach(rig, some, np.full((len(some), 4, 3), [0.0, 1.0, 0.0]))
    assert np.isfinite(far.theta).all()
    assert (at(far)[..., 1] >= at(some)[..., 1] - 0.02).all()  # stretched towards it
    assert (far.theta <= np.maximum(rig.model.limits[:, 1], some.theta) + 1e-9).all()


@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_corrections_come_and_go_softly(poses, n):
    rig, some = poses
    contacts = np.zeros((n, 4), np.int32)
    contacts[n // 3 : 2 * n // 3 + 1, :2] = 1, 2
    held = Held(firmness(contacts, 1 / 30), np.full((n, 4, 3), 0.05))
    shifts = foot_shifts(np.zeros((n, 4, 3)), held, 1 / 30)
    assert not shifts[:, 2:].any() and np.isfinite(shifts).all()
    if n == 40:
        np.testing.assert_allclose(shifts[15:24, :2], 0.05, atol=1e-3)
        assert np.abs(shifts[[0, 39], :2]).max() < 0.002
        assert np.abs(np.diff(shifts, 2, axis=0)).max() * 30**2 < 20  # m/s^2 for 5 cm within a tenth of a second
    assert len(planted(rig, some[[0]], Held(np.zeros((1, 4)), np.zeros((1, 4, 3))), 1 / 30)) == 1
