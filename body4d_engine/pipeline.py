# SPDX-License-Identifier: Apache-2.0
"""The order of the stages and their resume keys, and nothing else."""

import hashlib
import json
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Iterator

from .errors import Body4DError
from .events import Event, Notice, StageFinished, StageStarted
from .people import Person
from .take import Take, delete_take

VERSIONED = ("body4d-engine", "body4d-lite-models", "numpy", "scipy", "opencv-python-headless", "av", "ai-edge-litert")


def run(clip, path, backend, people: list[Person], settings: dict, fresh: bool = False) -> Iterator[Event]:
    """Make or go on with the take at `path`, yielding events as they happen.

    A stage that was completed under the same key (clip, range, people, settings, versions of it and of what it needs) is not run again; one
    that was cut short goes on from its last commit. Raises Body4DError.
    """
    if fresh:
        delete_take(path)
    with _take_for(clip, Path(path), backend.name, settings) as take:
        stages = backend.stages(settings)
        keys = stage_keys(stages, clip, people, backend.name)
        for stage in stages:
            yield from _run_stage(stage, clip, people, take, keys)
            if stage.name == "prepare":
                clip.shots = tuple(take.clip["shots"])
            if stage.name == "track":
                people = [Person.from_json(entry) for entry in take.people]


def _run_stage(stage, clip, people: list[Person], take: Take, keys: dict[str, str]) -> Iterator[Event]:
    if take.is_complete(stage.name, keys[stage.name]):
        yield StageFinished(stage.name, take.stage(stage.name)["seconds"], skipped=True)
        return
    cursor = take.begin(stage.name, keys[stage.name])
    yield StageStarted(stage.name, resumed=cursor is not None)
    try:
        for event in stage.run(clip, people, take, cursor):
            if isinstance(event, Notice):
                take.notice(event)
            yield event
    except MemoryError as error:
        raise Body4DError(f"There is not enough memory for the stage {stage.name}.", "Close other programs, or use --start and --end, and run "
                          "again: it goes on where it stopped.", "out_of_memory") from error
    entry = take.finish()
    for name, key in keys.items():  # what was made from the stage's earlier result is out of date
        if take.stage(name) and take.stage(name)["key"] != key:
            take.forget(name)
    yield StageFinished(stage.name, entry["seconds"])


def stage_keys(stages: list, clip, people: list[Person], backend: str) -> dict[str, str]:
    """Stage name -> a hash of everything its result depends on."""
    keys: dict[str, str] = {}
    asked = [{"id": p["id"], "prompts": p["prompts"]} for p in (person.to_json() for person in people)]
    for stage in stages:
        parts = {"stage": stage.name, "version": stage.version, "backend": backend, "settings": stage.settings, "clip": clip.fingerprint,
                 "fps": str(clip.fps), "range": [clip.frames.start, clip.frames.stop, clip.frames.step],
                 "people": asked if stage.name == "track" else [], "needs": [keys[name] for name in stage.needs]}
        keys[stage.name] = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return keys


def _take_for(clip, path: Path, backend: str, settings: dict) -> Take:
    versions = {"python": sys.version.split()[0], "platform": platform.platform()}
    for name in VERSIONED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed as a package"
    if not Take.exists(path):
        return Take.create(path, clip.describe(), backend, settings, versions)
    take = Take.open(path, writable=True)
    same = ("fingerprint", "width", "height", "fps", "start", "end", "step")
    now = clip.describe()
    if any(take.clip.get(name) != now[name] for name in same):
        take.close()
        raise Body4DError(f"{path} holds another clip or range ({take.clip['name']}, frames {take.clip['start']} to {take.clip['end'] - 1} "
                          f"step {take.clip['step']}).", "Choose another --out, or --fresh to replace it.", "take_of_another_clip")
    take.describe(clip={**take.clip, **now}, backend=backend, settings=settings, versions=versions)
    return take
