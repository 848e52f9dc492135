# SPDX-License-Identifier: Apache-2.0
"""What a stage tells the world while it runs. Data itself travels through the take, never through an event."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Event:
    def to_json(self) -> dict:
        return {"event": type(self).__name__, **asdict(self)}


@dataclass(frozen=True)
class StageStarted(Event):
    """A stage begins: with nothing, or with the work of an earlier run that was cut short."""

    stage: str
    resumed: bool = False


@dataclass(frozen=True)
class Progress(Event):
    """`done` of `total` units, for one person or for all."""

    stage: str
    done: int
    total: int
    person: int | None = None
    unit: str = "frame"
    note: str = ""


@dataclass(frozen=True)
class Notice(Event):
    """Something the user should know of; kept in the take. Frames are clip frames, last_frame inclusive."""

    stage: str
    code: str
    message: str
    person: int | None = None
    frame: int | None = None
    last_frame: int | None = None


@dataclass(frozen=True)
class Committed(Event):
    """Samples [start, stop) of a person can be read from the take from now on."""

    stage: str
    person: int
    start: int
    stop: int


@dataclass(frozen=True)
class StageFinished(Event):
    """A stage is complete. `skipped`: it had been completed by an earlier run. Seconds are summed over runs."""

    stage: str
    seconds: float
    skipped: bool = False
