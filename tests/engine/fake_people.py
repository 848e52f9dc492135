# SPDX-License-Identifier: Apache-2.0
"""Fake twins of the networks: a made-up world of people whose frames carry only their number, and networks that know that world."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from body4d_engine.models.blazepose import COCO, INPUT, OUTSIDE, Pose, Roi
from body4d_engine.models.people_detector import Detection

# A standing body of height 1 around its hips: BlazePose landmarks used here, x right, y down.
BODY = {0: (0, -0.42), 2: (0.02, -0.44), 5: (-0.02, -0.44), 7: (0.04, -0.43), 8: (-0.04, -0.43), 11: (0.12, -0.3), 12: (-0.12, -0.3),
        13: (0.16, -0.15), 14: (-0.16, -0.15), 15: (0.17, 0), 16: (-0.17, 0), 23: (0.07, 0), 24: (-0.07, 0), 25: (0.08, 0.25), 26: (-0.08, 0.25),
        27: (0.08, 0.48), 28: (-0.08, 0.48)}
TEMPLATE = np.array([BODY.get(k, (0, 0)) for k in range(33)], np.float64)


@dataclass
class Actor:
    """Somebody in the world. path(frame) -> (x, y) px of the hips or None while out of sight; `front`: whose mask wins."""

    path: object
    color: tuple[int, int, int] = (200, 40, 40)
    height: float = 120.0
    front: float = 1.0

    def points(self, frame: int) -> np.ndarray | None:
        at = self.path(frame)
        return None if at is None else TEMPLATE * self.height + at


class World:
    """Actors, and the clip in which they are seen."""

    def __init__(self, actors: list[Actor], frames: int | range = 90, fps: int = 30, shots=(0,), size=(640, 240)):
        self.actors, self.width, self.height, self.fps = actors, *size, Fraction(fps)
        self.frames = range(frames) if isinstance(frames, int) else frames
        self.shots, self.name, self.decoded, self.dies_at = tuple(shots), "world.mp4", 0, None

    def describe(self) -> dict:
        return {"name": self.name, "path": None, "width": self.width, "height": self.height, "fps": [self.fps.numerator, self.fps.denominator],
                "start": self.frames.start, "end": self.frames.stop, "step": self.frames.step, "fingerprint": "world", "shots": list(self.shots)}

    def read(self, frame: int) -> np.ndarray:
        if frame == self.dies_at:
            raise KeyboardInterrupt
        self.decoded += 1
        picture = np.zeros((self.height, self.width, 3), np.uint8)
        picture[0, 0] = frame // 256, frame % 256, 0
        return picture

    def iterate(self, frames):
        for frame in frames:
            yield frame, self.read(frame)

    def networks(self):
        return FakeDetector(self), FakeLandmarker(self)


class FakeDetector:
    def __init__(self, world: World):
        self.world = world

    def detect(self, rgb: np.ndarray, part=None, turns: int = 0, long_side=None) -> list[Detection]:
        if part or turns:
            return []  # this world needs no closer look, and everybody in it is upright
        found = []
        for actor in self.world.actors:
            points = actor.points(frame_of(rgb))
            if points is not None:
                keypoints = np.column_stack([points[list(COCO)], np.full(17, 0.9)])
                found.append(Detection(0.8, np.concatenate([keypoints[:, :2].min(0), keypoints[:, :2].max(0)]), keypoints))
        return found


class FakeLandmarker:
    """Sees whoever's hips are nearest to the square's centre, as the real network does, sharper masks in front."""

    def __init__(self, world: World):
        self.world = world

    def detect(self, rgb: np.ndarray, roi: Roi, own=None, others=()) -> Pose:
        frame, best, near = frame_of(rgb), None, 0.4 * roi.size
        for actor in self.world.actors:
            points = actor.points(frame)
            if points is not None and np.hypot(*(points[[23, 24]].mean(0) - [roi.x, roi.y])) < near:
                best, near = actor, np.hypot(*(points[[23, 24]].mean(0) - [roi.x, roi.y]))
        crop, logits = np.zeros((INPUT, INPUT, 3), np.uint8), np.full((INPUT, INPUT), OUTSIDE, np.float32)
        if best is None:
            return Pose(np.zeros((33, 3), np.float32), np.zeros((33, 3), np.float32), 0.01, roi, roi, logits, crop)
        points = best.points(frame)
        hips, top = points[[23, 24]].mean(0), points[0] - [0, 0.1 * best.height]
        v, u = np.mgrid[:INPUT, :INPUT] + 0.5
        at = np.stack([u / INPUT, v / INPUT, np.ones_like(u)], -1) @ roi.to_picture.T
        inside = (np.abs(at[..., 0] - hips[0]) < 0.18 * best.height) & (np.abs(at[..., 1] - hips[1]) < 0.5 * best.height)
        logits[inside], crop[inside] = best.front, best.color
        crop[inside & (v > INPUT / 2)] = np.array(best.color)[::-1]
        world = np.column_stack([(points - hips) / best.height * 1.7, np.zeros(33)])
        return Pose(np.column_stack([points, np.full(33, 0.95)]).astype(np.float32), world.astype(np.float32), 0.99, roi,
                    Roi.around(hips, top), logits, crop)


def frame_of(rgb: np.ndarray) -> int:
    return int(rgb[0, 0, 0]) * 256 + int(rgb[0, 0, 1])
