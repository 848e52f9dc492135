# SPDX-License-Identifier: Apache-2.0
"""A clip of a real person who walks to and fro, tracked already, for runs of the real `recover` and `refine`."""

from fractions import Fraction

import numpy as np

from body4d_engine.people import Person
from body4d_engine.pipeline import run
from body4d_engine.stages.camera import Camera
from body4d_engine.stages.recover import Recover
from body4d_engine.stages.refine import Refine

from .fakes import FakeBackend, FakeClip
from .tracked import real_walk, visible

WALK = real_walk(1)
_BACK_AND_FORTH = np.concatenate([np.arange(0, 100, 2), np.arange(97, 0, -2)])


class Walk(FakeClip):
    name, fps = "walk.mp4", Fraction(15)
    width, height = WALK.size

    def describe(self):
        return {**super().describe(), "name": self.name, "width": self.width, "height": self.height, "fps": [15, 1]}


class Tracked:
    """As `track` leaves it: landmarks of the walk at half its speed, so that few samples make a long clip."""

    name, version, needs, settings = "track", 1, (), {}

    def __init__(self, change=None):
        """change(pixels, metres, state), optional: makes something wrong with them, in place."""
        self._change = change

    def run(self, clip, people, take, cursor):
        index = _BACK_AND_FORTH[np.arange(take.samples) % len(_BACK_AND_FORTH)]
        pixels, metres, state = WALK.px[index].copy(), WALK.metres[index].copy(), visible(take.samples)
        if self._change:
            self._change(pixels, metres, state)
        box = np.concatenate([pixels[..., :2].min(1), pixels[..., :2].max(1)], 1)
        for name, (dtype, values) in {"state": ("u1", state), "box": ("f4", box), "landmarks_px": ("f4", pixels), "landmarks_m": ("f4", metres)}.items():
            take.create_array("people/1", name, dtype, values.shape[1:])
            take.append("people/1", name, values)
        take.describe(clip={**take.clip, "shots": [0]})
        take.set_people([Person(1).to_json()])
        yield from ()


class NoDetail:
    """No hands, no face."""

    name, version, needs, settings = "detail", 1, ("track",), {}

    def run(self, clip, people, take, cursor):
        yield from ()


def walked(path, samples: int, corrections=(), change=None, core: int = 40, until=None, height_m=None, **options):
    """Run `recover` and `refine` over so many frames of the walk, under these settings; returns the events. until(event): gives up there, as if killed."""
    stages = [Tracked(change), Camera(options.pop("focal_px", WALK.focal)), NoDetail(), Recover(chunk=15), Refine(core, **options)]
    events, running = [], run(Walk(samples), path, FakeBackend(*stages), [Person(1, height_m=height_m, corrections=list(corrections))], {})
    for event in running:
        events.append(event)
        if until is not None and until(event):
            running.close()
            break
    return events
