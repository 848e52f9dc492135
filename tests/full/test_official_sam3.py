# SPDX-License-Identifier: Apache-2.0
"""The published SAM 3 behind our interface, with a `sam3` package of the same signatures that follows grey values. `scripts/compare_trackers.py` runs the real
one."""

import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from body4d_engine.errors import Body4DError  # noqa: E402
from body4d_engine.events import Progress  # noqa: E402
from body4d_engine.models.official import sam3 as official  # noqa: E402
from body4d_engine.models.sam3.keys import to_published  # noqa: E402
from body4d_engine.models.sam3.memory import MASKS, POINTERS  # noqa: E402
from body4d_engine.people import BoxPrompt, Person, Prompt  # noqa: E402
from body4d_engine.stages.full import finding  # noqa: E402
from body4d_engine.stages.full.track import Track  # noqa: E402
from body4d_engine.take import State, Take  # noqa: E402

from . import fake_published  # noqa: E402
from .fake_sam3 import Actor, World  # noqa: E402
from .sam3_nets import lively  # noqa: E402

SIDE = fake_published.SIZE
PEOPLE = [Person(1, prompts=[Prompt(8, 20, 50)]), Person(3, prompts=[BoxPrompt(12, 60, 20, 90, 90)])]


@pytest.fixture
def sam3(monkeypatch, tmp_path):
    (tmp_path / "package").mkdir()
    fake_published.install(monkeypatch, tmp_path / "package")
    return official.Sam3(fake_published.Model(), "cpu")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)
    monkeypatch.setattr(finding, "SMALLEST_PX", 20.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    assert not torch.is_autocast_enabled("cpu")  # whatever happened: all that computes later in this process would be less exact


def world(frames=30, **options):
    """Two people who do not overlap; whoever comes third comes late."""
    return World([Actor(lambda f: (8 + f % 4, 24), wide=24), Actor(lambda f: (60, 20 + f % 4), wide=24),
                  Actor(lambda f: (88, 24) if f >= 11 else None, wide=16)], frames, size=(SIDE, SIDE), **options)


def go_on(clip, take, people, sam3, stop_after=None, **options):
    stage = Track(networks=lambda: (sam3, official.Tracker(sam3, exclusive=False, fill=0), "cpu"), **options)
    steps = 0
    generator = stage.run(clip, people, take, take.begin("track", "k" * 16))
    for event in generator:
        steps += isinstance(event, Progress)
        if stop_after is not None and steps >= stop_after:
            generator.close()
            return take
    take.finish()
    return take


def run(clip, tmp_path, people, sam3, name="t.take", **options):
    return go_on(clip, Take.create(tmp_path / name, clip.describe(), "full"), people, sam3, **options)


def same(one, other):
    assert one.people == other.people
    for person in one.people:
        for name in ("state", "confidence", "box", "mask_bytes"):
            np.testing.assert_array_equal(*(np.array(take.read(f"people/{person['id']}", name)) for take in (one, other)), err_msg=name)


def covers(take, clip, person, sample, actor) -> bool:
    """Whether the mask is the actor's, but for its edge."""
    body = clip.read(sample)[..., 0] == 10 * (actor + 1)
    mask = take.mask(person, sample)
    return bool(body.any()) and (mask & body).sum() > 0.85 * body.sum() and (mask & ~body).sum() < 0.2 * body.sum()


def test_people_are_followed_both_ways_with_one_frame_and_a_bounded_memory(sam3, tmp_path):
    """Ids 1 and 3, prompted on different frames by a click and a box. The fake insists that each session has one picture and frames within the clip."""
    clip = world()
    take = run(clip, tmp_path, PEOPLE, sam3)
    for person, actor in ((1, 0), (3, 1)):
        assert (np.array(take.read(f"people/{person}", "state")) == State.VISIBLE).all()
        assert all(covers(take, clip, person, sample, actor) for sample in range(30))
    sessions = sam3.predictor.sessions
    kept = [session["output_dict"]["non_cond_frame_outputs"] for session in sessions]
    assert max(map(len, kept)) <= POINTERS + 1 and max(sum(out["maskmem_features"] is not None for out in frames.values()) for frames in kept) <= MASKS
    assert sam3.model.detector.backbone.looked == 2 + 22 + 12  # each picture once per direction, the prompted ones once more


def test_the_memory_of_a_pass_reaches_the_predictor(sam3):
    """Its scores count the frames that it looks back at, and the good ones among them."""
    clip, tracker = world(12), official.Tracker(sam3, fill=0)
    tracker.start(SIDE, SIDE, 12)
    tracker.prompt(3, 1, clicks=[(20, 50, True)])
    forward = [tracker.step(frame, clip.read(frame)).scores[1] for frame in range(3, 12)]
    logits = np.log(np.array(forward) / (1 - np.array(forward)))
    np.testing.assert_allclose(np.diff(logits)[1:], -0.011, atol=1e-4)
    backward = [tracker.step(frame, clip.read(frame), reverse=True).scores[1] for frame in range(3, -1, -1)]
    np.testing.assert_allclose(backward, forward[:4], atol=1e-6)  # anew from the prompted frame


def test_a_killed_run_goes_on_from_the_stored_memory(sam3, tmp_path):
    whole = run(world(), tmp_path, PEOPLE, sam3, "whole.take")
    take = Take.create(tmp_path / "cut.take", world().describe(), "full")
    go_on(world(), take, PEOPLE, sam3, stop_after=11, commit_every=4)
    take.close()
    clip = world()
    with Take.open(tmp_path / "cut.take", writable=True) as take:
        go_on(clip, take, PEOPLE, sam3)
        same(take, whole)
    assert len(clip.reads) < 30


def test_everybody_is_found_and_a_late_entrant_is_taken_in(sam3, tmp_path):
    """By the word, from the same look of the backbone."""
    clip = world()
    take = run(clip, tmp_path, [], sam3)
    assert len(take.people) == 3 and sam3.model.detector.backbone.looked == len(clip.reads)
    late = next(person["id"] for person in take.people if covers(take, clip, person["id"], 25, 2))
    assert not np.array(take.read(f"people/{late}", "state"))[:11].any() and (np.array(take.read(f"people/{late}", "state"))[11:] == State.VISIBLE).all()


def test_a_click_refines_what_is_there(sam3):
    """The predictor gets the mask of before, of a prompted frame as of a followed one."""
    clip, tracker = world(6), official.Tracker(sam3, fill=0)
    tracker.start(SIDE, SIDE, 6)
    tracker.prompt(0, 1, clicks=[(20, 50, True)])
    first = tracker.step(0, clip.read(0)).scores[1]
    tracker.prompt(0, 1, clicks=[(20, 50, True), (100, 10, False)])
    assert tracker.step(0).scores[1] < first - 0.01
    after = tracker.step(1, clip.read(1)).scores[1]
    tracker.prompt(1, 1, clicks=[(100, 10, False)])
    got = tracker.step(1)
    assert got.scores[1] != after and (got.logits[1] > 0)[50, 20] and list(tracker.people[1].prompted) == [0, 1] and not tracker.people[1].tracked


def test_a_mask_and_people_who_were_prompted_before_are_remembered_together(sam3):
    clip, tracker = world(6), official.Tracker(sam3, fill=0)
    tracker.start(SIDE, SIDE, 6)
    tracker.prompt(0, 2, mask=clip.read(0)[..., 0] == 20)
    tracker.step(0, clip.read(0))
    tracker.prompt(0, 5, clicks=[(20, 50, True)])
    got = tracker.step(0)
    assert list(got.logits) == [2, 5] and (got.logits[2] > 0)[50, 70] and (got.logits[5] > 0)[50, 20]
    assert float(tracker.people[2].prompted[0].features.float().mean()) == 7.0  # made anew beside the new one
    assert list(sam3.predictor.sessions[-1]["obj_id_to_idx"]) == [5, 2]         # who was shown just now comes first


def test_a_shot_in_the_middle_of_a_clip_and_one_shorter_than_the_pointers(sam3, tmp_path):
    clip = world(30, shots=(0, 21))
    take = run(clip, tmp_path, [Person(1, prompts=[Prompt(2, 20, 50), Prompt(29, 20, 50)])], sam3)
    assert all(covers(take, clip, 1, sample, 0) for sample in range(30))
    assert {session["num_frames"] for session in sam3.predictor.sessions} == {21, 9}


def test_what_it_finds_is_in_pixels_surest_first(sam3):
    got = sam3.detect(world(20).read(18))
    assert got.scores.tolist() == sorted(got.scores.tolist(), reverse=True) and got.masks.shape == (3, SIDE, SIDE)
    np.testing.assert_allclose(got.boxes[0], np.array([0.1, 0.2, 0.3, 0.4]) * SIDE, atol=1e-4)
    assert not len(sam3.detect(np.zeros((SIDE, SIDE, 3), np.uint8)).boxes) and not len(sam3.detect(world(20).read(18), threshold=0.999).masks)


def test_both_layouts_of_the_weights_are_loaded_and_nothing_stays_switched(monkeypatch, tmp_path, capsys):
    from safetensors.torch import save_file

    attention = "detector_model.vision_encoder.backbone.layers.0.attention."
    hub = {f"{attention}{part}_proj.bias": torch.full((3,), float(place)) for place, part in enumerate("qkv")}
    hub["tracker_model.no_memory_embedding"] = torch.ones(2)
    published = to_published(hub)
    assert len(published) == 2
    (tmp_path / "package").mkdir()
    made = fake_published.install(monkeypatch, tmp_path / "package", published)
    monkeypatch.setattr(official, "on_cuda", lambda module, device: device)
    save_file(hub, tmp_path / "model.safetensors")
    official.Sam3.load(tmp_path, "cpu")
    (tmp_path / "model.safetensors").unlink()
    torch.save({"model": published}, tmp_path / "sam3.pt")
    official.Sam3.load(tmp_path, "cpu")
    for model in made:
        assert model.loaded.keys() == published.keys() and all(torch.equal(model.loaded[name], tensor) for name, tensor in published.items())
        assert not model.trains
    assert not torch.is_autocast_enabled("cpu") and not torch.backends.cuda.matmul.allow_tf32 and not capsys.readouterr().out
    torch.save({"model": {**published, "tracker.another": torch.ones(1)}}, tmp_path / "sam3.pt")
    with pytest.raises(Body4DError, match="another") as caught:
        official.Sam3.load(tmp_path, "cpu")
    assert caught.value.code == "checkpoint_mismatch"


def test_the_stage_runs_it_where_it_is_asked_to_and_says_that_it_needs_a_gpu(monkeypatch, tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "package").mkdir()
    made = fake_published.install(monkeypatch, tmp_path / "package", {"tracker.no_mem_embed": torch.zeros(2)})
    monkeypatch.setattr("body4d_engine.memory.best_device", lambda: "cpu")
    (tmp_path / "weights" / "sam3").mkdir(parents=True)
    save_file({"tracker_model.no_memory_embedding": torch.ones(2)}, tmp_path / "weights" / "sam3" / "model.safetensors")
    clip, stage = world(6), Track(tmp_path / "weights", models="official")
    take = Take.create(tmp_path / "t.take", clip.describe(), "full")
    with pytest.raises(Body4DError) as caught:
        list(stage.run(clip, [Person(2, prompts=[Prompt(3, 20, 50)])], take, take.begin("track", "k" * 16)))
    assert caught.value.code == "needs_cuda" and not made and not clip.reads
    monkeypatch.setattr(official, "on_cuda", lambda module, device: device)
    for _ in stage.run(clip, [Person(2, prompts=[Prompt(3, 20, 50)])], take, take.begin("track", "k" * 16)):
        pass
    take.finish()
    assert len(made) == 1 and covers(take, clip, 2, 0, 0) and covers(take, clip, 2, 5, 0)
    assert stage.settings != Track().settings  # what the other network found is not taken for it


@pytest.mark.parametrize("fault, code", [("cpu", "needs_cuda"), ("absent", "official_missing"), ("not whole", "official_version"),
                                         ("no builder", "official_version"), ("no weights", "checkpoint_missing")])
def test_what_is_missing_is_named(monkeypatch, tmp_path, fault, code):
    (tmp_path / "package").mkdir()
    fake_published.install(monkeypatch, tmp_path / "package", vocabulary=fault != "not whole")
    if fault != "cpu":
        monkeypatch.setattr(official, "on_cuda", lambda module, device: device)
    if fault == "absent":
        monkeypatch.setattr("body4d_engine.models.official.find_spec", lambda name: None)
    if fault == "no builder":
        monkeypatch.delattr(sys.modules["sam3.model_builder"], "build_sam3_video_model")
    with pytest.raises(Body4DError) as caught:
        official.Sam3.load(tmp_path, "cpu")
    assert caught.value.code == code and caught.value.hint


@pytest.mark.parametrize("error, told", [(torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError), (AssertionError("of theirs"), Body4DError)])
def test_its_failures_are_told_and_a_lack_of_memory_can_be_tried_again(sam3, error, told):
    clip, tracker = world(6), official.Tracker(sam3, fill=0)
    tracker.start(SIDE, SIDE, 6)
    tracker.prompt(0, 1, clicks=[(20, 50, True)])
    tracker.step(0, clip.read(0))
    sam3.predictor.fails = error
    with pytest.raises(told) as caught:
        tracker.step(1, clip.read(1))
    assert told is not Body4DError or caught.value.code == "official_failed" and "of theirs" in str(caught.value)
    sam3.predictor.fails = None
    assert list(tracker.step(1, clip.read(1)).logits) == [1]


def test_the_comparison_of_trackers_finds_what_it_looks_for(monkeypatch):
    """Without the published package: its cases run, and each deliberate mistake is made in a place that there is, and moves our own result."""
    pytest.importorskip("transformers")
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "scripts")
    import compare_trackers as script

    monkeypatch.setitem(script.CONFIGS, "small", script.SMALL)
    network = lively(2, "small", gain=1.0)

    def result(case):
        if case is script.looked:
            return case(network)
        driven = script.Driven(partial(script.Tracker, network))
        case(driven)
        return driven.found

    right = {case: result(case) for case in (script.box_and_clicks, script.overlapping_clicks, script.looked)}
    assert all(right.values()) and all(hasattr(where, name) for *_, where, name, _ in script.MISTAKES)
    for words, case, where, name, mistake in script.MISTAKES:
        if case in right:
            with monkeypatch.context() as patch:
                patch.setattr(where, name, mistake)
                moved = script.apart(result(case), right[case])
            assert moved["mean"] > 10 * script.TOLERANCE or moved["score"] > 10 * script.SCORE_TOLERANCE, words
    assert script.apart(result(script.box_and_clicks), right[script.box_and_clicks])["mean"] <= script.TOLERANCE
