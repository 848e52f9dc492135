# SPDX-License-Identifier: Apache-2.0
"""What people wear: a colour per face of the body, and a surface that stands off it where there is cloth, shoe or hair."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, sparse

from body4d_engine.models.anny.body import Body, Rest
from body4d_engine.render.rasterize import vertex_normals

SKINS = ((0.80, 0.58, 0.46), (0.72, 0.48, 0.36), (0.55, 0.35, 0.24), (0.36, 0.22, 0.15), (0.86, 0.66, 0.55))
HAIRS = ((0.05, 0.035, 0.03), (0.16, 0.09, 0.05), (0.35, 0.22, 0.11), (0.55, 0.42, 0.22), (0.25, 0.08, 0.04), (0.45, 0.44, 0.43))
CLOTHS = ((0.65, 0.09, 0.08), (0.08, 0.18, 0.50), (0.10, 0.35, 0.16), (0.85, 0.83, 0.78), (0.05, 0.05, 0.06), (0.85, 0.60, 0.08), (0.40, 0.12, 0.42),
          (0.15, 0.45, 0.50), (0.80, 0.40, 0.15), (0.45, 0.45, 0.47))
LEGS = ((0.06, 0.08, 0.16), (0.04, 0.04, 0.045), (0.38, 0.32, 0.22), (0.22, 0.23, 0.25), (0.13, 0.18, 0.32), (0.25, 0.17, 0.10))
SHOES = ((0.75, 0.75, 0.75), (0.05, 0.05, 0.05), (0.40, 0.10, 0.08), (0.25, 0.16, 0.09))
PATTERNS = ("plain", "stripes", "check", "hoops", "print")


@dataclass(frozen=True)
class Look:
    """sRGB-like linear colours 0..1, and the cut of the clothes."""

    skin: tuple
    hair: tuple
    shirt: tuple
    second: tuple
    legs: tuple
    shoes: tuple
    pattern: str = "plain"
    sleeves: str = "short"
    shorts: bool = False
    long_hair: bool = False


def random_look(rng: np.random.Generator) -> Look:
    def pick(options):
        return options[int(rng.integers(len(options)))]

    shirt = pick(CLOTHS)
    second = pick([c for c in CLOTHS if c is not shirt])
    return Look(pick(SKINS), pick(HAIRS), shirt, second, pick(LEGS), pick(SHOES), pick(PATTERNS), pick(("short", "long")),
                bool(rng.random() < 0.3), bool(rng.random() < 0.4))


def dress(body: Body, rest: Rest, look: Look, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clothed rest vertices (V, 3), linear colour per face (F, 3), and where each vertex is on an unscaled body (V, 3), for textures."""
    vertices, faces, size = rest.vertices, body.faces, rest.height / 1.7
    joint = dict(zip(body.joint_names, rest.joints))
    centre = vertices[faces].mean(1)
    weights = body.skin[faces[:, 0]] + body.skin[faces[:, 1]] + body.skin[faces[:, 2]]
    bone = np.asarray(weights.argmax(1)).ravel()
    names = np.array(body.joint_names)

    def on(*prefixes):
        return np.isin(bone, [i for i, name in enumerate(names) if name.startswith(prefixes)])

    x, y, z = centre.T
    color = np.tile(np.asarray(look.skin, float), (len(faces), 1))
    head, arms, legs = on("head", "eye", "neck02", "neck03"), on("upperarm", "lowerarm"), on("pelvis", "upperleg", "lowerleg", "foot")
    waist = -0.03 * size
    trunk = on("root", "spine", "pelvis", "clavicle", "shoulder01", "upperleg")

    sleeve = np.zeros(len(faces), bool)
    for side in "LR":
        top, elbow, wrist = (joint[f"{bone}.{side}"] for bone in ("upperarm01", "lowerarm01", "wrist"))
        near = arms & (np.sign(x) == np.sign(top[0]))
        on_upper = ((centre - top) @ (elbow - top)) / ((elbow - top) @ (elbow - top))
        on_lower = ((centre - elbow) @ (wrist - elbow)) / ((wrist - elbow) @ (wrist - elbow))
        sleeve |= near & ((on_upper < 0.62) & (on_lower < 0.02) if look.sleeves == "short" else on_lower < 0.93)
    shirt = (trunk & (y < waist)) | sleeve
    knee, ankle = joint["lowerleg01.L"][1], joint["foot.L"][1]
    trousers = (trunk | legs) & (y >= waist) & (y < (knee + 0.02 * size if look.shorts else ankle - 0.015 * size))
    shoe = on("foot", "toe", "lowerleg") & (y > ankle - 0.015 * size)
    sock = on("lowerleg", "foot") & look.shorts & (y > ankle - 0.07 * size) & ~shoe

    color[shirt] = _pattern(look, x / size, y / size, z / size)[shirt]
    color[trousers] = look.legs
    color[trousers & (y < waist + 0.035 * size)] = (0.04, 0.03, 0.025)  # belt
    color[sock] = (0.8, 0.8, 0.8)
    color[shoe] = look.shoes
    color[shoe & (y > rest.vertices[:, 1].max() - 0.022 * size)] = np.clip(1 - np.asarray(look.shoes), 0.1, 0.8)
    hair = _face(body, rest, look, centre, head, color)
    color *= np.exp(rng.normal(0, 0.03, (len(faces), 1)))

    cloth = np.zeros(len(vertices))
    for where, thickness in ((shirt, 0.010), (trousers, 0.009), (shoe, 0.006), (hair, 0.022 if not look.long_hair else 0.03)):
        cloth[faces[where].ravel()] = thickness * size
    cloth = _soften(cloth, faces, len(vertices))
    folds = 1 + 0.35 * _noise(vertices / size, rng)
    return vertices + (cloth * folds)[:, None] * vertex_normals(vertices, faces), np.clip(color, 0, 1), vertices / size


def _pattern(look: Look, x, y, z) -> np.ndarray:
    first, second = np.asarray(look.shirt, float), np.asarray(look.second, float)
    if look.pattern == "stripes":
        share = (np.floor(x / 0.03) % 2 == 0).astype(float)
    elif look.pattern == "hoops":
        share = (np.floor(y / 0.06) % 2 == 0).astype(float)
    elif look.pattern == "check":
        share = ((np.floor(x / 0.05) + np.floor(y / 0.05)) % 2 == 0) * 0.8
    elif look.pattern == "print":
        share = ((np.abs(x) < 0.09) & (np.abs(y + 0.33) < 0.07) & (z < 0)).astype(float)
    else:
        share = np.zeros_like(x)
    return first + share[:, None] * (second - first)


def _face(body: Body, rest: Rest, look: Look, centre, head, color) -> np.ndarray:
    """Colour the head's hair, brows, lips and eyes; returns which faces are hair."""
    eyes = np.array([rest.joints[body.joint_names.index(f"eye.{side}")] for side in "LR"])
    crown = rest.vertices[:, 1].min()
    unit = abs(eyes[0, 1] - crown) / 0.108  # 1 on the adult of 1.70 m
    x, y, z = ((centre - [0, eyes[0, 1], eyes[0, 2]]) / unit).T  # the eyes are at (+-0.03, 0, 0)
    skull = head & (y < 0.16)
    line = np.interp(z, [-0.03, 0.0, 0.06, 0.075, 0.11], [-0.072, -0.062, -0.015, 0.01, 0.09 if not look.long_hair else 0.13])
    ear = (np.abs(x) > 0.066) & (np.abs(y - 0.012) < 0.034) & (np.abs(z - 0.075) < 0.03)
    hair = skull & (y < line) & ~(ear & (not look.long_hair))
    color[hair] = look.hair
    front = head & (z < 0.01) & ~hair
    color[front & (np.abs(y + 0.021) < 0.005) & (np.abs(np.abs(x) - 0.030) < 0.019)] = np.asarray(look.hair) * 0.8
    color[front & (np.abs(y - 0.069) < 0.008) & (np.abs(x) < 0.024) & (z < 0.0)] = np.asarray(look.skin) * [0.85, 0.5, 0.5]
    color[front & (np.abs(y) < 0.007) & (np.abs(np.abs(x) - 0.030) < 0.016)] *= 0.75  # lids
    part = _parts(body)
    for eye, center in zip(np.unique(part)[-2:], eyes):
        ball = part == eye
        white, offset = np.array([0.75, 0.74, 0.72]), np.hypot(centre[ball, 0] - center[0], centre[ball, 1] - center[1]) / unit
        color[ball] = np.where(offset[:, None] < 0.0065, [0.06, 0.04, 0.03], white)
    color[part == 1] = (0.25, 0.05, 0.05)
    return hair


def _parts(body: Body) -> np.ndarray:
    """(F,) connected part of each face: 0 skin, 1 mouth, then the two eyes."""
    faces = body.faces
    edges = sparse.coo_matrix((np.ones(faces.size), (faces.ravel(), np.roll(faces, 1, 1).ravel())), shape=(body.skin.shape[0],) * 2)
    return sparse.csgraph.connected_components(edges, directed=False)[1][faces[:, 0]]


def _soften(values: np.ndarray, faces: np.ndarray, count: int) -> np.ndarray:
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    graph = sparse.csr_matrix((np.ones(2 * len(pairs)), (np.r_[pairs[:, 0], pairs[:, 1]], np.r_[pairs[:, 1], pairs[:, 0]])), shape=(count, count))
    graph = sparse.diags(1 / np.maximum(np.asarray(graph.sum(1)).ravel(), 1)) @ graph
    for _ in range(2):
        values = 0.5 * values + 0.5 * (graph @ values)
    return values


def _noise(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of unit size over space, with features of some 6 cm."""
    grid = ndimage.gaussian_filter(rng.normal(size=(24, 40, 24)), 1.0)
    grid /= grid.std()
    where = ((points - points.min(0)) / 0.05).T
    return ndimage.map_coordinates(grid, where, order=1, mode="wrap")
