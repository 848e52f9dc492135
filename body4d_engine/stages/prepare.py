# SPDX-License-Identifier: Apache-2.0
"""What must be known of the clip before anything is tracked: its shots, and whether Blender can show it frame for frame."""

from ..events import Notice
from ..video import write_proxy

PROXY = "proxy.mp4"


class Prepare:
    """Finds the shots and, where Blender would show another picture than we analyse, writes an upright constant-rate proxy.mp4."""

    name = "prepare"
    version = 1
    needs = ()

    def __init__(self):
        self.settings = {}

    def run(self, clip, people, take, cursor):
        yield from clip.find_shots()
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
