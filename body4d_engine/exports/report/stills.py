# SPDX-License-Identifier: Apache-2.0
"""Pictures that show at a glance where the result is good and where it is not."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from ...render.overlay import BACKDROP, Cast
from ...take import State, Take
from .content import PersonReport
from .drawing import jpeg

OVERVIEWS, OVERVIEW_WIDTH, OVERVIEW_HEIGHT = 3, 760, 620  # px at most
CROP_WIDTH, CROP_HEIGHT = 300, 260
MOST_CROPS = 60  # for everyone together, but everyone gets LEAST_CROPS
LEAST_CROPS, ENOUGH_CROPS = 2, 8
MARGIN = 0.15  # around a person, of their larger side
APART_S = 0.4  # pictures that are nearer to each other show the same; in short clips they may be
QUALITY = 80


@dataclass(frozen=True)
class Still:
    """A picture to take: of everyone (person None), or of one person: the footage, and beside it the same with the meshes."""

    sample: int
    person: int | None
    caption: str


@dataclass(frozen=True)
class Shot:
    """A picture that was taken, as JPEG."""

    still: Still
    data: bytes
    width: int
    height: int


def choose(people: list[PersonReport], notices: list[dict], frames: range, fps: float) -> list[Still]:
    """The most telling samples: of everyone, then person by person the best and, in the order of frames, the doubtful."""
    found = [Still(sample, None, "") for sample in _overviews(people, len(frames))]
    most = int(np.clip(MOST_CROPS // max(len(people), 1), LEAST_CROPS, ENOUGH_CROPS))
    for person in people:
        found += _of(person, notices, frames, fps, most)
    return found


def _overviews(people: list[PersonReport], samples: int) -> list[int]:
    """In each third of the take the sample where most people are seen best."""
    seen = np.zeros(samples)
    for person in people:
        confidence = person.curve("confidence")
        seen += (person.state == State.VISIBLE) * (1 + (0 if confidence is None else np.nan_to_num(confidence.values)))
    edges = np.linspace(0, samples, min(OVERVIEWS, samples) + 1).astype(int)
    found = []
    for begin, stop in zip(edges[:-1], edges[1:]):
        off_middle = np.abs(np.arange(begin, stop) - (begin + stop - 1) / 2) / (stop - begin)
        found.append(int(begin + (seen[begin:stop] - 0.4 * off_middle).argmax()))  # of equals the one amid its third
    return found


def _of(person: PersonReport, notices: list[dict], frames: range, fps: float, most: int) -> list[Still]:
    there = person.state != State.ABSENT
    if person.missing or not there.any():
        return []
    confidence = person.curve("confidence")
    sure = np.where(person.state == State.VISIBLE, 1.0 if confidence is None else np.nan_to_num(confidence.values), -1.0) - 0.5 * person.doubtful()
    wanted = [Still(int(sure.argmax()), person.id, "most confident")]
    kinds_seen: dict[str, int] = {}
    doubts = []
    for doubt in sorted(person.doubts, key=lambda doubt: -doubt.severity):  # the worst of every kind first, then the second of every kind ...
        doubts.append((kinds_seen.setdefault(doubt.kind, 0), -doubt.severity, Still(doubt.worst, person.id, doubt.kind)))
        kinds_seen[doubt.kind] += 1
    told = [Still(frames.index(frame), person.id, notice["code"].replace("_", " ")) for notice in notices if notice["person"] == person.id
            for frame in [notice["frame"]] if frame is not None and frame in frames]
    ranked = sorted(doubts, key=lambda entry: entry[:2])
    candidates = [still for _, _, still in ranked[: most - 2]] + told[:2] + [still for _, _, still in ranked[most - 2 :]] + told[2:]
    apart = min(APART_S * fps, len(frames) / (3 * most))
    for still in candidates:
        if len(wanted) >= most:
            break
        if there[still.sample] and all(abs(still.sample - other.sample) >= apart for other in wanted):
            wanted.append(still)
    return wanted[:1] + sorted(wanted[1:], key=lambda still: still.sample)


def take_shots(take: Take, clip, wanted: list[Still]) -> Iterator[Shot]:
    """In the order of samples, so that the clip is read once from its beginning to its end. `clip` None: over grey."""
    cast, frames = Cast(take), take.frames
    samples = sorted({still.sample for still in wanted})
    footage = clip.iterate([frames[sample] for sample in samples]) if clip is not None else ((None, _grey(take)) for _ in samples)
    for sample, (_, picture) in zip(samples, footage):
        drawn = cast.draw(picture, sample)
        for still in (still for still in wanted if still.sample == sample):
            if still.person is None:
                image = _fitted(drawn, OVERVIEW_WIDTH, OVERVIEW_HEIGHT)
            else:
                x0, y0, x1, y1 = _around(cast, still.person, sample, picture.shape)
                parts = [_fitted(image[y0:y1, x0:x1], CROP_WIDTH, CROP_HEIGHT) for image in ((picture, drawn) if clip is not None else (drawn,))]
                image = np.hstack([parts[0], *(part for other in parts[1:] for part in (np.full((len(other), 3, 3), 128, np.uint8), other))])
            yield Shot(still, jpeg(image, QUALITY), image.shape[1], image.shape[0])


def _grey(take: Take) -> np.ndarray:
    return np.full((take.clip["height"], take.clip["width"], 3), BACKDROP, np.uint8)


def _around(cast: Cast, person: int, sample: int, shape) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 px of the person with some margin, within the picture; the whole picture where they are outside."""
    height, width = shape[:2]
    vertices = cast.vertices(person, sample)
    vertices = vertices[vertices[:, 2] > 0.05]
    if not len(vertices):
        return 0, 0, width, height
    points = vertices[:, :2] / vertices[:, 2:] * cast.focal_px[sample] + cast.principal_px[sample]
    low, high = points.min(0), points.max(0)
    margin = MARGIN * float((high - low).max()) + 8
    x0, y0 = np.clip(low - margin, 0, (width, height)).astype(int).tolist()
    x1, y1 = np.clip(high + margin, 0, (width, height)).astype(int).tolist()
    return (x0, y0, x1, y1) if x1 - x0 >= 8 and y1 - y0 >= 8 else (0, 0, width, height)


def _fitted(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """The picture made smaller, or up to three times larger, to fit."""
    scale = min(width / image.shape[1], height / image.shape[0], 3)
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    return cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
