# SPDX-License-Identifier: Apache-2.0
"""What tracking finds, one row per person and sample, kept in the take meanwhile; and each person's arrays, made of it."""

import zlib
from collections.abc import Iterator

import numpy as np

from ...masks import decode_mask, encode_mask
from ...take import Take
from ...tracking import appearance
from .claims import Owned
from .seeing import boxes_between, states

ROWS, PICTURES = "tracklets/rows", "tracklets/pictures"
ROW_ARRAYS = {"sample": ("i4", ()), "person": ("i4", ()), "score": ("f4", ()), "area": ("i4", ()), "box": ("f4", (4,)), "picture": ("i4", ()),
              "looks": ("f4", (appearance.SIZE,))}
PICTURE_ARRAYS = {"backward": ("u1", ()), "sure_index": ("i8", (4,)), "sure_bytes": ("u1", ())}
ARRAYS = {"state": ("u1", ()), "confidence": ("f4", ()), "box": ("f4", (4,))}
MASK_ARRAYS = {"mask_bytes": ("u1", ()), "mask_index": ("i8", (6,))}  # as Take.append_mask writes them
SEEN = 0.5  # the probability above which the network calls somebody seen
OWN = 0.25  # of the pixels that somebody claims: who has less of them is somebody else's double, or hidden behind them
BLOCK = 4096


def group_of(person: int) -> str:
    return f"people/{person}"


def create_rows(take: Take) -> None:
    for group, arrays in ((ROWS, ROW_ARRAYS | MASK_ARRAYS), (PICTURES, PICTURE_ARRAYS)):
        for name, (dtype, shape) in arrays.items():
            take.create_array(group, name, dtype, shape)


def append_rows(take: Take, sample: int, owned: Owned, backward: bool, rgb: np.ndarray | None = None) -> list[int]:
    """Keep those who are seen in a sample; returns who they are. rgb (H, W, 3): the picture, where looks are to be kept."""
    seen = [p for p in owned.people if owned.score[p] > SEEN and owned.area[p] > 0 and owned.area[p] >= OWN * owned.claimed[p]]
    if not seen:
        return []
    for person in seen:
        (x, y, right, bottom), mask = owned.box[person], owned.mask(person)
        data, (dx, dy, w, h) = encode_mask(mask)
        offset = take.count(ROWS, "mask_bytes", "track")
        values = {"sample": sample, "person": person, "score": owned.score[person], "area": owned.area[person], "box": owned.box[person],
                  "picture": take.count(PICTURES, "backward", "track"), "mask_index": [offset, len(data), x + dx, y + dy, w, h],
                  "looks": np.zeros(appearance.SIZE) if rgb is None else appearance.describe(rgb[y:bottom, x:right], mask)}
        for name, value in values.items():
            take.append(ROWS, name, np.asarray(value)[None])
        take.append(ROWS, "mask_bytes", np.frombuffer(data, np.uint8))
    sure = zlib.compress(owned.sure.tobytes(), 1)
    take.append(PICTURES, "backward", [backward])
    take.append(PICTURES, "sure_index", [[take.count(PICTURES, "sure_bytes", "track"), len(sure), *owned.sure.shape]])
    take.append(PICTURES, "sure_bytes", np.frombuffer(sure, np.uint8))
    return seen


def blocks(take: Take, *names: str) -> Iterator[tuple[int, list[np.ndarray]]]:
    """The rows' arrays of these names, BLOCK rows at a time, with the number of the first row."""
    arrays = [take.read(ROWS, name, "track") for name in names]
    for start in range(0, len(arrays[0]), BLOCK):
        yield start, [np.array(array[start : start + BLOCK]) for array in arrays]


class Assembler:
    """Writes each person's arrays for a stretch of samples. `people`: the id that each person gets, by the id in the rows."""

    def __init__(self, take: Take, people: dict[int, int], shot: np.ndarray, seconds_per_sample: float):
        """shot (T,): the number of each sample's shot."""
        self.take, self.people, self.shot, self.seconds = take, people, shot, seconds_per_sample
        self.row = {person: np.full(take.samples, -1, np.int32) for person in people.values()}
        area = {person: np.zeros(take.samples, np.int32) for person in people.values()}
        box = {person: np.zeros((take.samples, 4), np.float32) for person in people.values()}
        for start, (sample, person, size, corners) in blocks(take, "sample", "person", "area", "box"):
            for number, wanted in people.items():
                mine = np.flatnonzero(person == number)
                self.row[wanted][sample[mine]] = mine + start
                area[wanted][sample[mine]], box[wanted][sample[mine]] = size[mine], corners[mine]
        size = (take.clip["width"], take.clip["height"])
        self.state = {p: states(self.row[p] >= 0, area[p], box[p], shot, seconds_per_sample, size) for p in self.row}
        self.box = {p: boxes_between(box[p], self.row[p] >= 0, self.state[p]) for p in self.row}
        self._rows = {name: take.read(ROWS, name, "track") for name in ROW_ARRAYS | MASK_ARRAYS}
        self._pictures = {name: take.read(PICTURES, name, "track") for name in PICTURE_ARRAYS}

    def create(self) -> None:
        for person in self.row:
            for name, (dtype, shape) in (ARRAYS | MASK_ARRAYS).items():
                self.take.create_array(group_of(person), name, dtype, shape)

    def write(self, start: int, stop: int) -> None:
        for person, row in self.row.items():
            there = row[start:stop] >= 0
            score = np.zeros(stop - start, np.float32)
            score[there] = self._rows["score"][row[start:stop][there]]
            for name, values in (("state", self.state[person][start:stop]), ("confidence", score), ("box", self.box[person][start:stop])):
                self.take.append(group_of(person), name, values)
        for sample in range(start, stop):
            self._write_masks({person: int(row[sample]) for person, row in self.row.items()})

    def _write_masks(self, rows: dict[int, int]) -> None:
        """`rows`: the row of each person at one sample, -1 for nobody."""
        pictures = {row: int(self._rows["picture"][row]) for row in rows.values() if row >= 0}
        if len(set(pictures.values())) > 1:  # one way forward, one backward: they do not know of each other
            masks = self._without_overlap(pictures)
            for person, row in rows.items():
                self.take.append_mask(group_of(person), masks.get(row))
            return
        for person, row in rows.items():
            offset, length, *box = (int(value) for value in self._rows["mask_index"][row]) if row >= 0 else (0, 0, 0, 0, 0, 0)
            group = group_of(person)
            self.take.append(group, "mask_index", [[self.take.count(group, "mask_bytes", "track"), length, *box]])
            self.take.append(group, "mask_bytes", self._rows["mask_bytes"][offset : offset + length])

    def _without_overlap(self, pictures: dict[int, int]) -> dict[int, np.ndarray]:
        """Masks by row; a pixel that both pictures give to somebody is left to the higher logit, and to the way forward where they are equal."""
        height, width = self.take.clip["height"], self.take.clip["width"]
        masks, taken = {}, {}
        for row, picture in pictures.items():
            offset, length, *box = (int(value) for value in self._rows["mask_index"][row])
            masks[row] = decode_mask(self._rows["mask_bytes"][offset : offset + length].tobytes(), box, height, width)
            taken[picture] = taken.get(picture, False) | masks[row]
        one, other = sorted(taken)
        y, x = np.nonzero(taken[one] & taken[other])
        first, second = (sure[y * sure.shape[0] // height, x * sure.shape[1] // width] for sure in map(self._sure, (one, other)))
        lost = {one: first < second, other: first >= second}
        for row, picture in pictures.items():
            masks[row][y[lost[picture]], x[lost[picture]]] = False
        return masks

    def _sure(self, picture: int) -> np.ndarray:
        offset, length, rows, columns = (int(value) for value in self._pictures["sure_index"][picture])
        data = zlib.decompress(self._pictures["sure_bytes"][offset : offset + length].tobytes())
        return np.frombuffer(data, np.uint8).reshape(rows, columns)
