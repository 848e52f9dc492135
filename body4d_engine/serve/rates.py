# SPDX-License-Identifier: Apache-2.0
"""How fast a stage goes, and when it will be done."""

import time
from pathlib import Path

from ..events import Event, Progress, StageStarted
from ..take import Take


class Rates:
    """One run's. `of` is given every event as it comes. People are done one after the other, in the take's order."""

    def __init__(self, clock=time.monotonic):
        self._clock, self._latest, self._resumed = clock, clock(), False
        self._begun: dict[tuple, tuple[float, int]] = {}  # bar of progress -> when it began, and how far it was then
        self._people: list[int] = []

    def of(self, event: Event, take: Path) -> dict:
        """{rate: units per second, seconds_left: of the stage} for progress, None while that cannot be known; {} for other events."""
        now, before = self._clock(), self._latest
        if isinstance(event, StageStarted):
            self._latest, self._resumed = now, event.resumed
        if not isinstance(event, Progress):
            return {}
        self._latest = now
        bar = event.stage, event.person, event.unit
        if bar not in self._begun:
            self._begun[bar] = (now, event.done) if self._resumed else (before, 0)
            self._resumed = False
        since, first = self._begun[bar]
        rate = (event.done - first) / (now - since) if now > since and event.done > first else None
        left = event.total - event.done + event.total * self._people_after(event.person, take)
        return {"rate": rate and round(rate, 2), "seconds_left": round(left / rate, 1) if rate and event.unit == "frame" else None}

    def _people_after(self, person: int | None, take: Path) -> int:
        if person is None:
            return 0
        if person not in self._people:
            with Take.open(take) as opened:
                self._people = [entry["id"] for entry in opened.people]
        return len(self._people) - 1 - self._people.index(person) if person in self._people else 0
