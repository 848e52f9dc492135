# SPDX-License-Identifier: Apache-2.0
"""Small takes whose every number is known, made with the engine's own writer."""

import struct
import zlib
from pathlib import Path

import numpy as np

from body4d_engine.take import State, Take, span_of

SIZE = (640, 360)


def sphere(rings: int = 6, sectors: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """A closed sphere of 0.5 m: vertices (V, 3) in OpenCV axes, faces (F, 3) counter-clockwise from outside."""
    polar = np.linspace(0, np.pi, rings + 1)[1:-1]
    around = np.arange(sectors) * 2 * np.pi / sectors
    ring = np.stack(np.broadcast_arrays(np.sin(polar)[:, None] * np.cos(around), np.cos(polar)[:, None], np.sin(polar)[:, None] * np.sin(around)), -1)
    vertices = np.concatenate([ring.reshape(-1, 3), [[0, 1, 0], [0, -1, 0]]]) * 0.5
    top, bottom, faces = len(vertices) - 2, len(vertices) - 1, []
    for s in range(sectors):
        t = (s + 1) % sectors
        faces.append((top, s, t))
        faces.append((bottom, (rings - 2) * sectors + t, (rings - 2) * sectors + s))
        for r in range(rings - 2):
            a, b, c, d = r * sectors + s, r * sectors + t, (r + 1) * sectors + t, (r + 1) * sectors + s
            faces += [(a, c, b), (a, d, c)]
    faces = np.array(faces, np.int32)
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    inward = (normals * corners.mean(1)).sum(1) < 0
    faces[inward] = faces[inward, ::-1]
    return vertices.astype(np.float32), faces


def motion(samples: int, vertices: np.ndarray, seed: int) -> np.ndarray:
    """Vertices (n, V, 3) float32 on a random walk, with digits that no rounding survives."""
    steps = np.random.default_rng(seed).normal(0, 0.02, (samples, *vertices.shape))
    return (vertices + np.cumsum(steps, 0)).astype(np.float32)


def write_png(path: Path, rgb: np.ndarray) -> None:
    """An image (H, W, 3) uint8 as a PNG, with the standard library."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    h, w, _ = rgb.shape
    rows = np.concatenate([np.zeros((h, 1), np.uint8), rgb.reshape(h, w * 3)], 1).tobytes()
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0))
                     + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))


def write_frames(folder: Path, count: int, size=SIZE, first: int = 1) -> Path:
    """A folder of images; frame i has the grey value 10 * i."""
    folder.mkdir(parents=True)
    for i in range(count):
        write_png(folder / f"img_{first + i:04d}.png", np.full((size[1], size[0], 3), 10 * i % 256, np.uint8))
    return folder


def make_take(path: Path, /, *, people=None, start: int = 0, end: int = 20, step: int = 1, fps=(30000, 1001), size=SIZE, frame_count=None,
              focal=500.0, principal=None, method: str = "assumed", note: str = "0.8 x diagonal", seed: int = 0, stage: str = "refine",
              mesh=None, finish: bool = True, confidence=None, notices=(), **clip) -> Path:
    """A complete take. people: {id: state (T,) or None for visible throughout}; a person whose states are all absent gets no mesh.
    confidence: {id: (T,)}."""
    people = {1: None, 2: None} if people is None else people
    samples = len(range(start, end, step))
    facts = {"name": "clip", "path": None, "fingerprint": "f", "width": size[0], "height": size[1], "fps": list(fps),
             "frame_count": frame_count or end, "start": start, "end": end, "step": step, "has_audio": False, "proxy": None, **clip}
    vertices, faces = mesh or sphere()
    with Take.create(path, facts, "lite", seed=seed) as take:
        take.set_people([{"id": i, "name": ("Ana", "Bo", "Cy")[(i - 1) % 3], "color": [0.9, 0.6 / i, 0.1], "prompts": {}, "height_m": None}
                         for i in people])
        take.begin("camera", "c" * 16)
        center = np.array((size[0] / 2, size[1] / 2) if principal is None else principal, float)
        take.write_npz("camera.npz", focal_px=np.broadcast_to(np.asarray(focal, float), (samples,)),
                       principal_px=np.broadcast_to(center, (samples, 2)), method=np.array(method), note=np.array(note))
        take.finish()
        take.begin(stage, "r" * 16)
        for i, state in people.items():
            state = np.full(samples, State.VISIBLE, np.uint8) if state is None else np.asarray(state, np.uint8)
            if not (state != State.ABSENT).any():
                continue
            group, time, span = f"people/{i}", np.linspace(0, 1, samples)[:, None], span_of(state)
            arrays = {"vertices": motion(samples, vertices, seed + i), "root": np.array([i - 1.5, 0.1 * i, 4 + i]) + time * [0.3, -0.05, 0.5],
                      "state": state, **({"confidence": np.asarray(confidence[i])} if i in (confidence or {}) else {})}
            for name, values in arrays.items():
                take.create_array(group, name, "u1" if name == "state" else "f4", values.shape[1:], pc2=name == "vertices", span=span)
                take.append(group, name, values[slice(*span)])
            take.write_npz(f"people/{i}/body.{stage}.npz", faces=faces, model=np.array("sphere"))
        for notice in notices:
            take.notice(notice)
        take.commit({})
        if finish:
            take.finish()
    return Path(path)
