# SPDX-License-Identifier: Apache-2.0
"""One hand's landmarks: MediaPipe's hand landmarker "full" and the small network that finds the hand near a wrist, run by LiteRT.

Squares are cut, turned and read as in MediaPipe's graphs `hand_recrop_by_roi_cpu`, `hand_landmark_cpu` and `hand_landmarks_to_roi` (0.10.21);
only the half pixel between a sample and its corner, which those leave out, is heeded.
"""

from dataclasses import dataclass

import numpy as np

from .blazepose import Roi
from .crops import crop, in_picture, network_input, turned
from .litert import Network

INPUT, RECROP_INPUT = 224, 256  # network px
LANDMARKS = 21
SEARCH_SCALE = 2.7  # side of the square to search per twice the distance from wrist to middle knuckle (MediaPipe)
FORWARD = 0.1  # of its side: how far MediaPipe moves a hand's square towards the fingers
NORMALIZE_Z = 0.4  # MediaPipe's `normalize_z`: the depth in network px is divided by it


@dataclass(frozen=True)
class Hand:
    """What the network says of the hand in `roi`.

    px (21, 3): x, y px of the picture and depth from the wrist in px, growing away from the camera; metres (21, 3): from about the middle of
    the hand, axes x right, y down, z forward; presence 0..1; right 0..1, the chance of a right hand.
    Landmarks: wrist, then four per finger from thumb to little finger, root first.
    """

    px: np.ndarray
    metres: np.ndarray
    presence: float
    right: float
    roi: Roi


class HandLandmarker:
    """`detect(rgb, roi)` looks at one hand; `find(rgb, roi)` at where it is."""

    def __init__(self, threads: int = 1):
        self._landmarks = Network("hand_landmark_full.tflite", threads)
        self._recrop = Network("hand_recrop.tflite", threads)

    def find(self, rgb: np.ndarray, roi: Roi) -> Roi:
        """The square of the hand that is somewhere in the square `roi` (see `search_roi`) of a picture (H, W, 3) uint8."""
        out = self._recrop.run(network_input(crop(rgb, roi, RECROP_INPUT)))["output_crop"].reshape(2, 2)
        centre, below = in_picture(np.column_stack([out, [0, 0]]), roi, RECROP_INPUT)[:, :2]
        dx, dy = below - centre
        return forward(Roi(float(centre[0]), float(centre[1]), 2 * float(np.hypot(dx, dy)), float(np.arctan2(-dx, dy))))

    def detect(self, rgb: np.ndarray, roi: Roi) -> Hand:
        """The hand in a square of a picture (H, W, 3) uint8."""
        out = self._landmarks.run(network_input(crop(rgb, roi, INPUT)))
        points = out["Identity"].reshape(LANDMARKS, 3) / [1, 1, NORMALIZE_Z]
        return Hand(in_picture(points, roi, INPUT), turned(out["Identity_3"].reshape(LANDMARKS, 3), roi), float(out["Identity_1"][0, 0]),
                    float(out["Identity_2"][0, 0]), roi)


def search_roi(wrist: np.ndarray, pinky: np.ndarray, index: np.ndarray) -> Roi:
    """The square to search for a hand whose pose landmarks (2,) px are given (MediaPipe's `hand_landmarks_from_pose_to_recrop_roi`)."""
    middle = (2 * index + pinky) / 3
    dx, dy = (middle - wrist).tolist()
    return Roi(float(middle[0]), float(middle[1]), SEARCH_SCALE * 2 * float(np.hypot(dx, dy)), float(np.arctan2(dx, -dy)))


def forward(roi: Roi) -> Roi:
    """The square moved by a tenth of its side to where it points."""
    return Roi(roi.x + FORWARD * roi.size * np.sin(roi.angle), roi.y - FORWARD * roi.size * np.cos(roi.angle), roi.size, roi.angle)
