# SPDX-License-Identifier: Apache-2.0
"""How fast a stage goes, and when it will be done."""

import time
from pathlib import Path

from ..events import Event, Progress, StageStarted
from ..take import Take, span_of


class Rates:
    """One run's. `of` is given every event as it comes. People are done one after the other, in the take's order."""

    def __init__(self, clock=time.monotonic):
        self._clock, self._latest, self._resumed = clock, clock(), False
        self._begun: dict[tuple, tuple[float, int]] = {}  # bar of progress -> when it began, and how far it was then
        self._work: dict[int, int] = {}  # person -> samples to be solved

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
        left = event.total - event.done + event.total * self._work_after(event.person, take)
        return {"rate": rate and round(rate, 2), "seconds_left": round(left / rate, 1) if rate and event.unit == "frame" else None}

    def _work_after(self, person: int | None, take: Path) -> float:
        """How many times as much those after a person are as that person."""
        if person is None:
            return 0.0
        if person not in self._work:
            with Take.open(take) as opened:
                self._work = {entry["id"]: self._samples(opened, entry["id"]) for entry in opened.people}
        people = list(self._work)
        after = people[people.index(person) + 1 :] if person in people else []
        return sum(self._work[other] for other in after) / max(self._work.get(person, 0), 1)

    @staticmethod
    def _samples(take: Take, person: int) -> int:
        """Of how many samples a stage makes something for the person."""
        group = f"people/{person}"
        begin, stop = span_of(take.read(group, "state", "track")) if take.has(group, "state", "track") else (0, take.samples)
        return stop - begin
