# SPDX-License-Identifier: Apache-2.0
"""The order of the stages and their resume keys, and nothing else."""

import hashlib
import json
import platform
import sys
from dataclasses import replace
from pathlib import Path
from typing import Iterator

from . import __version__
from .errors import Body4DError, device_lost, is_device_lost, is_out_of_memory
from .events import Event, Notice, StageFinished, StageStarted
from .people import Person
from .take import Take, delete_take
from .versions import versions


def run(clip, path, backend, people: list[Person], settings: dict, fresh: bool = False, until: str | None = None) -> Iterator[Event]:
    """Make or go on with the take at `path`, yielding events as they happen.

    A stage that was completed under the same key (clip, range, people, settings, versions of it and of what it needs) is not run again; one
    that was cut short goes on from its last commit. `until`: the last stage to run. Raises Body4DError.
    """
    if fresh:
        delete_take(path)
    with _take_for(clip, Path(path), backend.name, settings) as take:
        stages = backend.stages(settings)
        keys = stage_keys(stages, clip, people, backend.name)
        bases = stage_keys(stages, clip, [replace(person, corrections=[]) for person in people], backend.name)
        for stage in stages:
            yield from _run_stage(stage, clip, people, take, keys, bases)
            if stage.name == "prepare":
                clip.shots = tuple(take.clip["shots"])
            if stage.name == "track":
                found = _named(take, people)
                asked = {person.id for person in people} | settings.get("heights", {}).keys() - {0}
                for number in sorted(asked - {person.id for person in found}):
                    yield Notice("track", "person_unknown", f"Something was said about a person {number}, but only {_numbers(found)} was found or "
                                 "clicked. It is ignored.", person=number)
                people = found
                yield from _missed(take, people)
            if stage.name == until:
                return
        if take.working:  # of a run with other settings, cut short
            take.discard()


def _numbers(people: list[Person]) -> str:
    return "person " + ", ".join(str(person.id) for person in people)


def _missed(take: Take, people: list[Person]) -> Iterator[Notice]:
    """Corrections of frames that the take does not have."""
    for person in people:
        for said in person.corrections:
            if not any(said.first_frame <= frame <= said.last_frame for frame in take.frames):
                yield Notice("track", "correction_outside", f"A correction of {person.name} is of frames that are not used.", person.id,
                             said.first_frame, said.last_frame)


def _named(take: Take, people: list[Person]) -> list[Person]:
    """The tracked people under the names, colours and heights that are asked for now."""
    asked = {person.id: person for person in people}
    named = [asked.get(entry["id"], Person(entry["id"])) for entry in take.people]
    if [person.to_json() for person in named] != take.people:
        take.set_people([person.to_json() for person in named])
        take.save()
    return named


def _run_stage(stage, clip, people: list[Person], take: Take, keys: dict[str, str], bases: dict[str, str]) -> Iterator[Event]:
    if take.is_complete(stage.name, keys[stage.name]):
        yield StageFinished(stage.name, take.stage(stage.name)["seconds"], skipped=True)
        return
    name, corrected = stage.name, {}
    if bases[name] != keys[name]:
        corrected = {str(person.id): [said.to_json() for said in person.corrections] for person in people if person.corrections}
    cursor = take.begin(name, keys[name], bases[name], corrected)
    yield StageStarted(stage.name, resumed=cursor is not None)
    try:
        for event in stage.run(clip, people, take, cursor):
            if isinstance(event, Notice):
                take.notice(event)
            yield event
    except Exception as error:
        if isinstance(error, Body4DError):
            raise
        if is_device_lost(error):
            raise device_lost(f"the stage {stage.name}", error) from error
        if not is_out_of_memory(error):
            raise
        raise Body4DError(f"There is not enough memory for the stage {stage.name}.", "Close other programs, or use --start and --end, and run "
                          "again: it goes on where it stopped.", "out_of_memory") from error
    # What was made from the stage's earlier result is out of date.
    entry = take.finish([name for name, known in take.to_json()["stages"].items() if name != stage.name and known["key"] != keys.get(name)], bases)
    yield StageFinished(stage.name, entry["seconds"])


def stage_keys(stages: list, clip, people: list[Person], backend: str) -> dict[str, str]:
    """Stage name -> a hash of everything its result depends on. Of what is said of people a stage acts upon what it `heeds`: prompts, body or nothing."""
    keys: dict[str, str] = {}
    asked = {"prompts": [{"id": person.id, "prompts": person.to_json()["prompts"]} for person in people if person.prompts],
             "body": [_of_body(person) for person in people if person.height_m or person.corrections]}
    for stage in stages:
        parts = {"stage": stage.name, "version": stage.version, "backend": backend, "settings": stage.settings, "clip": clip.fingerprint,
                 "fps": str(clip.fps), "range": [clip.frames.start, clip.frames.stop, clip.frames.step],
                 "people": asked.get(getattr(stage, "heeds", None), []), "needs": [keys[name] for name in stage.needs]}
        keys[stage.name] = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return keys


def _of_body(person: Person) -> dict:
    """What is asked of a person's body."""
    corrected = {"corrections": [said.to_json() for said in sorted(set(person.corrections))]} if person.corrections else {}
    return {"id": person.id, "height_m": person.height_m, **corrected}


def _take_for(clip, path: Path, backend: str, settings: dict) -> Take:
    used = {"body4d-engine": __version__, "python": sys.version.split()[0], "platform": platform.platform()}
    used.update({name: version for name, version in versions().items() if version})
    if not Take.exists(path):
        return Take.create(path, clip.describe(), backend, settings, used)
    take = Take.open(path, writable=True)
    now = clip.describe()
    try:
        _refuse_another(take, now, backend)
        take.describe(clip={**take.clip, **now}, settings=settings, versions=used)
        take.save()
    except Body4DError:
        take.close()
        raise
    return take


def _refuse_another(take: Take, now: dict, backend: str) -> None:
    """Raises Body4DError where the take is of another clip, range or backend."""
    ours, hint = take.clip, "Choose another --out, or --fresh to replace it."
    if take.backend == "import" != backend:
        raise Body4DError(f"{take.path} holds imported meshes, which are shown as they were made: heights, corrections and smoothing need what the {backend} "
                          "backend finds in the footage.", "Run the footage with another --out.", "take_in_use")
    if any(ours.get(name) != now[name] for name in ("fingerprint", "width", "height", "start", "end", "step")):
        raise Body4DError(f"{take.path} holds another clip or range ({ours['name']}, frames {ours['start']} to {ours['end'] - 1} "
                          f"step {ours['step']}).", hint, "take_of_another_clip")
    if ours["fps"] != now["fps"]:
        raise Body4DError(f"{take.path} holds this clip at another frame rate ({'/'.join(map(str, ours['fps']))} per second, now "
                          f"{'/'.join(map(str, now['fps']))}).", hint, "take_of_another_clip")
    if take.backend != backend:
        raise Body4DError(f"{take.path} holds a take of the {take.backend} backend.", hint, "take_in_use")
