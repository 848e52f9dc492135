# SPDX-License-Identifier: Apache-2.0
"""IDF1, id switches and MOTA on tracks whose numbers can be counted by hand, and by trying every pairing."""

from itertools import permutations

import numpy as np
import pytest

from body4d_engine.errors import Body4DError
from body4d_engine.imports.label_png import write_label_png
from body4d_engine.metrics import IDF1, MOTA, IDSwitches, Overlap, evaluate, overlap, read_truth
from body4d_engine.metrics.tracking import box_iou, match
from body4d_engine.people import Person
from body4d_engine.take import State, Take

SAMPLES, WIDTH, HEIGHT = 20, 96, 64


def square(x, y=10.0, side=10.0):
    return np.array([x, y, x + side, y + side])


def pairs(truth, found):
    """An overlap in which true person p lies exactly on found person truth[t][p] (-1 on nobody); found (T, Q) bool."""
    truth, found = np.array(truth), np.array(found)
    iou = (truth[:, :, None] == np.arange(found.shape[1])).astype(float)
    return Overlap(iou, np.ones(truth.shape, bool), found)


def numbers(people):
    return IDF1()(people).value, IDSwitches()(people).value, MOTA()(people).value


def test_perfect_tracks():
    assert numbers(pairs([[0, 1]] * 20, np.ones((20, 2), bool))) == (1, 0, 1)


def test_two_ids_that_are_swapped_half_way():
    """Two switches; each true person keeps one id for half of the clip: IDTP = 20 of 40."""
    people = pairs([[0, 1]] * 10 + [[1, 0]] * 10, np.ones((20, 2), bool))
    assert numbers(people) == (0.5, 2, 1 - 2 / 40)
    assert list(np.flatnonzero(match(people).switches)) == [10] and IDSwitches()(people).note == "at frame 10"


def test_a_person_who_gets_a_new_id():
    """One switch after a gap of two samples: 4 misses in all, IDTP = 9 + 20, all 36 finds."""
    found = np.ones((20, 3), bool)
    found[9:, 0], found[:11, 2] = False, False
    people = pairs([[0, 1]] * 9 + [[-1, 1]] * 2 + [[2, 1]] * 9, found)
    assert numbers(people) == (2 * 29 / (40 + 38), 1, 1 - (2 + 1) / 40)


def test_a_find_that_is_nobody():
    found = np.ones((20, 3), bool)
    people = pairs([[0, 1]] * 20, found)
    assert numbers(people) == (2 * 40 / (40 + 60), 0, 1 - 20 / 40)


def test_nothing_found_and_nobody_there():
    assert numbers(pairs([[-1, -1]] * 20, np.zeros((20, 0), bool))) == (0, 0, 0)
    nobody = Overlap(np.zeros((20, 0, 1)), np.ones((20, 0), bool), np.ones((20, 1), bool))
    assert not IDF1()(nobody).defined and not MOTA()(nobody).defined


def test_idf1_pairs_over_the_whole_clip_as_trying_all_does():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        iou, true, found = rng.uniform(0, 1, (15, 3, 4)), rng.random((15, 3)) < 0.8, rng.random((15, 4)) < 0.8
        best = max(sum(((iou[:, p, q] >= 0.5) & true[:, p] & found[:, q]).sum() for p, q in enumerate(choice)) for choice in permutations(range(4), 3))
        assert IDF1()(Overlap(iou, true, found)).value == pytest.approx(2 * best / (true.sum() + found.sum()))


def test_a_pair_is_kept_while_it_overlaps_enough():
    """The other box lies better from the third sample on, but the pair of the sample before still holds."""
    iou = np.array([[[0.9, 0.1]]] * 2 + [[[0.6, 0.8]]] * 3 + [[[0.4, 0.8]]] * 2)
    people = Overlap(iou, np.ones((7, 1), bool), np.ones((7, 2), bool))
    result = match(people)
    assert list(np.flatnonzero(result.switches)) == [5] and result.wrong.tolist() == [1] * 7 and not result.misses.any()


def test_box_iou():
    a, b = square(0)[None, None], np.array([[square(5), square(20), square(0), np.full(4, np.nan)]])
    np.testing.assert_allclose(box_iou(a, b)[0, 0], [1 / 3, 0, 1, 0])


# -- takes ------------------------------------------------------------------------------------------------------------


def tracked(path, boxes, states, start=0, step=1):
    """A take with a track stage: boxes, states (T, P, ...); masks fill their boxes."""
    end = start + (len(boxes) - 1) * step + 1
    clip = {"name": "made.mp4", "path": None, "bytes": 1, "fingerprint": "f", "width": WIDTH, "height": HEIGHT, "fps": [30, 1], "frame_count": end,
            "start": start, "end": end, "step": step}
    take = Take.create(path, clip, "lite")
    take.begin("track", "k" * 8)
    for p in range(boxes.shape[1]):
        group = f"people/{p + 1}"
        take.create_array(group, "box", "f4", (4,))
        take.create_array(group, "state", "u1", ())
        take.append(group, "box", boxes[:, p])
        take.append(group, "state", states[:, p])
        for box, state in zip(boxes[:, p], states[:, p]):
            take.append_mask(group, painted(box) if state == State.VISIBLE else None)
    take.set_people([Person(p + 1).to_json() for p in range(boxes.shape[1])])
    take.commit({})
    take.finish()
    return take


def painted(box):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    x0, y0, x1, y1 = np.nan_to_num(box).astype(int)
    mask[y0:y1, x0:x1] = True
    return mask


@pytest.fixture
def crossing():
    """Boxes (T, 2, 4): two people who walk past each other at different heights of the picture; the states of both."""
    boxes = np.stack([[square(2 * i, 5), square(60 - 2 * i, 30)] for i in range(SAMPLES)])
    return boxes, np.full((SAMPLES, 2), State.VISIBLE)


def save(path, boxes, frames=None, ids=(7, 4), **more):
    np.savez(path, frames=np.arange(len(boxes)) if frames is None else frames, ids=np.array(ids), boxes=boxes, **more)
    return path


def test_a_take_against_the_truth(tmp_path, crossing):
    boxes, states = crossing
    ours = boxes.copy()
    ours[12:] = ours[12:, ::-1]
    with tracked(tmp_path / "a.take", ours + 1, states) as take:
        people = overlap(take, read_truth(save(tmp_path / "t.npz", boxes)))
        assert numbers(people) == (24 / 40, 2, 1 - 2 / 40)
        named = {r.name: r for r in evaluate(take, tracking=tmp_path / "t.npz")}
    assert named["idf1"].value == 24 / 40 and named["id_switches"].value == 2 and named["idf1"].person is None and "idf1_masks" not in named


def test_only_frames_that_both_have_count(tmp_path, crossing):
    boxes, states = crossing
    with tracked(tmp_path / "a.take", boxes[4::3], states[4::3], start=4, step=3) as take:
        assert numbers(overlap(take, read_truth(save(tmp_path / "t.npz", boxes)))) == (1, 0, 1)
        assert overlap(take, read_truth(save(tmp_path / "u.npz", boxes[4:8], np.arange(4, 8)))).iou.shape == (2, 2, 2)
        with pytest.raises(Body4DError, match="none of them"):
            overlap(take, read_truth(save(tmp_path / "v.npz", boxes, np.arange(20) + 100)))


def test_the_hidden_need_not_be_found_and_may_be(tmp_path, crossing):
    """Who shows less than a fifth of themselves is no miss, and whoever is found there is not wrong; nor is somebody that the take itself calls
    occluded where nobody is."""
    boxes, states = crossing
    visibility = np.ones((SAMPLES, 2))
    visibility[5:10, 0] = 0.1
    states[7:10, 0] = State.ABSENT
    ours = boxes.copy()
    states[10:12, 1], ours[10:12, 1] = State.OCCLUDED, square(0, 50)  # a guess that lies on nobody
    with tracked(tmp_path / "a.take", ours, states) as take:
        truth = save(tmp_path / "t.npz", boxes, visibility=visibility)
        people = overlap(take, read_truth(truth))
        assert people.true.sum() == 35 and people.found.sum() == 33
        assert numbers(people) == (2 * 33 / (35 + 33), 0, 1 - 2 / 35)
        assert overlap(take, read_truth(truth), least_visibility=0.05).true.sum() == 40


def test_masks(tmp_path, crossing):
    boxes, states = crossing
    (tmp_path / "masks").mkdir()
    for i in range(SAMPLES):
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        labels[painted(boxes[i, 0])], labels[painted(boxes[i, 1] + [0, 0, -7, 0])] = 7, 4  # of the second person a third is seen
        write_label_png(tmp_path / "masks" / f"{i:06d}.png", labels)
    with tracked(tmp_path / "a.take", boxes, states) as take:
        named = {r.name: r.value for r in evaluate(take, tracking=save(tmp_path / "t.npz", boxes, masks=np.array("masks")))}
        assert named["idf1"] == 1 and named["idf1_masks"] == pytest.approx(2 * 20 / 80) and named["mota_masks"] == pytest.approx(1 - 40 / 40)
        (tmp_path / "masks" / "000003.png").unlink()
        with pytest.raises(Body4DError, match="no mask of frame 3"):
            evaluate(take, tracking=tmp_path / "t.npz")
        write_label_png(tmp_path / "masks" / "000003.png", np.zeros((5, 5), np.uint8))
        with pytest.raises(Body4DError, match="5 x 5 px"):
            evaluate(take, tracking=tmp_path / "t.npz")


@pytest.mark.parametrize("change, words", [
    ({"boxes": None}, "boxes missing"),
    ({"boxes": np.zeros((20, 2, 3))}, r"not \(20, 2, 4\)"),
    ({"boxes": np.full((20, 2, 4), np.nan)}, "NaN throughout"),
    ({"boxes": np.tile([5.0, 5, 1, 9], (20, 2, 1))}, "ends before"),
    ({"ids": np.array([3, 3])}, "different"),
    ({"ids": np.array(["a", "b"])}, "not numbers"),
    ({"visibility": np.full((20, 2), 1.5)}, "between 0 and 1"),
    ({"frames": np.zeros(20)}, "rise"),
    ({"masks": np.array("nowhere")}, "not at"),
])
def test_bad_truths(tmp_path, crossing, change, words):
    arrays = {"frames": np.arange(SAMPLES), "ids": np.array([1, 2]), "boxes": crossing[0], **change}
    np.savez(tmp_path / "t.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(Body4DError, match=words) as error:
        read_truth(tmp_path / "t.npz")
    assert error.value.code.startswith("tracking_") and "t.npz" in error.value.message


def test_without_bodies_there_are_only_the_numbers_of_tracking(tmp_path, crossing):
    with tracked(tmp_path / "a.take", *crossing) as take:
        assert {r.name for r in evaluate(take, tracking=save(tmp_path / "t.npz", crossing[0]))} == {"idf1", "id_switches", "mota"}
        with pytest.raises(Body4DError, match="no body for person 1"):
            evaluate(take)


def test_evaluate_needs_the_truth_to_exist(tmp_path, crossing):
    with tracked(tmp_path / "a.take", *crossing) as take, pytest.raises(Body4DError, match="no tracking truth"):
        evaluate(take, tracking=tmp_path / "none.npz")
