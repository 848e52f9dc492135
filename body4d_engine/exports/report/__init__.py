# SPDX-License-Identifier: Apache-2.0
"""A page beside a result by which to decide whether to trust it, and its timelines as PNG files."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ...disk import write_whole
from ...events import Event, Progress
from ...take import Take
from .content import people_of
from .drawing import picture, png
from .page import page
from .plots import panels, ruler
from .stills import choose, take_shots

SUFFIX = "_report"


def write_report(take: Take, clip, path) -> Iterator[Event]:
    """Write NAME_report.html, which needs no other file and no network, and NAME_plots/person_<id>.png.

    `clip` None: the meshes are shown over grey. Each file appears when it is complete; plots of an earlier report are replaced. Raises
    Body4DError where the take lacks what it takes or the place cannot be written.
    """
    path, people, notices = Path(path), people_of(take), take.notices()
    info = take.clip
    fps = info["fps"][0] / info["fps"][1] / info["step"]
    wanted = choose(people, notices, take.frames, fps)
    shots = {}
    for shot in take_shots(take, clip, wanted):
        shots[shot.still] = shot
        yield Progress("report", len(shots), len(wanted), unit="still")
    about = {person.id: samples_of(notices, person.id, take.frames) for person in people}
    timelines = {person.id: panels(person, about[person.id], take.frames) for person in people if not person.missing}
    content = page(take, people, timelines, [shots[still] for still in wanted]).encode("utf-8")
    write_whole(path, partial(_put, content))
    folder = plots_folder(path)
    for person in people:
        if person.id in timelines:
            image = picture(f"{person.name} (id {person.id})   {info['name']}", timelines[person.id], ruler(take.frames), person.color)
            write_whole(folder / f"person_{person.id}.png", partial(_put, png(image)))
    for old in folder.glob("person_*.png"):
        if old.stem.removeprefix("person_").isdigit() and int(old.stem.removeprefix("person_")) not in timelines:
            old.unlink()


def _put(data: bytes, file) -> None:
    file.write(data)


def plots_folder(path: Path) -> Path:
    """Where the PNG files of a report go: NAME_plots beside NAME_report.html."""
    return path.with_name(path.stem.removesuffix(SUFFIX) + "_plots")


def samples_of(notices: list[dict], person: int, frames: range) -> list[tuple[int, int]]:
    """[begin, stop) of the samples that notices about the person, or about everyone, speak of."""
    found = []
    for notice in notices:
        if notice["frame"] is not None and notice["person"] in (None, person):
            last = notice["frame"] if notice["last_frame"] is None else notice["last_frame"]
            begin = max(-(-(notice["frame"] - frames.start) // frames.step), 0)
            stop = min((last - frames.start) // frames.step + 1, len(frames))
            if begin < len(frames) and stop > 0:
                found.append((begin, max(stop, begin + 1)))
    return found
