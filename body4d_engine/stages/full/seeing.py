# SPDX-License-Identifier: Apache-2.0
"""From sightings to states: who is visible, who is hidden, who is not there. numpy only."""

from collections.abc import Iterator

import numpy as np

from ...runs import runs
from ...take import State
from ...tracking.edges import at_edges

HIDDEN = 0.3  # of the area that is usual around a moment: somebody of whom so little is left is hidden
USUAL_S = 1.0  # seconds before and after in which that is looked up
BEHIND_S = 4.0  # somebody unseen for less, between two sightings, is hidden and not gone
BLOCK = 4096


def states(there: np.ndarray, area: np.ndarray, box: np.ndarray, shot: np.ndarray, seconds: float, size: tuple[int, int]) -> np.ndarray:
    """state (T,) of one person. there (T,) bool, area (T,) px and box (T, 4) px where there, shot (T,) the number of the shot, `seconds` per sample, size
    (width, height) of the picture."""
    state = np.where(there, State.VISIBLE, State.ABSENT).astype(np.uint8)
    state[there & (area < HIDDEN * _usual(there, area, shot, max(1, round(USUAL_S / seconds))))] = State.OCCLUDED
    for begin, stop in _gaps(there, shot):
        out_and_back = (at_edges(box[begin - 1], size) & at_edges(box[stop], size)).any()
        if (stop - begin) * seconds <= BEHIND_S and not out_and_back:
            state[begin:stop] = State.OCCLUDED
    return state


def boxes_between(box: np.ndarray, there: np.ndarray, state: np.ndarray) -> np.ndarray:
    """box (T, 4) with those of hidden samples on the way between the sightings before and after."""
    box, known = box.copy(), np.flatnonzero(there)
    hidden = np.flatnonzero(~there & (state == State.OCCLUDED))
    for k in range(4):
        box[hidden, k] = np.interp(hidden, known, box[known, k]) if len(hidden) else 0
    return box


def absences(state: np.ndarray, box: np.ndarray, shot: np.ndarray, seconds: float, size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """[begin, stop) of each time over BEHIND_S that a person is not there, within a shot, after they were seen inside the picture and not at its edge."""
    for begin, stop in runs(state == State.ABSENT, cuts=_cuts(shot)):
        seen_before = begin > 0 and shot[begin - 1] == shot[begin] and state[begin - 1] != State.ABSENT
        if seen_before and (stop - begin) * seconds > BEHIND_S and not at_edges(box[begin - 1], size).any():
            yield begin, stop


def _cuts(shot: np.ndarray) -> list[int]:
    return (1 + np.flatnonzero(np.diff(shot))).tolist()


def _gaps(there: np.ndarray, shot: np.ndarray) -> Iterator[tuple[int, int]]:
    """[begin, stop) of each time between two sightings of a shot."""
    for begin, stop in runs(~there, cuts=_cuts(shot)):
        if 0 < begin and stop < len(there) and shot[begin - 1] == shot[begin] == shot[stop]:
            yield begin, stop


def _usual(there: np.ndarray, area: np.ndarray, shot: np.ndarray, reach: int) -> np.ndarray:
    """(T,) the median area of the sightings at most `reach` samples away, in the same shot; 0 where there are none."""
    usual = np.zeros(len(area))
    for first, last in zip([0, *_cuts(shot)], [*_cuts(shot), len(shot)]):
        values = np.pad(np.where(there[first:last], area[first:last], np.inf).astype(np.float64), reach, constant_values=np.inf)
        windows = np.lib.stride_tricks.sliding_window_view(values, 2 * reach + 1)
        for begin in range(0, last - first, BLOCK):
            part = np.sort(windows[begin : begin + BLOCK], 1)
            count = np.isfinite(part).sum(1)
            middle = part[np.arange(len(part)), np.maximum(count - 1, 0) // 2]
            usual[first + begin : first + begin + len(part)] = np.where(count > 0, middle, 0)
    return usual
