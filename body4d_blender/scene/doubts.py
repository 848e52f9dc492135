# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a person's motion deserves a look, and why. No bpy."""

from typing import NamedTuple

import numpy as np

from body4d_engine.runs import runs
from body4d_engine.take import State, Take

from ..wording import message_for_user

CONFIDENT = 0.5  # as in the report: samples below are doubtful
MERGE_S = 0.1  # stretches of one kind that are nearer to each other are one


class Doubt(NamedTuple):
    """Clip frames from `first` to `last`, and why, in words."""

    first: int
    last: int
    reason: str


def find_doubts(take: Take, person: int, state: np.ndarray, confidence: np.ndarray | None) -> list[Doubt]:
    """Of one person, in the order of frames: hidden, made up, of low confidence, and whatever a stage said of a stretch. state (n,),
    confidence (n,) 0..1 or None."""
    frames, state = take.frames, np.asarray(state)
    gap = max(0, round(MERGE_S * take.clip["fps"][0] / take.clip["fps"][1] / frames.step) - 1)
    found = [Doubt(frames[begin], frames[stop - 1], reason) for kind, reason in ((State.OCCLUDED, "hidden: the pose follows the frames around it"),
                                                                                (State.FILLED, "not seen: made up between the frames around it"))
             for begin, stop in runs(state == kind)]
    if confidence is not None:
        for begin, stop in runs((confidence < CONFIDENT) & (state == State.VISIBLE), gap):
            found.append(Doubt(frames[begin], frames[stop - 1], f"low confidence, down to {100 * confidence[begin:stop].min():.0f} %"))
    for notice in take.notices():
        if notice.get("person") == person and notice.get("frame") is not None:
            last = notice.get("last_frame")
            found.append(Doubt(notice["frame"], notice["frame"] if last is None else last, message_for_user(notice["message"])))
    return sorted(found)
