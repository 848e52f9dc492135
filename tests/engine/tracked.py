# SPDX-License-Identifier: Apache-2.0
"""Takes whose `track` and `camera` stages are given as arrays, to test what fits bodies to them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from body4d_engine.people import Person
from body4d_engine.take import State, Take

DATA = Path(__file__).resolve().parents[1] / "data"
TRUTH_LANDMARKS = [11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]


def real_walk(camera: int = 1) -> SimpleNamespace:
    """100 frames at 60 fps of a real person (BlazePose landmarks of Pose2Sim's single-person demo, BSD-3-Clause), with joints triangulated
    from four calibrated cameras in this camera's frame: truth (100, 12, 3) in metres, of camera 2 NaN where they do not agree."""
    with np.load(DATA / "landmarks_walk.npz") as file:
        focal, cx, cy, width, height = file[f"camera_{camera}"]
        return SimpleNamespace(px=file[f"landmarks_px_{camera}"], metres=file[f"landmarks_m_{camera}"].astype(np.float32), focal=float(focal),
                               centre=(float(cx), float(cy)), size=(int(width), int(height)), fps=60, truth=file[f"truth_m_{camera}"])


def tracked_take(path, people: list, focal: float, centre, size=(1080, 1920), fps=30, step=1, heights=(), shots=(0,)):
    """people: (landmarks_px, landmarks_m, state) per person. Returns the open writable take, the people and a clip."""
    samples = len(people[0][0])
    clip = {"name": "made.mp4", "path": None, "bytes": 1, "fingerprint": "f", "width": size[0], "height": size[1], "fps": [fps, 1],
            "frame_count": samples * step, "start": 0, "end": samples * step, "step": step, "shots": list(shots)}
    take = Take.create(path, clip, "lite")
    take.begin("track", "k" * 8)
    persons = [Person(i + 1, height_m=dict(heights).get(i + 1)) for i in range(len(people))]
    for person, (pixels, metres, state) in zip(persons, people, strict=True):
        group = f"people/{person.id}"
        flat = np.nan_to_num(np.asarray(pixels, np.float64)[..., :2], posinf=0, neginf=0)
        box = np.clip(np.concatenate([flat.min(1), flat.max(1)], 1), 0, [*size, *size])
        arrays = {"state": ("u1", (), state), "box": ("f4", (4,), box), "landmarks_px": ("f4", (33, 3), pixels), "landmarks_m": ("f4", (33, 3), metres)}
        for name, (dtype, shape, values) in arrays.items():
            take.create_array(group, name, dtype, shape)
            take.append(group, name, values)
    take.set_people([person.to_json() for person in persons])
    take.commit({})
    take.finish()
    take.begin("camera", "k" * 8)
    take.write_npz("camera.npz", focal_px=np.full(samples, focal, np.float32), principal_px=np.tile(np.float32(centre), (samples, 1)),
                   method=np.array("user"), note=np.array(""))
    take.commit({})
    take.finish()
    return take, persons, SimpleNamespace(shots=tuple(shots), frames=take.frames)


def visible(count: int) -> np.ndarray:
    return np.full(count, State.VISIBLE, np.uint8)


def run_stage(stage, take, persons, clip, key="k" * 8, stop_after=None):
    """Run a stage as the pipeline does; with stop_after, give up after so many commits, as if killed. Returns the events."""
    from body4d_engine.events import Committed, Notice

    cursor, events, commits = take.begin(stage.name, key), [], 0
    for event in stage.run(clip, persons, take, cursor):
        if isinstance(event, Notice):
            take.notice(event)
        events.append(event)
        commits += isinstance(event, Committed)
        if stop_after is not None and commits >= stop_after:
            return events
    take.finish()
    return events
