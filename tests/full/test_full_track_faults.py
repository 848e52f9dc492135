# SPDX-License-Identifier: Apache-2.0
"""What the full backend's tracking makes of people who are not there on some frames, on the first, or on all, and what it holds while it goes on."""

import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from body4d_engine.errors import Body4DError  # noqa: E402
from body4d_engine.models.sam3.tracker import Tracked  # noqa: E402
from body4d_engine.people import BoxPrompt, Person, Prompt  # noqa: E402
from body4d_engine.take import State  # noqa: E402

from .fake_sam3 import Actor, FakeSam3, FakeTracker, World, stage  # noqa: E402
from .sam3_nets import lively  # noqa: E402
from .test_full_track import click, codes, quick, run, state, still  # noqa: E402, F401
from .test_full_track_real import PEOPLE, Pictures  # noqa: E402
from .test_full_track_real import run as run_real  # noqa: E402


class Doubtful(FakeTracker):
    """Segments these people on every frame, and does not believe that they are seen; on the frames that are named, or on all."""

    def __init__(self, *people, frames=range(10**6)):
        super().__init__()
        self.doubted, self.frames = people, frames

    def step(self, frame, seen, reverse=False, people=None):
        found = super().step(frame, seen, reverse, people)
        return Tracked(found.logits, {p: 0.2 if p in self.doubted and frame in self.frames else score for p, score in found.scores.items()})


def test_a_person_who_is_seen_on_no_frame_is_named(tmp_path):
    """Their prompt had a mask, and then there is none at all; the others do not hide it."""
    with pytest.raises(Body4DError) as caught:
        run(World([Actor(still(40)), Actor(still(200))]), tmp_path, [click(1, 0, 50, 60), Person(3, "Ana", prompts=[Prompt(5, 210, 60)])],
            track=stage(tracker=Doubtful(3)))
    assert caught.value.code == "prompt_lost" and "Ana (id 3)" in str(caught.value) and caught.value.hint


@pytest.mark.parametrize("unseen", [[0], [0, 1, 2], [17], [17, 18, 19, 20], [39], list(range(1, 40, 2))], ids=str)
def test_a_person_with_no_mask_on_some_frames_has_no_mask_there_and_all_others(tmp_path, unseen):
    """The first, the last, some in the middle, every other; prompted on the first one, whose prompt was well. The other person stays as they are."""
    people = [click(1, 0, 50, 60), click(3, 0, 210, 60)]
    world = World([Actor(still(40)), Actor(still(200))])
    whole, _ = run(world, tmp_path, people, "whole.take")
    take, _ = run(world, tmp_path, people, "some.take", stage(tracker=Doubtful(3, frames=unseen)))
    seen = np.array([bool(take.mask(3, sample).any()) for sample in range(40)])
    np.testing.assert_array_equal(np.flatnonzero(~seen), unseen)
    assert (state(take, 3)[seen] == State.VISIBLE).all() and not (state(take, 3)[~seen] == State.VISIBLE).any()
    assert not np.array(take.read("people/3", "confidence"))[~seen].any() and np.isfinite(np.array(take.read("people/3", "box"))).all()
    for name in ("state", "confidence", "box"):
        np.testing.assert_array_equal(np.array(take.read("people/1", name)), np.array(whole.read("people/1", name)))


def test_who_is_found_by_the_word_and_then_never_seen_is_nobody(tmp_path):
    """A reflection, say. Alone there, it is told that nobody is."""
    class Mistaken(FakeSam3):
        def detect(self, seen):
            wrong = np.zeros((1, *seen.values.shape), bool)
            wrong[0, 20:100, 120:150] = True
            return type("Detections", (), {"masks": np.concatenate([super().detect(seen).masks, wrong])})

    take, events = run(World([Actor(still(40))]), tmp_path, track=stage(Mistaken()))
    assert [person["id"] for person in take.people] == [1] and take.read("people/1", "box")[0, 0] < 60 and not codes(events)
    with pytest.raises(Body4DError) as caught:
        run(World([]), tmp_path, name="nobody.take", track=stage(Mistaken()))
    assert caught.value.code == "nobody_found"


def test_clicks_and_a_box_on_one_frame_are_one_prompt(tmp_path):
    """All of somebody's clicks on a frame, those that say where they are not too, with the last of the boxes."""
    tracker, given = FakeTracker(), []
    tracker.prompt = lambda *prompt: given.append(prompt) or FakeTracker.prompt(tracker, *prompt)
    person = Person(3, prompts=[BoxPrompt(4, 5, 5, 9, 9), Prompt(4, 210, 60), BoxPrompt(4, 240, 110, 190, 20), Prompt(4, 50, 60, False)])
    take, _ = run(World([Actor(still(40)), Actor(still(200))], frames=8), tmp_path, [person], track=stage(tracker=tracker))
    assert given == [(4, 3, [(210, 60, True), (50, 60, False)], (190, 20, 240, 110))]
    assert (state(take, 3) == State.VISIBLE).all() and take.mask(3, 7)[60, 210]


def test_the_word_gives_masks_to_the_tracker_that_share_no_pixel(tmp_path):
    class Generous(FakeSam3):
        def detect(self, seen):
            masks = super().detect(seen).masks
            return type("Detections", (), {"masks": masks | np.roll(masks, 12, 2)})

    tracker, given = FakeTracker(), []
    tracker.prompt = lambda frame, person, clicks=(), box=None, mask=None: given.append(mask) or FakeTracker.prompt(tracker, frame, person, clicks, box, mask)
    run(World([Actor(still(40)), Actor(still(72))], frames=4), tmp_path, track=stage(Generous(), tracker))
    assert [mask.dtype for mask in given] == [bool, bool] and np.sum(given, 0).max() == 1 and given[0][60, 75] and given[1][60, 95]


def test_one_picture_is_held(tmp_path, monkeypatch):
    """With the real network: while a picture is looked at, the one before may still be there, and none of those before that."""
    sam3, alive, most = lively(1), [], []
    see = type(sam3).see

    def counted(self, rgb):
        most.append(sum(one() is not None for one in alive))
        seen = see(self, rgb)
        alive.append(weakref.ref(seen))
        return seen

    monkeypatch.setattr(type(sam3), "see", counted)
    run_real(Pictures(12), tmp_path, PEOPLE, sam3)
    assert len(most) > 12 and max(most) <= 1


def test_the_stored_memory_does_not_grow_with_the_clip(tmp_path):
    """What a killed run needs: never more than seven masks of a person take, and no more after forty frames than after twenty."""
    from body4d_engine.models.sam3.memory import MASKS
    from body4d_engine.models.sam3.tracker import Tracker

    tracker, sizes = Tracker(lively(1), exclusive=False), []
    clip = Pictures(40)
    tracker.start(160, 90, 40)
    tracker.prompt(0, 1, clicks=[(30, 40, True)])
    for frame in range(40):
        tracker.step(frame, clip.read(frame))
        tracker.save(tmp_path / "state")
        sizes.append((tmp_path / "state").stat().st_size)
    assert max(sizes) < MASKS * sizes[0] and max(sizes[20:]) <= 1.02 * sizes[19]
