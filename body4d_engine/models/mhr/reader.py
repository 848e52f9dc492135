# SPDX-License-Identifier: Apache-2.0
"""Takes the tensors out of `mhr_model.pt`, a TorchScript archive, without running anything that lies in it.

A TorchScript archive is a zip: `data.pkl` describes a tree of objects whose leaves name the files `data/0`, `data/1`, ... with raw numbers;
`code/` holds programs, which are never opened here. Every name that the pickle may call is listed below: what rebuilds tensors and plain lists,
and one holder of attributes for all classes of the archive. Anything else refuses the file.
"""
import os
import pickle
import sys
import zipfile
from io import BytesIO
from math import prod
from pathlib import Path

import torch

from ...errors import Body4DError
from ...weights.verifying import LEDGER, Ledger, sha256
from ..checkpoints import naming
from . import keys

_FORMAT = "1"  # of the extract; another one is written anew
_PICKLE_BYTES = 16 << 20  # the published one is far smaller
_DTYPES = {"FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16,
           "LongStorage": torch.int64, "IntStorage": torch.int32, "ShortStorage": torch.int16, "CharStorage": torch.int8,
           "ByteStorage": torch.uint8, "BoolStorage": torch.bool}


class ArchiveRefused(ValueError):
    """The file is broken, or asks for more than tensors and plain containers."""


def extracted(source: Path, folder: Path) -> Path:
    """The extract of `source` (an mhr_model.pt) in `folder`, written on first use and where `source` holds something else since. Raises Body4DError.

    The ledger in `folder` keeps the checksum of `source`, which is read again only where its size or time has changed."""
    target = folder / "mhr.safetensors"
    if not source.is_file():
        raise Body4DError(f"{source} does not exist.", "Download mhr_model.pt: `body4d setup full` says from where.", "mhr_missing")
    if _metadata(target).get("source_sha256") != Ledger(folder / LEDGER).sha256(source):
        extract(source, target)
    return target


def extract(source: Path, target: Path) -> None:
    """Writes the tensors of `source` that MHR needs to `target` (safetensors, about 60 MB), whole or not at all. Raises Body4DError."""
    from safetensors.torch import save_file

    digest = sha256(source)  # read now: on this word a file may be run
    try:
        archive = read_archive(source)
    except ArchiveRefused as refused:
        if digest != keys.PUBLISHED_SHA256:
            hint = "It may be broken: download it again. A file other than the published one is never run to find out."
            raise Body4DError(f"{source} cannot be read safely: {refused}.", hint, "mhr_unreadable") from refused
        archive = torch.jit.load(str(source), map_location="cpu").state_dict()  # code we know, to the bit
    with naming(source):
        tensors = keys.from_archive(archive)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        save_file(tensors, part, {"format": _FORMAT, "source_sha256": digest})
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def load(extract: Path) -> dict[str, torch.Tensor]:
    """The tensors of an extract, checked. Raises Body4DError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(extract)
    except (OSError, SafetensorError) as error:
        raise Body4DError(f"{extract} cannot be read: {error}.", "Delete it: it is made again from mhr_model.pt.", "mhr_unreadable") from error
    keys.check(tensors)
    return tensors


def read_archive(file: Path) -> dict[str, torch.Tensor]:
    """All tensors of a TorchScript archive by their dotted names; nothing of it is run. Raises ArchiveRefused."""
    try:
        with zipfile.ZipFile(file) as archive:
            return _Reader(archive).tensors()
    except (MemoryError, ArchiveRefused):
        raise
    except Exception as error:  # a hostile or broken file fails in as many ways as there are bytes
        raise ArchiveRefused(f"{type(error).__name__}: {error}") from error


class _Attributes:
    """What every object of the archive becomes: its attributes, and no behaviour."""

    __slots__ = ("fields",)

    def __setstate__(self, state: dict) -> None:
        if not isinstance(state, dict):
            raise ArchiveRefused("an object whose state is no dictionary")
        self.fields = state


class _Reader:
    def __init__(self, archive: zipfile.ZipFile):
        self.archive, self.storages = archive, {}
        roots = [name.removesuffix("data.pkl") for name in archive.namelist() if name.split("/", 1)[-1] == "data.pkl"]
        if len(roots) != 1:
            raise ArchiveRefused("it is not one TorchScript archive")
        self.root = roots[0]
        if f"{self.root}byteorder" in archive.namelist() and self.read("byteorder", 16) != sys.byteorder.encode():
            raise ArchiveRefused("it was written on a machine of the other byte order")

    def tensors(self) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        seen: set[int] = set()
        waiting = [("", _Unpickler(self).load())]
        while waiting:
            name, value = waiting.pop()
            if isinstance(value, torch.Tensor):
                found[name] = value
            elif isinstance(value, _Attributes) and id(value) not in seen:
                seen.add(id(value))
                waiting += [(f"{name}.{key}" if name else str(key), child) for key, child in value.fields.items()]
        return found

    def read(self, name: str, limit: int) -> bytearray:
        """One file of the archive, at most `limit` bytes, its checksum verified by the zip reader."""
        entry = self.archive.getinfo(self.root + name)
        if entry.file_size > limit:
            raise ArchiveRefused(f"{name} has {entry.file_size} bytes, more than the {limit} expected")
        content = bytearray(entry.file_size)
        place = 0
        with self.archive.open(entry) as stream:
            while piece := stream.read(1 << 22):
                content[place : place + len(piece)] = piece
                place += len(piece)
        if place != len(content):
            raise ArchiveRefused(f"{name} is cut short")
        return content

    def storage(self, identifier) -> torch.Tensor:
        kind, dtype, key, _device, count = identifier
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str) or not isinstance(count, int):
            raise ArchiveRefused("a reference to something else than stored numbers")
        if key not in self.storages:
            content = self.read(f"data/{key}", count * dtype.itemsize)
            self.storages[key] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        if self.storages[key].dtype != dtype or self.storages[key].numel() != count:
            raise ArchiveRefused(f"data/{key} does not hold {count} numbers of {dtype}")
        return self.storages[key]


class _Unpickler(pickle.Unpickler):
    def __init__(self, reader: _Reader):
        super().__init__(BytesIO(reader.read("data.pkl", _PICKLE_BYTES)))
        self.reader = reader

    def persistent_load(self, pid) -> torch.Tensor:
        return self.reader.storage(pid)

    def find_class(self, module: str, name: str):
        if module == "__torch__" or module.startswith("__torch__."):
            return _Attributes
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) not in _CALLABLE:
            raise ArchiveRefused(f"it asks for {module}.{name}")
        return _CALLABLE[module, name]


def _tensor(storage, offset, size, stride, *_about_gradients) -> torch.Tensor:
    size, stride = tuple(size), tuple(stride)
    if not isinstance(storage, torch.Tensor) or prod(size) > storage.numel():
        raise ArchiveRefused("a tensor larger than its numbers")
    return torch.as_strided(storage, size, stride, offset)  # which refuses what reaches outside


def _plain_list(*values) -> list:
    return list(values[0]) if len(values) == 1 else list(values)


def _first(value, *_tag):
    return value


_CALLABLE = {
    ("collections", "OrderedDict"): dict,  # the empty hooks of a tensor
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch.jit._pickle", "build_intlist"): _plain_list,
    ("torch.jit._pickle", "build_doublelist"): _plain_list,
    ("torch.jit._pickle", "build_boollist"): _plain_list,
    ("torch.jit._pickle", "build_tensorlist"): _plain_list,
    ("torch.jit._pickle", "restore_type_tag"): _first,
}


def _metadata(extract: Path) -> dict[str, str]:
    """What an extract says of itself; nothing where there is none, or of another format."""
    from safetensors import SafetensorError, safe_open

    if not extract.is_file():
        return {}
    try:
        with safe_open(extract, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError):
        return {}
    return metadata if metadata.get("format") == _FORMAT else {}
