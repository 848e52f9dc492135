# SPDX-License-Identifier: Apache-2.0
"""Full refine on a known motion of a random body, seen with noise: calmer, nearer to the truth, one shape, the same however it is cut up."""

import numpy as np
import pytest

pytest.importorskip("torch")
from scipy.spatial.transform import Rotation  # noqa: E402

from body4d_engine.fit.local import Neighbourhoods  # noqa: E402
from body4d_engine.imports.mhr70 import MHR70  # noqa: E402
from body4d_engine.models.sam_3d_body.figure import Figure  # noqa: E402
from body4d_engine.people import Correction, Person  # noqa: E402
from body4d_engine.stages.full.legs import FEET, LEGS, reach  # noqa: E402
from body4d_engine.stages.full.motion import _median  # noqa: E402
from body4d_engine.stages.full.whole import Body  # noqa: E402
from body4d_engine.take import State, Take  # noqa: E402

from ..engine.tracked import run_stage  # noqa: E402
from .sam_3d_body_nets import network  # noqa: E402
from .seen import arrays, seen_take, stage  # noqa: E402

SAMPLES = 40


@pytest.fixture(scope="module")
def net():
    return network()


@pytest.fixture(scope="module")
def figure(net):
    return Figure(net)


@pytest.fixture(scope="module")
def truth(figure):
    """Parameters, root, identity and scale of somebody who bends and walks to the side."""
    random, time = np.random.default_rng(0), np.arange(SAMPLES) / 30
    swing, phase = random.normal(0, 0.3, 136), random.uniform(0, 6, 136)
    params = np.tile(figure.average, (SAMPLES, 1))
    params[:, 6:130] = (swing * np.sin(2 * np.pi * 0.8 * time[:, None] + phase))[:, 6:130]
    params[:, 4] = 3.0 + 0.4 * time  # facing the camera, across the seam of the angle
    root = np.column_stack([0.2 * time, 0.05 * np.sin(4 * time), 3 + 0.2 * time])
    scale, shape = random.normal(0, 0.5, 28).astype(np.float32), random.normal(0, 0.5, 45).astype(np.float32)
    return figure.with_scale(params.astype(np.float32), scale), root, shape, scale


def turned(figure, params: np.ndarray) -> Rotation:
    return figure.angles.rotations(params)


def test_it_is_calmer_and_nearer_to_the_truth(tmp_path, net, figure, truth):
    """Fails for smoothing that lags, averages Euler angles over their seam, keeps a shape per sample, or leaves the root where it was."""
    take, persons, clip = seen_take(tmp_path / "a.take", figure, truth)
    run_stage(stage(net, foot_lock=False), take, persons, clip)
    found, before = arrays(take), np.array(take.by_sample("people/1", "params", "recover"))
    params, root, shape, scale = truth
    wrong = [np.sqrt(((turned(figure, params).inv() * turned(figure, guess)).magnitude() ** 2).mean()) for guess in (before, found["params"])]
    assert wrong[1] < 0.7 * wrong[0]
    assert np.ptp(found["shape"], axis=0).max() == 0 and np.abs(found["shape"][0] - shape).max() < 0.03
    assert np.ptp(found["params"][:, 136:], axis=0).max() == 0 and np.abs(found["scale"][0] - scale).max() < 0.03
    off = [np.linalg.norm(guess - root, axis=1).mean() for guess in (np.array(take.by_sample("people/1", "root", "recover")), found["root"])]
    assert off[1] < 0.5 * off[0]
    jumps = [np.abs(np.diff(path, n=2, axis=0)).mean() for path in (np.array(take.by_sample("people/1", "root", "recover")), found["root"])]
    assert jumps[1] < 0.2 * jumps[0]
    posed = figure.posed(found["params"], found["shape"])
    np.testing.assert_allclose(posed["vertices"], found["vertices"], atol=1e-5)
    np.testing.assert_allclose(take.body(1)["rest_vertices_m"], figure.rest(found["params"][0], found["shape"][0])["rest_vertices_m"], atol=1e-5)
    take.close()


def test_without_smoothing_only_shape_and_root_change(tmp_path, net, figure, truth):
    take, persons, clip = seen_take(tmp_path / "a.take", figure, truth, noise=0.003, far=0.05)
    run_stage(stage(net, smoothing=0, foot_lock=False), take, persons, clip)
    before = np.array(take.by_sample("people/1", "params", "recover"))
    found = arrays(take)
    assert (turned(figure, found["params"]).inv() * turned(figure, before)).magnitude().max() < 1e-5
    off = [np.linalg.norm(guess - truth[1], axis=1).mean() for guess in (np.array(take.by_sample("people/1", "root", "recover")), found["root"])]
    assert off[1] < 0.8 * off[0]  # the random body is three pixels large: its size in the picture says little
    take.close()


@pytest.mark.parametrize("kill_after, chunk", [(None, 7), (1, 9), (3, 9)])
def test_cut_up_or_killed_it_is_the_same(tmp_path, net, figure, truth, kill_after, chunk):
    text = "v" * 15 + "o" * 8 + "v" * 17
    whole, persons, clip = seen_take(tmp_path / "a.take", figure, truth, text)
    run_stage(stage(net, chunk=100), whole, persons, clip)
    take, *_ = seen_take(tmp_path / "b.take", figure, truth, text)
    if kill_after:
        run_stage(stage(net, chunk=chunk), take, persons, clip, stop_after=kill_after)
        take.close()
        take = Take.open(tmp_path / "b.take", writable=True)
    run_stage(stage(net, chunk=chunk), take, persons, clip)
    for name, values in arrays(whole).items():
        np.testing.assert_allclose(arrays(take)[name], values, rtol=0, atol=2e-2 if name == "keypoints_px" else 1e-4, err_msg=name)
    whole.close(), take.close()


def test_gaps_are_filled_and_cuts_kept(tmp_path, net, figure, truth):
    """Hidden for a quarter of a second: filled, with half the confidence. Over a cut nothing is smoothed."""
    take, persons, clip = seen_take(tmp_path / "a.take", figure, truth, "v" * 15 + "o" * 8 + "v" * 17, shots=(0, 30))
    run_stage(stage(net), take, persons, clip)
    found = arrays(take)
    assert (found["state"][15:23] == State.FILLED).all() and (found["state"][:15] == State.VISIBLE).all()
    np.testing.assert_allclose(found["confidence"][15:23], 0.45, atol=1e-6)
    assert not found["keypoints_px"][15:23, :, 2].any() and found["keypoints_px"][:15, :, 2].all()
    another = (np.concatenate([truth[0][:30], truth[0][:10]]), *truth[1:])
    other, *_ = seen_take(tmp_path / "b.take", figure, another, "v" * 15 + "o" * 8 + "v" * 17, shots=(0, 30))
    run_stage(stage(net), other, persons, clip)
    both = [arrays(one)["params"][:30, :136] for one in (take, other)]
    np.testing.assert_allclose(*both, atol=1e-6)
    take.close(), other.close()


def test_what_is_not_believed_follows_its_neighbours(tmp_path, net, figure, truth):
    """A limb that the user calls lost lies between where it was and will be; everything else stays."""
    take, persons, clip = seen_take(tmp_path / "a.take", figure, truth, noise=0)
    with_wrong = [Person(1, corrections=[Correction(10, 20, "limb", "left leg")])]
    run_stage(stage(net, smoothing=0, foot_lock=False), take, with_wrong, clip)
    found, before = arrays(take)["params"], np.array(take.by_sample("people/1", "params", "recover"))
    leg = [*range(59, 68), *range(122, 126)]
    assert np.abs(found - before)[10:21, 59:68].max() > 0.01
    np.testing.assert_allclose(np.delete(found, leg, 1), np.delete(before, leg, 1), atol=1e-5)
    take.close()
    take, *_ = seen_take(tmp_path / "b.take", figure, truth, noise=0)
    run_stage(stage(net), take, [Person(1, corrections=[Correction(10, 20, "body")])], clip)
    assert (arrays(take)["state"][10:21] == State.FILLED).all()
    take.close()


def test_planted_feet_stay(tmp_path, net, figure, truth):
    """Somebody who stands: heels and toes are found to stand, and slide less than where feet are not held."""
    params, root, shape, scale = (np.repeat(values[:1], SAMPLES, axis=0) if len(values) == SAMPLES else values for values in truth)
    hips = [MHR70.index("left_hip"), MHR70.index("right_hip")]
    turns = [turn for turn in np.linspace(0, 2 * np.pi, 16) if _hangs(figure, params, shape, turn, hips)]
    params[:, 3] = turns[0]
    slides = []
    for lock in (False, True):
        take, persons, clip = seen_take(tmp_path / f"{lock}.take", figure, (params, root, shape, scale), noise=0.02)
        run_stage(stage(net, foot_lock=lock), take, persons, clip)
        found = arrays(take)
        assert (found["contact"][5:-5] > 0.5).all() and found["places"][5:-5].any(axis=2).all()
        feet = found["keypoints_m"][5:-5, FEET] + found["root"][5:-5, None]
        slides.append(np.abs(np.diff(feet, axis=0)).mean())
        take.close()
    print(slides)
    assert slides[1] < 0.3 * slides[0]


def _hangs(figure, params, shape, turn: float, hips: list[int]) -> bool:
    body = params[:1].copy()
    body[:, 3] = turn
    points = figure.keypoints(body, shape[None])[0]
    legs = points[FEET] - points[hips].mean(0)
    return (-legs[:, 1] < 0.6 * np.linalg.norm(legs, axis=1)).all()  # nobody hangs by the feet


def test_legs_reach(figure, truth):
    """Heels and toes come nearer to where they are asked to be, by the legs alone."""
    params, root, shape, scale = truth
    shifts = np.zeros((SAMPLES, 4, 3))
    shifts[3, :2] = [0.01, -0.01, 0.005]
    out, place = reach(Body(figure, shape, scale, np.zeros(6)), params, root, shifts)
    np.testing.assert_array_equal(np.delete(out, LEGS, 1), np.delete(params, LEGS, 1))
    np.testing.assert_array_equal(np.delete(out, 3, 0), np.delete(params, 3, 0))
    feet = [(figure.keypoints(body, shape[None])[3, FEET] + at[3]) for body, at in ((params, root), (out, place))]
    left = np.linalg.norm(feet[0] + shifts[3] - feet[1])
    assert left < 0.7 * np.linalg.norm(shifts[3])


def test_a_parabola_passes_and_noise_does_not():
    """Zero phase: what moves evenly or falls is not touched, across the seam of rotations; an outlier is not believed; a cut is not smoothed over."""
    time = np.arange(60) / 30
    falling = np.column_stack([time**2, 3 * time])
    near = Neighbourhoods(0, 60, 4.5, np.zeros(60, int), np.ones(60))
    np.testing.assert_allclose(near.smooth(falling, 0.2)[5:-5], falling[5:-5], atol=2e-4)
    turning = Rotation.from_rotvec(np.column_stack([0 * time, 3 + 2 * time, 0 * time]))
    assert (turning.inv() * near.smooth_rotations(turning, 1, 0.2)).magnitude().max() < 1e-3
    struck = falling.copy()
    struck[30] += 1.0
    assert np.abs(near.smooth(struck, 0.05) - falling)[25:36].max() < 0.1
    step = np.repeat([[0.0], [1.0]], 30, axis=0)
    apart = Neighbourhoods(0, 60, 4.5, np.repeat([0, 1], 30), np.ones(60))
    np.testing.assert_allclose(apart.smooth(step, 10.0), step, atol=1e-9)
    part = Neighbourhoods(20, 25, 4.5, np.zeros(60, int), np.ones(60))
    np.testing.assert_allclose(part.smooth(falling[slice(*part.span)], 0.2), near.smooth(falling, 0.2)[20:25], atol=1e-12)


def test_the_median_is_weighted():
    values = np.array([[1.0, 5.0], [2.0, 6.0], [9.0, 7.0]])
    np.testing.assert_array_equal(_median(values, np.array([1, 1, 1.0])), [2, 6])
    np.testing.assert_array_equal(_median(values, np.array([0.1, 0.1, 1.0])), [9, 7])


def test_feet_are_the_published_keypoints():
    assert [MHR70[index] for index in FEET] == ["left_heel", "left_big_toe", "right_heel", "right_big_toe"]
