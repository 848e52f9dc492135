# SPDX-License-Identifier: Apache-2.0
"""What the user says is wrong with bodies of the full backend gets right, and nothing else changes. On a body with MHR's joints and mirror symmetry."""

import shutil

import numpy as np
import pytest

pytest.importorskip("torch")

from body4d_engine.fit import corrected  # noqa: E402
from body4d_engine.imports.mhr70 import MHR70  # noqa: E402
from body4d_engine.models.sam_3d_body.figure import Figure  # noqa: E402
from body4d_engine.people import LIMBS, Correction, Person  # noqa: E402
from body4d_engine.stages.full.turned import SWAP, turned  # noqa: E402
from body4d_engine.take import State, Take  # noqa: E402

from . import seen  # noqa: E402
from .seen import arrays, seen_take, stage  # noqa: E402
from .upright import person  # noqa: E402

SAMPLES = 150
BASE = "b" * 8
TEXT, SHOTS = "v" * 50 + "o" * 10 + "v" * 90, (0, 65)


@pytest.fixture(scope="module")
def net():
    return person()


@pytest.fixture(scope="module")
def figure(net):
    return Figure(net)


@pytest.fixture(scope="module")
def truth(figure):
    """Somebody who stands askew, swings arms and bends: parameters, root, identity, scale."""
    random, time = np.random.default_rng(3), np.arange(SAMPLES) / 30
    params = np.tile(figure.average, (SAMPLES, 1))
    params[:, 6:130] = random.normal(0, 0.15, 124) * np.sin(2 * np.pi * 0.7 * time[:, None] + random.uniform(0, 6, 124))
    params[:, 4], params[:, 3] = 0.6 + 0.2 * np.sin(time), 0.1
    for elbow, knee in ((36, 53), (46, 62)):
        params[:, elbow] += 0.9
        params[:, knee] += 0.5
    root = np.column_stack([0.1 * np.sin(time), 0.1 + 0 * time, 4 + 0.1 * np.sin(2 * time)])
    return params.astype(np.float32), root, np.zeros(45, np.float32), np.zeros(28, np.float32)


def poses(figure, count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    params = np.tile(figure.average, (count, 1)).astype(float)
    params[:, 3:130] = random.normal(0, 0.3, (count, 127))
    params[:, 4] += random.uniform(-3, 3, count)
    return params, np.column_stack([random.normal(0, 1, count), random.normal(0, 0.5, count), np.full(count, 3.0)])


def mirrored(points: np.ndarray, root: np.ndarray, about: np.ndarray) -> np.ndarray:
    """Points (N, P, 3) in the plane across the line of sight to the root through points (N, 3)."""
    sight = root / np.linalg.norm(root, axis=1, keepdims=True)
    return points - 2 * ((points - about[:, None]) @ sight[:, :, None]) * sight[:, None]


def keypoints(figure, params: np.ndarray) -> np.ndarray:
    return figure.keypoints(params, np.zeros((1, 45), np.float32)).astype(float)


def at(*names: str) -> list[int]:
    return [MHR70.index(name) for name in names]


def test_exchanged_sides_are_the_mirror_image(figure):
    """All 70 keypoints, fingers and toes too. Fails for one wrong sign or partner among MHR's parameters, and for Euler angles that are negated."""
    params, root = poses(figure)
    before = keypoints(figure, params)
    found = keypoints(figure, turned(figure, params, root, np.full(len(params), corrected.SIDES)))
    np.testing.assert_allclose(found, mirrored(before, root, np.zeros((len(root), 3)))[:, SWAP], atol=1e-5)
    assert np.abs(found - before).max() > 0.5
    twice = turned(figure, turned(figure, params, root, np.full(len(params), corrected.SIDES)), root, np.full(len(params), corrected.SIDES))
    np.testing.assert_allclose(keypoints(figure, twice), before, atol=1e-5)


@pytest.mark.parametrize("limb", LIMBS)
def test_a_limb_is_mirrored_in_depth(figure, limb):
    """Its end exactly, of an arm the elbow too, and nothing but the limb; a knee goes on pointing to where the body faces."""
    params, root = poses(figure)
    side, part = limb.split()
    top, middle, end = at(*(f"{side}_{name}" for name in (("shoulder", "elbow", "wrist") if part == "arm" else ("hip", "knee", "ankle"))))
    before, after = keypoints(figure, params), turned(figure, params, root, np.full(len(params), corrected.MIRRORED[limb]))
    found, wanted = keypoints(figure, after), mirrored(before, root, before[:, top])
    np.testing.assert_allclose(found[:, end], wanted[:, end], atol=1e-5)
    assert np.abs(wanted - before)[:, end].max() > 0.3
    if part == "arm":
        np.testing.assert_allclose(found[:, middle], wanted[:, middle], atol=1e-5)
    others = [number for number, name in enumerate(MHR70) if not name.startswith(side)]
    np.testing.assert_allclose(found[:, others], before[:, others], atol=1e-6)
    changed = np.flatnonzero(np.abs(after - params).max(0) > 1e-9)
    assert len(changed) == 3  # angles of shoulder or hip alone: no elbow bends backward


def test_a_knee_does_not_turn_round(figure):
    """Fails where a leg is mirrored like an arm: somebody who walks towards the camera would get a foot that points backward."""
    params = figure.average[None].astype(float)
    params[0, 61], params[0, 62] = -0.4, 0.2  # the left leg to the front
    root, toes = np.array([[0.0, 0, 4]]), at("left_heel", "left_big_toe")
    after = turned(figure, params, root, np.full(1, corrected.MIRRORED["left leg"]))
    ways = [np.diff(keypoints(figure, some)[0, toes], axis=0)[0, 2] for some in (params, after)]
    assert ways[0] < -0.1 and ways[1] < -0.1  # to the camera, both


def test_a_body_is_mirrored_in_depth(figure):
    """Trunk and limbs, names as they are: shoulders to 5 cm (collar bones are short), all else hangs on them."""
    params, root = poses(figure)
    before = keypoints(figure, params)
    found = keypoints(figure, turned(figure, params, root, np.full(len(params), corrected.DEPTH)))
    wanted = mirrored(before, root, np.zeros((len(root), 3)))
    points = at("neck", "nose", *(f"{side}_{part}" for side in ("left", "right") for part in ("shoulder", "elbow", "wrist", "hip", "ankle")))
    assert np.linalg.norm(found - wanted, axis=2)[:, points].max() < 0.05 < 0.5 < np.linalg.norm(before - wanted, axis=2)[:, points].max()


CASES = [("sides", ""), ("depth", ""), ("depth", "right arm"), ("depth", "left leg")]


@pytest.mark.parametrize("kind, limb", CASES)
def test_what_is_wrong_gets_right(tmp_path, net, figure, truth, kind, limb):
    """Half a second of the recovered bodies is wrong in this way: said so, the result is that of bodies that never were; unsaid, it is far off."""
    params, root, *_ = truth
    said = [Correction(30, 45, kind, limb)]
    flags = corrected.flags(said, range(SAMPLES))
    wrong = turned(figure, params, root, flags).astype(np.float32), np.where((flags & corrected.SIDES > 0)[:, None], SWAP, np.arange(70))
    found = {}
    for name, others, corrections in (("true", None, []), ("wrong", wrong, []), ("said", wrong, said)):
        take, _, clip = seen_take(tmp_path / f"{name}.take", figure, truth, noise=0, seen=others)
        run(stage(net, foot_lock=False), take, clip, corrections)
        found[name] = arrays(take)
        take.close()
    off = {name: np.linalg.norm(found[name]["keypoints_m"] - found["true"]["keypoints_m"], axis=2)[25:50].max() for name in ("wrong", "said")}
    assert off["wrong"] > 0.2 and off["said"] < (0.08 if kind == "depth" and not limb else 0.01)
    assert np.linalg.norm(found["said"]["root"] - found["true"]["root"], axis=1).max() < (0.05 if kind == "depth" and not limb else 0.01)
    if kind == "sides":
        np.testing.assert_allclose(found["said"]["keypoints_px"], found["true"]["keypoints_px"], atol=0.5)


def run(refine, take, clip, corrections, stop_after=None):
    """As the pipeline runs it: what has the same base is copied."""
    key = str(abs(hash(tuple(corrections))) % 10**8)
    cursor = take.begin("refine", key, BASE, {"1": [said.to_json() for said in corrections]} if corrections else {})
    for number, _ in enumerate(refine.run(clip, [Person(1, corrections=list(corrections))], take, cursor)):
        if number == stop_after:
            return
    take.finish()


@pytest.fixture(scope="module")
def plain(tmp_path_factory, net, figure, truth):
    """A refined take with a gap, planted feet and noise; nothing is corrected."""
    path = tmp_path_factory.mktemp("plain") / "plain.take"
    take, _, clip = seen_take(path, figure, truth, TEXT, noise=0.02, shots=SHOTS)
    run(stage(net), take, clip, [])
    take.close()
    return path, clip


@pytest.fixture(scope="module")
def free(tmp_path_factory, net, figure, truth):
    """The same without feet held."""
    path = tmp_path_factory.mktemp("free") / "free.take"
    take, _, clip = seen_take(path, figure, truth, TEXT, noise=0.02, shots=SHOTS)
    run(stage(net, foot_lock=False), take, clip, [])
    take.close()
    return path, clip


@pytest.fixture
def copy(plain, tmp_path):
    def made(name: str = "copy", origin=plain) -> Take:
        shutil.copytree(origin[0], tmp_path / f"{name}.take")
        return Take.open(tmp_path / f"{name}.take", writable=True)

    return made


SAID = [Correction(20, 26, "sides"), Correction(20, 30, "limb", "left arm")]


@pytest.mark.parametrize("said", [SAID, [Correction(20, 26, "body")], [Correction(20, 22, "depth")]])
def test_the_rest_is_bit_equal_and_not_solved(plain, free, copy, net, said, monkeypatch):
    """Whatever lies two windows away, where no feet are held; where some are, all in another shot (in the same one they stand on one ground), but for a second.
    Fails where the identity is found anew without what is not believed."""
    posed, count = Figure.posed, []
    monkeypatch.setattr(Figure, "posed", lambda self, params, shape: (count.append(len(params)), posed(self, params, shape))[1])
    for lock, origin in ((False, free), (True, plain)):
        take = copy(str(lock), origin)
        before = arrays(take)
        count.clear()
        run(stage(net, foot_lock=lock), take, plain[1], said)
        after, rest = arrays(take), np.arange(SAMPLES) > (95 if lock else 45)
        assert sum(count) <= (96 if lock else 45)
        for name in seen.NAMES:
            np.testing.assert_array_equal(after[name][rest], before[name][rest], err_msg=name)
        for name in ("shape", "scale"):
            np.testing.assert_array_equal(after[name], before[name])
        assert any(np.abs(after[name][20:27].astype(float) - before[name][20:27]).max() > 1e-3 for name in ("keypoints_m", "root"))
        if said[0].kind == "body":
            assert (after["state"][20:27] == State.FILLED).all()
        take.close()


def test_said_afterwards_is_said_at_first(plain, copy, tmp_path, net, figure, truth):
    """Within 1e-4 m, in whatever order it is said, a gap's end among it; taken back it is as before."""
    later = [Correction(45, 52, "body"), Correction(100, 103, "depth", "right arm")]
    first, _, clip = seen_take(tmp_path / "first.take", figure, truth, TEXT, noise=0.02, shots=SHOTS)
    run(stage(net), first, clip, SAID + later)
    take = copy()
    before = arrays(take)
    for said in (SAID[:1] + later, SAID + later):
        run(stage(net, chunk=11), take, clip, said)
    for name in ("vertices", "root", "keypoints_m"):
        np.testing.assert_allclose(arrays(take)[name], arrays(first)[name], atol=1e-4, rtol=0, err_msg=name)
    np.testing.assert_array_equal(arrays(take)["state"], arrays(first)["state"])
    run(stage(net), take, clip, [])
    for name in ("vertices", "root", "keypoints_m"):
        np.testing.assert_allclose(arrays(take)[name], before[name], atol=1e-4, rtol=0, err_msg=name)
    first.close(), take.close()


def test_what_is_interpolated_changes_as_a_whole(free, copy, tmp_path, net, figure, truth):
    """Less of a body is disbelieved than before: what still is lies between other ends now, far from where something else was said."""
    less = [Correction(80, 105, "body")]
    first, _, clip = seen_take(tmp_path / "first.take", figure, truth, TEXT, noise=0.02, shots=SHOTS)
    run(stage(net, foot_lock=False), first, clip, less)
    take = copy("copy", free)
    for said in ([Correction(80, 120, "body")], less):
        run(stage(net, foot_lock=False), take, clip, said)
    for name in ("vertices", "root"):
        np.testing.assert_allclose(arrays(take)[name], arrays(first)[name], atol=1e-4, rtol=0, err_msg=name)
    first.close(), take.close()


@pytest.mark.parametrize("stop_after", [1, 5])
def test_killed_anywhere_it_goes_on(plain, copy, net, stop_after):
    whole, take = copy("whole"), copy()
    run(stage(net, chunk=9), whole, plain[1], SAID)
    run(stage(net, chunk=9), take, plain[1], SAID, stop_after=stop_after)
    path = take.path
    take.close()
    take = Take.open(path, writable=True)
    run(stage(net, chunk=9), take, plain[1], SAID)
    for name, values in arrays(whole).items():
        np.testing.assert_array_equal(arrays(take)[name], values, err_msg=name)
    whole.close(), take.close()


def test_a_lost_limb_holds_nothing(tmp_path, net, figure, truth):
    """Its keypoints are not shown as trusted, and a leg that is lost does not stand."""
    take, _, clip = seen_take(tmp_path / "a.take", figure, truth, noise=0)
    run(stage(net), take, clip, [Correction(30, 60, "limb", "left leg")])
    trust = arrays(take)["keypoints_px"][30:61, :, 2]
    lost = at("left_knee", "left_ankle", "left_heel", "left_big_toe", "left_small_toe")
    assert not trust[:, lost].any() and trust[:, at("left_hip", "right_knee", "left_wrist")].all()
    take.close()


@pytest.mark.parametrize("kind, limb", [("body", ""), ("limb", "left arm")])
@pytest.mark.parametrize("lock", [False, True])
def test_what_is_not_believed_has_no_say(tmp_path, net, figure, truth, kind, limb, lock):
    """Somebody else is taken for the person, a metre aside, before and after a gap: the result is as if this had never been. Fails where the way, or what
    `recover` put into the gap, is still theirs."""
    params, root, *rest = truth
    wrong, way = params.copy(), root.copy()
    where = slice(40, 71)  # with the gap
    wrong[where, 43:46] += 0.8
    if kind == "body":
        wrong[where, 4] += 1.0
        way[where] += [1.0, 0, 0.5]
    found = []
    for name, some in (("right", truth), ("wrong", (wrong, way, *rest))):
        take, _, clip = seen_take(tmp_path / f"{name}.take", figure, some, TEXT, noise=0)
        run(stage(net, foot_lock=lock), take, clip, [Correction(40, 49, kind, limb), Correction(60, 70, kind, limb)])
        found.append(arrays(take))
        take.close()
    for name in ("vertices", "root", "keypoints_m", "state", "confidence"):
        np.testing.assert_allclose(found[1][name], found[0][name], atol=1e-4, err_msg=name)


@pytest.mark.parametrize("changed, other", [(slice(SHOTS[1], None), slice(SHOTS[1])), (slice(SHOTS[1]), slice(SHOTS[1], None))])
def test_nobody_is_followed_over_a_cut(tmp_path, net, figure, truth, changed, other):
    """What is not believed on both sides of a cut lies between nothing: neither shot has a say in the other."""
    another = truth[0].copy()
    another[changed, 36] += 0.7
    found = []
    for name, params in (("one", truth[0]), ("another", another)):
        take, _, clip = seen_take(tmp_path / f"{name}.take", figure, (params, *truth[1:]), noise=0, shots=SHOTS)
        run(stage(net), take, clip, [Correction(55, 75, "body")])
        found.append(arrays(take)["params"])
        take.close()
    np.testing.assert_array_equal(found[1][other], found[0][other])
    assert np.abs(found[1] - found[0])[changed].max() > 0.5


def test_the_swap_is_its_own_inverse():
    assert (SWAP[SWAP] == np.arange(70)).all() and sum(SWAP == np.arange(70)) == 2  # nose and neck
    assert SWAP[at("left_hip")].tolist() == at("right_hip")
