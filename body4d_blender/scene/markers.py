# SPDX-License-Identifier: GPL-3.0-or-later
"""Timeline markers where a person is hidden or made up, so that an animator knows where to look."""

import numpy as np

WORDS = {2: "occluded", 3: "filled"}  # State.OCCLUDED, State.FILLED
MOST = 12  # per person and state: more would only cover the timeline


def spans(state: np.ndarray, kind: int, gap: int, most: int = MOST) -> list[tuple[int, int]]:
    """First and last sample of each span of `kind`; spans at most `gap` samples apart are one, and so are more where there are too many."""
    at = np.flatnonzero(np.asarray(state) == kind)
    if not len(at):
        return []
    while True:
        cuts = np.flatnonzero(np.diff(at) > gap + 1)
        if len(cuts) < most:
            return [(int(a), int(b)) for a, b in zip(at[np.append(0, cuts + 1)], at[np.append(cuts, len(at) - 1)])]
        gap = 2 * gap + 1


def add_markers(scene, name: str, state: np.ndarray, times: np.ndarray, gap: int) -> list[list]:
    """Mark the start of every occluded and filled span of a person. Returns [name, frame] of each marker."""
    made = []
    for kind, word in WORDS.items():
        for first, _ in spans(state, kind, gap):
            marker = scene.timeline_markers.new(f"{name} {word}", frame=int(round(times[first])))
            made.append([marker.name, marker.frame])
    return made


def remove_markers(scene, made: list[list]) -> None:
    """Remove markers that an import made, one for each: another take may have made the same. One that the user moved or renamed is the user's."""
    for name, frame in made:
        marker = next((m for m in scene.timeline_markers if (m.name, m.frame) == (name, frame)), None)
        if marker is not None:
            scene.timeline_markers.remove(marker)
