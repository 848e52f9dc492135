# SPDX-License-Identifier: Apache-2.0
"""Positions, masks, outlines, who is under the cursor; the list's own rules."""

import numpy as np
import pytest

import body4d_blender
from body4d_blender import picking, state
from body4d_blender.heights import height_m, set_height
from body4d_engine.people import PALETTE, Person


@pytest.fixture
def people(scene):
    body4d_blender.register()
    state.set_clip(scene.body4d, "/clips/a.mp4", 640, 480, 100, 30.0)
    yield scene.body4d
    body4d_blender.unregister()


def square(x, y, size=10, shape=(48, 64)) -> picking.Area:
    mask = np.zeros(shape, bool)
    mask[y : y + size, x : x + size] = True
    return picking.area_of(mask)


def test_positions_go_there_and_back():
    assert picking.to_clip(0.0, 0.9999, 640, 480) == pytest.approx((0, 0.048))
    for place in ((0.5, 0.5), (320.25, 100.0), (639.9, 479.9)):
        assert picking.to_clip(*picking.to_view(*place, 640, 480), 640, 480) == pytest.approx(place)
    for beside in ((-0.01, 0.5), (1.0, 0.5), (0.5, -0.01), (0.5, 1.0)):
        assert picking.to_clip(*beside, 640, 480) is None


def test_an_area_is_cut_out_of_its_mask():
    area = square(5, 7)
    assert (area.box, area.mask.shape) == ((5, 7, 15, 17), (10, 10))
    assert area.holds(5.0, 7.0) and area.holds(14.9, 16.9) and not area.holds(15.0, 7.0) and not area.holds(4.9, 7.0)
    assert picking.area_of(np.zeros((4, 4), bool)) is None


def test_an_outline_runs_around_every_part_and_hole():
    lines = square(5, 7).lines.reshape(-1, 4)
    assert sorted(map(tuple, lines.tolist())) == [(5, 7, 5, 17), (5, 7, 15, 7), (5, 17, 15, 17), (15, 7, 15, 17)]
    mask = np.random.default_rng(1).random((20, 30)) > 0.6
    ends = picking.outline(mask).reshape(-1, 2, 2)
    length = np.abs(ends[:, 1] - ends[:, 0]).sum()
    padded = np.pad(mask, 1).astype(int)
    assert length == np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()
    assert ((ends[:, 0] == ends[:, 1]).sum(1) == 1).all()  # each goes across or down


def test_a_texture_has_its_first_row_at_the_bottom_and_is_not_too_large():
    mask = np.zeros((3, 2), bool)
    mask[0, 0] = True
    texture = picking.texture_of(picking.Area(0, 0, mask, np.zeros((0, 2))))
    assert texture.shape == (3, 2, 4) and texture[2, 0].tolist() == [1, 1, 1, 1] and texture[..., 3].sum() == 1
    assert max(picking.texture_of(picking.Area(0, 0, np.ones((5000, 10), bool), np.zeros((0, 2)))).shape) <= picking.LARGEST_TEXTURE


def test_of_several_under_the_cursor_the_smallest_is_meant():
    areas = [square(0, 0, 40), square(10, 10, 10)]
    assert [picking.under_cursor(areas, x, x) for x in (5, 12, 45)] == [0, 1, None]
    assert picking.under_cursor([], 1, 1) is None


def test_who_is_found_counts_as_picked_by_a_click_or_by_the_same_mask():
    found = [square(0, 0), square(20, 0), square(40, 0)]
    assert picking.unpicked(found, [], []) == [0, 1, 2]
    assert picking.unpicked(found, [square(21, 1)], [(41.5, 3.0)]) == [0]
    assert picking.overlap(found[0], found[0]) == 1 and picking.overlap(found[0], found[1]) == 0
    assert picking.overlap(square(0, 0), square(5, 0)) == pytest.approx(50 / 150)


def test_people_get_ids_that_are_never_given_twice(people):
    first, second = state.add_person(people).id, state.add_person(people, "Bo").id
    people.people.remove(1)
    third = state.add_person(people)
    assert (first, second, third.id, third.name, people.active_person) == (1, 2, 3, "Person 3", 1)
    assert tuple(round(c, 3) for c in third.color) == PALETTE[2]
    assert state.find_person(people, 2) is None and state.find_person(people, 3) == third == state.active_person(people)


def test_people_go_to_the_engine_as_it_reads_them(people):
    person = state.add_person(people, "Ana")
    assert state.people_json(people) == []  # nobody was clicked: find everyone
    for positive in (True, False):
        click = person.clicks.add()
        click.frame, click.x, click.y, click.positive = 7, 10.5, 20.25, positive
    state.add_person(people)
    entry, = state.people_json(people)
    read = Person.from_json(entry)
    assert (read.id, read.name, read.color, read.height_m) == (1, "Ana", PALETTE[0], None)
    assert [(p.frame, p.x, p.y, p.positive) for p in read.prompts] == [(7, 10.5, 20.25, True), (7, 10.5, 20.25, False)]
    assert height_m(person) is None
    set_height(person, 1.75)
    assert Person.from_json(state.people_json(people)[0]).height_m == pytest.approx(1.75)


def test_the_frames_in_use(people, scene):
    assert state.used_frames(people) == range(0, 100)
    people.use_range, people.frame_start, people.frame_end, people.step = True, 11, 20, 3
    assert list(state.used_frames(people)) == [10, 13, 16, 19]
    people.frame_end = 1000
    assert state.used_frames(people)[-1] == 97
    people.frame_start = 200
    assert len(state.used_frames(people)) == 0
    for shown, frame in ((1, 0), (50, 49), (0, 0), (500, 99)):
        scene.frame_set(shown)
        assert state.clip_frame(scene) == frame


def test_another_clip_starts_afresh_and_the_same_one_does_not(people, tmp_path):
    state.add_person(people)
    people.use_range, people.frame_start, people.step, people.take = True, 5, 2, "/x.take"
    state.set_clip(people, "/clips/a.mp4", 640, 480, 90, 25.0)
    assert (len(people.people), people.frame_start, people.step, people.clip_frames) == (1, 5, 2, 90)
    state.set_clip(people, "/clips/b.mp4", 320, 240, 50, 24.0)
    assert (len(people.people), people.use_range, people.frame_start, people.frame_end, people.step, people.next_id) == (0, False, 1, 50, 1, 1)
    assert state.take_path(people).name == "b.take"
    people.take = str(tmp_path / "c.take")
    assert state.take_path(people) == tmp_path / "c.take"
