# SPDX-License-Identifier: Apache-2.0
"""Where the people of a picture are: MoveNet MultiPose Lightning, run by LiteRT.

The network (Google; MobileNetV2, feature pyramid, CenterNet heads) gives six maps at a quarter of its input's size. `read_heads` turns them into
people as the published graph's ending does, without its limit of six.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from .litert import Network

STRIDE = 4
MULTIPLE = 32
KEYPOINTS = ("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow",
             "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle")
PEAK_WINDOW = 5  # px of the maps: one centre per window
MIN_KEYPOINT = 0.12695312  # the graph's own threshold for a keypoint to count towards a person's score


@dataclass(frozen=True)
class Detection:
    """A person in a picture: score 0..1, box (4,) x0, y0, x1, y1 px, keypoints (17, 3) x, y px and score, named by KEYPOINTS."""

    score: float
    box: np.ndarray
    keypoints: np.ndarray


class PeopleDetector:
    """`detect` finds people who are upright in the picture, or made so, and 40 px of the network's tall or more. `long_side`: network px along the
    picture's longer side."""

    def __init__(self, long_side: int = 512, min_score: float = 0.2, limit: int = 30, threads: int = 2):
        self.long_side, self.min_score, self.limit = long_side, min_score, limit
        self.network = Network("movenet_multipose.tflite", threads)

    def detect(self, rgb: np.ndarray, part: tuple[int, int, int, int] | None = None, turns: int = 0, long_side: int | None = None) -> list[Detection]:
        """People in a picture (H, W, 3) uint8, in its px, the surest first, each once.

        part: x0, y0, x1, y1 px, the only part looked at; turns: quarters of a circle by which that is turned anticlockwise first, 2 for who is upside
        down; long_side: network px along its longer side if not the usual.
        """
        x0, y0, x1, y1 = part or (0, 0, *rgb.shape[1::-1])
        size = np.array([x1 - x0, y1 - y0])
        scale = (long_side or self.long_side) / size.max()
        w, h = np.maximum(1, np.round(size * scale).astype(int))
        small = cv2.resize(rgb[y0:y1, x0:x1], (int(w), int(h)), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        small = np.rot90(small, turns)
        canvas = np.zeros((-(-small.shape[0] // MULTIPLE) * MULTIPLE, -(-small.shape[1] // MULTIPLE) * MULTIPLE, 3), np.float32)
        canvas[: small.shape[0], : small.shape[1]] = small
        back = np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), turns % 4)

        def to_px(points):  # about the middle of what was looked at
            return (points - np.array(small.shape[1::-1]) / 2) @ back.T * (size / [w, h]) + [x0, y0] + size / 2

        people = []
        for found in read_heads(self.network.run(canvas[None]), self.limit):
            if found.score >= self.min_score:
                corners = to_px(found.box.reshape(2, 2))
                people.append(Detection(found.score, np.concatenate([corners.min(0), corners.max(0)]),
                                        np.column_stack([to_px(found.keypoints[:, :2]), found.keypoints[:, 2]])))
        return without_doubles(people)


def read_heads(maps: dict[str, np.ndarray], limit: int) -> list[Detection]:
    """At most `limit` people from the heads (1, h, w, channels), in px of the network's input, the strongest centre first."""
    centres = _sigmoid(maps["center"][0, :, :, 0])
    peaks = np.where(centres >= cv2.dilate(centres, np.ones((PEAK_WINDOW, PEAK_WINDOW))) - 1e-6, centres, 0)
    order = np.argsort(-peaks, axis=None, kind="stable")[:limit]
    heat = _sigmoid(maps["keypoint_heatmap"][0])
    h, w = centres.shape
    grid_y, grid_x = np.mgrid[:h, :w].astype(np.float32)
    spread = 0.3 * min(h, w)
    found = []
    for y, x in zip(*np.unravel_index(order, centres.shape), strict=True):
        if centres[y, x] < 0.05:
            break
        middle = np.array([y, x]) + maps["box_offset"][0, y, x]
        half = np.maximum(maps["box_scale"][0, y, x], 0) / 2
        (y0, x0), (y1, x1) = np.clip(middle - half, 0, [h, w]), np.clip(middle + half, 0, [h, w])
        guess = np.array([y, x], np.float32) + maps["keypoint_regress"][0, y, x].reshape(-1, 2)
        inside = (grid_y >= y0) & (grid_y < y1) & (grid_x >= x0) & (grid_x < x1)
        near = np.exp(-((grid_y[..., None] - guess[:, 0]) ** 2 + (grid_x[..., None] - guess[:, 1]) ** 2) / spread)
        weighted = (heat * near * inside[..., None]).reshape(h * w, -1)
        best = weighted.argmax(0)
        scores = weighted[best, np.arange(len(best))]
        offsets = maps["keypoint_offset"][0].reshape(h * w, -1, 2)[best, np.arange(len(best))]
        keypoints = np.stack([best % w + offsets[:, 1], best // w + offsets[:, 0], scores / STRIDE], 1) * STRIDE
        sure = scores[scores > MIN_KEYPOINT]
        found.append(Detection(float(sure.mean()) if len(sure) else 0.0, np.array([x0, y0, x1, y1]) * STRIDE, keypoints))
    return found


def without_doubles(people: list[Detection], overlap: float = 0.5) -> list[Detection]:
    """The people less those whose keypoints mostly coincide with a surer person's."""
    kept: list[Detection] = []
    for person in sorted(people, key=lambda d: -d.score):
        if all(keypoint_similarity(person, other) < overlap for other in kept):
            kept.append(person)
    return kept


def keypoint_similarity(a: Detection, b: Detection) -> float:
    """1 where all keypoints coincide, towards 0 as they part by more than a tenth of the smaller person's size (object keypoint similarity)."""
    size = min(np.hypot(*(d.box[2:] - d.box[:2])) for d in (a, b))
    weight = np.minimum(a.keypoints[:, 2], b.keypoints[:, 2])
    distance = np.linalg.norm(a.keypoints[:, :2] - b.keypoints[:, :2], axis=1)
    return float((weight * np.exp(-0.5 * (distance / (0.1 * size + 1e-6)) ** 2)).sum() / (weight.sum() + 1e-6))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))
