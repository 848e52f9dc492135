# SPDX-License-Identifier: Apache-2.0
"""recover on real landmarks: accuracy against four calibrated cameras, streaming, resume, gaps and odd people."""

import numpy as np
import pytest

from body4d_engine.errors import Body4DError
from body4d_engine.events import Committed, Notice, Progress
from body4d_engine.models.anny.pose import KEYPOINTS
from body4d_engine.stages.recover import Recover, fit_one
from body4d_engine.take import State, Take

from .tracked import real_walk, run_stage, tracked_take, visible

JOINTS = [KEYPOINTS.index(f"{side}_{part}") for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle") for side in ("left", "right")]
ARRAYS = ("vertices", "root", "state", "confidence", "params", "joints", "rotations", "keypoints_m", "keypoints_px")


@pytest.fixture(scope="module")
def walk():
    return real_walk(1)


def recovered(path, walk, samples=slice(None), state=None, stage=None, **options):
    pixels, metres = walk.px[samples], walk.metres[samples]
    take, persons, clip = tracked_take(path, [(pixels, metres, visible(len(pixels)) if state is None else state)], walk.focal, walk.centre,
                                       walk.size, walk.fps, **options)
    return take, run_stage(stage or Recover(), take, persons, clip)


def arrays(take, person=1, stage="recover"):
    return {name: np.array(take.by_sample(f"people/{person}", name, stage)) for name in ARRAYS}


def about_hips(joints):
    return joints - joints[:, 6:8].mean(1, keepdims=True)


def mpjpe_mm(take, truth, stage):
    keypoints = take.read("people/1", "keypoints_m", stage)[:, JOINTS]
    return 1e3 * np.nanmean(np.linalg.norm(about_hips(keypoints) - about_hips(truth), axis=-1))


@pytest.mark.parametrize("camera, most_mm, least_sure", [(1, 100, 0.5), (2, 95, 0.25)])
def test_a_real_person_is_recovered(tmp_path, camera, most_mm, least_sure):
    walk = real_walk(camera)
    take, events = recovered(tmp_path / "a.take", walk)
    assert mpjpe_mm(take, walk.truth, "recover") < most_mm
    found = arrays(take)
    assert all(len(values) == 100 and np.isfinite(values).all() for values in found.values())
    seen = walk.px[:, [11, 12, 23, 24, 25, 26]]
    ours = found["keypoints_px"][:, [KEYPOINTS.index(f"{s}_{p}") for p in ("shoulder", "hip", "knee") for s in ("left", "right")]]
    assert np.median(np.linalg.norm(ours[..., :2] - seen[..., :2], axis=-1)) < 12  # of 1920
    assert found["confidence"].min() > least_sure and found["confidence"].max() <= 1
    notices = [e.code for e in events if isinstance(e, Notice)]
    assert notices.count("scale_assumed") == 1 and (camera == 2 or len(notices) == 1)
    take.close()


def test_what_a_reader_relies_on(tmp_path, walk):
    take, _ = recovered(tmp_path / "a.take", walk, slice(0, 20))
    found, body = arrays(take), take.body(1)
    assert found["vertices"].shape == (20, 13718, 3) and body["faces"].shape == (27420, 3)
    np.testing.assert_array_equal(found["joints"][:, 0], 0)  # person space begins at the bone `root`
    points = found["keypoints_m"] + found["root"][:, None]
    pixels = walk.focal * points[..., :2] / points[..., 2:] + walk.centre
    np.testing.assert_allclose(found["keypoints_px"][..., :2], pixels, atol=0.01)
    np.testing.assert_allclose(np.linalg.norm(found["rotations"], axis=-1), 1, atol=1e-6)
    w, xyz = found["rotations"][..., 0], found["rotations"][..., 1:]
    middle = body["rest_vertices_m"].mean(0)  # skinned by rotations about rest joints, a vertex of one bone only lands where it was written
    single = np.flatnonzero(np.diff(body["skin_indptr"]) == 1)[::50]
    bone = body["skin_indices"][body["skin_indptr"][single]]
    arm = body["rest_vertices_m"][single] - body["rest_joints_m"][bone]
    turned = arm + 2 * np.cross(xyz[:, bone], np.cross(xyz[:, bone], arm) + w[:, bone, None] * arm)
    np.testing.assert_allclose(found["joints"][:, bone] + turned, found["vertices"][:, single], atol=1e-5)
    assert np.abs(middle).max() < 0.2 and body["height_m"] == pytest.approx(np.ptp(body["rest_vertices_m"][:, 1]), abs=1e-4)
    assert body["joint_names"][0] == "root" and body["parents"][0] == -1 and body["inverse_binds"].shape == (104, 4, 4)
    take.close()


def test_it_streams_and_shows_progress(tmp_path, walk):
    take, events = recovered(tmp_path / "a.take", walk, slice(0, 75), stage=Recover(chunk=30))
    assert [(e.start, e.stop) for e in events if isinstance(e, Committed)] == [(0, 30), (30, 60), (60, 75)]
    steps = [e for e in events if isinstance(e, Progress) and e.note == "body shape"]
    assert steps and events.index(steps[-1]) < next(i for i, e in enumerate(events) if isinstance(e, Committed))
    assert [e.done for e in events if isinstance(e, Progress) and not e.note] == [30, 60, 75]
    take.close()


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_the_result_does_not_depend_on_the_chunk_size(tmp_path, walk, chunk):
    state = visible(40)
    state[:3], state[20:22] = State.ABSENT, State.ABSENT
    a, _ = recovered(tmp_path / "a.take", walk, slice(0, 40), state)
    b, _ = recovered(tmp_path / "b.take", walk, slice(0, 40), state, Recover(chunk=chunk))
    for name, values in arrays(a).items():
        np.testing.assert_array_equal(values, arrays(b)[name], err_msg=name)
    a.close(), b.close()


@pytest.mark.parametrize("kill_after", [0, 1, 2, 4, 5])
def test_killed_and_resumed_is_the_same(tmp_path, walk, kill_after):
    def two_people(path):
        state = visible(40)
        state[:12] = State.ABSENT
        return tracked_take(path, [(walk.px[:40], walk.metres[:40], visible(40)), (walk.px[60:], walk.metres[60:], state)], walk.focal,
                            walk.centre, walk.size, walk.fps)

    whole, persons, clip = two_people(tmp_path / "whole.take")
    run_stage(Recover(chunk=15), whole, persons, clip)
    take, persons, clip = two_people(tmp_path / "cut.take")
    run_stage(Recover(chunk=15), take, persons, clip, stop_after=kill_after)
    take.close()
    with Take.open(tmp_path / "cut.take", writable=True) as again:
        run_stage(Recover(chunk=15), again, persons, clip)
        for person in (1, 2):
            for name, values in arrays(whole, person).items():
                np.testing.assert_array_equal(values, arrays(again, person)[name], err_msg=name)
        assert whole.notices() == again.notices()
    whole.close()


def test_gaps_repeat_the_last_shape_and_a_late_person_shows_the_first(tmp_path, walk):
    state = visible(60)
    state[:10], state[30:50] = State.ABSENT, State.OCCLUDED
    pixels, metres = walk.px[:60].copy(), walk.metres[:60].copy()
    pixels[30:50] = metres[30:50] = 0
    pixels[55] = np.nan  # visible, the tracker says, but nothing usable
    take, persons, clip = tracked_take(tmp_path / "a.take", [(pixels, metres, state)], walk.focal, walk.centre, walk.size, 60)
    run_stage(Recover(), take, persons, clip)
    found = arrays(take)
    np.testing.assert_array_equal(found["vertices"][:10], found["vertices"][10:11].repeat(10, 0))
    np.testing.assert_array_equal(found["vertices"][30:50], found["vertices"][29:30].repeat(20, 0))
    np.testing.assert_array_equal(found["root"][30:50], found["root"][29:30].repeat(20, 0))
    assert found["state"][:10].tolist() == [State.ABSENT] * 10 and (found["state"][30:50] == State.OCCLUDED).all()
    assert found["state"][55] == State.OCCLUDED and found["state"][54] == State.VISIBLE
    assert (found["confidence"][:10] == 0).all() and (found["confidence"][30:50] == 0).all() and found["confidence"][29] > 0.5
    assert all(np.isfinite(values).all() for values in found.values())
    assert all(take.by_sample("people/1", name, "recover").span == (10, 60) for name in ARRAYS)  # of the others nothing is kept
    take.close()


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_very_short_clips(tmp_path, walk, samples):
    take, _ = recovered(tmp_path / "a.take", walk, slice(0, samples))
    assert mpjpe_mm(take, walk.truth[:samples], "recover") < 150
    take.close()


def test_a_person_never_seen_is_said_so_and_costs_nothing(tmp_path, walk):
    take, events = recovered(tmp_path / "a.take", walk, slice(0, 5), np.zeros(5, np.uint8))
    found = arrays(take)
    assert "person_never_seen" in [e.code for e in events if isinstance(e, Notice)]
    assert (found["state"] == State.ABSENT).all() and (found["confidence"] == 0).all()
    assert all(len(values) == 5 and np.isfinite(values).all() for values in found.values())
    assert not [file for name in ARRAYS if (file := take.file_of("people/1", name, "recover")).exists()] and len(take.body(1)["faces"])
    take.close()


def test_who_is_tracked_but_never_well_seen_stands_still(tmp_path, walk):
    take, persons, clip = tracked_take(tmp_path / "a.take", [(0 * walk.px[:5], 0 * walk.metres[:5], visible(5))], walk.focal, walk.centre, walk.size, 60)
    run_stage(Recover(), take, persons, clip)
    found = arrays(take)
    assert (found["state"] == State.OCCLUDED).all() and (found["confidence"] == 0).all() and (found["root"][:, 2] > 1).all()
    assert all(np.isfinite(values).all() for values in found.values())
    take.close()


@pytest.mark.parametrize("options", [dict(stage=Recover({1: 1.55})), dict(stage=Recover({0: 1.55})), dict(heights=[(1, 1.55)])],
                         ids=["of this person", "of everyone", "of the person's own entry"])
def test_a_given_height_is_kept_and_nothing_is_assumed(tmp_path, walk, options):
    take, events = recovered(tmp_path / "a.take", walk, slice(0, 30), **options)
    assert take.body(1)["height_m"] == pytest.approx(1.55, abs=1e-5)
    assert not [e for e in events if isinstance(e, Notice)]
    tall, _ = recovered(tmp_path / "b.take", walk, slice(0, 30), stage=Recover({1: 1.95}))
    ratio = arrays(tall)["root"][:, 2].mean() / arrays(take)["root"][:, 2].mean()
    assert ratio == pytest.approx(1.95 / 1.55, rel=0.04)  # twice as tall is twice as far
    take.close(), tall.close()


def test_a_jump_to_another_place_is_followed_at_once(tmp_path, walk):
    pixels = walk.px[:40].copy()
    pixels[20:, :, 0] = 1080 - pixels[20:, :, 0] * 0.5  # mirrored, smaller, elsewhere: nothing of the sample before holds
    metres = walk.metres[:40].copy()
    metres[20:, :, 0] *= -1
    take, persons, clip = tracked_take(tmp_path / "a.take", [(pixels, metres, visible(40))], walk.focal, walk.centre, walk.size, 60)
    run_stage(Recover(), take, persons, clip)
    hips = [KEYPOINTS.index("left_hip"), KEYPOINTS.index("right_hip")]
    ours, theirs = take.read("people/1", "keypoints_px")[20:, hips, 0].mean(1), pixels[20:, [23, 24], 0].mean(1)
    assert np.abs(ours - theirs).max() < 60
    take.close()


def test_a_body_without_numbers_names_person_and_frame(tmp_path, walk, monkeypatch):
    def broken(rig, seen, shape, before, gap_s):
        poses = fit_one(rig, seen, shape, before, gap_s)
        poses.position[:] = np.nan if before is not None else 1.0
        return poses

    monkeypatch.setattr("body4d_engine.stages.recover.fit_one", broken)
    with pytest.raises(Body4DError, match="person 1 at frame 2 ") as error:
        recovered(tmp_path / "a.take", walk, slice(0, 4), step=2)
    assert error.value.code == "body_not_finite" and error.value.hint
