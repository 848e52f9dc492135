# SPDX-License-Identifier: Apache-2.0
"""What must be known of the clip before anything is tracked: its shots, how its camera moves, and whether Blender can show it frame for frame."""

import numpy as np

from ..background import STILL, CameraMotion
from ..camera_motion import GROUP
from ..events import Notice
from ..shots import find_shots
from ..video import write_proxy

PROXY = "proxy.mp4"


class Prepare:
    """Finds the shots and the camera's motion in one pass over the clip and, where Blender would show another picture than we analyse, writes an
    upright constant-rate proxy.mp4."""

    name = "prepare"
    version = 2
    needs = ()

    def __init__(self):
        self.settings = {}

    def run(self, clip, people, take, cursor):
        motion, steps = CameraMotion(clip.width, clip.height), []

        def watch(frame, rgb):
            if frame in clip.frames:
                steps.append(motion.see(rgb))

        clip.shots = yield from find_shots(clip, watch)
        for cut in np.searchsorted(clip.frames, clip.shots):
            if cut < len(steps):
                steps[cut] = STILL
        take.create_array(GROUP, "warp", "f4", (3, 3))
        take.create_array(GROUP, "moving", "f4", ())
        take.append(GROUP, "warp", np.array([step.warp for step in steps]))
        take.append(GROUP, "moving", np.array([step.moving for step in steps]))
        if len(clip.shots) > 1:
            yield Notice(self.name, "shots", f"The clip has {len(clip.shots)} shots; a person keeps the same id across a cut only where clear.")
        changes = {"shots": list(clip.shots), "proxy": None, "proxy_reasons": list(clip.facts.blender_reasons)}
        if clip.facts.blender_reasons:
            yield from write_proxy(clip, take.path / PROXY)
            take.add_file(PROXY)
            changes["proxy"] = PROXY
            yield Notice(self.name, "proxy", f"Blender shows {PROXY} instead of the clip: {'; '.join(clip.facts.blender_reasons)}.")
        for notice in clip.notices:
            yield notice
        take.describe(clip={**take.clip, **changes})
