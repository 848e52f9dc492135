# SPDX-License-Identifier: Apache-2.0
"""The logic of tracking, with fake networks in a made-up world."""

import time

import numpy as np
import pytest

from body4d_engine.errors import Body4DError
from body4d_engine.events import Committed, Notice, Progress
from body4d_engine.people import BoxPrompt, Person, Prompt
from body4d_engine.stages import track as track_module
from body4d_engine.stages.track import Track
from body4d_engine.take import State, Take
from body4d_engine.tracking import appearance, rows
from body4d_engine.tracking.leaving import squeezed
from body4d_engine.tracking.linking import Tracklet, link
from body4d_engine.tracking.tracker import PATIENCE_S, UNSUPPORTED_S, Tracker

from .fake_people import Actor, World

RED, BLUE, GREEN = (200, 40, 40), (40, 60, 200), (40, 180, 60)
NAMES = ("state", "confidence", "box", "landmarks_px", "landmarks_m", "mask_index", "mask_bytes")


def line(x0, x1, y=120, frames=90):
    return lambda frame: (x0 + (x1 - x0) * frame / frames, y)


def seen_only(path, *spans):
    return lambda frame: path(frame) if any(a <= frame < b for a, b in spans) else None


def run(world, tmp_path, people=(), name="t.take"):
    """The take after tracking, and the notices."""
    take = Take.create(tmp_path / name, world.describe(), "lite")
    events = list(go_on(world, take, people))
    return take, [e for e in events if isinstance(e, Notice)]


def go_on(world, take, people=()):
    cursor = take.begin("track", "k" * 16)
    for event in Track(world.networks).run(world, list(people), take, cursor):
        if isinstance(event, Notice):
            take.notice(event)
        yield event
    take.finish()


def state(take, person):
    return np.array(take.read(f"people/{person}", "state"))


def hips(take, person):
    return np.array(take.read(f"people/{person}", "landmarks_px"))[:, [23, 24], :2].mean(1)


def who(take, world, person, frame):
    """Which actor a person of the take is at a frame."""
    sample = list(take.frames).index(frame)
    at = hips(take, person)[sample]
    distances = [np.inf if a.path(frame) is None else np.hypot(*(np.array(a.path(frame)) - at)) for a in world.actors]
    return int(np.argmin(distances)) if min(distances) < 20 else None


def contents(take):
    return {(p["id"], name): np.array(take.read(f"people/{p['id']}", name)) for p in take.people for name in NAMES}


def test_two_people_crossing_keep_their_ids(tmp_path):
    world = World([Actor(line(100, 540), RED, front=2), Actor(line(540, 100, 125), BLUE, front=1)])
    take, notices = run(world, tmp_path)
    assert [p["id"] for p in take.people] == [1, 2] and not notices
    for person in (1, 2):
        first = who(take, world, person, 0)
        assert first is not None and all(who(take, world, person, f) in (first, None) for f in range(90)) and who(take, world, person, 89) == first
        assert (state(take, person) == State.VISIBLE).sum() > 60


def test_people_who_trade_places_between_two_frames_are_told_by_their_looks(tmp_path):
    world = World([Actor(lambda f: (300 if f < 40 else 330, 120), RED), Actor(lambda f: (330 if f < 40 else 300, 125), BLUE)])
    take, _ = run(world, tmp_path)
    assert len(take.people) == 2
    assert all(who(take, world, p, 10) == who(take, world, p, 80) is not None for p in (1, 2))


def test_who_walks_out_of_the_picture_is_absent(tmp_path):
    world = World([Actor(line(400, 800, frames=60))], 60)
    take, _ = run(world, tmp_path)
    x = np.array([world.actors[0].path(f)[0] for f in range(60)])
    assert (state(take, 1)[x < 620] == State.VISIBLE).all() and not state(take, 1)[x > 640 + 0.2 * 120].any()


def test_masks_share_no_pixel_and_the_hidden_one_is_called_occluded(tmp_path):
    world = World([Actor(line(300, 310), RED, front=3), Actor(line(330, 312), BLUE, front=1)])
    take, _ = run(world, tmp_path)
    shared = sum((take.mask(1, i) & take.mask(2, i)).sum() for i in range(90))
    assert shared == 0 and min(take.mask(1, i).sum() + take.mask(2, i).sum() for i in range(90)) > 0


def test_arrays_are_complete_and_as_agreed(tmp_path):
    world = World([Actor(seen_only(line(100, 500), (20, 70)))])
    take, _ = run(world, tmp_path)
    shapes = {"state": (90,), "confidence": (90,), "box": (90, 4), "landmarks_px": (90, 33, 3), "landmarks_m": (90, 33, 3)}
    for name, shape in shapes.items():
        array = take.read("people/1", name)
        assert array.shape == shape and np.isfinite(array).all(), name
    seen = np.flatnonzero(state(take, 1) == State.VISIBLE)
    truth = np.array([world.actors[0].path(f) for f in seen])
    assert np.abs(hips(take, 1)[seen] - truth).max() < 0.01
    mask = take.mask(1, 45)
    assert mask.shape == (240, 640) and mask[120, int(truth[seen == 45][0, 0])] and not mask[:, :100].any()
    assert not [name for name in take.stage("track")["arrays"] if name.startswith("tracklets")]


def test_late_entrant_is_found_soon(tmp_path):
    world = World([Actor(line(100, 200), RED), Actor(seen_only(line(500, 400), (47, 90)), BLUE)])
    take, _ = run(world, tmp_path)
    late = state(take, 2)
    assert not late[:47].any() and np.flatnonzero(late)[0] <= 47 + 5 and (late[53:] == State.VISIBLE).all()


@pytest.mark.parametrize("gap, between", [(4, State.OCCLUDED), (18, State.OCCLUDED), (75, State.ABSENT)])
def test_lost_and_found_again_is_the_same_person(tmp_path, gap, between):
    path = seen_only(line(100, 400, frames=150), (0, 40), (40 + gap, 150))
    take, _ = run(World([Actor(path)], 150), tmp_path)
    assert len(take.people) == 1
    found = state(take, 1)
    assert (found[40 : 40 + gap] == between).all() and (found[:40] == State.VISIBLE).all() and (found[46 + gap :] == State.VISIBLE).all()
    if between == State.OCCLUDED:
        at = hips(take, 1)[40 : 40 + gap, 0]
        assert (np.diff(at) > 0).all() and not np.array(take.read("people/1", "landmarks_px"))[41, :, 2].any()


def test_somebody_else_in_the_same_place_is_somebody_else(tmp_path):
    path = line(100, 400, frames=150)
    take, _ = run(World([Actor(seen_only(path, (0, 60)), RED), Actor(seen_only(path, (100, 150)), BLUE)], 150), tmp_path)
    assert len(take.people) == 2


def test_after_a_cut_only_clear_looks_link(tmp_path):
    cut = [lambda f: (150, 120) if f < 60 else (500, 110), lambda f: (450, 120) if f < 60 else (250, 110)]
    clear = World([Actor(cut[0], RED), Actor(cut[1], BLUE)], 120, shots=(0, 60))
    take, _ = run(clear, tmp_path, name="a.take")
    assert len(take.people) == 2
    assert all(who(take, clear, p, 10) == who(take, clear, p, 100) for p in (1, 2))
    alike = World([Actor(cut[0], RED), Actor(cut[1], RED)], 120, shots=(0, 60))
    take, _ = run(alike, tmp_path, name="b.take")
    assert len(take.people) == 4


def test_a_cut_is_not_crossed_by_motion(tmp_path):
    world = World([Actor(seen_only(line(100, 400), (0, 60)), RED), Actor(seen_only(line(100, 400), (60, 120)), BLUE)], 120, shots=(0, 60))
    take, _ = run(world, tmp_path)
    assert len(take.people) == 2 and not (state(take, 1).astype(bool) & state(take, 2).astype(bool)).any()


def test_numbered_by_prominence(tmp_path):
    world = World([Actor(line(100, 120), RED, 80), Actor(line(300, 320), BLUE, 160), Actor(line(500, 510), GREEN, 120)])
    take, _ = run(world, tmp_path)
    assert [who(take, world, p, 45) for p in (1, 2, 3)] == [1, 2, 0]
    assert len({tuple(p["color"]) for p in take.people}) == 3


def test_short_and_small_tracks_are_dropped_with_a_notice(tmp_path):
    world = World([Actor(line(100, 200)), Actor(seen_only(line(400, 420), (40, 50)), BLUE), Actor(line(550, 560), GREEN, 50)])
    take, notices = run(world, tmp_path)
    assert len(take.people) == 1
    assert sorted(n.code for n in notices) == ["track_too_short", "track_too_small"]
    short = next(n for n in notices if n.code == "track_too_short")
    assert 40 <= short.frame <= 45 and short.last_frame == 49
    assert [n["code"] for n in take.notices()] == [n.code for n in notices]


def test_a_clip_shorter_than_half_a_second_still_has_people(tmp_path):
    take, _ = run(World([Actor(line(100, 110))], 6), tmp_path)
    assert (state(take, 1) == State.VISIBLE).all()


def test_nobody_found_says_what_to_try(tmp_path):
    with pytest.raises(Body4DError) as error:
        run(World([Actor(lambda f: None)], 30), tmp_path)
    assert error.value.code == "nobody_found" and "world.mp4" in error.value.message and "--click" in error.value.hint


@pytest.mark.parametrize("frames", [range(10, 80, 1), range(0, 90, 3), range(5, 90, 7)])
def test_ranges_and_steps(tmp_path, frames):
    world = World([Actor(line(100, 300))], frames)
    take, _ = run(world, tmp_path)
    assert (state(take, 1) == State.VISIBLE).all() and len(state(take, 1)) == len(frames)
    assert np.abs(hips(take, 1)[:, 0] - [world.actors[0].path(f)[0] for f in frames]).max() < 0.01


def three():
    return [Actor(line(100, 250), RED), Actor(seen_only(line(320, 350), (10, 80)), BLUE), Actor(line(560, 450), GREEN)]


@pytest.mark.parametrize("frame", [0, 12, 45, 79])
def test_a_click_is_followed_both_ways_and_others_are_left_out(tmp_path, frame):
    world = World(three())
    if frame == 0:
        wanted, at = 2, world.actors[2].path(0)
    else:
        wanted, at = 1, world.actors[1].path(frame)
    take, _ = run(world, tmp_path, [Person(4, "Ana", prompts=[Prompt(frame, *at)])])
    assert [(p["id"], p["name"]) for p in take.people] == [(4, "Ana")]
    for sample in np.flatnonzero(state(take, 4) == State.VISIBLE):
        assert who(take, world, 4, int(sample)) == wanted
    assert (state(take, 4)[15:75] == State.VISIBLE).all()
    if wanted == 1:
        assert not state(take, 4)[:10].any() and not state(take, 4)[81:].any()


def test_boxes_and_clicks_on_different_frames_and_people(tmp_path):
    world = World(three())
    x, y = world.actors[2].path(30)
    people = [Person(1, prompts=[BoxPrompt(30, x - 25, y - 60, x + 25, y + 60)]), Person(2, prompts=[Prompt(60, *world.actors[0].path(60))])]
    take, _ = run(world, tmp_path, people)
    assert [who(take, world, p, f) for p in (1, 2) for f in (2, 30, 60, 88)] == [2] * 4 + [0] * 4


def test_several_prompts_anchor_one_person_anew(tmp_path):
    """Somebody leaves on the left in red and comes back on the right in green: only a prompt can know that."""
    world = World([Actor(seen_only(line(300, 0), (0, 40)), RED), Actor(seen_only(line(600, 300), (60, 90)), GREEN)])
    prompts = [Prompt(10, *world.actors[0].path(10)), Prompt(70, *world.actors[1].path(70))]
    take, _ = run(world, tmp_path, [Person(1, prompts=prompts)])
    assert who(take, world, 1, 5) == 0 and who(take, world, 1, 30) == 0 and who(take, world, 1, 65) == 1 and who(take, world, 1, 85) == 1
    assert not state(take, 1)[45:58].any()


def test_negative_clicks_choose_between_two_and_cut_a_wrong_track(tmp_path):
    near = World([Actor(line(300, 300), RED, front=2), Actor(line(335, 335), BLUE, front=1)])
    take, _ = run(near, tmp_path, [Person(1, prompts=[Prompt(0, 318, 120), Prompt(0, 285, 120, False)])], "a.take")
    assert who(take, near, 1, 45) == 1
    world = World([Actor(line(100, 250), RED), Actor(line(560, 450), GREEN)])
    prompts = [Prompt(0, *world.actors[0].path(0)), Prompt(50, *world.actors[0].path(50), False)]
    take, _ = run(world, tmp_path, [Person(1, prompts=prompts)], "b.take")
    assert (state(take, 1)[:50] == State.VISIBLE).all() and not state(take, 1)[50:].any()


@pytest.mark.parametrize("prompts, code, says", [
    ([Prompt(20, 30, 30)], "prompt_hit_nobody", ["Ana", "id 3", "frame 20", "30, 30"]),
    ([BoxPrompt(20, 600, 10, 630, 60)], "prompt_hit_nobody", ["Ana", "frame 20", "600"]),
    ([Prompt(200, 100, 100)], "prompt_outside_clip", ["Ana", "200", "89"]),
    ([Prompt(20, 700, 100)], "prompt_outside_picture", ["Ana", "640"]),
    ([BoxPrompt(20, 300, 100, 340, 100)], "prompt_without_area", ["Ana", "frame 20", "300"]),
    ([Prompt(20, 320, 120, False)], "prompt_only_negative", ["Ana"]),
])
def test_prompts_that_cannot_be_followed(tmp_path, prompts, code, says):
    with pytest.raises(Body4DError) as error:
        run(World(three()), tmp_path, [Person(3, "Ana", prompts=prompts)])
    assert error.value.code == code and error.value.hint and all(text in error.value.message for text in says)


def test_a_box_may_reach_past_the_picture_and_start_at_any_corner(tmp_path):
    world = World([Actor(line(24, 24), RED)])
    x, y = world.actors[0].path(20)
    take, _ = run(world, tmp_path, [Person(1, prompts=[BoxPrompt(20, x + 25, y + 60, x - 60, y - 60)])])
    assert who(take, world, 1, 20) == 0


def test_two_people_prompted_on_one_body(tmp_path):
    world = World(three())
    at = world.actors[0].path(20)
    with pytest.raises(Body4DError) as error:
        run(world, tmp_path, [Person(n, prompts=[Prompt(20, *at)]) for n in (1, 2)])
    assert error.value.code == "prompts_on_one_person"


@pytest.mark.parametrize("frames, limit", [(30, PATIENCE_S), (110, UNSUPPORTED_S)], ids=["out of sight", "imagined by the landmarker"])
def test_a_track_ends_when_nothing_is_there(frames, limit):
    world = World([Actor(seen_only(line(100, 200), (0, 10)))])
    detector, landmarker = world.networks()
    if limit == UNSUPPORTED_S:
        world.actors[0].path = line(100, 200)
        truth = detector.detect
        detector.detect = lambda rgb, *where: truth(rgb, *where) if rgb[0, 0, 1] < 10 else []
    tracker = Tracker(detector, landmarker, 1 / 30)
    alive = []
    for frame in range(frames):
        tracker.step(world.read(frame), frame % 5 == 0)
        alive.append(len(tracker.tracks))
    end = 10 + limit * 30
    assert alive[0] == 1 and alive[int(end) - 6] == 1 and alive[-1] == 0 and abs(alive.index(0) - end) <= 6


def busy(frames=110):
    return World([Actor(line(100, 540), RED, front=2), Actor(seen_only(line(540, 100, 125), (5, 60), (75, 110)), BLUE),
                  Actor(seen_only(line(300, 330, 130), (20, 100)), GREEN, 100, 3), Actor(seen_only(line(600, 590), (50, 58)), GREEN, 90)], frames)


PROMPTS = {"automatic": [], "prompted": [Person(1, prompts=[Prompt(70, 100 + 440 * 70 / 90, 120)]), Person(2, prompts=[Prompt(40, 300 + 30 * 40 / 90, 130)])]}


@pytest.mark.parametrize("people", PROMPTS.values(), ids=PROMPTS.keys())
def test_killed_anywhere_and_resumed_equals_uninterrupted(tmp_path, people, monkeypatch):
    monkeypatch.setattr(track_module, "COMMIT_EVERY", 8)
    monkeypatch.setattr(rows, "BLOCK", 16 * 40)
    whole, _ = run(busy(), tmp_path, people, "whole.take")
    truth = contents(whole)
    world = busy()
    take = Take.create(tmp_path / "killed.take", world.describe(), "lite")
    kills, random = 0, np.random.default_rng(5)
    while take.stage("track") is None:  # every try gets a few events further than the last commit, or dies inside a frame
        world.dies_at = int(random.integers(0, 110)) if kills % 2 and kills < 60 else None
        try:
            for count, _ in enumerate(go_on(world, take, people)):
                if count >= 1 + kills % 2:
                    break
        except KeyboardInterrupt:
            pass
        kills += 1
        take.close()
        take = Take.open(tmp_path / "killed.take", writable=True)
        assert kills < 300
    again = contents(take)
    assert kills > 8 and truth.keys() == again.keys() and take.people == whole.people
    assert all(np.array_equal(truth[key], again[key]) for key in truth)
    assert take.notices() == whole.notices()


@pytest.mark.parametrize("people", PROMPTS.values(), ids=PROMPTS.keys())
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_chunk_size_changes_nothing(tmp_path, people, chunk, monkeypatch):
    truth = contents(run(busy(60), tmp_path, [p for p in people if p.id == 2], "a.take")[0])
    monkeypatch.setattr(track_module, "COMMIT_EVERY", chunk)
    monkeypatch.setattr(rows, "BLOCK", 16 * chunk)
    again = contents(run(busy(60), tmp_path, [p for p in people if p.id == 2], "b.take")[0])
    assert truth.keys() == again.keys() and all(np.array_equal(truth[key], again[key]) for key in truth)


def test_progress_ends_at_its_total_and_every_sample_is_announced(tmp_path):
    world = busy()
    take = Take.create(tmp_path / "t.take", world.describe(), "lite")
    events = list(go_on(world, take))
    progress = [e for e in events if isinstance(e, Progress)]
    assert progress[-1].done == progress[-1].total and all(e.done <= e.total for e in progress)
    last = [e for e in events if isinstance(e, Committed)]
    assert {e.person for e in last if e.stop == take.samples} == {p["id"] for p in take.people}


def test_frames_are_decoded_once_when_nothing_is_prompted(tmp_path):
    world = busy()
    run(world, tmp_path)
    assert world.decoded == len(world.frames)


def sizes(area, scale=None, shot=None, at_side=False, seconds=1 / 30):
    area = np.array(area, float)
    count = len(area)
    return squeezed(area > 0, area, np.full(count, 200.0) if scale is None else np.array(scale, float), np.full(count, at_side),
                    np.zeros(count, int) if shot is None else np.array(shot), seconds)


def test_whoever_shrinks_out_of_sight_is_squeezed():
    shrinking = [*[100] * 60, 90, 70, 50, 30]
    assert np.flatnonzero(sizes([*shrinking, *[0] * 30])).tolist() == [61, 62, 63]
    assert np.flatnonzero(sizes([*[0] * 30, *shrinking[::-1]])).tolist() == [30, 31, 32]  # who comes into sight, too
    assert np.flatnonzero(sizes([*[100] * 60, 70, 0, 100, *[0] * 30], [200] * 60 + [200, 0, 170] + [0] * 30)).tolist() == [60, 62]
    assert not sizes([*[100] * 30, *[60] * 20, *[100] * 30, *[0] * 30]).any()  # in the middle nothing is lost
    assert not sizes([*[100] * 60, 70, 50, 100, *[0] * 30]).any()
    assert np.flatnonzero(sizes([*[100] * 60, 70, 100, 50, *[0] * 30])).tolist() == [60, 61, 62]  # the landmarker imagines the rest for once
    assert np.flatnonzero(sizes([*[100] * 60, 70, 100, 100, 50, *[0] * 30])).tolist() == [63]


def test_at_the_end_of_a_shot_only_who_is_at_the_side_is_squeezed():
    shrinking = [*[100] * 60, 70, 50]
    assert not sizes(shrinking).any() and np.flatnonzero(sizes(shrinking, at_side=True)).tolist() == [60, 61]
    assert not sizes([*shrinking, *[0] * 30], shot=[0] * 62 + [1] * 30).any()


def test_squeezed_takes_less_than_half_a_second():
    for seconds, most in ((1 / 30, 14), (1 / 240, 119), (1 / 5, 2), (1.0, 0)):
        fading = np.linspace(0.7, 0.3, int(0.8 / seconds) + 1) * 100
        assert sizes([*[100] * int(3 / seconds), *fading, 0, *[0] * int(2 / seconds)], seconds=seconds).sum() <= most


def test_nobody_saw_the_landmarks_of_who_slips_out_of_sight(tmp_path):
    """The landmarker squeezes the whole body into what is left of it beside the picture's left edge."""
    class Squeezing(Actor):
        def points(self, frame):
            self.height = 120 * (1 - 0.12 * max(0, frame - 54))
            return super().points(frame)

    world = World([Squeezing(seen_only(line(300, 30, frames=60), (0, 60)))])
    take, _ = run(world, tmp_path)
    visibility = np.array(take.read("people/1", "landmarks_px"))[:, :, 2].max(1)
    assert (state(take, 1)[:55] == State.VISIBLE).all() and (visibility[:55] > 0.9).all()
    assert (state(take, 1)[56:60] == State.OCCLUDED).all() and not visibility[56:60].any() and not state(take, 1)[60:].any()


def test_linking_a_crowd_takes_seconds():
    random, crowd = np.random.default_rng(0), []
    looks = random.random((2, appearance.SIZE))
    for number in range(480):
        first, x, y = int(random.integers(0, 18000)), *(random.random(2) * 1000)
        crowd.append(Tracklet(0, number))
        for i in range(8):
            crowd[-1].add(first + i, np.array([x + i, y, x + 50 + i, y + 150]), looks[number % 2] * (1 + 0.05 * random.random(appearance.SIZE)),
                           np.array([x + 25 + i, y + 75, 4.5]))
    begun = time.process_time()
    chains = link(crowd, 1 / 30, [])
    assert sorted(t.track for chain in chains for t in chain) == list(range(480)) and time.process_time() - begun < 10
