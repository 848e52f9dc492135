# SPDX-License-Identifier: Apache-2.0
"""The logic of the full backend's tracking, with a SAM 3 that follows colours."""

import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from body4d_engine.errors import Body4DError  # noqa: E402
from body4d_engine.events import Committed, Notice, Progress  # noqa: E402
from body4d_engine.people import BoxPrompt, Person, Prompt  # noqa: E402
from body4d_engine.stages.full import track as track_module  # noqa: E402
from body4d_engine.take import State, Take  # noqa: E402

from .fake_sam3 import REACH, Actor, FakeSam3, FakeTracker, World, stage  # noqa: E402

NAMES = ("state", "confidence", "box", "mask_index", "mask_bytes")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A killed process loses nothing that was written; only a power failure would, and nothing here needs much memory."""
    monkeypatch.setattr(os, "fsync", lambda file: None)
    monkeypatch.setattr(track_module, "release", lambda: None)
    monkeypatch.setattr(track_module, "slow", lambda stage, device: None)  # see test_memory_limits.py
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # many small tensors: threads cost more than they bring
    yield
    torch.set_num_threads(threads)


def still(x=40, y=30, **when):
    """At one place, from `begin` to `end` (exclusive)."""
    return lambda frame: (x, y) if when.get("begin", 0) <= frame < when.get("end", 10**6) else None


def click(person, frame, x, y, positive=True):
    return Person(person, prompts=[Prompt(frame, x, y, positive)])


def run(world, tmp_path, people=(), name="t.take", track=None):
    """The take after tracking, and the events."""
    take = Take.create(tmp_path / name, world.describe(), "full")
    return take, go_on(world, take, people, track or stage())


def go_on(world, take, people, track, stop_after=None):
    """With stop_after, killed after so many samples."""
    events, steps = [], 0
    generator = track.run(world, list(people), take, take.begin("track", "k" * 16))
    for event in generator:
        if isinstance(event, Notice):
            take.notice(event)
        events.append(event)
        steps += isinstance(event, Progress)
        if stop_after is not None and steps >= stop_after:
            generator.close()
            return events
    take.finish()
    return events


def state(take, person):
    return np.array(take.read(f"people/{person}", "state"))


def contents(take):
    return {(p["id"], name): np.array(take.read(f"people/{p['id']}", name)) for p in take.people for name in NAMES} | {"notices": take.notices()}


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=str(name))


def notices(events, code):
    return [event for event in events if isinstance(event, Notice) and event.code == code]


def codes(events):
    return {event.code for event in events if isinstance(event, Notice)}


def test_arrays_are_complete_and_as_lite_writes_them(tmp_path):
    world = World([Actor(still(40, 30))])
    take, events = run(world, tmp_path, [click(1, 0, 50, 60)])
    for name, shape, dtype in (("state", (40,), "u1"), ("confidence", (40,), "f4"), ("box", (40, 4), "f4"), ("mask_index", (40, 6), "i8")):
        array = take.read("people/1", name)
        assert array.shape == shape and array.dtype == np.dtype("<" + dtype), name
    assert (state(take, 1) == State.VISIBLE).all()
    mask = take.mask(1, 20)
    assert mask.shape == (120, 320) and mask[30:100, 40:70].all() and mask.sum() == (70 + 2 * REACH) * (30 + 2 * REACH)
    np.testing.assert_array_equal(take.read("people/1", "box")[20], [40 - REACH, 30 - REACH, 70 + REACH, 100 + REACH])
    assert sorted(take.stage("track")["arrays"]) == sorted(f"people/1/{name}" for name in NAMES) and not take.stage("track")["files"]
    assert not list(tmp_path.glob("t.take/tracklets/*"))  # neither rows nor the tracker's memory stay
    assert Committed("track", 1, 0, 40) in events and not codes(events)


def test_prompt_in_the_middle_is_followed_both_ways(tmp_path):
    """Fails where only one direction is taken, or the wrong frames."""
    world = World([Actor(lambda f: (20 + 4 * f, 30))])
    tracker = FakeTracker()
    take, _ = run(world, tmp_path, [click(1, 15, 20 + 4 * 15 + 5, 60)], track=stage(tracker=tracker))
    assert (state(take, 1) == State.VISIBLE).all()
    np.testing.assert_allclose(take.read("people/1", "box")[:, 0], 20 + 4 * np.arange(40) - REACH)
    assert [f for f, back, _ in tracker.calls if not back] == [15, *range(15, 40)] and [f for f, back, _ in tracker.calls if back] == list(range(14, -1, -1))


def test_frames_are_read_once_per_direction_and_seen_once(tmp_path):
    world, sam3 = World([Actor(still(40)), Actor(still(200))]), FakeSam3()
    run(world, tmp_path, [click(1, 10, 50, 60), click(2, 10, 210, 60)], track=stage(sam3))
    assert world.reads == [10, *range(10, 40), *range(9, -1, -1)] and sam3.seen == len(world.reads)


def test_pictures_are_seen_once_for_everybody_and_the_search(tmp_path):
    world, sam3 = World([Actor(still(40)), Actor(still(200))]), FakeSam3()
    run(world, tmp_path, track=stage(sam3))
    assert world.reads == list(range(40)) and sam3.seen == 40 and sam3.looked == 4  # samples 0, 15, 30, 39


def test_masks_share_no_pixel_and_the_surer_logit_has_it(tmp_path):
    """Fails where a lower or a higher id simply wins: each one's halo lies over the other's body."""
    world = World([Actor(still(40), front=1), Actor(still(70), front=0)])
    for people in ([click(1, 0, 50, 60), click(2, 0, 80, 60)], [click(2, 0, 50, 60), click(1, 0, 80, 60)]):
        take, _ = run(world, tmp_path, people, f"{people[0].id}.take")
        left, right = (take.mask(person.id, 5) for person in people)
        assert not (left & right).any() and left[60, 40:70].all() and right[60, 70:100].all() and not left[60, 70:].any() and not right[60, :70].any()


def test_forward_and_backward_share_no_pixel_either(tmp_path):
    """Person 2 is tracked backward where person 1 is tracked forward: their logits decide all the same."""
    world = World([Actor(still(40)), Actor(still(70))])
    take, _ = run(world, tmp_path, [click(1, 0, 50, 60), click(2, 30, 80, 60)])
    for sample in (5, 29, 35):
        one, two = take.mask(1, sample), take.mask(2, sample)
        assert not (one & two).any() and one[60, 40:70].all() and two[60, 70:100].all(), sample


def test_shots_are_boundaries_and_a_person_prompted_in_both_keeps_the_id(tmp_path):
    world, tracker = World([Actor(still(40)), Actor(still(200))], frames=35, shots=(0, 20)), FakeTracker()
    person = Person(1, prompts=[Prompt(5, 50, 60), Prompt(30, 210, 60)])
    take, events = run(world, tmp_path, [person], track=stage(tracker=tracker))
    x = np.array(take.read("people/1", "box"))[:, 0]
    assert (state(take, 1) == State.VISIBLE).all() and (x[:20] == 40 - REACH).all() and (x[20:] == 200 - REACH).all()
    assert not codes(events) and tracker.starts == [15, 20, 15]  # the second shot's prompt is looked at first, then each shot with a memory of its own


def test_who_is_not_prompted_in_a_shot_is_absent_there_and_that_is_said(tmp_path):
    world = World([Actor(still(40))], shots=(0, 20))
    take, events = run(world, tmp_path, [click(1, 5, 50, 60)])
    assert (state(take, 1)[:20] == State.VISIBLE).all() and (state(take, 1)[20:] == State.ABSENT).all()
    (notice,) = notices(events, "shot_without_prompt")
    assert (notice.person, notice.frame, notice.last_frame) == (1, 20, 39)


def test_everybody_is_found_and_late_entrants_back_to_where_they_entered(tmp_path):
    world = World([Actor(still(40, 30), tall=80), Actor(still(200, begin=19))], frames=60)
    take, events = run(world, tmp_path)
    assert [p["id"] for p in take.people] == [1, 2]
    assert (state(take, 1) == State.VISIBLE).all()
    assert (state(take, 2)[19:] == State.VISIBLE).all() and not state(take, 2)[:19].any()
    assert not codes(events)


def test_backward_passes_end_where_nobody_was_for_long(tmp_path):
    """The late entrant of a long shot does not cost another pass over it."""
    world = World([Actor(still(40)), Actor(still(200, begin=170))], frames=200)
    run(world, tmp_path)
    backward = world.reads[200:]
    assert backward == list(range(179, 179 - 10 - 30, -1))  # found at 180, there since 170, looked for one second more


def test_missed_at_first_and_found_later_is_tracked_to_the_start(tmp_path):
    world = World([Actor(still(40)), Actor(still(200))], frames=50)
    take, _ = run(world, tmp_path, track=stage(FakeSam3(blind=(1,))))
    assert all((state(take, p) == State.VISIBLE).all() for p in (1, 2))


def test_ids_are_by_size_and_do_not_depend_on_who_is_found_first(tmp_path):
    world = World([Actor(still(40), tall=61), Actor(still(200), tall=90)])
    take, _ = run(world, tmp_path)
    assert take.read("people/1", "box")[0, 0] == 200 - REACH and take.read("people/2", "box")[0, 0] == 40 - REACH


def test_too_small_and_too_short_are_left_out_and_said(tmp_path):
    world = World([Actor(still(40)), Actor(still(200), tall=40), Actor(still(260, begin=44, end=50))], frames=90)
    take, events = run(world, tmp_path)
    assert len(take.people) == 1 and codes(events) == {"track_too_small", "track_too_short"}


def test_hidden_and_gone(tmp_path):
    """Hidden for a second, in the same place again: occluded with a box on the way. Out over the edge and back: absent."""
    hidden = Actor(lambda f: None if 20 <= f < 50 else (40 + f, 30))
    leaving = Actor(lambda f: None if 20 <= f < 50 else (320 - 20, 30))
    world = World([hidden, leaving], frames=80)
    take, _ = run(world, tmp_path, [click(1, 0, 50, 60), click(2, 0, 310, 60)])
    assert (state(take, 1)[20:50] == State.OCCLUDED).all() and (state(take, 2)[20:50] == State.ABSENT).all()
    np.testing.assert_allclose(take.read("people/1", "box")[35, 0], 40 + 35 - REACH, atol=1)
    assert (take.read("people/1", "confidence")[20:50] == 0).all() and not take.mask(1, 30).any()


def test_who_is_nearly_covered_is_occluded_with_a_mask(tmp_path):
    world = World([Actor(still(40), front=0), Actor(lambda f: (40 + 6, 30) if 20 <= f < 30 else (200, 30), front=1)], frames=60)
    take, _ = run(world, tmp_path, [click(1, 0, 50, 60), click(2, 0, 210, 60)])
    assert (state(take, 1)[20:30] == State.OCCLUDED).all() and (np.delete(state(take, 1), range(20, 30)) == State.VISIBLE).all()
    assert (state(take, 2) == State.VISIBLE).all()


def test_lost_in_the_middle_of_the_picture_is_told(tmp_path):
    world = World([Actor(still(40, end=30)), Actor(still(200))], frames=200)
    take, events = run(world, tmp_path, [click(1, 0, 50, 60), click(2, 0, 210, 60)])
    (notice,) = notices(events, "person_lost")
    assert (notice.person, notice.frame, notice.last_frame) == (1, 30, 199) and (state(take, 1)[30:] == State.ABSENT).all()


def test_who_leaves_over_the_edge_is_not_lost(tmp_path):
    world = World([Actor(lambda f: (320 - 20, 30) if f < 30 else None), Actor(still(200))], frames=200)
    take, events = run(world, tmp_path, [click(1, 0, 310, 60), click(2, 0, 210, 60)])
    assert not codes(events) and not state(take, 1)[30:].any()


def test_new_is_who_is_in_nobodys_mask():
    from body4d_engine.stages.full.finding import newcomers

    def body(x, wide=20, tall=70):
        mask = np.zeros((100, 200), bool)
        mask[10 : 10 + tall, x : x + wide] = True
        return mask

    taken = body(100)
    found = newcomers(np.array([body(108), body(112), body(20), body(28), body(34), body(160, tall=30)]), taken)
    # 60 % of the first are somebody's, 40 % of the second; of the three on the left the second one is the first again, and the third one is not
    assert [mask.any(0).argmax() for mask in found.masks] == [120, 20, 40] and found.too_small
    assert np.sum([taken, *found.masks], 0).max() == 1
    assert not newcomers(np.zeros((0, 100, 200), bool), taken).masks and not newcomers(np.zeros((1, 100, 200), bool), taken).masks


def test_ids_one_and_three(tmp_path):
    world, tracker = World([Actor(still(40)), Actor(still(200))]), FakeTracker()
    take, _ = run(world, tmp_path, [click(1, 0, 50, 60), click(3, 12, 210, 60)], track=stage(tracker=tracker))
    assert [p["id"] for p in take.people] == [1, 3]
    assert tracker.calls[2:] == [(f, False, (1,) if f < 12 else (1, 3)) for f in range(40)] + [(f, True, (3,)) for f in range(11, -1, -1)]
    assert (take.read("people/3", "box")[:, 0] == 200 - REACH).all() and (take.read("people/1", "box")[:, 0] == 40 - REACH).all()


def test_clip_shorter_than_the_number_of_people(tmp_path):
    world = World([Actor(still(10 + 50 * i)) for i in range(5)], frames=2)
    for name, people in (("a", [click(i + 1, i % 2, 20 + 50 * i, 60) for i in range(5)]), ("b", [])):
        take, _ = run(world, tmp_path, people, f"{name}.take")
        assert len(take.people) == 5 and all((state(take, p) == State.VISIBLE).all() for p in range(1, 6))


def test_one_frame(tmp_path):
    take, _ = run(World([Actor(still(40))], frames=1), tmp_path)
    assert state(take, 1).tolist() == [State.VISIBLE]


def test_person_cut_by_the_border(tmp_path):
    """Standing half outside all the time; the mask ends at the edge and nothing is called lost."""
    world = World([Actor(still(-10, 80), tall=90)], size=(320, 160))
    take, events = run(world, tmp_path, [Person(1, prompts=[BoxPrompt(0, -30, 70, 25, 300)])])
    np.testing.assert_array_equal(take.read("people/1", "box")[7], [0, 76, 20 + REACH, 160])
    assert (state(take, 1) == State.VISIBLE).all() and not codes(events)


def test_empty_on_the_first_frame(tmp_path):
    world = World([Actor(still(40, begin=10))])
    take, _ = run(world, tmp_path, [click(1, 20, 50, 60)])
    assert not state(take, 1)[:10].any() and (state(take, 1)[10:] == State.VISIBLE).all()


def test_prompt_on_nobody(tmp_path):
    with pytest.raises(Body4DError) as error:
        run(World([Actor(still(40))]), tmp_path, [click(1, 7, 250, 60)])
    assert error.value.code == "prompt_hit_nobody" and "frame 7" in str(error.value)


def test_prompts_of_later_shots_are_checked_before_the_first_is_tracked(tmp_path):
    world, tracker = World([Actor(still(40))], shots=(0, 20)), FakeTracker()
    with pytest.raises(Body4DError) as error:
        run(world, tmp_path, [Person(1, prompts=[Prompt(0, 50, 60), Prompt(30, 250, 60)])], track=stage(tracker=tracker))
    assert error.value.code == "prompt_hit_nobody" and len(tracker.calls) == 1


def test_two_prompts_on_one_body(tmp_path):
    with pytest.raises(Body4DError) as error:
        run(World([Actor(still(40))]), tmp_path, [click(1, 7, 50, 60), click(2, 7, 55, 70)])
    assert error.value.code == "prompts_on_one_person"


@pytest.mark.parametrize("prompts, code", [([Prompt(40, 50, 60)], "prompt_outside_clip"), ([Prompt(0, 321, 60)], "prompt_outside_picture"),
                                           ([BoxPrompt(0, 330, 10, 350, 60)], "prompt_outside_picture"), ([BoxPrompt(0, 5, 10, 5, 60)], "prompt_without_area"),
                                           ([Prompt(0, 50, 60, False)], "prompt_only_negative")])
def test_prompts_that_say_nothing(tmp_path, prompts, code):
    with pytest.raises(Body4DError) as error:
        run(World([Actor(still(40))]), tmp_path, [Person(1, prompts=prompts)])
    assert error.value.code == code


def test_negative_clicks_refine_what_is_tracked_on_that_frame(tmp_path):
    """They alone never start a person; forward and backward."""
    world, tracker = World([Actor(still(40))]), FakeTracker()
    person = Person(1, prompts=[Prompt(20, 50, 60), Prompt(30, 250, 60, False), Prompt(5, 250, 60, False)])
    take, _ = run(world, tmp_path, [person], track=stage(tracker=tracker))
    confidence = np.array(take.read("people/1", "confidence"))
    assert confidence[29] - confidence[30] > 0.09 and confidence[6] - confidence[5] > 0.09 and (state(take, 1) == State.VISIBLE).all()
    assert [call[0] for call in tracker.calls].count(30) == 2


def test_nobody_at_all(tmp_path):
    with pytest.raises(Body4DError) as error:
        run(World([]), tmp_path)
    assert error.value.code == "nobody_found"


def test_nobody_on_some_frames(tmp_path):
    world = World([Actor(still(40, begin=20, end=50))], frames=80)
    take, _ = run(world, tmp_path)
    assert (state(take, 1)[20:50] == State.VISIBLE).all() and not state(take, 1)[:20].any() and not state(take, 1)[50:].any()


def test_steps_and_prompts_between_samples(tmp_path):
    world, tracker = World([Actor(still(40))], frames=41, step=4), FakeTracker()
    take, _ = run(world, tmp_path, [click(1, 19, 50, 60)], track=stage(tracker=tracker))
    assert tracker.calls[0] == (5, False, (1,))
    assert take.samples == 11 and (state(take, 1) == State.VISIBLE).all() and set(world.reads) == set(range(0, 41, 4))


@pytest.mark.parametrize("people", [[], [click(1, 0, 50, 60), click(2, 25, 210, 60)]], ids=["everybody", "prompted"])
@pytest.mark.parametrize("stop_after", [1, 33, 60, 70])
def test_killed_and_gone_on_is_the_same(tmp_path, people, stop_after):
    """Fails where the cursor, the rows or the tracker's memory are not those of the last commit: the score counts the steps of a pass."""
    actors = [Actor(still(40)), Actor(still(200, begin=22)), Actor(still(260, begin=35))]
    whole = contents(run(World(actors, frames=60, shots=(0, 50)), tmp_path, people, "whole.take")[0])
    take = Take.create(tmp_path / "cut.take", World(actors).describe() | {"end": 60, "frame_count": 60}, "full")
    world = World(actors, frames=60, shots=(0, 50))
    go_on(world, take, people, stage(commit_every=4), stop_after)
    take.close()
    with Take.open(tmp_path / "cut.take", writable=True) as take:
        go_on(world, take, people, stage(commit_every=4))
        same(contents(take), whole)


@pytest.mark.parametrize("fatal", [2, 3, 99])
def test_killed_within_a_commit_goes_on_from_the_one_before(tmp_path, monkeypatch, fatal):
    """Fails where the tracker's file that the last commit names is written over. 99: killed after the last commit, before the stage was finished."""
    people, actors = [click(1, 0, 50, 60)], [Actor(still(40))]
    whole = contents(run(World(actors), tmp_path, people, "whole.take")[0])
    take, commit, commits = Take.create(tmp_path / "cut.take", World(actors).describe(), "full"), Take.commit, []

    def dying(self, cursor=None):
        commits.append(cursor)
        if len(commits) == fatal:
            raise KeyboardInterrupt
        commit(self, cursor)

    monkeypatch.setattr(Take, "commit", dying)
    try:
        for _ in stage(commit_every=4).run(World(actors), people, take, take.begin("track", "k" * 16)):
            pass
    except KeyboardInterrupt:
        pass
    monkeypatch.setattr(Take, "commit", commit)
    take.close()
    with Take.open(tmp_path / "cut.take", writable=True) as take:
        world = World(actors)
        go_on(world, take, people, stage())
        same(contents(take), whole)
        assert world.reads == ([] if fatal == 99 else list(range(4 * (fatal - 1), 40)))


def test_result_does_not_depend_on_the_chunk_or_on_how_many_go_together(tmp_path):
    actors = [Actor(still(5 + 45 * i)) for i in range(6)]
    whole = contents(run(World(actors, frames=30), tmp_path, name="whole.take")[0])
    for number, options in enumerate(({"commit_every": 1}, {"commit_every": 7}, {"limit": 1})):
        tracker = FakeTracker()
        same(contents(run(World(actors, frames=30), tmp_path, name=f"{number}.take", track=stage(tracker=tracker, **options))[0]), whole)
        assert (max(len(people) for *_, people in tracker.calls) == 1) == ("limit" in options)


def test_out_of_memory_halves_and_goes_on(tmp_path):
    actors = [Actor(still(5 + 45 * i)) for i in range(6)]
    whole = contents(run(World(actors, frames=10), tmp_path, name="whole.take")[0])
    tracker = FakeTracker()
    tracker.most = 2
    same(contents(run(World(actors, frames=10), tmp_path, name="less.take", track=stage(tracker=tracker))[0]), whole)
    assert max(len(people) for *_, people in tracker.calls) <= 2
    people = [click(i + 1, 3, 15 + 45 * i, 60) for i in range(6)]
    asked = contents(run(World(actors, frames=10), tmp_path, people, name="asked.take")[0])
    same(contents(run(World(actors, frames=10), tmp_path, people, name="asked_less.take", track=stage(tracker=tracker))[0]), asked)
    tracker.most = 0
    with pytest.raises(Body4DError) as error:
        run(World(actors, frames=10), tmp_path, name="none.take", track=stage(tracker=tracker))
    assert error.value.code == "out_of_memory"


def test_a_damaged_memory_is_made_again(tmp_path):
    people, actors = [click(1, 0, 50, 60)], [Actor(still(40))]
    whole = contents(run(World(actors), tmp_path, people, "whole.take")[0])
    take = Take.create(tmp_path / "cut.take", World(actors).describe(), "full")
    go_on(World(actors), take, people, stage(commit_every=4), 10)
    take.close()
    (memory,) = [tmp_path / "cut.take" / name for name in Take.open(tmp_path / "cut.take").working["files"]]
    memory.write_text("{")
    with Take.open(tmp_path / "cut.take", writable=True) as take:
        go_on(World(actors), take, people, stage())
        same(contents(take), whole)


def test_caller_may_stop_at_every_picture(tmp_path):
    world = World([Actor(still(40))])
    take = Take.create(tmp_path / "t.take", world.describe(), "full")
    for event in stage().run(world, [], take, take.begin("track", "k" * 16)):
        if isinstance(event, Progress):
            break
    assert world.reads == [0]


def test_progress_never_goes_back_and_ends_whole(tmp_path):
    world = World([Actor(still(40)), Actor(still(200, begin=22))], frames=60, shots=(0, 50))
    _, events = run(world, tmp_path)
    done = [(event.done, event.total) for event in events if isinstance(event, Progress)][:-1]
    assert all(a[0] < b[0] for a, b in zip(done, done[1:])) and all(d <= t for d, t in done) and done[-1][0] == done[-1][1]


@pytest.mark.parametrize("size", [(3840, 2160), (1080, 1920), (320, 4)])
def test_large_portrait_and_flat_pictures(tmp_path, size):
    tall = min(300, size[1])
    world = World([Actor(still(400 if size[0] > 400 else 40, 0), tall=tall)], frames=3, size=size)
    take, _ = run(world, tmp_path, [click(1, 1, 410 if size[0] > 400 else 50, 2)])
    assert (state(take, 1) == State.VISIBLE).all() and take.mask(1, 0).shape == (size[1], size[0])


def test_who_loses_nearly_all_that_they_claim_is_not_seen(tmp_path):
    """Two who follow one body share it by single pixels; the rest of the double is no sighting."""
    from body4d_engine.stages.full import masklets
    from body4d_engine.stages.full.claims import Claims

    own, speck = torch.full((120, 320), 1.0), torch.full((120, 320), 0.5)
    speck[::9] = 2.0
    claims = Claims()
    claims.add({1: own, 2: speck}, {1: 0.9, 2: 0.9})
    take = Take.create(tmp_path / "t.take", World([]).describe(), "full")
    take.begin("track", "k" * 16)
    masklets.create_rows(take)
    assert masklets.append_rows(take, 0, claims.settled(120, 320), False) == [1] and take.count(masklets.ROWS, "person", "track") == 1


def test_equal_logits_are_the_first_ones_and_a_logit_of_zero_is_nobodys():
    from body4d_engine.stages.full.claims import Claims

    claims, own = Claims(), torch.tensor([[2.0, 0.0, -1.0, 1.0]])
    claims.add({3: own}, {3: 0.9})
    claims.add({1: torch.tensor([[2.0, 0.0, 1.0, 2.0]])}, {1: 0.8})
    claims.add({3: own}, {3: 0.9})  # done again after memory was short
    owned = claims.settled(1, 4)
    assert owned.owner.tolist() == [[1, 0, 2, 2]] and owned.people == [3, 1] and owned.area == {3: 1, 1: 2} and owned.claimed == {3: 2, 1: 3}
    assert owned.sure.tolist() == [[16, 0, 8, 16]] and owned.mask(1).tolist() == [[True, True]]


def test_memory_does_not_grow_with_people_in_a_picture():
    """Claims hold the best logit, not everyone's."""
    from body4d_engine.stages.full.claims import Claims

    claims = Claims()
    for person in range(1, 300):  # more than a byte counts
        own = torch.full((20, 300), -1.0)
        own[:, person] = 3.0 + person / 100
        claims.add({person: own}, {person: 0.9})
    owned = claims.settled(20, 300)
    assert owned.owner.dtype == np.int16 and all(owned.area[p] == 20 and owned.box[p] == (p, 0, p + 1, 20) for p in owned.people)
    assert sum(tensor.numel() for tensor in vars(claims).values() if isinstance(tensor, torch.Tensor)) == 2 * 20 * 300
