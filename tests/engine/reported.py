# SPDX-License-Identifier: Apache-2.0
"""Takes with everything that a report speaks of, without a network: bodies are balls, joints a cloud that moves."""

from fractions import Fraction

import numpy as np

from body4d_engine.events import Notice
from body4d_engine.metrics import FEET
from body4d_engine.people import Person
from body4d_engine.take import State, Take

from .bodies import ball

NAMES = ("nose", "left_hip", "right_hip", *FEET)
NASTY = 'Ana <b>&"\'é 测试</b> <script>alert(1)</script>'


def busy_take(path, samples=90, people=(1, 2), size=(96, 64), clip=None, contact=True, names=None, start=0, step=1) -> Take:
    """Everyone, with n = samples // 3: unsure at n to n + 2, a foot that slides at n - 8, a jump at n + 10, hidden at 2 n to 2 n + 2, then absent once;
    feet are in the air for the first tenth."""
    end = start + (samples - 1) * step + 1
    info = clip or {"name": NASTY + ".mp4", "path": None, "bytes": 1, "fingerprint": "ba11", "width": size[0], "height": size[1], "fps": [30, 1],
                    "frame_count": end, "start": start, "end": end, "step": step, "shots": [start], "proxy": None, "proxy_reasons": []}
    take = Take.create(path, info, "lite", settings={"focal_px": None, "heights": {"0": 1.8}}, versions={"body4d-engine": "0.0", "numpy": "<2>"})
    take.begin("detail", "0123456789")
    for number in people:
        hands, faces = np.zeros((len(take.frames), 2, 21, 3), np.float32), np.zeros(len(take.frames), np.float32)
        hands[: len(hands) // 2, 0, :, 2] = hands[len(hands) // 2 :, 1, :, 2] = faces[10:] = 0.9
        for name, values in {"hands_px": hands, "face_score": faces}.items():
            take.create_array(f"people/{number}", name, "f4", values.shape[1:])
            take.append(f"people/{number}", name, values)
    take.finish()
    take.begin("refine", "0123456789")
    entries = [Person(number, name=(names or {}).get(number, f"Person {number}")).to_json() for number in people]
    take.set_people(entries)
    samples, fps = len(range(info["start"], info["end"], info["step"])), float(Fraction(*info["fps"]))
    vertices, faces = ball()
    time = np.arange(samples) / fps
    for place, number in enumerate(people):
        group, rng = f"people/{number}", np.random.default_rng(number)
        state = np.full(samples, State.VISIBLE, np.uint8)
        confidence = 0.9 + 0.02 * np.sin(time)
        joints = 0.3 * rng.normal(size=(1, len(NAMES), 3)) + 0.02 * np.sin(3 * time)[:, None, None]
        joints[:, 3:] = [[-0.1, 0.5, 0.1], [-0.1, 0.5, -0.1], [0.1, 0.5, 0.1], [0.1, 0.5, -0.1]]
        at = samples // 3
        confidence[at : at + 3] = 0.1
        state[2 * at : 2 * at + 4] = (State.OCCLUDED, State.FILLED, State.FILLED, State.ABSENT)
        joints[at + 10, 0] += 0.5
        joints[at - 8, 3] += 0.03
        down = np.ones((samples, 4), np.float32)
        down[: samples // 10] = 0
        root = np.tile([0.6 * (place - (len(people) - 1) / 2), 0, 3], (samples, 1))
        records = {"root": ("f4", root), "state": ("u1", state), "confidence": ("f4", confidence),
                   "keypoints_m": ("f4", joints), **({"contact": ("f4", down)} if contact else {})}
        for name, (kind, values) in records.items():
            take.create_array(group, name, kind, values.shape[1:])
            take.append(group, name, values)
        take.create_array(group, "vertices", "f4", vertices.shape, pc2=True)
        for begin in range(0, samples, 1000):
            take.append(group, "vertices", np.broadcast_to(vertices, (min(1000, samples - begin), *vertices.shape)))
        take.write_npz(f"{group}/body.refine.npz", faces=faces, keypoint_names=np.array(NAMES))
        frames = take.frames
        take.notice(Notice("recover", "sides_swapped", f"Left and right of {entries[place]['name']} were exchanged.", number, frames[at], frames[at + 2]))
        take.notice(Notice("recover", "scale_assumed", f"The size of {entries[place]['name']} is assumed.", number))
    take.notice(Notice("camera", "focal_assumed", "The focal length is assumed & said so."))
    take.notice(Notice("track", "crowded", "It is <crowded>.", None, take.frames[1], take.frames[samples // 2]))
    take.write_npz("camera.npz", focal_px=np.full(samples, 80, np.float32), method=np.array("assumed"), note=np.array("0.8 x the diagonal"),
                   principal_px=np.tile(np.array([info["width"], info["height"]], np.float32) / 2, (samples, 1)))
    take.finish()
    return take
