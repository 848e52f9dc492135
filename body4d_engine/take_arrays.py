# SPDX-License-Identifier: Apache-2.0
"""The growing arrays of a take: their files, and how they are read. numpy and the standard library only."""

import struct
from pathlib import Path

import numpy as np

from .errors import TakeError
from .take_json import load_npz

PC2_HEADER = struct.Struct("<12siiffi")
PC2_COUNT_OFFSET = 28
# Arrays that are 0 where there are no records; all others repeat.
NOTHING_OUTSIDE = ("state", "confidence", "keypoints_px", "contact", "firm", "places", "hands_px", "hands_m", "face_px", "face_score")


class BySample:
    """An array of a person, indexed by sample like an array (T, *shape), though it holds records only of the samples from `first` on.

    Before the first and after the last record either of them repeats (zeros where there is none at all), or 0 stands for nothing: see
    NOTHING_OUTSIDE. Its length is how many samples are known by now. Nothing is copied that is not asked for, and what lies within the
    records not even then.
    """

    def __init__(self, records: np.ndarray, first: int, length: int, repeats: bool):
        self.records, self.first, self._length, self._repeats = records, first, length, repeats

    @property
    def span(self) -> tuple[int, int]:
        """[begin, stop) of the samples that have a record."""
        return self.first, self.first + len(self.records)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._length, *self.records.shape[1:]

    @property
    def ndim(self) -> int:
        return self.records.ndim

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index) -> np.ndarray:
        """What an array (T, *shape) gives for an index of its first axis: a sample, a slice, indices or flags."""
        if isinstance(index, slice):
            begin, stop, step = index.indices(self._length)
            if step == 1 and self.first <= begin <= stop <= self.span[1]:
                return self.records[begin - self.first : stop - self.first]
        place = self._samples(index) - self.first
        if not len(self.records):
            return np.zeros((*place.shape, *self.records.shape[1:]), self.records.dtype)
        inside = np.clip(place, 0, len(self.records) - 1)
        if self._repeats:
            return self.records[inside]
        there = np.expand_dims(place == inside, tuple(range(place.ndim, place.ndim + self.records.ndim - 1)))
        return np.where(there, self.records[inside], self.records.dtype.type(0))

    def _samples(self, index) -> np.ndarray:
        """What np.arange(T)[index] gives, without making that."""
        if isinstance(index, slice):
            return np.arange(*index.indices(self._length))
        index = np.asarray(index)
        if index.dtype == bool:
            if index.shape != (self._length,):
                raise IndexError(f"flags of {index.shape} for {self._length} samples")
            return np.flatnonzero(index)
        if ((index < -self._length) | (index >= self._length)).any():
            raise IndexError(f"sample {index} of {self._length}")
        return np.where(index < 0, index + self._length, index)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self[:], dtype)


class Earlier:
    """The completed result of an earlier run of a stage, in a take of so many samples."""

    def __init__(self, path: Path, entry: dict, samples: int):
        self._path, self._entry, self._samples = path, entry, samples

    def corrections(self, person: int) -> list:
        """What of the person was corrected in it, as take.json has it."""
        return self._entry.get("corrections", {}).get(str(person), [])

    def has(self, group: str, name: str) -> bool:
        return f"{group}/{name}" in self._entry["arrays"]

    def read_npz(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of a whole file. Raises KeyError where there is none, OSError and ValueError where it is damaged."""
        known = self._entry["files"][name]
        return load_npz(self._path / known.get("file", name), known)

    def covers(self, group: str, name: str, span: tuple[int, int], shape: tuple[int, ...]) -> bool:
        """Whether it has records (*shape,) of exactly the samples [begin, stop) of span in this array."""
        if not self.has(group, name):
            return False
        array = self.by_sample(group, name)
        return array.span == tuple(span) and array.records.shape[1:] == tuple(shape)

    def by_sample(self, group: str, name: str) -> BySample:
        """An array by sample."""
        return by_sample(self._path, self._entry["arrays"][f"{group}/{name}"], name, self._samples)


def by_sample(path: Path, array: dict, name: str, samples: int) -> BySample:
    """An array entry of the take at `path`, of so many samples, by sample. Raises TakeError where its file is gone."""
    records = map_array(path, array)
    first, stop = array.get("span", (0, samples))
    whole = len(records) >= stop - first
    return BySample(records, first, samples if whole else first + len(records) if len(records) else 0, name not in NOTHING_OUTSIDE)


def map_array(path: Path, array: dict) -> np.ndarray:
    """The committed records (n, *shape) of an array entry of the take at `path`, mapped read-only. Raises TakeError where they are gone."""
    file, size = path / array["file"], record_bytes(array)
    if array["count"] and not file.is_file():
        raise TakeError(f"{file} is missing.", "Run it again: only what is missing is made anew.", "take_damaged")
    there = (file.stat().st_size - header_bytes(array)) // size if file.is_file() else 0
    count = max(0, min(array["count"], there))
    shape = (count, *array["shape"])
    if 0 in shape:
        return np.empty(shape, array["dtype"])
    return np.memmap(file, array["dtype"], "r", header_bytes(array), shape)


def record_bytes(array: dict) -> int:
    """Bytes of one record of an array entry."""
    return int(np.prod(array["shape"], dtype=np.int64)) * np.dtype(array["dtype"]).itemsize


def header_bytes(array: dict) -> int:
    """Bytes before the first record."""
    return PC2_HEADER.size if array["pc2"] else 0
