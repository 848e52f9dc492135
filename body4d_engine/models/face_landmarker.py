# SPDX-License-Identifier: Apache-2.0
"""One face's landmarks: MediaPipe's face landmarker (468 points), run by LiteRT.

Read as in MediaPipe's graph `face_landmark_cpu` (0.10.21); only the half pixel between a sample and its corner, which it leaves out, is heeded.
"""

from dataclasses import dataclass

import numpy as np

from .blazepose import Roi
from .crops import crop, in_picture, network_input
from .litert import Network

INPUT = 192  # network px
LANDMARKS = 468


@dataclass(frozen=True)
class Face:
    """What the network says of the face in `roi`.

    px (468, 3): x, y px of the picture and depth in px, growing away from the camera; presence 0..1.
    """

    px: np.ndarray
    presence: float
    roi: Roi


class FaceLandmarker:
    """`detect(rgb, roi)` looks at one face."""

    def __init__(self, threads: int = 1):
        self._network = Network("face_landmark.tflite", threads)

    def detect(self, rgb: np.ndarray, roi: Roi) -> Face:
        """The face in a square of a picture (H, W, 3) uint8."""
        out = self._network.run(network_input(crop(rgb, roi, INPUT)))
        points = out["conv2d_21"].reshape(LANDMARKS, 3).astype(np.float64)
        return Face(in_picture(points, roi, INPUT), float(_sigmoid(out["conv2d_31"].ravel()[0])), roi)


def _sigmoid(x: float) -> float:
    return float(0.5 * (1 + np.tanh(0.5 * x)))
