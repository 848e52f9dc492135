# SPDX-License-Identifier: Apache-2.0
"""The people detector: its reading of the network's maps, and the real network on a real picture."""

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from body4d_engine.clip import open_clip
from body4d_engine.models.people_detector import (
    Detection,
    PeopleDetector,
    keypoint_similarity,
    read_heads,
    without_doubles,
)


@pytest.fixture(scope="module")
def detector():
    return PeopleDetector()


@pytest.fixture(scope="module")
def frame(demo_clip):
    with open_clip(demo_clip) as clip:
        return clip.read(60)


def maps(people, h=64, w=96):
    """Heads as the network gives them, for people at (y, x) of the maps whose keypoints lie on a diagonal through them."""
    out = {"center": np.full((1, h, w, 1), -9.0), "box_scale": np.zeros((1, h, w, 2)), "box_offset": np.zeros((1, h, w, 2)),
           "keypoint_heatmap": np.full((1, h, w, 17), -9.0), "keypoint_regress": np.zeros((1, h, w, 34)), "keypoint_offset": np.zeros((1, h, w, 34))}
    for y, x in people:
        out["center"][0, y, x] = 3
        out["box_scale"][0, y, x] = 24, 20
        for k in range(17):
            out["keypoint_regress"][0, y, x, 2 * k : 2 * k + 2] = k - 8, (k - 8) / 2
            at = y + k - 8, x + round((k - 8) / 2)
            out["keypoint_heatmap"][(0, *at, k)] = 4
            out["keypoint_offset"][(0, *at)][2 * k : 2 * k + 2] = 0.25, 0.5
    return {name: values.astype(np.float32) for name, values in out.items()}


@pytest.mark.parametrize("people", [[(20, 30)], [(20, 30), (40, 60)], [(12 + 20 * (k // 4), 14 + 22 * (k % 4)) for k in range(8)]])
def test_maps_are_read_into_people(people):
    found = read_heads(maps(people), 30)
    assert len(found) == len(people)
    for y, x in people:
        person = min(found, key=lambda d: abs(d.box[0] - 4 * (x - 10)) + abs(d.box[1] - 4 * (y - 12)))
        assert person.box == pytest.approx(4 * np.array([x - 10, y - 12, x + 10, y + 12]))
        for k in range(17):
            assert person.keypoints[k, :2] == pytest.approx([4 * (x + round((k - 8) / 2) + 0.5), 4 * (y + k - 8 + 0.25)])
        assert 0.7 < person.score < 1


def test_doubles_go_and_neighbours_stay():
    keypoints = np.column_stack([np.linspace(100, 140, 17), np.linspace(50, 250, 17), np.full(17, 0.9)])
    person = Detection(0.8, np.array([100, 50, 140, 250.0]), keypoints)
    double = Detection(0.5, person.box + 3, keypoints + [3, 3, 0])
    neighbour = Detection(0.4, person.box + [60, 0, 60, 0], keypoints + [60, 0, 0])
    assert keypoint_similarity(person, double) > 0.9 and keypoint_similarity(person, neighbour) < 0.4
    assert without_doubles([double, neighbour, person]) == [person, neighbour]


@pytest.mark.parametrize("size", [(37, 501), (501, 37), (8, 8), (720, 1280)])
def test_an_empty_picture_of_any_shape_has_nobody(detector, size):
    assert detector.detect(np.full((*size, 3), 128, np.uint8)) == []


def test_both_people_of_the_demo_are_found(detector, frame):
    found = [d for d in detector.detect(frame) if d.score > 0.3]
    assert len(found) == 2
    acrobat, walker = sorted(found, key=lambda d: d.box[0])
    assert 550 < acrobat.keypoints[11, 0] < 750 and acrobat.keypoints[15, 1] < 500
    assert 1250 < walker.keypoints[11, 0] < 1500 and walker.keypoints[15, 1] > 850


@pytest.mark.parametrize("shape", ["wide", "tall", "small", "big"])
def test_people_are_where_they_are_whatever_the_picture_s_shape(detector, frame, shape):
    """The same two people with borders around, or scaled: the same places."""
    import cv2

    if shape in ("wide", "tall"):
        picture = cv2.copyMakeBorder(frame, *((0, 0, 300, 300) if shape == "wide" else (600, 600, 0, 0)), cv2.BORDER_CONSTANT)
        scale, shift = 1.0, np.array([300, 0] if shape == "wide" else [0, 600])
    else:
        scale, shift = (0.5 if shape == "small" else 1.5), np.zeros(2)
        picture = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    truth = sorted((d for d in detector.detect(frame) if d.score > 0.3), key=lambda d: d.box[0])
    found = sorted((d for d in detector.detect(picture) if d.score > 0.3), key=lambda d: d.box[0])
    assert len(found) == 2
    for a, b in zip(truth, found):
        apart = np.linalg.norm((b.keypoints[:, :2] - shift) / scale - a.keypoints[:, :2], axis=1)
        assert np.median(apart) < 12  # px, of people 350 px tall
