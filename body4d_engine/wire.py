# SPDX-License-Identifier: Apache-2.0
"""The pipe between add-on and engine, and the take as it travels over it. numpy and the standard library only.

The engine's first bytes are the greeting; what comes before it (a login banner) is for the log. Then messages, in both directions: one line of
JSON (JSON-RPC 2.0), and if it has an "arrays" member, the raw little-endian bytes of those arrays right behind the line, in that order.

A take is copied as it grows: whatever a commit made permanent is sent as byte ranges of the take's own files, followed by its take.json.
The receiving side writes the ranges first and take.json last, so its copy is a take that is as safe as the original.
"""

import json
import math
import os
import re
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Iterator

import numpy as np

from .disk import fingerprint, sweep, write_json, writing
from .errors import Body4DError
from .take import Take
from .take_arrays import PC2_HEADER, header_bytes, record_bytes
from .take_json import MOST, check_meta

PROTOCOL = 1
GREETING = b"BODY4D/1\n"
MAX_BANNER = 64 << 10
MAX_LINE = 1 << 20
MAX_ARRAYS = 256 << 20
MAX_DIMENSIONS = 8
MAX_MASK = 1 << 14  # px along a side
CHUNK = 16 << 20
DTYPES = {"|u1", "|i1", "|b1", "<u2", "<i2", "<u4", "<i4", "<i8", "<u8", "<f4", "<f8"}


class WireError(Body4DError):
    """The other side does not speak the protocol."""


def greet(writer: BinaryIO) -> None:
    """The engine's first bytes."""
    writer.write(GREETING)
    writer.flush()


def await_greeting(reader: BinaryIO) -> bytes:
    """Read up to the greeting; returns what came before it. Raises WireError where it does not come."""
    seen = b""
    while not seen.endswith(GREETING):
        byte = reader.read(1)
        if not byte or len(seen) >= MAX_BANNER:
            tail = seen[-300:].decode("utf-8", "replace").strip()
            raise WireError(f"The engine did not start; it said: {tail or 'nothing'}.", "Check the engine command.", "no_engine")
        seen += byte
        if byte == b"\n" and (other := re.search(rb"(?:^|\n)BODY4D/(\d+)\n$", seen)) and int(other[1]) != PROTOCOL:
            raise WireError(f"The engine speaks protocol {int(other[1])}, the add-on {PROTOCOL}.", "Update the older of the two.", "protocol")
    return seen[: -len(GREETING)]


def send(writer: BinaryIO, message: dict, arrays: dict[str, np.ndarray] | None = None) -> None:
    """Write one message with its arrays. Raises WireError where it is larger than the other side would take."""
    blobs, described = [], []
    for name, array in (arrays or {}).items():
        array = np.ascontiguousarray(array)
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        if array.dtype.str not in DTYPES:
            raise WireError(f"An array of type {array.dtype} cannot be sent.", code="bad_message")
        described.append({"name": name, "dtype": array.dtype.str, "shape": list(array.shape), "bytes": array.nbytes})
        blobs.append(array)
    line = json.dumps({"jsonrpc": "2.0", **message, **({"arrays": described} if described else {})}, separators=(",", ":")).encode() + b"\n"
    if len(line) > MAX_LINE or sum(b.nbytes for b in blobs) > MAX_ARRAYS:
        raise WireError("A message is too large to be sent.", code="bad_message")
    writer.write(line)
    for blob in blobs:
        writer.write(blob.reshape(-1).view(np.uint8).data)
    writer.flush()


def receive(reader: BinaryIO) -> tuple[dict, dict[str, np.ndarray]] | None:
    """Read one message and its arrays; None where the pipe has ended between messages. Raises WireError on anything malformed."""
    line = reader.readline(MAX_LINE + 1)
    if not line:
        return None
    try:
        if len(line) > MAX_LINE:
            raise ValueError("a line that is too long")
        if not line.endswith(b"\n"):
            raise EOFError
        message = json.loads(line)
        described = message.pop("arrays", [])
        sizes = [_checked_size(entry) for entry in described]
        if sum(sizes) > MAX_ARRAYS:
            raise ValueError("arrays that are too large")
        arrays = {}
        for entry, size in zip(described, sizes, strict=True):
            arrays[entry["name"]] = np.frombuffer(_read_exactly(reader, size), entry["dtype"]).reshape(entry["shape"])
    except EOFError as error:
        raise WireError("The pipe has ended in the middle of a message.", "Restart the engine.", "cut_off") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WireError(f"A message could not be understood: {error}.", "Restart the engine.", "bad_message") from error
    return message, arrays


def _checked_size(entry: dict) -> int:
    if entry["dtype"] not in DTYPES or len(entry["shape"]) > MAX_DIMENSIONS or any(not isinstance(n, int) or n < 0 for n in entry["shape"]):
        raise ValueError(f"an array of an unknown kind {entry}")
    size = math.prod(entry["shape"]) * np.dtype(entry["dtype"]).itemsize
    if size != entry["bytes"]:
        raise ValueError(f"an array whose size is wrong {entry}")
    return size


def _read_exactly(reader: BinaryIO, size: int) -> bytearray:
    data = bytearray()
    while len(data) < size:  # it grows as bytes come: a damaged size must not fill the memory
        piece = reader.read(min(CHUNK, size - len(data)))
        if not piece:
            raise EOFError
        data += piece
    return data


def pack_mask(mask: np.ndarray) -> np.ndarray:
    """A mask (H, W) bool as deflated bits (n,) uint8, row by row, the first in the lowest bit."""
    return np.frombuffer(zlib.compress(np.packbits(mask, bitorder="little").tobytes(), 1), np.uint8)


def unpack_mask(data: np.ndarray, size) -> np.ndarray:
    """The inverse of pack_mask, `size` is [H, W]. Raises WireError where the data is no mask of that size."""
    try:
        height, width = size
        if not all(isinstance(n, int) and 0 <= n <= MAX_MASK for n in (height, width)):
            raise ValueError(f"a size of {size}")
        wanted = -(-height * width // 8)
        bits = zlib.decompressobj().decompress(np.ascontiguousarray(data, np.uint8).tobytes(), wanted + 1)
        if len(bits) != wanted:
            raise ValueError(f"{len(bits)} bytes in place of {wanted}")
        return np.unpackbits(np.frombuffer(bits, np.uint8), count=height * width, bitorder="little").view(bool).reshape(height, width)
    except (zlib.error, ValueError, TypeError) as error:
        raise WireError(f"A mask could not be understood: {error}.", "Restart the engine.", "bad_message") from error


def changes(take: Take, sent: dict[str, int | dict | bytes]) -> Iterator[tuple[dict, dict[str, np.ndarray]]]:
    """Messages that bring a copy of the take up to its last commit. `sent` remembers what went out already; start with {}.

    Messages: {"method": "take/bytes", "params": {"file", "offset", "size"}} with the array `bytes` (size: of a whole file, None for a growing
    one), then, where anything changed, {"method": "take/commit", "params": {}} with the array `json`: take.json grows with people and notices
    beyond what a line may hold.
    """
    text = json.dumps(take.to_json(), ensure_ascii=False).encode()
    if sent.get("take.json") == text:
        return
    for entry in take.entries():
        for array in entry["arrays"].values():
            name, start = array["file"], sent.get(array["file"], 0)
            there = (take.path / name).stat().st_size if (take.path / name).is_file() else 0  # a damaged stage, about to be made again
            size = min(header_bytes(array) + array["count"] * record_bytes(array), there)
            if array["count"] and size > start:
                yield from _ranges(take.path, name, start, size)
                if array["pc2"] and start:  # the sample count in the header has grown
                    yield from _ranges(take.path, name, 0, PC2_HEADER.size)
                sent[name] = size
        for name, known in entry["files"].items():
            file = known.get("file", name)
            if sent.get(file) != known and (take.path / file).is_file():
                yield from _ranges(take.path, file, 0, known["bytes"], size=known["bytes"])
                sent[file] = known
    sent["take.json"] = text
    yield {"method": "take/commit", "params": {}}, {"json": np.frombuffer(text, np.uint8)}


def held(take: Take) -> dict[str, int | dict]:
    """What a copy has of its take already: where the other side hands this to `changes` as `sent`, only the rest travels."""
    known = {}
    for entry in take.entries():
        for array in entry["arrays"].values():
            file, size = take.path / array["file"], header_bytes(array) + array["count"] * record_bytes(array)
            if array["count"] and file.is_file() and file.stat().st_size >= size:
                known[array["file"]] = size
        for name, what in entry["files"].items():
            file = what.get("file", name)
            if (take.path / file).is_file() and fingerprint(take.path / file).items() <= what.items():
                known[file] = what
    return known


def pack_json(value) -> np.ndarray:
    """What may be too long for a line, as an array to send."""
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def unpack_json(array: np.ndarray):
    """The inverse of pack_json. Raises WireError."""
    try:
        return json.loads(array.tobytes())
    except (ValueError, RecursionError) as error:
        raise WireError(f"A part of a message could not be understood: {error}.", "Restart the engine.", "bad_message") from error


def pack_held(take: Take) -> np.ndarray:
    """`held` as an array to send."""
    return pack_json(held(take))


def unpack_held(array: np.ndarray) -> dict[str, int | dict]:
    """Raises WireError where it is not what `pack_held` made."""
    known = unpack_json(array)
    if not isinstance(known, dict) or not all(isinstance(what, dict) or type(what) is int and what >= 0 for what in known.values()):
        raise WireError("What a copy of a take has cannot be understood.", code="bad_request")
    return known


def _ranges(folder: Path, name: str, start: int, stop: int, size: int | None = None):
    with open(folder / name, "rb") as file:
        file.seek(start)
        for offset in range(start, stop, CHUNK):
            data = np.frombuffer(file.read(min(CHUNK, stop - offset)), np.uint8)
            yield {"method": "take/bytes", "params": {"file": name, "offset": offset, "size": size}}, {"bytes": data}


def apply_change(folder: Path, message: dict, arrays: dict[str, np.ndarray]) -> None:
    """Write one message of `changes` into the copy at `folder`. Raises WireError for one that makes no sense or names a file outside it, TakeError
    where the disk refuses."""
    folder = Path(folder)
    try:
        if message["method"] == "take/commit":
            meta = json.loads(arrays["json"].tobytes())
            check_meta(meta)
        else:
            params, data = message["params"], arrays["bytes"].tobytes()
            name, offset, size = PurePosixPath(params["file"]), params["offset"], params["size"]
            if name.is_absolute() or ".." in name.parts or "\0" in params["file"] or "\\" in params["file"] or ":" in params["file"]:
                raise WireError(f"The engine named a file outside the take: {params['file']}.", "Do not use this engine.", "bad_message")
            if not name.parts or any(type(number) is not int or not 0 <= number <= MOST for number in (offset, 0 if size is None else size)):
                raise ValueError(f"{params} is no part of a take")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise WireError(f"A part of the take could not be understood: {error}.", "Restart the engine.", "bad_message") from error
    if message["method"] == "take/commit":
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "take.json", meta)
        sweep(folder, meta)
        return
    target = folder / name
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "r+b" if target.exists() else "w+b") as file:
            file.seek(offset)
            file.write(data)
            if size is not None:
                file.truncate(size)
            file.flush()
            os.fsync(file.fileno())
