# SPDX-License-Identifier: Apache-2.0
"""Runs of samples."""

from collections.abc import Iterable

import numpy as np


def runs(values: np.ndarray, apart: int = 0, cuts: Iterable[int] = ()) -> list[tuple[int, int]]:
    """[begin, stop) of each run of one value other than 0 (or False) in values (T,), parted at the cuts (indices that begin something new).

    Runs of the same value with at most `apart` samples and no cut between them are one.
    """
    values, cuts = np.asarray(values), np.array([cut for cut in cuts if 0 < cut < len(values)], int)
    bounds = np.unique(np.concatenate([[0, len(values)], np.flatnonzero(values[1:] != values[:-1]) + 1, cuts]).astype(int))
    out: list[tuple[int, int]] = []
    for begin, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist()):
        if values[begin]:
            last = out[-1][1] if out else begin
            if out and begin - last <= apart and values[last - 1] == values[begin] and not ((cuts >= last) & (cuts <= begin)).any():
                begin = out.pop()[0]
            out.append((begin, stop))
    return out


def pieces(chosen: np.ndarray, longest: int, longest_other: int, span: tuple[int, int] | None = None) -> list[tuple[int, int, bool]]:
    """(begin, stop, whether chosen) of successive pieces of chosen (T,) bool that are chosen as a whole or not at all, at most so many samples each.
    span: [begin, stop) that they make up, in place of everything."""
    low, high = span or (0, len(chosen))
    bounds = np.unique([low, high, *(low + 1 + np.flatnonzero(chosen[low + 1 : high] != chosen[low : high - 1]))]).tolist() if high > low else []
    steps = [longest if chosen[first] else longest_other for first in bounds[:-1]]
    return [(begin, min(begin + step, stop), bool(chosen[first]))
            for first, stop, step in zip(bounds, bounds[1:], steps) for begin in range(first, stop, step)]
