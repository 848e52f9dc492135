# SPDX-License-Identifier: Apache-2.0
"""What the user corrects: it heals what is wrong, costs what it covers, and comes out the same whenever it is said and however often it is killed."""

import itertools
import json
import shutil

import numpy as np
import pytest

from body4d_engine.errors import Body4DError
from body4d_engine.events import Committed, Notice, Progress, StageFinished
from body4d_engine.fit import corrected, flips
from body4d_engine.people import LIMBS, Correction, Person
from body4d_engine.stages import recover, refine
from body4d_engine.take import State, Take

from .walking import walked

SAMPLES = 150
BAD = slice(110, 118)
SIDES = Correction(BAD.start, BAD.stop - 1, "sides")


def stages(events):
    return {event.stage: event.skipped for event in events if isinstance(event, StageFinished)}


def read(path, name, stage="refine"):
    with Take.open(path) as take:
        return np.array(take.read("people/1", name, stage))


def points(path, stage="refine"):
    return read(path, "vertices", stage)[:, ::100].astype(float) + read(path, "root", stage)[:, None]


def apart(ours, theirs, stage="refine"):
    """(T,) metres"""
    return np.linalg.norm(points(ours, stage) - points(theirs, stage), axis=-1).max(1)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "a.take"
    walked(path, SAMPLES)
    return path


@pytest.fixture
def copy(plain, tmp_path):
    return shutil.copytree(plain, tmp_path / "copy.take")


@pytest.fixture(scope="module")
def at_first(tmp_path_factory):
    """Corrected in the first run."""
    path = tmp_path_factory.mktemp("first") / "a.take"
    walked(path, SAMPLES, [SIDES])
    return path


def test_said_afterwards_is_said_at_first(plain, copy, at_first):
    assert stages(walked(copy, SAMPLES, [SIDES])) == {"track": True, "camera": True, "detail": True, "recover": False, "refine": False}
    assert apart(plain, copy)[BAD].min() > 0.01
    for name in ("params", "vertices", "confidence", "state", "keypoints_px", "base"):
        np.testing.assert_allclose(read(copy, name, "recover"), read(at_first, name, "recover"), atol=1e-6, err_msg=name)
    assert apart(copy, at_first).max() < 1e-4
    np.testing.assert_array_equal(read(copy, "state"), read(at_first, "state"))
    np.testing.assert_allclose(read(copy, "confidence"), read(at_first, "confidence"), atol=1e-3)
    with Take.open(copy) as take:
        assert "earlier" not in take.to_json() and take.people[0]["corrections"] == [SIDES.to_json()]


def test_the_rest_is_copied(plain, copy):
    walked(copy, SAMPLES, [SIDES])
    far = np.ones(SAMPLES, bool)
    far[BAD] = False
    np.testing.assert_array_equal(read(copy, "params", "recover")[far], read(plain, "params", "recover")[far])
    same = (read(copy, "vertices") == read(plain, "vertices")).all((1, 2))
    assert same[:10].all()


def test_taken_back_is_as_before(plain, copy):
    walked(copy, SAMPLES, [SIDES])
    walked(copy, SAMPLES, [])
    for name in ("params", "vertices", "confidence"):
        np.testing.assert_allclose(read(copy, name, "recover"), read(plain, name, "recover"), atol=1e-6)
    assert apart(copy, plain).max() < 1e-4


def test_corrections_change_one_by_one(copy, tmp_path):
    both = [Correction(30, 40, "limb", "left leg"), Correction(36, 45, "depth", "right arm"), Correction(90, 105, "body")]
    walked(tmp_path / "whole.take", SAMPLES, both[1:])
    for said in (both[:1], both, both[1:]):
        walked(copy, SAMPLES, said)
    np.testing.assert_allclose(read(copy, "params", "recover"), read(tmp_path / "whole.take", "params", "recover"), atol=1e-6)
    assert apart(copy, tmp_path / "whole.take").max() < 1e-4
    assert (read(copy, "state")[90:106] == State.FILLED).all()


def test_killed_anywhere_it_goes_on(copy, at_first, tmp_path):
    for number in itertools.count(2, 9):
        killed, seen = shutil.copytree(copy, tmp_path / f"{number}.take"), []

        def late(event, seen=seen, number=number):
            seen.append(event)
            return sum(isinstance(e, (Committed, Progress, StageFinished)) for e in seen) >= number

        events = walked(killed, SAMPLES, [SIDES], until=late)
        finished = len(events) < number and stages(events).get("refine") is False
        walked(killed, SAMPLES, [SIDES])
        assert apart(killed, at_first).max() < 1e-4
        shutil.rmtree(killed)
        if finished:
            return


def test_of_who_is_there_for_a_part_only(tmp_path):
    def late(pixels, metres, state):
        state[:40], state[80:] = State.ABSENT, State.ABSENT

    said = [Correction(36, 44, "body"), Correction(60, 64, "sides"), Correction(77, 90, "depth", "left arm")]
    walked(tmp_path / "first.take", 100, said, late)
    walked(tmp_path / "later.take", 100, (), late)
    before = points(tmp_path / "later.take")
    walked(tmp_path / "later.take", 100, said, late, until=lambda event: isinstance(event, Committed) and event.stage == "refine")
    walked(tmp_path / "later.take", 100, said, late)
    assert apart(tmp_path / "first.take", tmp_path / "later.take").max() < 1e-4 < np.linalg.norm(points(tmp_path / "later.take") - before, axis=-1).max()
    with Take.open(tmp_path / "later.take") as take:
        assert all(take.by_sample("people/1", name, stage).span == (40, 80) for stage in ("recover", "refine") for name in ("vertices", "params", "state"))
        state = take.by_sample("people/1", "state")[:]
    assert (state != State.ABSENT).sum() == 40 and (state[40:45] == State.FILLED).all()


def test_what_is_damaged_is_not_copied(copy, at_first):
    with Take.open(copy) as take:
        mesh = take.file_of("people/1", "vertices", "refine")
    mesh.write_bytes(mesh.read_bytes()[:-100])
    walked(copy, SAMPLES, [SIDES])
    assert apart(copy, at_first).max() < 1e-4


def test_a_strange_earlier_result_is_not_copied(copy, at_first):
    meta = json.loads((copy / "take.json").read_text())
    for stage in ("recover", "refine"):
        meta["stages"][stage].update(base=meta["stages"][stage]["key"], corrections={"1": [{"kind": "sides"}, 7]})
    (copy / "take.json").write_text(json.dumps(meta))
    walked(copy, SAMPLES, [SIDES])
    assert apart(copy, at_first).max() < 1e-4


def test_little_is_solved_anew(copy, monkeypatch):
    counts = {"one": 0, "many": 0}
    one, many = recover.fit_one, refine.fit_sequence
    monkeypatch.setattr(recover, "fit_one", lambda *args: counts.__setitem__("one", counts["one"] + 1) or one(*args))
    monkeypatch.setattr(refine, "fit_sequence", lambda rig, start, *args, **more: counts.__setitem__("many", counts["many"] + len(start)) or many(
        rig, start, *args, **more))
    walked(copy, SAMPLES, [Correction(2, 4, "limb", "left arm")])
    assert counts["one"] == 3 and 0 < counts["many"] < 2 * SAMPLES  # a whole run solves five times as many, for its windows overlap


@pytest.mark.parametrize("settings, again", [({"smoothing": 2.0}, {"refine"}), ({"foot_lock": False}, {"refine"}), ({"height_m": 1.9}, {"recover", "refine"}),
                                             ({"focal_px": 1500.0}, {"camera", "recover", "refine"})], ids=str)
def test_a_setting_reruns_what_depends_on_it_and_never_tracks(tmp_path, settings, again):
    walked(tmp_path / "a.take", 20)
    assert {name for name, skipped in stages(walked(tmp_path / "a.take", 20, **settings)).items() if not skipped} == again


def swapped(pixels, metres, state):
    """For longer than a burst, so nobody finds it."""
    pixels[30:60], metres[30:60] = flips.repair(pixels[30:60], metres[30:60])


def mirrored(pixels, metres, state):
    metres[30:60, :, 2] *= -1


def lost(pixels, metres, state):
    for part in ([25, 27, 29, 31], [26, 28, 30, 32]):
        pixels[40:50, part, :2] = pixels[40:50, [part[0] - 2]][..., :2] + np.array([120.0, -40.0])


@pytest.mark.parametrize("change, said, share", [
    (swapped, [Correction(30, 59, "sides")], 0.2), (mirrored, [Correction(30, 59, "depth")], 0.2),
    (lost, [Correction(40, 49, "limb", "left leg"), Correction(40, 49, "limb", "right leg")], 0.5), (lost, [Correction(40, 49, "body")], 0.5)],
    ids=["sides", "depth", "limb", "body"])
def test_what_is_wrong_gets_right(tmp_path, change, said, share):
    """In time, the mean error that the damage makes goes down to a share, measured in the keypoints against the undamaged walk."""
    walked(tmp_path / "true.take", 90)
    walked(tmp_path / "wrong.take", 90, change=change)
    truth, before = read(tmp_path / "true.take", "keypoints_m"), read(tmp_path / "wrong.take", "keypoints_m")
    walked(tmp_path / "wrong.take", 90, said, change=change)
    after = read(tmp_path / "wrong.take", "keypoints_m")
    bad = slice(said[0].first_frame, said[0].last_frame + 1)
    errors = [np.linalg.norm(found - truth, axis=-1)[bad].mean() for found in (before, after)]
    assert errors[1] < share * errors[0], errors


def test_a_correction_of_no_frame_is_told(tmp_path):
    events = walked(tmp_path / "a.take", 10, [Correction(10, 12, "body")])
    assert [(e.code, e.person) for e in events if isinstance(e, Notice) and e.code == "correction_outside"] == [("correction_outside", 1)]


def test_flags_name_samples():
    said = [Correction(10, 14, "sides"), Correction(14, 20, "limb", "left arm"), Correction(3, 4, "depth")]
    asked = corrected.flags(said, range(4, 24, 5))  # frames 4, 9, 14, 19
    assert asked.tolist() == [corrected.DEPTH, 0, corrected.SIDES | corrected.LOST["left arm"], corrected.LOST["left arm"]]


def test_corrected_samples_in_a_row_change_together():
    before, now = np.zeros(10, np.uint16), np.zeros(10, np.uint16)
    before[2:6], now[2:8] = 1, 1
    assert np.flatnonzero(corrected.changed(before, now)).tolist() == [2, 3, 4, 5, 6, 7]
    before[:], now[:] = 0, 0
    before[1:6], now[3:6] = 1, 1  # solved from another sample now
    assert np.flatnonzero(corrected.changed(before, now)).tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("data, message", [
    ({"kind": "sides", "first_frame": 5}, "last_frame"), ({"kind": "sides", "first_frame": 5, "last_frame": 4}, "5 to 4"),
    ({"kind": "sides", "first_frame": -1, "last_frame": 4}, "-1 to 4"), ({"kind": "wrong", "first_frame": 1, "last_frame": 4}, "no correction 'wrong'"),
    ({"kind": "limb", "first_frame": 1, "last_frame": 4}, "limb"), ({"kind": "body", "first_frame": 1, "last_frame": 4, "limb": "left arm"}, "limb"),
    ({"kind": "depth", "first_frame": 1, "last_frame": 4, "limb": "tail"}, "tail"), ({"kind": ["sides"], "first_frame": 1, "last_frame": 4}, "no correction"),
    ({"kind": "sides", "first_frame": 1.5, "last_frame": 4}, "1.5"), (7, "read")])
def test_corrections_that_make_no_sense(data, message):
    with pytest.raises(Body4DError, match=message) as error:
        Person.from_json({"id": 1, "corrections": [data]})
    assert error.value.code == "bad_people"


def test_corrections_are_kept_with_the_person():
    said = [Correction(1, 2, "depth"), Correction(1, 2, "depth", "left arm"), Correction(5, 9, "body")]
    again = Person.from_json(Person(3, corrections=said).to_json())
    assert again.corrections == said and Person.from_json({"id": 3}).corrections == [] and len(LIMBS) == 4
