# SPDX-License-Identifier: Apache-2.0
"""The pose network's pre- and post-processing: exact geometry without people, and real people where the demo clip can be had."""

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

import body4d_lite_models
import cv2

from body4d_engine.clip import open_clip
from body4d_engine.models.blazepose import (
    INPUT,
    OUTSIDE,
    Pose,
    PoseLandmarker,
    Roi,
    crop_to_picture,
    refine,
    silhouette,
)

ACROBAT = Roi.around((640, 330), (640, 80))  # frame 40 of the demo: standing on a wall, facing us


@pytest.fixture(scope="module")
def landmarker():
    return PoseLandmarker()


@pytest.fixture(scope="module")
def frame(demo_clip):
    with open_clip(demo_clip) as clip:
        return clip.read(40)


@pytest.fixture(scope="module")
def pose(landmarker, frame):
    return landmarker.detect(frame, landmarker.detect(frame, ACROBAT).next_roi)


def test_bundled_files_are_the_released_ones():
    assert body4d_lite_models.verify() == []
    assert sum(body4d_lite_models.path(name).stat().st_size for name in body4d_lite_models.SHA256) < 30e6
    with pytest.raises(FileNotFoundError, match="body4d-lite-models"):
        body4d_lite_models.path("nothing.tflite")


@pytest.mark.parametrize("angle", [0.0, 0.5, -2.0, np.pi])
def test_square_is_turned_so_that_the_trunk_points_up(angle):
    top = np.array([200 + 80 * np.sin(angle), 150 - 80 * np.cos(angle)])
    roi = Roi.around((200, 150), top)
    assert roi.size == pytest.approx(2.5 * 80) and np.cos(roi.angle - angle) == pytest.approx(1)
    centre, up = roi.to_picture @ [0.5, 0.5, 1], roi.to_picture @ [0.5, 0.1, 1]
    assert centre == pytest.approx([200, 150]) and up == pytest.approx(top)


@pytest.mark.parametrize("angle", [0.0, 0.7, -1.9])
def test_mask_comes_back_to_where_it_was_cut_out(angle):
    """A disc cut out like the network's input and put back like its mask lands on itself."""
    picture = np.zeros((300, 400, 3), np.uint8)
    cv2.circle(picture, (230, 140), 30, (255, 255, 255), -1)
    roi = Roi(210, 150, 180, angle)
    crop = cv2.warpAffine(picture, cv2.invertAffineTransform(crop_to_picture(roi)), (INPUT, INPUT))
    logits = np.where(crop[..., 0] > 127, 5, -5).astype(np.float32)
    back = Pose(np.zeros((33, 3)), np.zeros((33, 3)), 1, roi, roi, logits, crop)
    part, (x, y) = back.logits_in_picture(400, 300)
    mask = np.zeros((300, 400), bool)
    mask[y : y + part.shape[0], x : x + part.shape[1]] = part > 0
    assert np.logical_xor(mask, picture[..., 0] > 127).sum() < 0.03 * mask.sum()
    assert np.mean(np.nonzero(mask), 1) == pytest.approx([140, 230], abs=0.2)
    assert back.mask_at(230, 140) > 0 > back.mask_at(270, 140) and back.mask_at(399, 299) == OUTSIDE


def test_refinement_moves_to_the_heat_and_only_where_it_is_sure():
    points = np.tile([100.0, 60.0, 0, 0, 0], (2, 1))
    heat = np.zeros((64, 64, 2))
    heat[16, 27, 0], heat[16, 27, 1] = 0.9, 0.3
    refine(points, heat)
    assert points[0, :2] == pytest.approx([27 / 64 * INPUT, 16 / 64 * INPUT]) and points[1, :2] == pytest.approx([100, 60])


def test_squares_beside_the_picture_do_no_harm(landmarker):
    pose = landmarker.detect(np.zeros((50, 60, 3), np.uint8), Roi(-500, 900, 40, 1))
    part, _ = pose.logits_in_picture(60, 50)
    assert part.size == 0 and pose.presence < 0.5 and np.isfinite(pose.landmarks_px).all()


def test_a_real_person_is_seen(pose, frame):
    assert pose.presence > 0.95
    named = {name: pose.landmarks_px[k, :2] for k, name in {0: "nose", 11: "shoulder", 23: "hip", 25: "knee", 27: "ankle"}.items()}
    assert named["nose"][1] < named["shoulder"][1] < named["hip"][1] < named["knee"][1] < named["ankle"][1]
    assert pose.landmarks_px[11, 0] > pose.landmarks_px[12, 0]  # facing us: the left shoulder is on the right
    part, _ = pose.logits_in_picture(frame.shape[1], frame.shape[0])
    area = (part > 0).sum()
    x0, y0, x1, y1 = pose.box(frame.shape[1], frame.shape[0])
    assert 0.2 < area / ((x1 - x0) * (y1 - y0)) < 0.95 and 300 < y1 - y0 < 500


def test_metres_are_those_of_a_person_and_upright_in_the_camera(pose):
    nose, hips, ankles = pose.landmarks_m[0], pose.landmarks_m[[23, 24]].mean(0), pose.landmarks_m[[27, 28]].mean(0)
    assert np.abs(hips).max() < 0.05 and nose[1] < -0.4 and ankles[1] > 0.5 and 1.1 < ankles[1] - nose[1] < 1.8
    assert pose.landmarks_m[0, 2] < 0.1  # a face turned to the camera is not behind the hips


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_picture_gives_the_turned_person(landmarker, frame, pose, turns):
    """Landmarks in metres are in camera axes: turning the picture turns them, whatever the square's angle."""
    height, width = frame.shape[:2]
    turned = np.ascontiguousarray(np.rot90(frame, -turns))  # clockwise
    x, y, size, angle = pose.roi.to_json()
    for _ in range(turns):
        x, y, height, width = height - y, x, width, height
    again = landmarker.detect(turned, Roi(x, y, size, angle + turns * np.pi / 2))
    quarter = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])  # x right, y down: clockwise by 90 degrees
    expected = pose.landmarks_m @ np.linalg.matrix_power(quarter, turns).T
    assert np.abs(again.landmarks_m - expected).max() < 0.05
    assert again.landmarks_m[0] == pytest.approx(expected[0], abs=0.03)


def test_of_two_who_overlap_the_one_not_painted_over_is_seen(landmarker, frame, pose):
    """The acrobat and a copy of him a little to the right, looked at from between them."""
    shift, mask = 90, np.zeros(frame.shape[:2], bool)
    part, (x, y) = pose.logits_in_picture(frame.shape[1], frame.shape[0])
    mask[y : y + part.shape[0], x : x + part.shape[1]] = part > 0
    both = frame.copy()
    both[np.roll(mask, shift, 1)] = frame[mask]
    between = Roi(pose.roi.x + shift / 2, pose.roi.y, pose.roi.size, pose.roi.angle)
    people = pose.keypoints, pose.keypoints + [shift, 0, 0]
    for own, other in (people, people[::-1]):
        seen = landmarker.detect(both, between, own, [other])
        assert np.abs(seen.keypoints[:, :2] - own[:, :2]).mean() < 15 and seen.presence > 0.8
    spared = landmarker.detect(frame, pose.roi, own=pose.keypoints, others=[pose.keypoints])
    assert np.array_equal(spared.landmarks_px, pose.landmarks_px)


def test_silhouette_covers_most_of_the_mask(pose):
    drawn, mask = silhouette(pose.keypoints, pose.roi), pose.logits > 0
    assert (drawn & mask).sum() > 0.6 * mask.sum() and (drawn & ~mask).sum() < 0.5 * mask.sum()


@pytest.mark.parametrize("content", [None, b"", b"not a network" * 99], ids=["missing", "empty", "garbage"])
def test_a_damaged_network_says_what_to_do(tmp_path, monkeypatch, content):
    from body4d_engine.errors import Body4DError
    from body4d_engine.models import litert

    if content is not None:
        (tmp_path / "pose_landmark_full.tflite").write_bytes(content)
    monkeypatch.setattr(litert, "path", lambda name: tmp_path / name)
    with pytest.raises(Body4DError, match="pose_landmark_full.tflite") as error:
        PoseLandmarker()
    assert error.value.code == "models_damaged" and error.value.hint


@pytest.mark.parametrize("size", [(1, 1), (2, 2)])
def test_nobody_is_in_the_tiniest_picture(size):
    from body4d_engine.models.people_detector import PeopleDetector
    from body4d_engine.people import Prompt
    from body4d_engine.tracking.prompts import ZOOMS, _poses

    networks = PeopleDetector(), PoseLandmarker()
    assert [_poses(np.zeros((*size, 3), np.uint8), zoom, Prompt(0, 1, 1), *networks) for zoom in ZOOMS] == [[]] * len(ZOOMS)
