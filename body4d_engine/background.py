# SPDX-License-Identifier: Apache-2.0
"""How the background moves: its homography from one picture to the next, whoever walks in front of it."""

from dataclasses import dataclass

import cv2
import numpy as np

from .camera_motion import moved

LONGER_SIDE = 480  # px of the pictures that are compared
CELL = 24  # px: one corner is followed per cell, however sharp those elsewhere are, so that what fills more of the picture has more corners
FEWEST = 16
LEAST_CORNER = 2e-4  # smallest eigenvalue of a corner that can be followed, of grey values 0..1
INLIER_PX, STILL_PX = 0.3, 0.25  # of the small picture: how far a corner may lie from where the homography sends it; from where it was
STILL_SHARE = 0.35  # of all corners: so many that stay where they were are the background


@dataclass(frozen=True)
class Step:
    """warp (3, 3): where a background point of the picture before (x, y, 1) lies in this one, px of the clip. moving: how far the background
    moved, px of the clip, root mean square over the picture; NaN where there was nothing to see it by."""

    warp: np.ndarray
    moving: float


STILL = Step(np.eye(3), 0.0)
UNKNOWN = Step(np.eye(3), float("nan"))


class CameraMotion:
    """Looks at one picture after the other."""

    def __init__(self, width: int, height: int):
        self.reduction = -(-max(width, height) // LONGER_SIDE)  # a whole number, which is several times as fast
        self.size = max(1, width // self.reduction), max(1, height // self.reduction)
        self._before: tuple[np.ndarray, np.ndarray] | None = None  # the picture before, and its corners
        x, y = (np.linspace(0.05, 0.95, 5) * side for side in (width, height))
        self._places = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
        # Pixel centres lie at half numbers in the clip, at whole ones in the small picture.
        self._to_small = np.array([[1 / self.reduction, 0, -0.5], [0, 1 / self.reduction, -0.5], [0, 0, 1]])

    def see(self, rgb: np.ndarray) -> Step:
        """rgb (H, W, 3) uint8, the next picture. Returns the step from the picture before; STILL for the first."""
        whole = rgb[: self.size[1] * self.reduction, : self.size[0] * self.reduction]
        small = cv2.cvtColor(cv2.resize(whole, self.size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        before, self._before = self._before, (small, find_corners(small))
        if before is None:
            return STILL
        if np.array_equal(before[0], small):
            return STILL
        warp = follow(*before, small)
        if warp is None:
            return UNKNOWN
        warp = np.linalg.inv(self._to_small) @ warp @ self._to_small
        return Step(warp / warp[2, 2], float(np.sqrt(((moved(warp, self._places) - self._places) ** 2).sum(-1).mean())))


def find_corners(grey: np.ndarray) -> np.ndarray:
    """(N, 2) float32 px: the strongest corner of each cell, where it can be followed at all."""
    strength = cv2.cornerMinEigenVal(grey, 5)
    rows, columns = grey.shape[0] // CELL, grey.shape[1] // CELL
    if not rows or not columns:
        return np.empty((0, 2), np.float32)
    cells = strength[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL).transpose(0, 2, 1, 3).reshape(-1, CELL * CELL)
    place, best = cells.argmax(1), cells.max(1)
    cell = np.arange(rows * columns)
    corners = np.stack([cell % columns * CELL + place % CELL, cell // columns * CELL + place // CELL], 1).astype(np.float32)
    return corners[best > LEAST_CORNER]


def follow(before: np.ndarray, corners: np.ndarray, now: np.ndarray) -> np.ndarray | None:
    """The homography (3, 3) that most of the corners follow from the grey picture before to the one now; None where too few can be followed.

    People move too: RANSAC leaves them out while they carry fewer corners than what stands behind them. Corners that stay where they were are
    believed first, for a still camera is the most common, and what moves in front of it may well carry the most corners.
    """
    if len(corners) < FEWEST:
        return None
    there, found, _ = cv2.calcOpticalFlowPyrLK(before, now, corners, None, winSize=(11, 11), maxLevel=4)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(now, before, there, None, winSize=(11, 11), maxLevel=4)
    good = (found[:, 0] > 0) & (found_back[:, 0] > 0) & (np.linalg.norm(back - corners, axis=1) < STILL_PX)
    source, target = corners[good].astype(np.float64), there[good].astype(np.float64)
    if len(source) < FEWEST:
        return None
    follows = np.linalg.norm(target - source, axis=1) < STILL_PX
    if follows.sum() < STILL_SHARE * len(source):
        warp, _ = cv2.findHomography(source, target, cv2.RANSAC, INLIER_PX, maxIters=1000, confidence=0.9999)
        if warp is None:
            return None
        follows = np.linalg.norm(moved(warp, source) - target, axis=1) < INLIER_PX
    if follows.sum() < FEWEST:
        return None
    # Only many and well spread corners tell all eight numbers of a homography; four say nearly all of how neighbouring pictures differ.
    spread = source[follows].std(0) / np.array(before.shape[::-1])
    if follows.sum() > 3 * FEWEST and spread.min() > 0.15:
        return cv2.findHomography(source[follows], target[follows], 0)[0]
    turn, _ = cv2.estimateAffinePartial2D(source[follows], target[follows], method=cv2.LMEDS)
    return None if turn is None else np.vstack([turn, [0, 0, 1]])
