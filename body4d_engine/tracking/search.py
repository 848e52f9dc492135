# SPDX-License-Identifier: Apache-2.0
"""Where the detector looks: at the whole picture, closely at people whom that shows badly, and in turn at parts of it and with it turned, for people
who have not been found yet because they are small or not upright."""

from dataclasses import dataclass

import numpy as np

from ..models.people_detector import Detection, keypoint_similarity

WHOLE_PX, CLOSE_PX, TURNED_PX = 512, 256, 384  # network px along the longer side of the whole picture or a part, of a close-up, of the turned picture
LEAST_PX = 40  # network px from head to feet below which the detector hardly sees people; it is at its best from 80 on
CLOSE_MARGIN = 1.5  # side of a close-up per extent of the people in it
LEAST_SIDE = 16  # px of a close-up
GAIN = 1.3  # a close-up of people who stand upright must enlarge them so much
PART_PX, MOST_PARTS, PART_OVERLAP = 480, 4, 0.2  # parts are about so wide, px, but no more in a row than that; by so much of it they overlap
NEW_SCORE = 0.4  # of somebody found in a part or in the turned picture: what is nobody gets up to 0.35 there
BETTER = 0.1  # by how much they must score more than whom the whole upright picture shows there
SAME_BOX, SAME_BODY = 0.4, 0.3  # overlap of boxes, similarity of keypoints from which on two findings are one


@dataclass(frozen=True)
class Look:
    """One look for newcomers: at `part` x0, y0, x1, y1 px (None: everything), turned by `turns` quarters anticlockwise, with `px` network px."""

    part: tuple[int, int, int, int] | None
    turns: int
    px: int


def looks_for_newcomers(width: int, height: int) -> list[Look]:
    """What to look at besides the whole upright picture, in the order in which to do so."""
    turned = [Look(None, turns, TURNED_PX) for turns in (2, 1, 3)]
    count = min(MOST_PARTS, -(-max(width, height) // PART_PX))
    if count == 1:
        return turned
    w, h = (round(side / count * (1 + PART_OVERLAP)) for side in (width, height))
    corners = [(int(x), int(y)) for y in np.linspace(0, height - h, count) for x in np.linspace(0, width - w, count)]
    parts = [Look((x, y, x + w, y + h), 0, WHOLE_PX) for x, y in corners]
    share = -(-len(parts) // len(turned))
    return [look for k, turn in enumerate(turned) for look in (turn, *parts[k * share : (k + 1) * share])]


def closely(detector, rgb: np.ndarray, tracks: list, near: list[list], looking: bool) -> list[Detection]:
    """Close-ups in a picture (H, W, 3) of tracked people whom the whole of it shows badly. near: for each track those who touch it.

    Where the detector is `looking` anyway: who is not upright, or small and near others, lost, or too small for the whole picture. In every picture:
    who is upside down, of whom the landmarker takes left for right while the detector, which sees them turned, does not.
    """
    height, width = rgb.shape[:2]
    found = []
    for group in groups(tracks, near):
        turns = quarters(group[0].roi.angle)
        if not (looking or turns == 2):
            continue
        points = np.concatenate([track.expected[:, :2] for track in group])
        low, high = points.min(0), points.max(0)
        side = CLOSE_MARGIN * float((high - low).max())
        small = side * GAIN * WHOLE_PX < CLOSE_PX * max(width, height)
        hard = len(group) > 1 or group[0].missed > 0 or _extent(group[0]) * WHOLE_PX < LEAST_PX * max(width, height)
        if turns or (small and hard):
            x0, y0 = np.clip((low + high - side) / 2, 0, [width, height]).astype(int).tolist()
            x1, y1 = np.clip((low + high + side) / 2, 0, [width, height]).astype(int).tolist()
            if min(x1 - x0, y1 - y0) >= LEAST_SIDE:
                found += detector.detect(rgb, (x0, y0, x1, y1), turns, CLOSE_PX)
    return found


def widely(detector, rgb: np.ndarray, tracks: list, close: list[Detection], looks: list[Look] = ()) -> list[Detection]:
    """Everybody found in a picture (H, W, 3): in the whole of it; in close-ups (`closely`), which count for more; and by looks for newcomers."""
    height, width = rgb.shape[:2]
    found = [d for d in detector.detect(rgb) if not any(_same(d, c) for c in close)] + close
    known = [_box_around(track.expected) for track in tracks]
    for look in looks:
        for new in detector.detect(rgb, look.part, look.turns, look.px):
            if new.score < NEW_SCORE or any(overlap(box, new.box) >= SAME_BOX for box in known) or (look.part and _cut(new, look.part, width, height)):
                continue
            rivals = [d for d in found if _same(d, new)]
            if all(d.score + BETTER < new.score for d in rivals):
                found = [d for d in found if not any(d is rival for rival in rivals)] + [new]
    return found


def quarters(angle: float) -> int:
    """By how many quarters anticlockwise the picture has to be turned for a body at this angle (as in `Roi`) to be upright."""
    return round(angle / (np.pi / 2)) % 4


def groups(tracks: list, near: list[list]) -> list[list]:
    """The tracks by who touches whom, directly or through others, and is turned alike."""
    touched, left, found = {track.id: others for track, others in zip(tracks, near, strict=True)}, {track.id for track in tracks}, []
    for track in tracks:
        group, todo = [], [track]
        while todo:
            one = todo.pop()
            if one.id in left and quarters(one.roi.angle) == quarters(track.roi.angle):
                left.discard(one.id)
                group.append(one)
                todo += touched[one.id]
        if group:
            found.append(group)
    return found


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes (4,)."""
    w, h = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = max(0.0, float(w)) * max(0.0, float(h))
    return shared / max(float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - shared, 1e-9)


def _same(a: Detection, b: Detection) -> bool:
    return overlap(a.box, b.box) >= SAME_BOX or keypoint_similarity(a, b) >= SAME_BODY


def _cut(d: Detection, part: tuple[int, int, int, int], width: int, height: int) -> bool:
    """Whether somebody reaches the border of a part where the picture goes on beyond it."""
    margin = 0.05 * float((d.box[2:] - d.box[:2]).max())
    beyond = np.array([part[0] > 0, part[1] > 0, part[2] < width, part[3] < height])
    inward = np.concatenate([d.box[:2] - part[:2], part[2:] - d.box[2:]])
    return bool((beyond & (inward < margin)).any())


def _box_around(keypoints: np.ndarray) -> np.ndarray:
    return np.concatenate([keypoints[:, :2].min(0), keypoints[:, :2].max(0)])


def _extent(track) -> float:
    box = _box_around(track.expected)
    return float((box[2:] - box[:2]).max())
