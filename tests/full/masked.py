# SPDX-License-Identifier: Apache-2.0
"""Takes whose `track` and `camera` stages are given as masks, over a made-up clip, for what comes after tracking in the full backend."""

from fractions import Fraction

import numpy as np

from body4d_engine.people import Person
from body4d_engine.take import State, Take

from .sam_3d_body_nets import frame

FOCAL, CENTRE = 180.0, (86.0, 55.0)  # px; not the middle of the frame


class Pictures:
    """A clip of noise and waves, another one in every frame. decoded: which frames were asked for."""

    name, fingerprint, focal_px, notices = "noise.mp4", "n015e", None, []

    def __init__(self, count: int, size=(160, 120), shots=(0,), step: int = 1):
        (self.width, self.height), self.fps, self.frames, self.shots = size, Fraction(30), range(0, count * step, step), tuple(shots)
        self.decoded: list[int] = []

    def describe(self) -> dict:
        return {"name": self.name, "path": None, "bytes": 1, "fingerprint": self.fingerprint, "width": self.width, "height": self.height, "fps": [30, 1],
                "frame_count": self.frames.stop, "start": 0, "end": self.frames.stop, "step": self.frames.step, "shots": list(self.shots)}

    def iterate(self, frames):
        for number in frames:
            self.decoded.append(number)
            yield number, frame(self.width, self.height, seed=number)


def blob(clip, person: int, sample: int) -> np.ndarray:
    """(H, W) bool: somebody who walks to the right."""
    y, x = np.mgrid[: clip.height, : clip.width]
    step = sample % 20
    across, down = 30 + 35 * ((person - 1) % 3) + 2 * step, clip.height / 2 + step
    return ((x - across) / 14) ** 2 + ((y - down) / 40) ** 2 < 1


def masked_take(path, clip, people: dict[int, list], confidence: float = 0.9, corrections=None):
    """people: states by person id; who is VISIBLE has a mask. Returns the open writable take and the people."""
    take = Take.create(path, clip.describe(), "full")
    persons = [Person(number, corrections=(corrections or {}).get(number, [])) for number in people]
    take.begin("track", "k" * 8)
    take.set_people([person.to_json() for person in persons])
    for number, states in people.items():
        group = f"people/{number}"
        for name, kind, shape in (("state", "u1", ()), ("confidence", "f4", ()), ("box", "f4", (4,))):
            take.create_array(group, name, kind, shape)
        for sample, state in enumerate(states):
            seen = state == State.VISIBLE
            take.append(group, "state", [state])
            take.append(group, "confidence", [confidence * seen])
            take.append(group, "box", [[10, 10, 60, 110] if state else [0] * 4])
            take.append_mask(group, blob(clip, number, sample) if seen else None)
    take.commit({})
    take.finish()
    take.begin("camera", "k" * 8)
    samples = take.samples
    take.write_npz("camera.npz", focal_px=np.full(samples, FOCAL, np.float32), principal_px=np.tile(np.float32(CENTRE), (samples, 1)), method=np.array("user"),
                   note=np.array(""))
    take.commit({})
    take.finish()
    return take, persons


def states(text: str) -> list[State]:
    """`v` visible, `o` hidden, `-` absent, one letter a sample."""
    return [{"v": State.VISIBLE, "o": State.OCCLUDED, "-": State.ABSENT}[letter] for letter in text]
