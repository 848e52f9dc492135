# SPDX-License-Identifier: Apache-2.0
"""Reads and checks the .npz files that takes are compared with."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from ..errors import Body4DError

FORMAT_HINT = "See docs/evaluate.md for what such a file holds."


class Npz:
    """The arrays of one .npz file, checked as they are asked for. Every defect is a Body4DError that names the file and the array."""

    def __init__(self, path, what: str):
        """what: 'reference' or 'tracking truth', for the words and codes of errors."""
        self.path, self.what = Path(path), what
        if not self.path.is_file():
            raise Body4DError(f"There is no {what} at {self.path}.", FORMAT_HINT, self._code("missing"))
        try:
            if not zipfile.is_zipfile(self.path):
                raise zipfile.BadZipFile("it is no .npz file")
            with np.load(self.path, allow_pickle=False) as file:
                self.arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError, KeyError, EOFError, AttributeError, NotImplementedError, zlib.error, zipfile.BadZipFile) as error:
            raise Body4DError(f"{self.path} cannot be read as a {what}: {error}", "It has to be a .npz file without pickled objects. " + FORMAT_HINT,
                              self._code("unreadable")) from error

    def _code(self, name: str) -> str:
        return f"{self.what.split()[0]}_{name}"

    def error(self, message: str, code: str = "wrong", hint: str = FORMAT_HINT) -> Body4DError:
        return Body4DError(f"{self.path}: {message}", hint, self._code(code))

    def need(self, *names: str) -> None:
        missing = [name for name in names if name not in self.arrays]
        if missing:
            raise self.error(f"{' and '.join(missing)} missing; it has {', '.join(self.arrays) or 'nothing'}.", "incomplete")

    def numbers(self, name: str, *shapes: tuple, nan: bool = False) -> np.ndarray | None:
        """The array as floating numbers (bool and integers too), or None where it is not there. shapes: allowed ones, with a word for any length.

        nan: whether it may hold NaN; infinite numbers are never allowed.
        """
        if name not in self.arrays:
            return None
        array = self.arrays[name]
        if array.dtype.kind not in "fiub":
            raise self.error(f"{name} holds {array.dtype}, not numbers.")
        if not any(len(shape) == array.ndim and all(isinstance(n, str) or n == m for n, m in zip(shape, array.shape)) for shape in shapes):
            wanted = " or ".join("(" + ", ".join(map(str, shape)) + ")" for shape in shapes)
            raise self.error(f"{name} has the shape {array.shape}, not {wanted}.")
        array = array if array.dtype == np.float32 else array.astype(np.float64)
        bad = np.isinf(array) if nan else ~np.isfinite(array)
        if bad.any():
            place = tuple(int(i) for i in np.argwhere(bad)[0])
            raise self.error(f"{name}{list(place)} is {array[place]}, which is no number.", "not_finite")
        return array

    def texts(self, name: str, length: int | None = None) -> tuple[str, ...]:
        """The array of different words, `length` of them."""
        array = self.arrays[name]
        if array.dtype.kind != "U" or array.ndim != 1:
            raise self.error(f"{name} has to be a list of words, not {array.dtype} of shape {array.shape}.")
        words = tuple(str(word) for word in array)
        if length is not None and len(words) != length:
            raise self.error(f"{name} has {len(words)} words for {length} columns.")
        if len(set(words)) != len(words):
            raise self.error(f"{name} says the same twice: {', '.join(sorted({w for w in words if words.count(w) > 1}))}.")
        return words

    def frames(self) -> np.ndarray:
        """(T,) int, rising."""
        frames = self.numbers("frames", ("T",))
        if not len(frames):
            raise self.error("frames is empty.")
        if (frames != np.round(frames)).any() or (frames < 0).any():
            raise self.error("frames has to hold whole frame numbers of the clip from 0.")
        if (np.diff(frames) <= 0).any():
            raise self.error("frames has to rise from each to the next.")
        return frames.astype(int)
