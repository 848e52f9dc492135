# SPDX-License-Identifier: Apache-2.0
"""Small closed meshes and takes that hold them."""

from fractions import Fraction

import numpy as np

from body4d_engine.people import Person
from body4d_engine.take import State, Take, span_of


def ball(radius=0.3, rings=8, sectors=12) -> tuple[np.ndarray, np.ndarray]:
    """A sphere around 0: vertices (V, 3), faces (F, 3) counter-clockwise from outside."""
    angle, turn = np.meshgrid(np.pi * np.arange(1, rings) / rings, 2 * np.pi * np.arange(sectors) / sectors, indexing="ij")
    ring = np.stack([np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), np.cos(angle)], -1).reshape(-1, 3)
    vertices = radius * np.vstack([[0, 0, 1], ring, [0, 0, -1]])
    faces = []
    for s in range(sectors):
        t = (s + 1) % sectors
        faces += [(0, 1 + s, 1 + t), (len(vertices) - 1, len(vertices) - 1 - sectors + t, len(vertices) - 1 - sectors + s)]
        for r in range(rings - 2):
            a, b, c, d = (1 + (r + x) * sectors + y for x, y in ((0, s), (0, t), (1, s), (1, t)))
            faces += [(a, c, d), (a, d, b)]
    return vertices, np.array(faces, np.int32)


def volume(vertices, faces) -> float:
    """Of a closed mesh; positive where its faces point outwards."""
    a, b, c = (np.asarray(vertices, np.float64)[faces[:, k]] for k in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


def ball_take(path, samples=6, size=(96, 64), fps=Fraction(30000, 1001), people=(1, 2), states=None, clip=None, masks=True, start=0, step=1, focal=80.0) -> Take:
    """A take of balls that drift apart, each with a mask where visible; the masks overlap. `states` {person: [State per sample]}; `clip`: a real one's describe()."""
    end = start + (samples - 1) * step + 1
    info = clip or {"name": "balls.mp4", "path": None, "bytes": 1, "fingerprint": "ba11", "width": size[0], "height": size[1],
                    "fps": [fps.numerator, fps.denominator], "frame_count": end, "start": start, "end": end, "step": step}
    samples = len(range(info["start"], info["end"], info["step"]))
    take = Take.create(path, info, "lite")
    take.begin("refine", "0123456789")
    take.set_people([Person(number).to_json() for number in people])
    vertices, faces = ball()
    rng = np.random.default_rng(3)
    for place, number in enumerate(people):
        group = f"people/{number}"
        state = (states or {}).get(number, [State.VISIBLE] * samples)
        span = span_of(state)
        for name, kind, shape in (("root", "f4", (3,)), ("state", "u1", ()), ("confidence", "f4", ()), ("vertices", "f4", vertices.shape)):
            take.create_array(group, name, kind, shape, pc2=name == "vertices", span=span)
        take.write_npz(f"{group}/body.refine.npz", faces=faces)
        for i in range(samples):
            records = {"vertices": vertices + rng.normal(0, 0.004, vertices.shape), "root": [(place - 0.5) * 1.1 + 0.02 * i, 0.01 * i, 3 + place],
                       "state": state[i], "confidence": state[i] != State.ABSENT}
            for name, record in records.items():
                if span[0] <= i < span[1]:
                    take.append(group, name, [record])
            mask = np.zeros((info["height"], info["width"]), bool)
            mask[20:40, 10 + 20 * place : 40 + 20 * place] = state[i] == State.VISIBLE
            if masks:
                take.append_mask(group, mask)
    take.write_npz("camera.npz", focal_px=np.full(samples, focal, np.float32), method=np.array("user"), note=np.array("test"),
                   principal_px=np.tile(np.array([info["width"], info["height"]], np.float32) / 2, (samples, 1)))
    take.finish()
    return take
