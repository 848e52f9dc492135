# SPDX-License-Identifier: Apache-2.0
"""refine on real landmarks: better than recover, seamless, resumable, with gaps filled and cuts kept."""

import os
import subprocess
import sys

import numpy as np
import pytest

from body4d_engine.events import Committed
from body4d_engine.fit import flips
from body4d_engine.fit.observations import Survey
from body4d_engine.fit.shape import average_shape
from body4d_engine.stages.recover import Recover
from body4d_engine.stages.refine import MOST_HIDDEN, MOST_OVERLAP, Refine, find_stretches, neighbourhood
from body4d_engine.take import State, Take, span_of

from .test_recover import arrays, mpjpe_mm
from .tracked import real_walk, run_stage, tracked_take, visible

_BACK_AND_FORTH = np.concatenate([np.arange(100), np.arange(98, 0, -1)])


@pytest.fixture(scope="module")
def walk():
    return real_walk(1)


def to_and_fro(walk, samples):
    """Landmarks of a longer walk: the recorded one forwards, backwards, forwards ..."""
    index = _BACK_AND_FORTH[np.arange(samples) % len(_BACK_AND_FORTH)]
    return walk.px[index], walk.metres[index], visible(samples)


def made(path, walk, track, refine=None, **options):
    take, persons, clip = tracked_take(path, [track], walk.focal, walk.centre, walk.size, **{"fps": walk.fps, **options})
    run_stage(Recover(), take, persons, clip)
    events = run_stage(refine or Refine(), take, persons, clip)
    return take, events


def sample_points(take, stage="refine"):
    return take.read("people/1", "vertices", stage)[:, ::100].astype(float) + take.read("people/1", "root", stage)[:, None]


def jitter_mm(take, stage):
    return 1e3 * np.linalg.norm(np.diff(take.read("people/1", "keypoints_m", stage), 2, axis=0), axis=-1).mean()


@pytest.mark.parametrize("camera, most_mm", [(1, 92), (2, 62)])
def test_a_real_person_becomes_smoother_and_more_accurate(tmp_path, camera, most_mm):
    walk = real_walk(camera)
    take, _ = made(tmp_path / "a.take", walk, (walk.px, walk.metres, visible(100)))
    assert mpjpe_mm(take, walk.truth, "refine") < min(most_mm, mpjpe_mm(take, walk.truth, "recover"))
    assert jitter_mm(take, "refine") < 0.5 * jitter_mm(take, "recover")
    assert take.result_stage(1) == "refine"
    np.testing.assert_array_equal(take.body(1)["phenotypes"], take.read_npz("people/1/body.recover.npz")["phenotypes"])
    take.close()


@pytest.mark.slow
@pytest.mark.parametrize("smoothing", [1.0, 4.0])
def test_seams_cannot_be_seen(tmp_path, walk, smoothing):
    track = to_and_fro(walk, 300)
    whole, _ = made(tmp_path / "whole.take", walk, track, Refine(1000, smoothing), fps=30)
    parts, events = made(tmp_path / "parts.take", walk, track, Refine(60, smoothing), fps=30)
    assert [(e.start, e.stop) for e in events if isinstance(e, Committed)] == [(i, i + 60) for i in range(0, 300, 60)]
    assert np.linalg.norm(sample_points(parts) - sample_points(whole), axis=-1).max() < 1e-4
    whole.close(), parts.close()


def test_smoothing_and_foot_lock(tmp_path, walk):
    take, persons, clip = tracked_take(tmp_path / "a.take", [(walk.px, walk.metres, visible(100))], walk.focal, walk.centre, walk.size, walk.fps)
    run_stage(Recover(), take, persons, clip)
    jitter, vertices = [], []
    for number, refine in enumerate([Refine(smoothing=0), Refine(), Refine(smoothing=4), Refine(foot_lock=False)]):
        run_stage(refine, take, persons, clip, key=f"{number}" * 8)
        jitter.append(jitter_mm(take, "refine"))
        vertices.append(np.array(take.read("people/1", "vertices", "refine")[:, ::100]))
        assert take.read("people/1", "firm", "refine").any() == refine.settings["foot_lock"]
        assert take.read("people/1", "contact", "refine").max() > 0.5
    assert jitter[0] > 2 * jitter[1] and jitter[1] > 1.3 * jitter[2]
    assert np.abs(vertices[1] - vertices[3]).max() > 1e-3
    take.close()


@pytest.mark.parametrize("kill_after", [0, 1, 2])
def test_killed_and_resumed_is_the_same(tmp_path, walk, kill_after):
    pixels, metres, state = to_and_fro(walk, 90)
    state[:5], state[33:70], state[84:] = State.ABSENT, State.ABSENT, State.ABSENT  # the second window begins inside a gap
    whole, _ = made(tmp_path / "whole.take", walk, (pixels, metres, state), Refine(core=30))
    take, persons, clip = tracked_take(tmp_path / "cut.take", [(pixels, metres, state)], walk.focal, walk.centre, walk.size, walk.fps)
    run_stage(Recover(), take, persons, clip)
    run_stage(Refine(core=30), take, persons, clip, stop_after=kill_after)
    take.close()
    with Take.open(tmp_path / "cut.take", writable=True) as again:
        run_stage(Refine(core=30), again, persons, clip)
        for name, values in arrays(whole, stage="refine").items():
            np.testing.assert_array_equal(values, arrays(again, stage="refine")[name], err_msg=name)
        assert all(again.by_sample("people/1", name, "refine").span == (5, 84) for name in (*arrays(again), "free", "contact", "firm", "places"))
    whole.close()


def test_who_is_there_for_a_part_is_solved_as_if_the_clip_were_that_part(tmp_path, walk):
    pixels, metres, state = to_and_fro(walk, 90)
    long_state = np.zeros(300, np.uint8)
    long_state[130:220] = state
    around = [np.concatenate([np.zeros((130, 33, 3), np.float32), values, np.zeros((80, 33, 3), np.float32)]) for values in (pixels, metres)]
    alone, _ = made(tmp_path / "alone.take", walk, (pixels, metres, state), Refine(core=40))
    part, events = made(tmp_path / "part.take", walk, (*around, long_state), Refine(core=40))
    assert [(e.start, e.stop) for e in events if isinstance(e, Committed)] == [(130, 170), (170, 210), (210, 220)]
    for stage in ("recover", "refine"):
        ours, theirs = arrays(part, stage=stage), arrays(alone, stage=stage)
        for name in ("state", "confidence", "params", "root", "keypoints_px"):
            np.testing.assert_allclose(ours[name][130:220], theirs[name], atol=1e-6, err_msg=name)
        assert not ours["state"][:130].any() and not ours["state"][220:].any() and not ours["confidence"][220:].any()
        np.testing.assert_array_equal(ours["root"][:130], theirs["root"][:1].repeat(130, 0))
        np.testing.assert_array_equal(ours["vertices"][[0, 129, 220, 299]], ours["vertices"][[130, 130, 219, 219]])
        assert part.file_of("people/1", "vertices", stage).stat().st_size == alone.file_of("people/1", "vertices", stage).stat().st_size
    alone.close(), part.close()


def test_nobody_there_is_refined_to_nothing(tmp_path, walk):
    take, _ = made(tmp_path / "a.take", walk, (walk.px[:6], walk.metres[:6], np.zeros(6, np.uint8)))
    assert take.result_stage(1) == "refine" and not arrays(take, stage="refine")["state"].any() and len(take.body(1)["faces"])
    take.close()


def test_gaps_are_filled_along_the_motion(tmp_path, walk):
    pixels, metres, state = (values[:100].copy() for values in to_and_fro(walk, 100))
    state[20:35] = State.OCCLUDED  # a quarter of a second
    pixels[20:35] = metres[20:35] = 0
    state[50:85] = State.OCCLUDED  # half a second and more
    pixels[50:85] = metres[50:85] = 0
    whole, _ = made(tmp_path / "whole.take", walk, to_and_fro(walk, 100))
    take, _ = made(tmp_path / "a.take", walk, (pixels, metres, state))
    found = arrays(take, stage="refine")
    assert (found["state"][20:35] == State.FILLED).all() and (found["state"][50:85] == State.FILLED).all()
    assert (found["state"][[*range(20), *range(35, 50), *range(85, 100)]] == State.VISIBLE).all()
    assert 0.2 < found["confidence"][20:35].min() and found["confidence"][20:35].max() < 0.6 < found["confidence"][:20].min()
    theirs = arrays(whole, stage="refine")
    held = np.linalg.norm(theirs["root"][50:85] - theirs["root"][49], axis=1)
    assert np.linalg.norm((found["root"] - theirs["root"])[50:85], axis=1).max() < 0.5 * held.max()
    assert np.linalg.norm(found["keypoints_m"] - theirs["keypoints_m"], axis=-1)[20:35].mean() < 0.05
    assert np.abs(found["root"] - theirs["root"])[20:35, :2].max() < 0.05
    assert np.linalg.norm(np.diff(found["keypoints_m"], 2, axis=0)[15:90], axis=-1).max() < 0.03  # no jump into or out of a gap
    take.close(), whole.close()


def average(model, seen, height_m=None):
    yield 1, 1
    return average_shape(model)


def test_nothing_is_smoothed_across_a_cut(tmp_path, walk, monkeypatch):
    """What follows a cut has no say in what comes before it, but for the shape that is the same for both."""
    monkeypatch.setattr("body4d_engine.stages.recover.solve_shape", average)
    shots = []
    for name, camera in (("a", 1), ("b", 2)):
        other = real_walk(camera)
        pixels, metres = np.concatenate([walk.px[:50], other.px[50:]]), np.concatenate([walk.metres[:50], other.metres[50:]])
        take, persons, clip = tracked_take(tmp_path / f"{name}.take", [(pixels, metres, visible(100))], walk.focal, walk.centre, walk.size, 60,
                                           shots=(0, 50))
        run_stage(Recover(), take, persons, clip)
        run_stage(Refine(), take, persons, clip)
        shots.append(sample_points(take))
        take.close()
    assert np.linalg.norm(shots[0][50:] - shots[1][50:], axis=-1).mean() > 0.3
    np.testing.assert_allclose(shots[0][:50], shots[1][:50], atol=1e-6)


def known_of(text, *cuts):
    """A survey, ten samples a second, of a person who is visible (v), occluded (o) or absent (.)."""
    seen = np.array([c == "v" for c in text])
    state = np.array([{"v": State.VISIBLE, "o": State.OCCLUDED, ".": State.ABSENT}[c] for c in text], np.uint8)
    count = len(text)
    return Survey(span_of(state), state, seen, visibility=seen * 1.0, steady=np.full((count, 33), 255, np.uint8), doubtful=np.zeros((count, 4), bool),
                  flipped=~seen, swapped=np.zeros((count, 4), bool), cuts=frozenset(cuts), spacing_s=0.1)


@pytest.mark.parametrize("text, cuts, stretches, filled", [
    ("..vvoovv..", (), [(2, 8)], [4, 5]),
    ("..vv..vv..", (), [(2, 4), (6, 8)], []),  # gone for a moment, as out of the picture and back
    ("..vvooooooovv", (), [(2, 13)], [4, 5, 6, 7, 8, 9, 10]),
    ("vv" + 40 * "o" + "vv", (), [(0, 44)], list(range(2, 42))),
    ("vv" + 41 * "o" + "vv", (), [(0, 2), (43, 45)], []),  # too long
    ("..vvoo.oovv", (), [(2, 6), (7, 11)], [4, 5, 7, 8]),
    ("..vvvv", (4,), [(2, 4), (4, 6)], []),
    ("..vvoovv", (5,), [(2, 5), (5, 8)], [4, 5]),  # not bridged over a cut, but each side goes on up to it
    (".oovvvoo.", (), [(1, 8)], [1, 2, 6, 7]),  # before the first sighting and after the last
    ("oooooovvoooooo", (), [(6, 8)], []),
], ids=lambda value: value if isinstance(value, str) else "")
def test_stretches_end_at_cuts_absence_and_long_gaps(text, cuts, stretches, filled):
    found, hidden = find_stretches(known_of(text, *cuts))
    assert found == stretches and np.flatnonzero(hidden).tolist() == filled


def test_seams_in_a_long_gap_cannot_be_seen(tmp_path, walk):
    pixels, metres, state = to_and_fro(walk, 160)
    state[50:110], pixels[50:110, :, 2] = State.OCCLUDED, 0
    whole, _ = made(tmp_path / "whole.take", walk, (pixels, metres, state), Refine(core=1000), fps=30)
    parts, _ = made(tmp_path / "parts.take", walk, (pixels, metres, state), Refine(core=40), fps=30)
    assert np.linalg.norm(sample_points(parts) - sample_points(whole), axis=-1).max() < 1e-4
    whole.close(), parts.close()


def test_a_neighbourhood_counts_sightings_and_has_a_bound():
    seen = np.ones(100, bool)
    assert neighbourhood(seen, (0, 100), 40, 50, 10) == (30, 60)
    assert neighbourhood(seen, (35, 55), 40, 50, 10) == (35, 55)
    seen[32:45] = seen[48:55] = False
    assert neighbourhood(seen, (0, 100), 40, 50, 10) == (22, 65)
    seen[:] = False
    seen[[0, 99]] = True
    assert neighbourhood(seen, (0, 100), 40, 50, 10) == (40 - 10 * MOST_HIDDEN, 50 + 10 * MOST_HIDDEN)


def test_who_gets_out_of_sight_goes_on_as_before(tmp_path, walk):
    pixels, metres, state = walk.px.copy(), walk.metres.copy(), visible(100)
    state[:12] = state[80:95] = State.OCCLUDED
    state[95:] = State.ABSENT
    pixels[:12, :, 2] = pixels[80:, :, 2] = 0
    whole, _ = made(tmp_path / "whole.take", walk, (walk.px, walk.metres, visible(100)))
    take, _ = made(tmp_path / "a.take", walk, (pixels, metres, state))
    found, truth = arrays(take, stage="refine"), arrays(whole, stage="refine")
    assert (found["state"][:12] == State.FILLED).all() and (found["state"][80:95] == State.FILLED).all() and not found["state"][95:].any()
    for part, last in ((slice(0, 12), 12), (slice(80, 95), 79)):
        apart = np.linalg.norm((found["root"] - truth["root"])[part, :2], axis=1)
        still = np.linalg.norm((found["root"][last] - truth["root"][part])[:, :2], axis=1)
        assert apart.max() < 0.1 and apart.max() < still.max()
        np.testing.assert_array_equal(found["vertices"][part], found["vertices"][last : last + 1].repeat(len(apart), 0))
    take.close(), whole.close()


def test_windows_of_fast_clips_are_no_larger(tmp_path, walk, monkeypatch):
    sizes = []

    def fit(rig, start, seen, scale, spacing_s, stages, held=None, smoothing=1.0):
        sizes.append(len(seen))
        return start

    monkeypatch.setattr("body4d_engine.stages.refine.fit_sequence", fit)
    made(tmp_path / "a.take", walk, to_and_fro(walk, 900), Refine(core=20), fps=1000)[0].close()
    assert max(sizes) == 20 + 2 * MOST_OVERLAP


def test_a_step_changes_the_spacing_not_the_smoothness(tmp_path, walk):
    every, _ = made(tmp_path / "1.take", walk, (walk.px, walk.metres, visible(100)))
    third, _ = made(tmp_path / "3.take", walk, (walk.px[::3], walk.metres[::3], visible(34)), step=3)
    apart = np.linalg.norm(sample_points(every)[::3] - sample_points(third), axis=-1)
    assert apart.mean() < 0.03
    every.close(), third.close()


def test_a_burst_of_swapped_sides_keeps_the_person_facing_the_same_way(tmp_path, walk):
    pixels, metres = walk.px.copy(), walk.metres.copy()
    pixels[40:50], metres[40:50] = flips.repair(pixels[40:50], metres[40:50])
    clean, _ = made(tmp_path / "clean.take", walk, (walk.px, walk.metres, visible(100)))
    take, _ = made(tmp_path / "a.take", walk, (pixels, metres, visible(100)))
    assert np.linalg.norm(sample_points(take) - sample_points(clean), axis=-1).mean() < 0.02
    said = [n for n in take.notices() if n["code"] == "sides_swapped"]
    assert [(n["person"], n["frame"], n["last_frame"]) for n in said] == [(1, 40, 49)]
    assert arrays(take, stage="refine")["confidence"][40:50].max() < 0.7
    take.close(), clean.close()


def test_a_lens_that_zooms(tmp_path, walk):
    """Pixels and focal length grow together: the same motion in space."""
    centre = np.array([2000.0, 2000.0])
    offsets = walk.px[:60, :, :2] - walk.centre
    points = []
    for name, zoom in (("plain", np.ones(60)), ("zoomed", np.linspace(1, 1.5, 60))):
        pixels = np.concatenate([offsets * zoom[:, None, None] + centre, walk.px[:60, :, 2:]], 2)
        take, persons, clip = tracked_take(tmp_path / f"{name}.take", [(pixels, walk.metres[:60], visible(60))], walk.focal * zoom, centre,
                                           (4000, 4000), walk.fps)
        run_stage(Recover(), take, persons, clip)
        run_stage(Refine(), take, persons, clip)
        points.append(sample_points(take))
        take.close()
    assert np.linalg.norm(points[0] - points[1], axis=-1).max() < 0.002


@pytest.mark.parametrize("state", [[1], [1, 1], [0, 1, 0], [0, 0], [1] + [0] * 40 + [1, 1], [0] * 40 + [1]], ids=str)
def test_scattered_samples_and_absent_people(tmp_path, walk, state):
    state = np.array(state, np.uint8)
    take, _ = made(tmp_path / "a.take", walk, (walk.px[: len(state)], walk.metres[: len(state)], state), Refine(core=16))
    found = arrays(take, stage="refine")
    assert all(len(values) == len(state) and np.isfinite(values).all() for values in found.values())
    assert (found["state"] == state).all()
    shown = np.flatnonzero(state)
    if len(shown):
        np.testing.assert_array_equal(found["vertices"][: shown[0]], found["vertices"][shown[:1]].repeat(shown[0], 0))
    take.close()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="resource usage is read the POSIX way")
def test_memory_is_flat_in_the_length_of_the_clip(tmp_path):
    code = """
import resource, sys
from pathlib import Path
from tests.engine.test_refine import Refine, made, real_walk, to_and_fro
walk = real_walk(1)
take, _ = made(Path(sys.argv[1]), walk, to_and_fro(walk, int(sys.argv[2])), Refine(core=60), fps=30)
status = Path("/proc/self/status")  # getrusage's figure begins with the parent's on Linux
print(status.read_text().split("VmHWM:")[1].split()[0] if status.exists() else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    unit = 1e6 if sys.platform == "darwin" else 1e3
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OPENBLAS_NUM_THREADS": "1"}
    short, long = (int(subprocess.run([sys.executable, "-c", code, tmp_path / f"{n}.take", str(n)], check=True, stdout=subprocess.PIPE, text=True,
                                      env=env).stdout) / unit for n in (180, 450))
    assert long - short < 40 and long < 300  # megabytes
