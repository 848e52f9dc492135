# SPDX-License-Identifier: Apache-2.0
"""Where people are: ground, walls, trees, boxes, and the light."""

from dataclasses import dataclass

import numpy as np

from .puppet import turn_y

BOX_QUADS = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
GROUNDS = (("noise", ((0.16, 0.16, 0.15), (0.30, 0.29, 0.27)), 7.0), ("tiles", ((0.36, 0.33, 0.29), (0.29, 0.27, 0.25)), 1.7),
           ("noise", ((0.06, 0.13, 0.03), (0.19, 0.26, 0.07)), 9.0), ("noise", ((0.42, 0.35, 0.24), (0.30, 0.24, 0.16)), 5.0))
WALLS = (("bricks", ((0.34, 0.13, 0.09), (0.24, 0.10, 0.08)), 2.5), ("bricks", ((0.50, 0.46, 0.38), (0.42, 0.38, 0.32)), 1.2),
         ("noise", ((0.55, 0.52, 0.45), (0.45, 0.42, 0.37)), 1.5), ("noise", ((0.30, 0.36, 0.42), (0.24, 0.30, 0.36)), 1.2))


@dataclass(frozen=True)
class Light:
    """Direction towards the sun in world axes, its strength (W/m2) and colour, size (rad), and the sky's colours at horizon and zenith."""

    sun: tuple = (-0.5, -0.8, -0.5)
    sun_strength: float = 3.0
    sun_color: tuple = (1.0, 0.95, 0.88)
    sun_angle: float = 0.02
    sky: tuple = ((0.75, 0.80, 0.85), (0.25, 0.42, 0.75))
    sky_strength: float = 0.8
    exposure: float = 0.0


def random_light(rng: np.random.Generator) -> Light:
    """Sun from one side or another in front of the people, or an overcast sky."""
    angle, height = rng.uniform(-1.2, 1.2), rng.uniform(0.6, 1.1)
    sun = (float(np.sin(angle) * np.cos(height)), float(-np.sin(height)), float(-np.cos(angle) * np.cos(height)))
    if rng.random() < 0.3:
        return Light(sun, 1.0, (1.0, 0.98, 0.96), 0.5, ((0.80, 0.82, 0.85), (0.60, 0.64, 0.70)), 1.05)
    warm = rng.uniform(0.75, 1.0)
    return Light(sun, float(rng.uniform(2.4, 3.6)), (1.0, 0.85 + 0.12 * warm, 0.55 + 0.4 * warm), 0.03)


def box(center, size, yaw: float, texture, occludes: bool = False) -> dict:
    """A box (8 corners in world axes) of a (kind, colours, scale); `occludes`: it may hide people and takes part in the truth."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * np.asarray(size, float) / 2
    kind, colors, scale = texture
    return {"kind": "box", "vertices": (corners @ turn_y(yaw).T + center).tolist(), "faces": BOX_QUADS, "texture": kind, "colors": colors,
            "scale": scale, "occludes": occludes}


def ball(center, size, texture, seed: int) -> dict:
    kind, colors, scale = texture
    return {"kind": "ball", "center": [float(v) for v in center], "size": [float(v) for v in size], "texture": kind, "colors": colors, "scale": scale,
            "seed": seed, "occludes": False}


def pillar(x: float, z: float, width: float = 0.5) -> dict:
    return box((x, -1.6, z), (width, 3.2, width), 0.3, ("noise", ((0.50, 0.48, 0.44), (0.40, 0.38, 0.35)), 3.0), occludes=True)


def place_around(rng: np.random.Generator) -> list[dict]:
    """Ground, a row of houses with windows and doors behind, trees and bushes at their feet."""
    def pick(options):
        return options[int(rng.integers(len(options)))]

    props = [box((0, 0.5, 15), (90, 1.0, 90), 0, pick(GROUNDS))]
    z = rng.uniform(11.5, 14)
    x = -22.0
    while x < 22:
        width, height, back = rng.uniform(4, 8), rng.uniform(3.2, 7), rng.uniform(0, 1.5)
        props.append(box((x + width / 2, -height / 2, z + back + 2), (width, height, 4), 0, pick(WALLS)))
        glass, frame = ("noise", ((0.05, 0.07, 0.09), (0.10, 0.13, 0.17)), 0.8), ("noise", ((0.7, 0.7, 0.68), (0.6, 0.6, 0.58)), 2.0)
        for k in range(int(width / 2)):
            at = x + 1.1 + 2 * k
            door = k == 0 and rng.random() < 0.6
            middle, tall = (-1.05, 2.1) if door else (-1.7, 1.3)
            props.append(box((at, middle, z + back + 0.02), (1.1, tall + 0.15, 0.1), 0, frame))
            props.append(box((at, middle, z + back - 0.02), (0.9, tall, 0.1), 0, ("noise", ((0.2, 0.1, 0.05), (0.12, 0.06, 0.03)), 4.0) if door else glass))
        x += width + (rng.uniform(0, 2) if rng.random() < 0.4 else 0)
    leaf = ("noise", ((0.03, 0.09, 0.02), (0.14, 0.24, 0.06)), 12.0)
    for _ in range(6):
        at, far, size = rng.uniform(-12, 12), rng.uniform(9.3, 11), rng.uniform(0.3, 0.8)
        props.append(ball((at, -size * 0.7, far), (size * 1.3, size, size), leaf, int(rng.integers(1 << 30))))
    for _ in range(2):
        at = rng.uniform(2.5, 9) * (1 if rng.random() < 0.5 else -1)
        props.append(box((at, -1.2, 10.2), (0.22, 2.4, 0.22), 0.5, ("noise", ((0.10, 0.07, 0.04), (0.2, 0.15, 0.1)), 12.0)))
        props.append(ball((at, -3.1, 10.2), (1.2, 1.3, 1.2), leaf, int(rng.integers(1 << 30))))
    return props
