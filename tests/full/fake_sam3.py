# SPDX-License-Identifier: Apache-2.0
"""A made-up world of coloured boxes, and a SAM 3 that follows colours: quick, exact, and with a memory that matters."""

import json
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch

from body4d_engine.errors import Body4DError
from body4d_engine.models.sam3.tracker import Tracked
from body4d_engine.stages.full.track import Track

INSIDE, HALO, OUTSIDE = 6.0, 1.0, -5.0
REACH = 4  # pixels around a body that the network claims too, less surely


class Actor:
    """A box `tall` px tall, `wide` px wide, whose upper left corner is path(frame); None where nobody is there. Who is in front has a higher number.
    coat: green and blue of what is worn, in place of grey, which the made-up network does not see."""

    def __init__(self, path, tall=70, wide=30, front=0, coat=None):
        self.path, self.tall, self.wide, self.front, self.coat = path, tall, wide, front, coat


class World:
    """A clip of actors. Actor number i has the grey value 10 * (i + 1) in its box. Counts the pictures that are read."""

    name, path, fingerprint, focal_px, notices = "world.mp4", None, "f00d", None, []

    def __init__(self, actors, frames=40, step=1, size=(320, 120), fps=30, shots=(0,)):
        self.actors, self.frame_count, self.frames, self.fps, self.shots = actors, frames, range(0, frames, step), Fraction(fps), tuple(shots)
        self.width, self.height = size
        self.reads: list[int] = []

    def read(self, frame):
        self.reads.append(frame)
        picture = np.zeros((self.height, self.width, 3), np.uint8)
        for number in sorted(range(len(self.actors)), key=lambda i: self.actors[i].front):
            actor = self.actors[number]
            if (at := actor.path(frame)) is not None:
                x, y = (round(v) for v in at)
                picture[max(0, y) : max(0, y + actor.tall), max(0, x) : max(0, x + actor.wide)] = 10 * (number + 1), *(actor.coat or [10 * (number + 1)] * 2)
        return picture

    def write(self, folder):
        """All frames as images, in a new folder."""
        import cv2

        folder.mkdir(parents=True)
        for frame in range(self.frame_count):
            cv2.imwrite(str(folder / f"{frame:04d}.png"), self.read(frame))
        return folder

    def describe(self):
        return {"name": self.name, "path": None, "bytes": 1, "fingerprint": self.fingerprint, "width": self.width, "height": self.height,
                "fps": [self.fps.numerator, self.fps.denominator], "frame_count": self.frame_count, "start": 0, "end": self.frame_count,
                "step": self.frames.step}


class FakeSeen(NamedTuple):
    values: np.ndarray


class FakeSam3:
    def __init__(self, blind=()):
        self.seen = self.looked = 0
        self.blind = blind  # numbers of calls of `detect` that find nobody

    def see(self, rgb):
        self.seen += 1
        return FakeSeen(np.array(rgb[..., 0]))

    def detect(self, seen):
        self.looked += 1
        values = [v for v in np.unique(seen.values) if v] if self.looked not in self.blind else []
        masks = np.array([seen.values == v for v in values]) if values else np.zeros((0, *seen.values.shape), bool)
        return type("Detections", (), {"masks": masks})


class FakeTracker:
    """Follows the grey value that a prompt shows. Its score depends on how many pictures it has seen in this pass."""

    def __init__(self):
        self.most = None  # people for whom there is memory
        self.calls, self.starts = [], []

    def start(self, width, height, frames=None):
        self.starts.append(frames)
        self.size, self.length, self.people, self.shown, self.cache = (height, width), frames, {}, {}, {}

    def prompt(self, frame, person, clicks=(), box=None, mask=None):
        self.shown[frame, person] = (list(clicks), box, mask)

    def step(self, frame, seen, reverse=False, people=None):
        if self.most is not None and len(people) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
        self.calls.append((frame, reverse, tuple(people)))
        logits, scores = {}, {}
        for (at, person), (clicks, box, mask) in list(self.shown.items()):
            if at == frame and person in people:
                value = self._meant(seen.values, clicks, box, mask)
                if value is not None or person not in self.people:
                    self.people[person] = {"value": value or 0, "steps": 0, "frame": None}
                else:
                    self.people[person]["steps"] += 100  # told where the person is not
                    self.cache.pop((frame, person), None)
                del self.shown[at, person]
        for person in people:
            if person not in self.people:
                continue
            memory = self.people[person]
            if memory["frame"] != frame:
                memory["steps"] += 1
                memory["frame"] = frame
            body = seen.values == memory["value"] if memory["value"] else np.zeros(self.size, bool)
            y, x = np.nonzero(body)
            own = np.full(self.size, OUTSIDE, np.float32)
            if len(x):
                own[max(0, y.min() - REACH) : y.max() + 1 + REACH, max(0, x.min() - REACH) : x.max() + 1 + REACH] = HALO
            own[body] = INSIDE
            logits[person], scores[person] = torch.from_numpy(own), 0.9 - 0.001 * memory["steps"] if len(x) else 0.1
        return Tracked(logits, scores)

    @staticmethod
    def _meant(values, clicks, box, mask):
        if mask is not None:
            found = values[mask]
        elif box is not None:
            x0, y0, x1, y1 = (int(v) for v in box)
            found = values[y0:y1, x0:x1].ravel()
        elif any(on for *_, on in clicks):
            found = np.array([values[min(int(y), values.shape[0] - 1), min(int(x), values.shape[1] - 1)] for x, y, on in clicks if on])
        else:
            return None
        return int(np.bincount(found[found > 0]).argmax()) if (found > 0).any() else 0

    def save(self, path):
        path.write_text(json.dumps({"size": self.size, "length": self.length, "people": self.people}))

    def resume(self, path):
        try:
            state = json.loads(path.read_text())
        except ValueError as error:
            raise Body4DError("unreadable", "", "state_unreadable") from error
        self.start(*reversed(state["size"]), state["length"])
        self.people = {int(person): memory for person, memory in state["people"].items()}


def stage(sam3=None, tracker=None, **options) -> Track:
    return Track(networks=lambda: (sam3 or FakeSam3(), tracker or FakeTracker(), "cpu"), **options)
