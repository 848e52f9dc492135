# SPDX-License-Identifier: Apache-2.0
"""What a person reads while a run goes on, and the summary after it."""

import sys
import time
from contextlib import contextmanager
from math import hypot

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from . import events
from .stages.camera import FILM_WIDTH_MM
from .take import State, Take

PLAIN_SECONDS = 5.0  # between two progress lines where there is no terminal


class _Rate(ProgressColumn):
    def render(self, task) -> Text:
        return Text(f"{task.speed:5.1f}/s" if task.speed else "", style="cyan")


class Display:
    """Shows events: bars on a terminal, a line now and then elsewhere. Writes to stderr."""

    def __init__(self):
        self.console = Console(stderr=True, highlight=False)
        self.bars = Progress(TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeElapsedColumn(),
                             TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=self.console)
        self.tasks: dict[tuple, int] = {}
        self.lines: dict[tuple, tuple[float, float, int]] = {}  # bar -> time of its start, time of its last line, units done at its start

    @contextmanager
    def showing(self):
        """Shows progress inside the block."""
        if self.console.is_terminal:
            with self.bars:
                yield self
        else:
            yield self

    def show(self, event: events.Event) -> None:
        if isinstance(event, events.Progress):
            (self._bar if self.console.is_terminal else self._line)(event)
        elif isinstance(event, events.Notice):
            last = event.last_frame if event.last_frame is not None else event.frame
            where = "" if event.frame is None else f" (frame {event.frame})" if last == event.frame else f" (frames {event.frame} to {last})"
            self._print(f"note: {event.message}{where}")
        elif isinstance(event, events.StageStarted) and event.resumed:
            self._print(f"{event.stage}: going on where the last run stopped")
        elif isinstance(event, events.StageFinished):
            self._print(f"{event.stage}: " + ("already done" if event.skipped else f"done in {event.seconds:.1f} s"))

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    @staticmethod
    def _title(event: events.Progress) -> str:
        person = f" person {event.person}" if event.person is not None else ""
        return f"{event.stage}{person} {event.unit if event.unit != 'frame' else ''}".strip()

    def _bar(self, event: events.Progress) -> None:
        key = (event.stage, event.person, event.unit)
        if key not in self.tasks:
            self.tasks[key] = self.bars.add_task(self._title(event), total=event.total, completed=event.done, note=event.note)
        self.bars.update(self.tasks[key], completed=event.done, total=event.total, note=event.note)

    def _line(self, event: events.Progress) -> None:
        key, now = (event.stage, event.person, event.unit), time.monotonic()
        start, last, first = self.lines.setdefault(key, (now, now - PLAIN_SECONDS + 1, event.done))
        if now - last < PLAIN_SECONDS and event.done < event.total:
            return
        self.lines[key] = (start, now, first)
        rate = (event.done - first) / max(now - start, 1e-6)
        left = f", {rate:.1f} per second, {(event.total - event.done) / rate:.0f} s left" if rate and event.done < event.total else ""
        self._print(f"{self._title(event)}: {event.unit} {event.done} of {event.total}{left}{' ' + event.note if event.note else ''}")


def summarise(take: Take) -> dict:
    """The result in numbers, JSON-able: people with frames per state, focal length, seconds per frame by stage, notices, files."""
    people = []
    for person in take.people:
        group = f"people/{person['id']}"
        known = take.read(group, "state") if take.has(group, "state") else np.zeros(0, np.uint8)
        states = np.bincount(known, minlength=4)
        states[State.ABSENT] += take.samples - len(known)
        people.append({"id": person["id"], "name": person["name"], **{state.name.lower(): int(states[state]) for state in State}})
    camera = take.camera()
    focal = float(np.median(camera["focal_px"]))
    clip = take.clip
    angle = float(np.degrees(2 * np.arctan(hypot(clip["width"], clip["height"]) / 2 / focal)))
    seconds = {name: entry["seconds"] / take.samples for name, entry in take.to_json()["stages"].items()}
    return {"take": str(take.path), "frames": take.samples, "width": clip["width"], "height": clip["height"], "fps": clip["fps"], "people": people,
            "focal": {"px": focal, "mm": focal * FILM_WIDTH_MM / max(clip["width"], clip["height"]), "diagonal_degrees": angle, "method": str(camera["method"]),
                      "note": str(camera["note"])},
            "seconds_per_frame": seconds, "notices": take.notices(),
            "proxy": {"file": clip["proxy"], "reasons": clip["proxy_reasons"]} if clip.get("proxy") else None, "files": [str(take.path)]}


def print_summary(summary: dict) -> None:
    """The summary as a person reads it, on stdout."""
    focal, fps = summary["focal"], summary["fps"]
    print(f"\n{summary['take']}: {summary['frames']} frames of {summary['width']} x {summary['height']} px at {fps[0] / fps[1]:.3f} per second")
    for person in summary["people"]:
        counts = ", ".join(f"{person[state]} {state}" for state in ("visible", "occluded", "filled", "absent") if person[state])
        print(f"  {person['name']} (id {person['id']}): {counts}")
    print(f"  focal length {focal['px']:.0f} px = {focal['mm']:.1f} mm (36 mm along the longer side), {focal['method']} ({focal['note']})")
    if summary["proxy"]:
        print(f"  {summary['proxy']['file']} stands in for the clip in Blender: {'; '.join(summary['proxy']['reasons'])}")
    print("  seconds per frame: " + ", ".join(f"{name} {value:.3f}" for name, value in summary["seconds_per_frame"].items()))
    sys.stdout.flush()
