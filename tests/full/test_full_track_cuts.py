# SPDX-License-Identifier: Apache-2.0
"""Who is who after a cut, in the full backend's tracking: by looks, with a SAM 3 that follows colours."""

import pytest

pytest.importorskip("torch")

from body4d_engine.take import State  # noqa: E402

from .fake_sam3 import Actor, FakeSam3, World, stage  # noqa: E402
from .test_full_track import notices, quick, run, state, still  # noqa: E402, F401

RED, GREEN, BLUE = (5, 5), (200, 150), (60, 200)  # coats: green and blue of a body whose red says who it is


def shots(take, person: int) -> list[bool]:
    """Whether they are seen in the first 20 samples, the next 20, and so on."""
    return [bool((part == State.VISIBLE).all()) for part in state(take, person).reshape(-1, 20)]


def test_who_looks_the_same_after_a_cut_is_the_same(tmp_path):
    """Somebody else place in each shot, in the same coat; and somebody new. Fails where each shot's people are new, or places are compared over a cut."""
    one = Actor(lambda f: (40 if f < 20 else 200, 30), tall=80, coat=GREEN)
    world = World([one, Actor(still(100, end=20), coat=BLUE), Actor(still(20, begin=20), coat=RED)], shots=(0, 20))
    take, events = run(world, tmp_path)
    assert [shots(take, person["id"]) for person in take.people] == [[True, True], [True, False], [False, True]]
    (told,) = notices(events, "shots_joined")
    assert told.person == 1 and "frame 0 and frame 20" in told.message
    assert len(notices(events, "shots_apart")) == 1


def test_who_looks_like_two_is_neither(tmp_path):
    """Two in the same coat before a cut, one after it: nobody knows which, so it is somebody new, and that is said."""
    world = World([Actor(still(40, end=20), coat=GREEN), Actor(still(200, end=20), coat=GREEN), Actor(still(100, begin=20), coat=GREEN)], shots=(0, 20))
    take, events = run(world, tmp_path)
    assert len(take.people) == 3 and not notices(events, "shots_joined") and len(notices(events, "shots_apart")) == 1


def test_seen_again_after_two_cuts(tmp_path):
    """In the first and the third shot; found late and followed back in each."""
    world = World([Actor(lambda f: None if 20 <= f < 40 else (40 + f, 30), coat=GREEN), Actor(still(200, begin=20, end=40), coat=BLUE)], frames=60,
                  shots=(0, 20, 40))
    take, _ = run(world, tmp_path, track=stage(FakeSam3(blind=(1, 7))))
    assert [shots(take, person["id"]) for person in take.people] == [[True, False, True], [False, True, False]]


def test_each_shot_has_people_of_its_own(tmp_path):
    world = World([Actor(still(40, end=20), coat=GREEN), Actor(still(200, begin=20), coat=BLUE)], shots=(0, 20))
    take, _ = run(world, tmp_path)
    assert len(take.people) == 2 and all(not (state(take, 1)[s] and state(take, 2)[s]) for s in range(40))
