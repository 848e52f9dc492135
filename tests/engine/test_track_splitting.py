# SPDX-License-Identifier: Apache-2.0
"""Tracks that go over from one person to another are cut there and put together rightly."""

import numpy as np
import pytest

from body4d_engine.people import Person, Prompt
from body4d_engine.tracking import appearance
from body4d_engine.tracking.linking import FOLLOWED_CHI2, Tracklet, link, link_costs, spans
from body4d_engine.tracking.splitting import SPAN_S, Changes
from body4d_engine.tracking.tracker import Tracker

from .fake_people import Actor, World
from .test_track import BLUE, RED, line, run, state, who

STEP = 1 / 30


def looks(hue: int) -> np.ndarray:
    """Of somebody in one colour."""
    out = np.zeros(appearance.SIZE, np.float32)
    out[[hue, appearance.HALF + hue]] = 1
    return out


def changes(hues, crowded=None, seconds=STEP, samples=None) -> list[int]:
    watch = Changes(seconds)
    for i, hue in enumerate(hues):
        watch.see(i if samples is None else samples[i], looks(hue), crowded is None or crowded[i])
    return watch.end()


def test_a_track_is_cut_where_its_looks_change_for_good():
    assert changes([3] * 40 + [50] * 40) == [40]
    assert changes([3] * 30 + [50] * 30 + [20] * 30) == [30, 60]
    assert changes([3] * 80) == changes([]) == []
    assert changes([3] * 40 + [50] * 40, samples=range(100, 20, -1)) == [60]  # backward in time


def test_nobody_who_is_alone_is_cut():
    """Somebody turns round, or walks into the shade."""
    hues = [3] * 40 + [50] * 40
    assert changes(hues, [False] * 80) == [] and changes(hues, [30 < i < 50 for i in range(80)]) == [40]


def test_a_track_of_less_than_a_second_stays_whole():
    assert changes([3] * 14 + [50] * 15) == [] and changes([3] * 15 + [50] * 15) == [15]


def part(number, samples, x, hue):
    """Of track 7, at walking pace where x moves 3 px per sample."""
    made = Tracklet(0, 7, STEP, number)
    for sample in samples:
        made.add(sample, np.array([x(sample) - 20, 60, x(sample) + 20, 180]), looks(hue), np.array([x(sample), 120.0, np.log(80.0)]))
    made.settle()
    return made


def test_a_track_that_was_cut_in_vain_is_whole_again():
    """The same colour before and after; meanwhile somebody passed in front, and the landmarks jumped."""
    before, after = part(0, range(40), lambda s: 100 + 3 * s, 3), part(1, range(46, 80), lambda s: 190 + 3 * s, 3)
    other = part(0, range(46, 80), lambda s: 190 + 3 * s, 3)
    other.track = 8
    assert link_costs([before, after], STEP, [])[0, 1] <= FOLLOWED_CHI2 + 0.1 < link_costs([before, other], STEP, [])[0, 1]
    chains = link([after, before], STEP, [])
    assert [spans(chain) for chain in chains] == [[[0, 7, 0, 79]]]
    last = part(3, range(90, 120), lambda s: 190 + 3 * s, 3)
    assert spans([before, after, last]) == [[0, 7, 0, 79], [0, 7, 90, 119]]  # what was between 1 and 3 is left out


def test_parts_that_look_different_are_not_one_person():
    assert len(link([part(0, range(40), lambda s: 100 + 3 * s, 3), part(1, range(46, 80), lambda s: 100 + 3 * s, 50)], STEP, [])) == 2


@pytest.mark.parametrize("seconds", [1 / 240, 1 / 60, 1 / 8])
def test_the_rate_changes_nothing(seconds):
    count = max(6, round(2 * SPAN_S / seconds))
    assert changes([3] * count + [50] * count, seconds=seconds) == [count]
    assert not changes([3] * (2 * count), seconds=seconds)


def traded(monkeypatch, at: int) -> World:
    """Two people pass one another, and at a frame the tracker takes each for the other: it goes on with both in the wrong place."""
    world = World([Actor(line(200, 440), RED, front=2), Actor(line(440, 200, 125), BLUE, front=1)])
    real = Tracker.step

    def step(self, rgb, *rest):
        seen = real(self, rgb, *rest)
        if int(rgb[0, 0, 1]) == at and len(self.tracks) == 2:
            a, b = self.tracks
            a.id, b.id = b.id, a.id
        return seen

    monkeypatch.setattr(Tracker, "step", step)
    return world


@pytest.mark.parametrize("at", [40, 45, 52])
def test_two_whom_the_tracker_mixed_up_are_put_right(tmp_path, monkeypatch, at):
    world = traded(monkeypatch, at)
    take, _ = run(world, tmp_path)
    assert len(take.people) == 2
    for person in (1, 2):
        story = [who(take, world, person, frame) for frame in (5, 30, 60, 85)]
        assert len(set(story)) == 1 and story[0] is not None


def test_a_prompt_counts_for_its_piece_of_a_track(tmp_path, monkeypatch):
    """Red is clicked before the tracker mixes red up with blue; red it stays."""
    world = traded(monkeypatch, 45)
    take, _ = run(world, tmp_path, [Person(3, prompts=[Prompt(10, *world.actors[0].path(10))])])
    assert [p["id"] for p in take.people] == [3]
    assert [who(take, world, 3, frame) for frame in (12, 30, 60, 85)] == [0] * 4 and state(take, 3)[10:].all()
