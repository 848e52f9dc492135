# SPDX-License-Identifier: Apache-2.0
"""One person's landmarks and mask: BlazePose landmarker "full" (Google MediaPipe), run by LiteRT.

The network sees the person in a square cut around the hips and turned so that the trunk points up. It gives 33 landmarks in the picture and in
metres, the chance that there is a person, a mask of that person, and from where to look in the next frame.
"""

from dataclasses import astuple, dataclass
from functools import cached_property

import cv2
import numpy as np

from .litert import Network

INPUT = 256  # network px
LANDMARKS = 33
ROI_PER_RADIUS = 2.5  # side of the square per distance from the hips to the circle around the body, as the network was trained
HEAT_WINDOW = 7
MIN_HEAT = 0.5
OUTSIDE = -10.0  # logit where there is certainly nobody
MASK_MARGIN = 28  # network px: hair, hands and clothes reach at most so far beyond the landmarks
COCO = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)  # landmarks that are COCO's 17 keypoints, in its order
TRUNK = [5, 6, 12, 11]  # of COCO's keypoints, going round
LIMBS = ((5, 7), (7, 9), (6, 8), (8, 10), (11, 13), (13, 15), (12, 14), (14, 16))
GREY = 128


@dataclass(frozen=True)
class Roi:
    """A square of the picture: centre and side in px; `angle` in radians turns picture axes to those of the square (clockwise on screen)."""

    x: float
    y: float
    size: float
    angle: float = 0.0

    @classmethod
    def around(cls, centre, top) -> "Roi":
        """The square of a body whose hips are at `centre` and whose circle is met by the trunk's direction at `top`, both (2,) px."""
        dx, dy = float(top[0] - centre[0]), float(top[1] - centre[1])
        return cls(float(centre[0]), float(centre[1]), ROI_PER_RADIUS * float(np.hypot(dx, dy)), float(np.arctan2(dx, -dy)))

    @cached_property
    def to_picture(self) -> np.ndarray:
        """(2, 3) affine map from the unit square's (u, v) in 0..1 to px of the picture."""
        c, s = np.cos(self.angle) * self.size, np.sin(self.angle) * self.size
        return np.array([[c, -s, self.x - (c - s) / 2], [s, c, self.y - (s + c) / 2]])

    def corners(self) -> np.ndarray:
        """(4, 2) px."""
        return np.array([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1.0]]) @ self.to_picture.T

    def to_json(self) -> list[float]:
        return list(astuple(self))


@dataclass(frozen=True)
class Pose:
    """What the network says of the person in `roi`.

    landmarks_px (33, 3) x, y px of the picture and visibility 0..1; landmarks_m (33, 3) metres from between the hips, axes x right, y down,
    z forward; presence 0..1; next_roi for the following frame; logits (256, 256) of the mask in the square, positive on the person;
    crop (256, 256, 3) uint8 the picture in the square.
    """

    landmarks_px: np.ndarray
    landmarks_m: np.ndarray
    presence: float
    roi: Roi
    next_roi: Roi
    logits: np.ndarray
    crop: np.ndarray

    @property
    def keypoints(self) -> np.ndarray:
        """COCO's 17 keypoints (17, 3): x, y px, visibility."""
        return self.landmarks_px[list(COCO)]

    def box(self, width: int, height: int) -> np.ndarray:
        """(4,) x0, y0, x1, y1 px around the landmarks and the mask, inside a picture of that size."""
        mask = self.logits > 0
        v = np.flatnonzero(mask.any(1))
        left, right = mask[v].argmax(1), INPUT - mask[v, ::-1].argmax(1)
        outline = np.column_stack([np.concatenate([left, right]), np.tile(v + 0.5, 2), np.full(2 * len(v), INPUT)]) / INPUT @ self.roi.to_picture.T
        points = np.concatenate([self.landmarks_px[:, :2], outline])
        return np.clip(np.concatenate([points.min(0), points.max(0)]), 0, [width, height, width, height])

    def mask_at(self, x: float, y: float) -> float:
        """The mask's logit at a point of the picture (px); -10 outside the square."""
        to_square = cv2.invertAffineTransform(self.roi.to_picture)
        u, v = np.floor(to_square @ [x, y, 1] * INPUT).astype(int)
        return float(self.logits[v, u]) if 0 <= u < INPUT and 0 <= v < INPUT else OUTSIDE

    def logits_in_picture(self, width: int, height: int) -> tuple[np.ndarray, tuple[int, int]]:
        """The mask's logits (h, w) on the part of the picture that the square covers, and where that part begins (x, y) px."""
        corners = self.roi.corners()
        x0, y0 = np.clip(np.floor(corners.min(0)).astype(int), 0, [width, height])
        x1, y1 = np.clip(np.ceil(corners.max(0)).astype(int), 0, [width, height])
        if x1 <= x0 or y1 <= y0:
            return np.zeros((0, 0), np.float32), (int(x0), int(y0))
        warp = crop_to_picture(self.roi)
        warp[:, 2] -= [x0, y0]
        return cv2.warpAffine(self.logits, warp, (int(x1 - x0), int(y1 - y0)), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT,
                              borderValue=OUTSIDE), (int(x0), int(y0))


class PoseLandmarker:
    """`detect(rgb, roi)` looks at one person."""

    def __init__(self, threads: int = 2):
        self.network = Network("pose_landmark_full.tflite", threads)

    def detect(self, rgb: np.ndarray, roi: Roi, own: np.ndarray | None = None, others: list[np.ndarray] = ()) -> Pose:
        """The person in a square of a picture (H, W, 3) uint8.

        others: COCO keypoints (17, 3) px of people to paint over, because this network sees one person only and mixes up two that meet;
        own: those of the person looked for, who is spared.
        """
        inverse = cv2.invertAffineTransform(crop_to_picture(roi))
        crop = cv2.warpAffine(rgb, inverse, (INPUT, INPUT), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        if len(others):
            hidden = np.any([silhouette(keypoints, roi) for keypoints in others], 0)
            crop[hidden & ~silhouette(own, roi) if own is not None else hidden] = GREY
        out = self.network.run(crop[None].astype(np.float32) / 255)
        points = out["Identity"].reshape(39, 5).astype(np.float64)
        refine(points, _sigmoid(out["Identity_3"][0]))
        picture = np.column_stack([points[:, :2] / INPUT, np.ones(39)]) @ roi.to_picture.T
        visibility = np.minimum(_sigmoid(points[:, 3]), _sigmoid(points[:, 4]))
        logits = out["Identity_2"][0, :, :, 0]
        outer = np.ones((INPUT, INPUT), bool)
        (x0, y0), (x1, y1) = np.clip([points[:LANDMARKS, :2].min(0) - MASK_MARGIN, points[:LANDMARKS, :2].max(0) + MASK_MARGIN], 0, INPUT).astype(int)
        outer[y0:y1, x0:x1] = False
        logits[outer] = OUTSIDE
        c, s = np.cos(roi.angle), np.sin(roi.angle)
        world = out["Identity_4"].reshape(39, 3) @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
        return Pose(np.column_stack([picture, visibility])[:LANDMARKS].astype(np.float32), world[:LANDMARKS].astype(np.float32),
                    float(out["Identity_1"][0, 0]), roi, Roi.around(picture[33], picture[34]), logits, crop)


def silhouette(keypoints: np.ndarray, roi: Roi) -> np.ndarray:
    """(256, 256) bool: roughly where a body with these COCO keypoints (17, 3) px is in the network's square."""
    inverse = cv2.invertAffineTransform(crop_to_picture(roi))
    points = np.clip(np.column_stack([keypoints[:, :2], np.ones(len(keypoints))]) @ inverse.T, -9999, 9999).astype(int)
    sure = keypoints[:, 2] > 0.1
    mask = np.zeros((INPUT, INPUT), np.uint8)
    if sure[TRUNK].sum() < 2:
        return mask > 0
    hips, shoulders = points[[11, 12]].mean(0), points[[5, 6]].mean(0)
    body = 2 * max(float(np.hypot(*(hips - shoulders))), float(np.hypot(*(points[5] - points[6]))))  # about hips to head or feet
    cv2.fillConvexPoly(mask, cv2.convexHull(points[TRUNK]), 1)
    cv2.polylines(mask, [points[TRUNK]], True, 1, max(1, int(0.18 * body)))
    for a, b in LIMBS:
        if sure[a] and sure[b]:
            cv2.line(mask, points[a].tolist(), points[b].tolist(), 1, max(1, int((0.16 if a < 11 else 0.22) * body)))
    if sure[:5].any():
        cv2.circle(mask, points[:5][sure[:5]].mean(0).astype(int).tolist(), max(1, int(0.17 * body)), 1, -1)
    return mask > 0


def refine(points: np.ndarray, heat: np.ndarray) -> None:
    """Move points (n, 5), network px, in place to the centroid of their heat (h, w, n) where that is sure (MediaPipe's refinement)."""
    h, w, n = heat.shape
    half = HEAT_WINDOW // 2
    for k in range(n):
        x, y = int(points[k, 0] / INPUT * w), int(points[k, 1] / INPUT * h)
        if not (0 <= x < w and 0 <= y < h):
            continue
        x0, y0 = max(x - half, 0), max(y - half, 0)
        window = heat[y0 : y + half + 1, x0 : x + half + 1, k]
        total = window.sum()
        if window.max() >= MIN_HEAT and total > 0:
            points[k, 0] = ((window.sum(0) * np.arange(x0, x0 + window.shape[1])).sum() / total) / w * INPUT
            points[k, 1] = ((window.sum(1) * np.arange(y0, y0 + window.shape[0])).sum() / total) / h * INPUT


def crop_to_picture(roi: Roi) -> np.ndarray:
    """(2, 3) affine map between sample positions (pixel centres) of the network's square and of the picture, for warpAffine."""
    warp = roi.to_picture.copy()
    warp[:, :2] /= INPUT
    warp[:, 2] += warp[:, :2] @ [0.5, 0.5] - 0.5
    return warp


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))
