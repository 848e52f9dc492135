# SPDX-License-Identifier: Apache-2.0
"""Hands and faces read as MediaPipe 0.10.21 reads them. mediapipe_golden.npz: what its graphs HandRecropByRoiCpu, HandLandmarkCpu and
FaceLandmarkCpu said of squares of the demo clip's frames 10 (a raised right hand), 150 (a left hand) and 66 (a face)."""

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from body4d_engine.clip import open_clip
from body4d_engine.models.blazepose import Roi
from body4d_engine.models.face_landmarker import FaceLandmarker
from body4d_engine.models.hand_landmarker import HandLandmarker, search_roi

from .tracked import DATA


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(DATA / "mediapipe_golden.npz"))


@pytest.fixture(scope="module")
def pictures(demo_clip, golden):
    with open_clip(demo_clip) as clip:
        return [clip.read(int(frame)) for frame in golden["frames"]]


def sampled_alike(golden, i: int, size: int) -> tuple[Roi, np.ndarray]:
    """Our square that takes the same samples as MediaPipe's, which counts from pixel centres, and its offset (2,) px."""
    x, y, side, angle = golden["rois"][i].astype(float)
    c, s = np.cos(angle), np.sin(angle)
    offset = 0.5 - np.array([[c, -s], [s, c]]) @ np.full(2, 0.5 * side / size)
    return Roi(x + offset[0], y + offset[1], side, angle), offset


def angle_between(a: float, b: float) -> float:
    return abs((a - b + np.pi) % (2 * np.pi) - np.pi)


@pytest.mark.parametrize("i", [1, 3])
def test_hand_is_read_as_mediapipe_reads_it(golden, pictures, i):
    roi, offset = sampled_alike(golden, i, 224)
    hand = HandLandmarker().detect(pictures[i], roi)
    assert np.abs(hand.px[:, :2] - offset - golden[f"hand_px_{i}"][:, :2]).max() < 0.2  # px: their resampling rounds a little differently
    assert np.abs(hand.px[:, 2] - golden[f"hand_px_{i}"][:, 2]).max() < 0.5
    assert np.abs(hand.metres - golden[f"hand_m_{i}"]).max() < 0.0015
    assert abs(hand.right - golden[f"right_{i}"]) < 0.02 and hand.presence > 0.5


@pytest.mark.parametrize("i", [0, 2])
def test_hand_is_found_where_mediapipe_finds_it(golden, pictures, i):
    roi, offset = sampled_alike(golden, i, 256)
    found, (x, y, side, _, angle) = HandLandmarker().find(pictures[i], roi), golden[f"found_{i}"].astype(float)
    assert np.hypot(found.x - offset[0] - x, found.y - offset[1] - y) < 0.3 and abs(found.size - side) < 0.3
    assert angle_between(found.angle, angle) < 0.01


def test_face_is_read_as_mediapipe_reads_it(golden, pictures):
    roi, offset = sampled_alike(golden, 4, 192)
    face = FaceLandmarker().detect(pictures[4], roi)
    assert np.abs(face.px[:, :2] - offset - golden["face_px_4"][:, :2]).max() < 0.2 and face.presence > 0.5


def test_square_to_search_points_from_wrist_to_knuckles():
    roi = search_roi(np.array([100.0, 50]), np.array([120.0, 50]), np.array([120.0, 50]))
    assert (roi.x, roi.y) == pytest.approx((120, 50)) and roi.size == pytest.approx(2.7 * 2 * 20)
    assert roi.to_picture @ [0.5, 1, 1] == pytest.approx([120 - roi.size / 2, 50])  # the wrist's side is the lower edge
